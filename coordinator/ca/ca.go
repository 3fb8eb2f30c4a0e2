package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
)

var (
	// ErrSealed says that the CA is not unsealed yet, and cannot issue.
	ErrSealed = errors.New("the built-in CA is sealed")
	// ErrExpired says that an issuing CA has come to its end.
	ErrExpired = errors.New("the issuing CA has expired")
	// ErrDamaged says that the stored CA does not fit together.
	ErrDamaged = errors.New("the stored CA is damaged; restore the coordinator from a backup")
)

// Config of a CA. Name, both lifetimes and one of SealKey and SealKeyFile are
// required.
type Config struct {
	// SealKey is the seal key in base64; if it is empty, the key is in
	// SealKeyFile, an absolute path.
	SealKey     string
	SealKeyFile string
	// Name is the organization in the subjects of a new CA, 1 to 64 octets.
	Name string
	// LeafLifetime is that of certificates for which no lifetime was asked, and
	// the longest that can be asked for.
	LeafLifetime time.Duration
	// IdentityLifetime is that of agents' identities.
	IdentityLifetime time.Duration
	// RevocationURL is where the revocation lists are: certificates for hosts
	// name their list below it. "" names none.
	RevocationURL string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// CA is the built-in certificate authority. It is sealed when New returns; its
// methods may be called by any number of goroutines, before and after Unseal.
type CA struct {
	config   Config
	given    *SealKey // from Config.SealKey
	material atomic.Pointer[material]
	unsealed chan struct{} // closed by the first Unseal that succeeds
	served   atomic.Uint64 // see NoteServed
}

// New checks the configuration and makes a sealed CA.
func New(c Config) (*CA, error) {
	ca := &CA{config: c, unsealed: make(chan struct{})}
	switch {
	case c.Name == "" || len(c.Name) > maxCommonName:
		return nil, fmt.Errorf("built-in CA: Name has %d octets; give 1 to %d", len(c.Name), maxCommonName)
	case c.SealKey == "" && !filepath.IsAbs(c.SealKeyFile):
		return nil, fmt.Errorf("built-in CA: SealKeyFile %q is not an absolute path", c.SealKeyFile)
	case c.LeafLifetime < MinLifetime || c.LeafLifetime > IssuingLifetime:
		return nil, fmt.Errorf("built-in CA: LeafLifetime %v is not between %v and %v", c.LeafLifetime, MinLifetime, IssuingLifetime)
	case c.IdentityLifetime < MinLifetime || c.IdentityLifetime > IssuingLifetime:
		return nil, fmt.Errorf("built-in CA: IdentityLifetime %v is not between %v and %v", c.IdentityLifetime, MinLifetime, IssuingLifetime)
	}
	if c.SealKey != "" {
		key, err := ParseSealKey(c.SealKey)
		if err != nil {
			return nil, fmt.Errorf("built-in CA: %w", err)
		}
		ca.given, ca.config.SealKey = &key, ""
	}
	if ca.config.Now == nil {
		ca.config.Now = time.Now
	}
	return ca, nil
}

func (c *CA) now() time.Time { return c.config.Now() }

// sealKey is the key as it is configured. Its error wraps ErrSealKeyMissing if
// there is none.
func (c *CA) sealKey() (SealKey, error) {
	if c.given != nil {
		return *c.given, nil
	}
	return ReadSealKey(c.config.SealKeyFile)
}

// SealKey is the key that this node seals and unseals with. Errors wrap
// ErrSealKeyMissing or ErrSealKeyMalformed.
func (c *CA) SealKey() (SealKey, error) { return c.sealKey() }

// EnsureSealKey is SealKey for a node that makes a new cluster: it makes the key's
// file if that is where the key is kept and there is none yet.
func (c *CA) EnsureSealKey() (SealKey, error) {
	key, err := c.sealKey()
	if errors.Is(err, ErrSealKeyMissing) {
		return createSealKey(c.config.SealKeyFile)
	}
	return key, err
}

// sealKeySource says where the key comes from.
func (c *CA) sealKeySource() string {
	if c.given != nil {
		return "the seal key of the configuration"
	}
	return c.config.SealKeyFile
}

// Unseal makes the CA ready to issue with the stored certificates and keys. It
// changes nothing else, and may be repeated, also with another stored CA, such as
// the same after a rotation.
// Errors wrap ErrSealKeyMissing, ErrSealKeyMalformed, ErrWrongSealKey,
// ErrSealDamaged or ErrDamaged; the CA is then as it was.
func (c *CA) Unseal(stored *fleet.CA) error {
	key, err := c.sealKey()
	if err != nil {
		return fmt.Errorf("unseal the built-in CA: %w", err)
	}
	m, err := openMaterial(stored, key)
	if err != nil {
		return fmt.Errorf("unseal the built-in CA with %s: %w", c.sealKeySource(), err)
	}
	if c.material.Swap(m) == nil {
		close(c.unsealed)
	}
	return nil
}

// Unsealed is closed when the CA can issue.
func (c *CA) Unsealed() <-chan struct{} { return c.unsealed }

// opened is the material of an unsealed CA; the error is ErrSealed.
func (c *CA) opened() (*material, error) {
	if m := c.material.Load(); m != nil {
		return m, nil
	}
	return nil, ErrSealed
}

// Root is the root that signs, nil while the CA is sealed.
func (c *CA) Root() *x509.Certificate {
	if m := c.material.Load(); m != nil {
		return m.hierarchies[0].root
	}
	return nil
}

// RootsPEM is what agents trust for this coordinator, the root that signs first;
// "" while the CA is sealed.
func (c *CA) RootsPEM() string {
	m := c.material.Load()
	if m == nil {
		return ""
	}
	var roots []*x509.Certificate
	for _, h := range m.hierarchies {
		roots = append(roots, h.root)
	}
	return string(pki.EncodeChainPEM(roots))
}

// Identities holds the identity CAs of all times and nothing else: what the
// certificates of agents lead to. It is nil while the CA is sealed, and must not
// be changed.
func (c *CA) Identities() *x509.CertPool {
	if m := c.material.Load(); m != nil {
		return m.identities
	}
	return nil
}

// ClusterID names the cluster in identities: 16 hexadecimal digits that follow
// from the key of its first root. It is "" while the CA is sealed.
func (c *CA) ClusterID() string {
	if m := c.material.Load(); m != nil {
		return m.clusterID
	}
	return ""
}

// IssuerExpiry is when the first of the issuing CAs expires; zero while the CA
// is sealed.
func (c *CA) IssuerExpiry() time.Time {
	m := c.material.Load()
	if m == nil {
		return time.Time{}
	}
	active := m.hierarchies[0]
	if active.identity.cert.NotAfter.Before(active.issuing.cert.NotAfter) {
		return active.identity.cert.NotAfter
	}
	return active.issuing.cert.NotAfter
}

// Refresh unseals the CA anew if the stored one is another than before, as after
// a rotation. Errors are those of Unseal.
func (c *CA) Refresh(stored *fleet.CA) error {
	if m := c.material.Load(); m != nil && m.modified == stored.ModifyIndex {
		return nil
	}
	return c.Unseal(stored)
}

// Modified is the ModifyIndex of the CA that is in use; 0 if there is none yet.
func (c *CA) Modified() uint64 {
	if m := c.material.Load(); m != nil {
		return m.modified
	}
	return 0
}
