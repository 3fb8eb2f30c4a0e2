package ca

import (
	"crypto"
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
}

// material is what an unsealed CA holds. It never changes.
type material struct {
	clusterID         string
	root              *x509.Certificate
	identity, issuing authority
	identities        *x509.CertPool
}

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
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

// sealKeySource says where the key comes from.
func (c *CA) sealKeySource() string {
	if c.given != nil {
		return "the seal key of the configuration"
	}
	return c.config.SealKeyFile
}

// Unseal makes the CA ready to issue with the stored certificates and keys. It
// changes nothing else, and may be repeated, also with another stored CA.
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

func openMaterial(stored *fleet.CA, key SealKey) (*material, error) {
	found := map[string]authority{}
	for _, a := range stored.Authorities {
		cert, err := x509.ParseCertificate(a.Certificate)
		if err != nil {
			return nil, fmt.Errorf("certificate %q: %w: %w", a.Name, ErrDamaged, err)
		}
		signer, err := unseal(key, a.Name, cert, a.SealedKey)
		if err != nil {
			return nil, err
		}
		found[a.Name] = authority{cert: cert, key: signer}
	}
	root := found[rootAuthority].cert
	if root == nil {
		return nil, fmt.Errorf("certificate %q is missing: %w", rootAuthority, ErrDamaged)
	}
	for _, name := range []string{rootAuthority, identityAuthority, issuingAuthority} {
		cert := found[name].cert
		if cert == nil {
			return nil, fmt.Errorf("certificate %q is missing: %w", name, ErrDamaged)
		}
		if err := cert.CheckSignatureFrom(root); err != nil {
			return nil, fmt.Errorf("certificate %q: %w: %w", name, ErrDamaged, err)
		}
	}
	id, err := clusterID(root.PublicKey)
	if err != nil {
		return nil, err
	}
	// The root's key is not kept: nothing is signed with it from here on.
	m := &material{
		clusterID: id, root: root, identity: found[identityAuthority], issuing: found[issuingAuthority],
		identities: x509.NewCertPool(),
	}
	m.identities.AddCert(m.identity.cert)
	return m, nil
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

// Root is the root certificate, nil while the CA is sealed.
func (c *CA) Root() *x509.Certificate {
	if m := c.material.Load(); m != nil {
		return m.root
	}
	return nil
}

// RootsPEM is what agents trust for this coordinator, "" while the CA is sealed.
func (c *CA) RootsPEM() string {
	if root := c.Root(); root != nil {
		return string(pki.EncodeChainPEM([]*x509.Certificate{root}))
	}
	return ""
}

// Identities holds the identity CA alone: what the certificates of agents lead
// to. It is nil while the CA is sealed, and must not be changed.
func (c *CA) Identities() *x509.CertPool {
	if m := c.material.Load(); m != nil {
		return m.identities
	}
	return nil
}

// ClusterID names the cluster in identities: 16 hexadecimal digits that follow
// from the root's key. It is "" while the CA is sealed.
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
	if m.identity.cert.NotAfter.Before(m.issuing.cert.NotAfter) {
		return m.identity.cert.NotAfter
	}
	return m.issuing.cert.NotAfter
}
