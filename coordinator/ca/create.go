package ca

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
)

// Names of the authorities in the replicated state.
const (
	rootAuthority     = "root"
	identityAuthority = "identity" // issues the identities of agents and nothing else
	issuingAuthority  = "issuing"  // issues everything else
)

// Create makes the certificates and sealed keys of a new CA, to be stored in
// the state that has none. It makes the seal key's file if that is where the
// key is kept and there is none yet; the file outlives a crash before the CA is
// stored, and the next Create uses it.
func (c *CA) Create() ([]fleet.Authority, error) {
	key, err := c.EnsureSealKey()
	if err != nil {
		return nil, fmt.Errorf("create the built-in CA: %w", err)
	}
	authorities, err := createAuthorities(c.config.Name, c.now(), key)
	if err != nil {
		return nil, fmt.Errorf("create the built-in CA: %w", err)
	}
	return authorities, nil
}

func createAuthorities(organization string, now time.Time, key SealKey) ([]fleet.Authority, error) {
	rootKey, err := pki.GenerateKey(pki.ECDSAP384)
	if err != nil {
		return nil, err
	}
	id, err := clusterID(rootKey.Public())
	if err != nil {
		return nil, err
	}
	f := &foundry{organization: organization, cluster: id, now: now, key: key}
	root, stored, err := f.root(rootKey)
	if err != nil {
		return nil, err
	}
	authorities := []fleet.Authority{stored}
	for _, name := range []string{identityAuthority, issuingAuthority} {
		made, err := f.beneath(name, authority{cert: root, key: rootKey})
		if err != nil {
			return nil, err
		}
		authorities = append(authorities, made)
	}
	return authorities, nil
}

// A foundry makes authorities of one cluster.
type foundry struct {
	organization, cluster string
	now                   time.Time
	key                   SealKey
}

// subject names an authority. The cluster's id keeps the names of different
// clusters apart in the trust stores that hold several, and the key's those of
// one cluster's earlier and later authorities.
func (f *foundry) subject(role string, pub crypto.PublicKey) (pkix.Name, error) {
	id, err := clusterID(pub)
	if err != nil {
		return pkix.Name{}, err
	}
	name := strings.ToValidUTF8(f.organization[:min(len(f.organization), 32)], "") + " " + role + " " + f.cluster[:8]
	if id != f.cluster {
		name += "-" + id[:8]
	}
	return pkix.Name{Organization: []string{f.organization}, CommonName: name}, nil
}

func (f *foundry) root(rootKey crypto.Signer) (*x509.Certificate, fleet.Authority, error) {
	subject, err := f.subject("Root CA", rootKey.Public())
	if err != nil {
		return nil, fleet.Authority{}, err
	}
	template := authorityTemplate(subject, 1)
	template.NotBefore, template.NotAfter = Validity(f.now, ownBackdate, RootLifetime, nil)
	root, err := Sign(template, rootKey.Public(), nil, rootKey)
	if err != nil {
		return nil, fleet.Authority{}, err
	}
	sealed, err := Seal(f.key, rootAuthority, root, rootKey)
	return root, fleet.Authority{Name: rootAuthority, Certificate: root.Raw, SealedKey: sealed}, err
}

// beneath makes an identity or issuing CA with a key of its own.
func (f *foundry) beneath(name string, root authority) (fleet.Authority, error) {
	key, err := pki.GenerateKey(pki.ECDSAP256)
	if err != nil {
		return fleet.Authority{}, err
	}
	subject, err := f.subject(roles[name].title, key.Public())
	if err != nil {
		return fleet.Authority{}, err
	}
	cert, err := f.certify(name, subject, key.Public(), root)
	if err != nil {
		return fleet.Authority{}, err
	}
	sealed, err := Seal(f.key, name, cert, key)
	return fleet.Authority{Name: name, Certificate: cert.Raw, SealedKey: sealed}, err
}

// certify signs a certificate for an identity or issuing CA.
func (f *foundry) certify(name string, subject pkix.Name, pub crypto.PublicKey, root authority) (*x509.Certificate, error) {
	template := authorityTemplate(subject, 0, roles[name].usages...)
	template.NotBefore, template.NotAfter = Validity(f.now, ownBackdate, IssuingLifetime, root.cert)
	return Sign(template, pub, root.cert, root.key)
}

// roles of the CAs beneath a root.
var roles = map[string]struct {
	title  string
	usages []x509.ExtKeyUsage
}{
	identityAuthority: {"Identity CA", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
	issuingAuthority:  {"Issuing CA", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}},
}

// clusterID names a cluster by the key of its root.
func clusterID(root crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(root)
	if err != nil {
		return "", fmt.Errorf("cluster id: %w", err)
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:8]), nil
}
