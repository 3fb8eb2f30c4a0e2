package ca

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
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
	key, err := c.sealKey()
	if errors.Is(err, ErrSealKeyMissing) {
		key, err = createSealKey(c.config.SealKeyFile)
	}
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
	// The cluster's id keeps the names of different clusters apart in the trust
	// stores that hold several.
	short := strings.ToValidUTF8(organization[:min(len(organization), 32)], "")
	subject := func(role string) pkix.Name {
		return pkix.Name{Organization: []string{organization}, CommonName: short + " " + role + " " + id[:8]}
	}
	template := authorityTemplate(subject("Root CA"), 1)
	template.NotBefore, template.NotAfter = validity(now, ownBackdate, RootLifetime, nil)
	root, err := sign(template, rootKey.Public(), nil, rootKey)
	if err != nil {
		return nil, err
	}
	sealed, err := seal(key, rootAuthority, root, rootKey)
	if err != nil {
		return nil, err
	}
	authorities := []fleet.Authority{{Name: rootAuthority, Certificate: root.Raw, SealedKey: sealed}}
	for _, sub := range []struct {
		name, role string
		usages     []x509.ExtKeyUsage
	}{
		{identityAuthority, "Identity CA", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
		{issuingAuthority, "Issuing CA", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}},
	} {
		template := authorityTemplate(subject(sub.role), 0, sub.usages...)
		template.NotBefore, template.NotAfter = validity(now, ownBackdate, IssuingLifetime, root)
		authority, err := createIssuing(sub.name, template, root, rootKey, key)
		if err != nil {
			return nil, err
		}
		authorities = append(authorities, authority)
	}
	return authorities, nil
}

func createIssuing(name string, template, root *x509.Certificate, rootKey crypto.Signer, key SealKey) (fleet.Authority, error) {
	issuingKey, err := pki.GenerateKey(pki.ECDSAP256)
	if err != nil {
		return fleet.Authority{}, err
	}
	cert, err := sign(template, issuingKey.Public(), root, rootKey)
	if err != nil {
		return fleet.Authority{}, err
	}
	sealed, err := seal(key, name, cert, issuingKey)
	if err != nil {
		return fleet.Authority{}, err
	}
	return fleet.Authority{Name: name, Certificate: cert.Raw, SealedKey: sealed}, nil
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
