package clusterca

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
)

// Issue signs a node's certificate with the root that signs in a stored CA. It is
// good for connections in both directions, for 30 days but never longer than the
// root. Errors wrap ErrDamaged, ErrExpired, ErrNodeID, or those of Unseal.
func Issue(stored *fleet.ClusterCA, key ca.SealKey, nodeID string, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	roots, err := Parse(stored)
	if err != nil {
		return nil, fmt.Errorf("issue a node's certificate: %w", err)
	}
	return roots.Issue(key, nodeID, pub, now)
}

// Issue is the function of that name, for a stored CA that was read before.
func (r *Roots) Issue(key ca.SealKey, nodeID string, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	if err := CheckNodeID(nodeID); err != nil {
		return nil, fmt.Errorf("issue a node's certificate: %w", err)
	}
	if err := pki.CheckPublicKey(pub); err != nil {
		return nil, fmt.Errorf("issue a node's certificate: %w", err)
	}
	root := r.Signer()
	if !now.Before(root.NotAfter) {
		return nil, fmt.Errorf("issue a node's certificate: %w, on %s; check this host's clock", ErrExpired, root.NotAfter.Format(time.RFC3339))
	}
	signer, err := r.Unseal(key)
	if err != nil {
		return nil, fmt.Errorf("issue a node's certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          ca.SerialNumber(),
		Subject:               pkix.Name{CommonName: nodeID},
		URIs:                  []*url.URL{nodeURI(r.ClusterID, nodeID)},
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	template.NotBefore, template.NotAfter = ca.Validity(now, backdate, NodeLifetime, root)
	cert, err := ca.Sign(template, pub, root, signer)
	if err != nil {
		return nil, fmt.Errorf("issue a node's certificate: %w", err)
	}
	return cert, nil
}

// RenewAt is the moment from which a node's certificate is to be replaced: two
// thirds of the time from its making to its end. The time before its making, by
// which it is backdated, does not count.
func RenewAt(cert *x509.Certificate) time.Time {
	made := cert.NotBefore.Add(backdate)
	if !made.Before(cert.NotAfter) {
		made = cert.NotBefore // a short one, which is backdated by less
	}
	return made.Add(cert.NotAfter.Sub(made) / 3 * 2)
}
