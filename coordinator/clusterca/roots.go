package clusterca

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
)

var (
	// ErrDamaged says that a stored cluster CA does not fit together.
	ErrDamaged = errors.New("the stored CA of the cluster is damaged")
	// ErrExpired says that the root that signs has come to its end.
	ErrExpired = errors.New("the root of the cluster's CA has expired")
)

// Roots are the roots that a cluster trusts, read from a stored CA. They never
// change, and may be used by any number of goroutines.
type Roots struct {
	// ClusterID names the cluster: 16 hexadecimal digits, from the key of its
	// first root.
	ClusterID string

	certificates []*x509.Certificate // the one that signs first
	sealed       []byte              // the key of that one
	pool         *x509.CertPool
}

// Parse reads a stored CA. The error wraps ErrDamaged.
func Parse(stored *fleet.ClusterCA) (*Roots, error) {
	if len(stored.Authorities) == 0 || len(stored.Authorities) > fleet.MaxClusterAuthorities {
		return nil, fmt.Errorf("%d roots: %w", len(stored.Authorities), ErrDamaged)
	}
	r := &Roots{pool: x509.NewCertPool()}
	for i, authority := range stored.Authorities {
		cert, cluster, err := parseRoot(authority.Certificate)
		if err != nil {
			return nil, fmt.Errorf("root %d: %w: %w", i, ErrDamaged, err)
		}
		switch {
		case (i == 0) != (authority.State == fleet.AuthorityActive):
			return nil, fmt.Errorf("root %d is %q, and the first one is to sign, and no other: %w", i, authority.State, ErrDamaged)
		case i > 0 && cluster != r.ClusterID:
			return nil, fmt.Errorf("root %d is of cluster %s, the first one of %s: %w", i, cluster, r.ClusterID, ErrDamaged)
		}
		r.ClusterID = cluster
		r.certificates = append(r.certificates, cert)
		r.pool.AddCert(cert)
	}
	r.sealed = stored.Authorities[0].SealedKey
	return r, nil
}

func parseRoot(der []byte) (cert *x509.Certificate, cluster string, err error) {
	if cert, err = x509.ParseCertificate(der); err != nil {
		return nil, "", err
	}
	uri, err := onlyURI(cert)
	if err != nil {
		return nil, "", err
	}
	if err := checkClusterID(uri.Host); err != nil {
		return nil, "", err
	}
	if *uri != *clusterURI(uri.Host) {
		return nil, "", errors.New("the URI is not that of a cluster")
	}
	if !cert.IsCA || cert.CheckSignatureFrom(cert) != nil {
		return nil, "", errors.New("it is no root")
	}
	return cert, uri.Host, nil
}

// Signer is the root that signs.
func (r *Roots) Signer() *x509.Certificate { return r.certificates[0] }

// Certificates are the roots that are trusted, the one that signs first.
func (r *Roots) Certificates() []*x509.Certificate { return slices.Clone(r.certificates) }

// Fingerprints are the SHA-256 of the roots in lower-case hex, the one that signs
// first.
func (r *Roots) Fingerprints() []string {
	var list []string
	for _, cert := range r.certificates {
		list = append(list, pki.Fingerprint(cert))
	}
	return list
}

// SignerOf is the fingerprint of the trusted root that signed a certificate; ""
// if none of them did.
func (r *Roots) SignerOf(cert *x509.Certificate) string {
	for _, root := range r.certificates {
		if cert.CheckSignatureFrom(root) == nil {
			return pki.Fingerprint(root)
		}
	}
	return ""
}

// Unseal opens the key of the root that signs. Errors wrap ca.ErrWrongSealKey or
// ca.ErrSealDamaged.
func (r *Roots) Unseal(key ca.SealKey) (crypto.Signer, error) {
	signer, err := ca.Unseal(key, sealPurpose, r.Signer(), r.sealed)
	if err != nil {
		return nil, fmt.Errorf("unseal the cluster's CA: %w", err)
	}
	return signer, nil
}

// Due reports whether the root that signs is near enough to its end to be
// replaced without being asked for.
func (r *Roots) Due(now time.Time) bool { return !now.Before(r.Signer().NotAfter.Add(-replaceWithin)) }
