package pki

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

var (
	// ErrKeyMismatch says that a certificate is for another key.
	ErrKeyMismatch = errors.New("certificate is for another key")
	// ErrExpired says that a certificate of a chain has already expired.
	ErrExpired = errors.New("certificate has expired")
	// ErrNotLeaf says that what was issued is a CA certificate.
	ErrNotLeaf = errors.New("certificate is a CA certificate")
)

// MissingNamesError says that a certificate lacks names that were asked for.
type MissingNamesError struct {
	// Missing are the names that the certificate does not carry.
	Missing Names
}

// Error implements error.
func (e *MissingNamesError) Error() string {
	return fmt.Sprintf("certificate lacks %s", e.Missing)
}

// MatchKey returns nil if the certificate is for the public half of key, and else an error that matches ErrKeyMismatch.
func MatchKey(leaf *x509.Certificate, key crypto.Signer) error {
	return matchPublicKey(leaf, key.Public())
}

func matchPublicKey(leaf *x509.Certificate, pub crypto.PublicKey) error {
	if !SamePublicKey(pub, leaf.PublicKey) {
		return fmt.Errorf("%w: %s", ErrKeyMismatch, subject(leaf))
	}
	return nil
}

// CheckIssued decides whether what a CA sent may be deployed, and returns it as SortChain orders it, leaf first and
// without the root. The leaf is the certificate for pub. The errors, in the order of the checks:
//
//   - ErrKeyMismatch: no certificate is for pub;
//   - ErrNotLeaf: the certificate for pub is a CA certificate;
//   - ErrBrokenChain: the others are not its issuers, or a signature does not verify;
//   - *MissingNamesError: the leaf does not literally carry all names (it may carry more);
//   - ErrExpired: the leaf or an issuer on the path expired before now.
//
// That the chain ends at a trusted root is for the caller to know. A notBefore that lies ahead is not refused: it is
// what a slow clock on this host looks like, and asking the CA again would not cure it.
func CheckIssued(chain []*x509.Certificate, pub crypto.PublicKey, names Names, now time.Time) ([]*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, fmt.Errorf("issued chain: %w: no certificate", ErrBrokenChain)
	}
	at := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return SamePublicKey(pub, c.PublicKey) })
	if at < 0 {
		return nil, fmt.Errorf("issued chain: %w: %s", ErrKeyMismatch, subject(chain[0]))
	}
	leaf := chain[at]
	if leaf.IsCA {
		return nil, fmt.Errorf("issued chain: %w: %s", ErrNotLeaf, subject(leaf))
	}
	sorted, err := sortFrom(chain, leaf)
	if err != nil {
		return nil, fmt.Errorf("issued chain: %w", err)
	}
	carried, err := CertificateNames(leaf)
	if err != nil {
		return nil, fmt.Errorf("issued chain: %w", err)
	}
	if missing := carried.Missing(names); !missing.IsZero() {
		return nil, fmt.Errorf("issued chain: %w", &MissingNamesError{Missing: missing})
	}
	for _, cert := range sorted {
		if now.After(cert.NotAfter) {
			return nil, fmt.Errorf("issued chain: %w: %s, on %s", ErrExpired, subject(cert), cert.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return sorted, nil
}
