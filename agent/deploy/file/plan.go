package file

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/shared/pki"
)

// item is one file of a deployment.
type item struct {
	fileSpec
	where   string // path with symbolic links followed
	content []byte
	want    attributes
	before  observed
}

func (i item) inPlace() bool { return i.before.holds(i.content, i.want) }

// plan is what a deployment will put where, and what is there now.
type plan struct {
	leaf        *x509.Certificate
	fingerprint string
	items       []item
	link        *linkPlan // for LayoutDirectory
}

// inPlace reports whether nothing needs to be written.
func (p *plan) inPlace() bool {
	for _, i := range p.items {
		if !i.inPlace() {
			return false
		}
	}
	return p.link == nil || p.link.exists
}

// oldFingerprint is the leaf that the files held before; empty if none did.
func oldFingerprint(contents [][]byte) string {
	for _, content := range contents {
		if cert := firstCertificate(content); cert != nil {
			return pki.Fingerprint(cert)
		}
	}
	return ""
}

// firstCertificate returns the first certificate among the PEM blocks, or nil.
func firstCertificate(data []byte) *x509.Certificate {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil
		}
		return cert
	}
}

// newPlan checks the task and looks at the file system. Apart from directories
// that were asked for, it changes nothing.
func (t *Target) newPlan(task *deploy.Task) (*plan, error) {
	switch {
	case len(task.Chain) == 0:
		return nil, errors.New("the task has no certificate")
	case task.Key == nil:
		return nil, errors.New("the task has no key")
	}
	leaf := task.Chain[0]
	if err := pki.MatchKey(leaf, task.Key); err != nil {
		return nil, err
	}
	key, err := pki.MarshalKeyPEM(task.Key)
	if err != nil {
		return nil, fmt.Errorf("encoding the key: %w", err)
	}
	full := pki.EncodeChainPEM(task.Chain)
	contents := map[kind][]byte{
		kindCertificate: pki.EncodeChainPEM(task.Chain[:1]),
		kindChain:       pki.EncodeChainPEM(task.Chain[1:]),
		kindFullChain:   full,
		kindKey:         key,
		kindCombined:    bytes.Join([][]byte{key, full}, nil),
	}
	p := &plan{leaf: leaf, fingerprint: pki.Fingerprint(leaf)}
	if err := t.layout.locate(p); err != nil {
		return nil, err
	}
	for i := range p.items {
		item := &p.items[i]
		item.content = contents[item.kind]
		if item.before, err = observe(item.where); err != nil {
			return nil, fmt.Errorf("%s file: %w", item.kind, err)
		}
		if item.want, err = t.access.want(item.kind, item.before); err != nil {
			return nil, fmt.Errorf("%s file %s: %w", item.kind, item.path, err)
		}
		if item.kind.secret() {
			if err := t.access.checkPlanted(item.where, item.before, item.want); err != nil {
				return nil, fmt.Errorf("%s file %s: %w", item.kind, item.path, err)
			}
		}
	}
	return p, nil
}

// environment is what commands learn of a deployment; nothing of it is secret.
func (t *Target) environment(task *deploy.Task, action, fingerprint string) map[string]string {
	paths := make([]string, len(t.files))
	for i, spec := range t.files {
		paths[i] = spec.path
	}
	return map[string]string{
		"CERTCTL_ACTION":      action,
		"CERTCTL_CERTIFICATE": task.Certificate,
		"CERTCTL_GENERATION":  strconv.FormatUint(task.Generation, 10),
		"CERTCTL_FINGERPRINT": fingerprint,
		"CERTCTL_FILES":       strings.Join(paths, string(os.PathListSeparator)),
	}
}

// Values of CERTCTL_ACTION.
const (
	actionDeploy   = "deploy"
	actionRollBack = "rollback"
)
