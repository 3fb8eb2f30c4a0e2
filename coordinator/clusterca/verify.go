package clusterca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrUntrusted says that no trusted root signed a certificate.
	ErrUntrusted = errors.New("the certificate is not of this cluster")
	// ErrNotNode says that a certificate is not that of a node of the cluster,
	// whoever signed it.
	ErrNotNode = errors.New("the certificate is not that of a node")
	// ErrNotNow says that a certificate, or its root, has expired or is not valid
	// yet.
	ErrNotNow = errors.New("the certificate is not valid at this time")
)

// Role is the side of a connection that a certificate is used on.
type Role = x509.ExtKeyUsage

// Roles of a certificate.
const (
	Client Role = x509.ExtKeyUsageClientAuth // it was shown by the side that connected
	Server Role = x509.ExtKeyUsageServerAuth // it was shown by the side that was connected to
)

// Verify checks a chain that a node presented, leaf first, at a moment, and
// returns the node's id. Errors wrap ErrUntrusted, ErrNotNow or ErrNotNode.
//
// Being a node is not being a member: that is for the caller to ask.
func (r *Roots) Verify(chain []*x509.Certificate, role Role, now time.Time) (nodeID string, err error) {
	if len(chain) == 0 {
		return "", fmt.Errorf("there is no certificate: %w", ErrNotNode)
	}
	// The root signs directly, and is known: nothing else in the chain counts.
	leaf := chain[0]
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: r.pool, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{role},
	})
	if err != nil {
		return "", classify(leaf, err)
	}
	switch {
	case leaf.IsCA:
		return "", fmt.Errorf("it is a CA's: %w", ErrNotNode)
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return "", fmt.Errorf("its key may not sign: %w", ErrNotNode)
	}
	uri, err := onlyURI(leaf)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotNode, err)
	}
	cluster, node, err := parseNodeURI(uri)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotNode, err)
	}
	if cluster != r.ClusterID {
		return "", fmt.Errorf("it names the cluster %s, this is %s: %w", cluster, r.ClusterID, ErrUntrusted)
	}
	return node, nil
}

func classify(leaf *x509.Certificate, err error) error {
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	switch invalid.Reason {
	case x509.Expired:
		return fmt.Errorf("%w: it is valid from %s to %s", ErrNotNow, leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339))
	case x509.IncompatibleUsage:
		return fmt.Errorf("%w: %w", ErrNotNode, err)
	default:
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
}

// NodeOf reads the id of the node from a certificate that Verify has accepted; ""
// if it has none.
func NodeOf(leaf *x509.Certificate) string {
	uri, err := onlyURI(leaf)
	if err != nil {
		return ""
	}
	_, node, err := parseNodeURI(uri)
	if err != nil {
		return ""
	}
	return node
}
