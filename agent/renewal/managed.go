package renewal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Managed is one certificate as configured.
type Managed struct {
	// Name is unique among the managed certificates and stays the same for the
	// life of the certificate.
	Name  string
	Names pki.Names
	// KeyAlgorithm is of the keys to be made.
	KeyAlgorithm pki.KeyAlgorithm
	// ReuseKey makes a renewal keep the key in service, where that may be used
	// again. Otherwise each renewal makes a new one. It is no part of what a
	// certificate is renewed for when it changes.
	ReuseKey bool
	// Issuers may issue it, in order: the first one is asked at every renewal,
	// the others stand in when it cannot. Another first name is another issuer,
	// for which the certificate is renewed; other stand-ins are not.
	Issuers []NamedIssuer
	// Profile and Lifetime are passed on to the issuer; the zero values leave
	// the choice to it.
	Profile  string
	Lifetime time.Duration
	// Deployments are carried out in this order. None is allowed: the pair then
	// stays in the state directory.
	Deployments []Deployment
}

// NamedIssuer is an issuer and its name in the configuration.
type NamedIssuer struct {
	Name   string
	Issuer issuer.Issuer
	// Limits are the same wherever the issuer is named.
	Limits Limits
	// Config stands for how the issuer is set up: when it is another way than
	// before, what failed at it is tried again soon. "" says nothing.
	Config string
}

// Deployment is one place where a certificate is put into service.
type Deployment struct {
	// ID is unique within the certificate and stays the same while the place
	// does.
	ID     string
	Target deploy.Target
	// Config stands for how the target is configured: when it is another one than
	// before, the place is given the pair anew. "" says nothing; changes are then
	// found by verification.
	Config string
}

// managed is a checked Managed with what follows from it. It never changes.
type managed struct {
	Managed
	digest  string
	targets map[string]deploy.Target
}

// first is the issuer that every renewal begins with.
func (m *managed) first() NamedIssuer { return m.Issuers[0] }

// issuerNamed is the issuer of that name; "" stands for the first one. ok is
// false when the configuration does not have it any more.
func (m *managed) issuerNamed(name string) (iss NamedIssuer, ok bool) {
	if name == "" {
		return m.first(), true
	}
	at := slices.IndexFunc(m.Issuers, func(i NamedIssuer) bool { return i.Name == name })
	if at < 0 {
		return NamedIssuer{}, false
	}
	return m.Issuers[at], true
}

// issuerOf names the issuer of g.
func (m *managed) issuerOf(g *store.Generation) string {
	if g == nil || g.Issuer == "" {
		return m.first().Name
	}
	return g.Issuer
}

// informer asks the authority that issued g when to renew it; nil if it has no
// say, or is not configured any more.
func (m *managed) informer(g *store.Generation) issuer.RenewalInformer {
	if g == nil {
		return nil
	}
	iss, ok := m.issuerNamed(g.Issuer)
	if !ok {
		return nil
	}
	informer, _ := iss.Issuer.(issuer.RenewalInformer)
	return informer
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
	problems = append(problems, checkIssuers(m.Issuers))
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
	// The lists are the caller's, who may change them before the next reload.
	m.Issuers, m.Deployments = slices.Clone(m.Issuers), slices.Clone(m.Deployments)
	return &managed{Managed: m, digest: digest, targets: targets}, nil
}

func checkIssuers(list []NamedIssuer) error {
	if len(list) == 0 {
		return errors.New("issuer is not set")
	}
	var problems []error
	names := make(map[string]bool, len(list))
	for _, i := range list {
		if i.Name == "" || i.Issuer == nil {
			problems = append(problems, errors.New("issuer is not set"))
		}
		if len(i.Name) > wire.MaxNameLen {
			problems = append(problems, fmt.Errorf("the name of its issuer has %d octets; at most %d are allowed", len(i.Name), wire.MaxNameLen))
		}
		if l := i.Limits; l.OrdersPerHour < 0 || l.Burst < 0 || l.Concurrency < 0 {
			problems = append(problems, fmt.Errorf("limits of issuer %q: must not be negative", i.Name))
		}
		if names[i.Name] {
			problems = append(problems, fmt.Errorf("issuer %q is listed twice; once is enough", i.Name))
		}
		names[i.Name] = true
	}
	return errors.Join(problems...)
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
	}{m.Names.Strings(), m.KeyAlgorithm.String(), m.Issuers[0].Name, m.Profile, int64(m.Lifetime / time.Second)})
	if err != nil {
		return "", fmt.Errorf("managed certificate %q: digest of its configuration: %w", m.Name, err)
	}
	sum := sha256.Sum256(text)
	return "v1:" + hex.EncodeToString(sum[:]), nil
}
