package orders

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/pki"
)

// certificate is what is stored of one that was fetched.
type certificate struct {
	chainPEM, serial, fingerprint string
	notAfter                      time.Time
}

// incompleteError is a certificate that is right, and of whose issuers none is known.
type incompleteError struct{ issuer string }

func (e *incompleteError) Error() string {
	return fmt.Sprintf("the certificate came without its issuer %q, and nothing else has that", e.issuer)
}

// check decides whether what an authority handed out is the certificate of r, and
// completes its chain, with questions to others only if ask is set. Errors are *incompleteError, a *connector.Error of a question
// that was asked for it, or say what is wrong with the certificate.
func (a *account) check(ctx context.Context, r *connector.Request, bundle *connector.Bundle, now time.Time, ask bool) (*certificate, error) {
	leaf := leafOf(bundle, r)
	if leaf == nil {
		return nil, fmt.Errorf("%w: none of the %d certificates", pki.ErrKeyMismatch, len(bundle.Certificates))
	}
	pool := append(authorities(bundle.Certificates), a.issuer.Chain...)
	chain, whole := climb(leaf, pool)
	// Whatever is wrong with the certificate itself needs no more questions.
	if _, err := pki.CheckIssued(chain, r.CSR.PublicKey, r.Names, now); err != nil {
		return nil, err
	}
	for _, more := range []func(context.Context, *connector.Request, *x509.Certificate) ([]*x509.Certificate, error){a.askIssuers, a.fetchIssuers} {
		if whole || !ask {
			break
		}
		found, err := more(ctx, r, chain[len(chain)-1])
		if err != nil && len(chain) == 1 {
			return nil, connector.Classify(err)
		}
		pool = append(pool, found...)
		chain, whole = climb(leaf, pool)
	}
	if len(chain) == 1 {
		return nil, &incompleteError{issuer: leaf.Issuer.String()}
	}
	sorted, err := pki.CheckIssued(chain, r.CSR.PublicKey, r.Names, now)
	if err != nil {
		return nil, err
	}
	return &certificate{
		chainPEM: string(pki.EncodeChainPEM(sorted)), serial: pki.SerialHex(leaf), fingerprint: pki.Fingerprint(leaf), notAfter: leaf.NotAfter.UTC(),
	}, nil
}

// leafOf is the certificate for r's key, the newest if an authority hands out several.
func leafOf(bundle *connector.Bundle, r *connector.Request) *x509.Certificate {
	var leaf *x509.Certificate
	for _, cert := range bundle.Certificates {
		if pki.SamePublicKey(cert.PublicKey, r.CSR.PublicKey) && (leaf == nil || cert.NotBefore.After(leaf.NotBefore)) {
			leaf = cert
		}
	}
	return leaf
}

// authorities leaves out certificates that are none of a CA: others that came along.
func authorities(certs []*x509.Certificate) []*x509.Certificate {
	var out []*x509.Certificate
	for _, cert := range certs {
		if cert.IsCA {
			out = append(out, cert)
		}
	}
	return out
}

// climb is the path from the leaf upwards through a pool in which others may be, each
// certificate signed by the next. whole says that it ends at a root, which is the last
// one then.
func climb(leaf *x509.Certificate, pool []*x509.Certificate) (path []*x509.Certificate, whole bool) {
	path = []*x509.Certificate{leaf}
	for len(path) < pki.MaxChain {
		at := path[len(path)-1]
		if bytes.Equal(at.RawIssuer, at.RawSubject) {
			return path, true
		}
		issuer := issuerIn(pool, at, path)
		if issuer == nil {
			return path, false
		}
		path = append(path, issuer)
	}
	return path, false
}

func issuerIn(pool []*x509.Certificate, child *x509.Certificate, path []*x509.Certificate) *x509.Certificate {
	for _, cert := range pool {
		if bytes.Equal(cert.RawSubject, child.RawIssuer) && !slices.ContainsFunc(path, cert.Equal) && child.CheckSignatureFrom(cert) == nil {
			return cert
		}
	}
	return nil
}

// askIssuers asks the authority for its issuing certificates, if its connector can.
func (a *account) askIssuers(ctx context.Context, r *connector.Request, _ *x509.Certificate) ([]*x509.Certificate, error) {
	completer, ok := a.issuer.Connector.(connector.Completer)
	if !ok {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.callTimeout)
	defer cancel()
	return completer.Issuers(ctx, r)
}
