package ca

import (
	"crypto"
	"crypto/x509"
	"fmt"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/trust"
)

// material is what an unsealed CA holds. It never changes.
type material struct {
	modified  uint64 // ModifyIndex of the stored CA
	clusterID string
	// hierarchies under the roots that are trusted: the one that signs first,
	// then the one that is coming or going, if the root is being rotated.
	hierarchies []*hierarchy
	// retired identity and issuing CAs, newest last. Of the first the keys are
	// gone.
	retired    []retiredAuthority
	identities *x509.CertPool
}

// A hierarchy is a root and the CAs beneath it. All hierarchies have the same
// keys beneath their roots.
type hierarchy struct {
	root              *x509.Certificate
	identity, issuing authority
}

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

type retiredAuthority struct {
	name string
	authority
}

// openMaterial unseals a stored CA. The roots' keys are not kept: nothing is
// signed with them but rotations, which unseal them again.
func openMaterial(stored *fleet.CA, key SealKey) (*material, error) {
	m := &material{modified: stored.ModifyIndex, identities: x509.NewCertPool()}
	byState := map[fleet.AuthorityState]*hierarchy{}
	for _, a := range stored.Authorities {
		cert, err := x509.ParseCertificate(a.Certificate)
		if err != nil {
			return nil, fmt.Errorf("certificate %q: %w: %w", a.Name, ErrDamaged, err)
		}
		if a.Name == identityAuthority {
			m.identities.AddCert(cert)
		}
		if a.State == fleet.AuthorityRetired {
			r := retiredAuthority{name: a.Name, authority: authority{cert: cert}}
			if len(a.SealedKey) > 0 {
				if r.key, err = Unseal(key, a.Name, cert, a.SealedKey); err != nil {
					return nil, err
				}
			}
			m.retired = append(m.retired, r)
			continue
		}
		signer, err := Unseal(key, a.Name, cert, a.SealedKey)
		if err != nil {
			return nil, err
		}
		h := byState[a.State]
		if h == nil {
			h = new(hierarchy)
			byState[a.State] = h
		}
		if err := h.add(a.Name, authority{cert: cert, key: signer}); err != nil {
			return nil, err
		}
	}
	if byState[fleet.AuthorityActive] == nil {
		byState[fleet.AuthorityActive] = new(hierarchy)
	}
	for _, state := range []fleet.AuthorityState{fleet.AuthorityActive, fleet.AuthorityPublished, fleet.AuthorityRetiring} {
		h := byState[state]
		delete(byState, state)
		if h == nil {
			continue
		}
		if err := h.check(); err != nil {
			return nil, err
		}
		m.hierarchies = append(m.hierarchies, h)
	}
	if len(byState) > 0 {
		return nil, fmt.Errorf("an authority is in a state that this version does not know: %w", ErrDamaged)
	}
	first, err := firstRoot(stored, m.hierarchies[0].root)
	if err != nil {
		return nil, err
	}
	m.clusterID, err = clusterID(first.PublicKey)
	return m, err
}

func (h *hierarchy) add(name string, a authority) error {
	place := map[string]*authority{identityAuthority: &h.identity, issuingAuthority: &h.issuing}[name]
	switch {
	case name == rootAuthority && h.root == nil:
		h.root = a.cert
	case place != nil && place.cert == nil:
		*place = a
	default:
		return fmt.Errorf("certificate %q stands twice, or has no place here: %w", name, ErrDamaged)
	}
	return nil
}

func (h *hierarchy) check() error {
	if h.root == nil {
		return fmt.Errorf("certificate %q is missing: %w", rootAuthority, ErrDamaged)
	}
	for _, part := range []struct {
		name string
		cert *x509.Certificate
	}{{rootAuthority, h.root}, {identityAuthority, h.identity.cert}, {issuingAuthority, h.issuing.cert}} {
		if part.cert == nil {
			return fmt.Errorf("certificate %q is missing: %w", part.name, ErrDamaged)
		}
		if err := part.cert.CheckSignatureFrom(h.root); err != nil {
			return fmt.Errorf("certificate %q: %w: %w", part.name, ErrDamaged, err)
		}
	}
	return nil
}

// firstRoot is the root that the cluster was made with, which it is named after.
func firstRoot(stored *fleet.CA, active *x509.Certificate) (*x509.Certificate, error) {
	if len(stored.Generations) == 0 {
		return active, nil
	}
	first, err := trust.Parse(stored.Generations[0])
	if err != nil {
		return nil, fmt.Errorf("trust generation 1: %w: %w", ErrDamaged, err)
	}
	if len(first.Roots) != 1 {
		return nil, fmt.Errorf("trust generation 1 has %d roots: %w", len(first.Roots), ErrDamaged)
	}
	return first.Roots[0], nil
}

// signerOf finds the CA certificate, of a kind, that has signed a leaf: the
// present one, else a retired one; nil if there is none.
func (m *material) signerOf(leaf *x509.Certificate, name string) *x509.Certificate {
	present := m.hierarchies[0].issuing.cert
	if name == identityAuthority {
		present = m.hierarchies[0].identity.cert
	}
	if leaf.CheckSignatureFrom(present) == nil {
		return present
	}
	for i := range m.retired {
		if r := &m.retired[len(m.retired)-1-i]; r.name == name && leaf.CheckSignatureFrom(r.cert) == nil {
			return r.cert
		}
	}
	return nil
}

func (m *material) chain(leaf *x509.Certificate, name string) ([]*x509.Certificate, error) {
	signer := m.signerOf(leaf, name)
	if signer == nil {
		return nil, fmt.Errorf("certificate %s: no %s CA that this coordinator knows has signed it", pki.SerialHex(leaf), name)
	}
	return []*x509.Certificate{leaf, signer}, nil
}
