package renewal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Managed is one certificate as configured.
type Managed struct {
	// Name is unique among the managed certificates and stays the same for the
	// life of the certificate.
	Name  string
	Names pki.Names
	// KeyAlgorithm is of the keys to be made; each renewal makes a new one.
	KeyAlgorithm pki.KeyAlgorithm
	// IssuerName is the issuer's name in the configuration. Another name is
	// another issuer, for which the certificate is renewed.
	IssuerName string
	Issuer     issuer.Issuer
	// Profile and Lifetime are passed on to the issuer; the zero values leave
	// the choice to it.
	Profile  string
	Lifetime time.Duration
	// Deployments are carried out in this order. None is allowed: the pair then
	// stays in the state directory.
	Deployments []Deployment
}

// Deployment is one place where a certificate is put into service.
type Deployment struct {
	// ID is unique within the certificate and stays the same while the place
	// does.
	ID     string
	Target deploy.Target
}

// managed is a checked Managed with what follows from it. It never changes.
type managed struct {
	Managed
	digest   string
	informer issuer.RenewalInformer // nil if the issuer is none
	targets  map[string]deploy.Target
}

func newManaged(m Managed) (*managed, error) {
	var problems []error
	if m.Name == "" {
		problems = append(problems, errors.New("name is empty"))
	}
	if !utf8.ValidString(m.Name) || strings.ContainsFunc(m.Name, unicode.IsControl) {
		problems = append(problems, errors.New("name holds a control character or is not UTF-8"))
	}
	if len(m.Name) > wire.MaxNameLen {
		problems = append(problems, fmt.Errorf("name has %d octets; at most %d are allowed", len(m.Name), wire.MaxNameLen))
	}
	if m.Names.IsZero() {
		problems = append(problems, pki.ErrNoNames)
	}
	if _, err := pki.ParseKeyAlgorithm(m.KeyAlgorithm.String()); err != nil {
		problems = append(problems, err)
	}
	if m.IssuerName == "" || m.Issuer == nil {
		problems = append(problems, errors.New("issuer is not set"))
	}
	if len(m.IssuerName) > wire.MaxNameLen {
		problems = append(problems, fmt.Errorf("the name of its issuer has %d octets; at most %d are allowed", len(m.IssuerName), wire.MaxNameLen))
	}
	if m.Lifetime < 0 {
		problems = append(problems, fmt.Errorf("lifetime %v: must not be negative", m.Lifetime))
	}
	targets := make(map[string]deploy.Target, len(m.Deployments))
	for i, d := range m.Deployments {
		if d.ID == "" || d.Target == nil {
			problems = append(problems, fmt.Errorf("deployment %d needs both an id and a target", i+1))
			continue
		}
		if len(d.ID) > wire.MaxNameLen {
			problems = append(problems, fmt.Errorf("deployment id %.16q... has %d octets; at most %d are allowed", d.ID, len(d.ID), wire.MaxNameLen))
		}
		if targets[d.ID] != nil {
			problems = append(problems, fmt.Errorf("deployment id %q is used twice; give each its own", d.ID))
		}
		targets[d.ID] = d.Target
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("managed certificate %q: %w", m.Name, err)
	}
	digest, err := configDigest(m)
	if err != nil {
		return nil, err
	}
	informer, _ := m.Issuer.(issuer.RenewalInformer)
	return &managed{Managed: m, digest: digest, informer: informer, targets: targets}, nil
}

// configDigest stands for everything that a certificate must be renewed for
// when it changes. It is stored with each certificate, so its encoding is
// frozen: another one would make every host renew everything after an upgrade.
func configDigest(m Managed) (string, error) {
	text, err := json.Marshal(struct {
		Names    []string `json:"names"`
		Key      string   `json:"key"`
		Issuer   string   `json:"issuer"`
		Profile  string   `json:"profile"`
		Lifetime int64    `json:"lifetime"` // seconds
	}{m.Names.Strings(), m.KeyAlgorithm.String(), m.IssuerName, m.Profile, int64(m.Lifetime / time.Second)})
	if err != nil {
		return "", fmt.Errorf("managed certificate %q: digest of its configuration: %w", m.Name, err)
	}
	sum := sha256.Sum256(text)
	return "v1:" + hex.EncodeToString(sum[:]), nil
}
