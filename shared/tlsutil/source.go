package tlsutil

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/certctl/certctl/shared/pki"
)

// ErrNoCertificate says that a CertSource holds no certificate yet.
var ErrNoCertificate = errors.New("no certificate has been set yet")

// CertSource holds the certificate that new handshakes present. It can be replaced at any time, from any goroutine;
// connections that are up keep the one they started with. The zero value is empty and ready for Set.
type CertSource struct {
	current atomic.Pointer[tls.Certificate]
}

// Set replaces the certificate. chain starts with the leaf, which must be for key; it is presented as it is, so a server
// whose clients know only the root's fingerprint includes the root. After an error the old certificate stays.
func (s *CertSource) Set(chain []*x509.Certificate, key crypto.Signer) error {
	if len(chain) == 0 {
		return errors.New("set certificate: the chain is empty; give at least the leaf")
	}
	if err := pki.MatchKey(chain[0], key); err != nil {
		return fmt.Errorf("set certificate: %w", err)
	}
	cert := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	s.current.Store(cert)
	return nil
}

// Leaf returns the leaf that new handshakes present, or nil if there is none yet.
func (s *CertSource) Leaf() *x509.Certificate {
	if cert := s.current.Load(); cert != nil {
		return cert.Leaf
	}
	return nil
}

// GetCertificate is for the field of that name of tls.Config.
func (s *CertSource) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.get()
}

// GetClientCertificate is for the field of that name of tls.Config. While the source is empty it fails the handshake
// with ErrNoCertificate, which tells more than the refusal by the server would.
func (s *CertSource) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return s.get()
}

func (s *CertSource) get() (*tls.Certificate, error) {
	cert := s.current.Load()
	if cert == nil {
		return nil, ErrNoCertificate
	}
	return cert, nil
}
