package tlsutil

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrPinMismatch says that a server did not present the pinned root.
var ErrPinMismatch = errors.New("the server does not present the pinned root certificate")

// PinnedRoot trusts one root certificate by the SHA-256 of its DER encoding. It is how a host that knows nothing else
// meets its coordinator for the first time: the fingerprint came to it by another way.
type PinnedRoot [sha256.Size]byte

// ParsePin reads a fingerprint: 64 hexadecimal digits, with or without colons between the octets, or base64 (standard
// or URL alphabet, padded or not), each optionally after "sha256:".
func ParsePin(s string) (PinnedRoot, error) {
	const prefix = "sha256:"
	text := s
	if len(s) > len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		text = s[len(prefix):]
	}
	var octets []byte
	var err error
	switch len(text) {
	case hex.EncodedLen(sha256.Size):
		octets, err = hex.DecodeString(text)
	case 3*sha256.Size - 1:
		octets, err = decodeColons(text)
	case base64.RawStdEncoding.EncodedLen(sha256.Size), base64.StdEncoding.EncodedLen(sha256.Size):
		plain := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimSuffix(text, "="))
		octets, err = base64.RawStdEncoding.Strict().DecodeString(plain)
	default:
		err = fmt.Errorf("%d characters", len(text))
	}
	if err == nil && len(octets) != sha256.Size {
		err = fmt.Errorf("%d octets", len(octets))
	}
	if err != nil {
		return PinnedRoot{}, fmt.Errorf("root fingerprint: want the SHA-256 of the certificate as 64 hexadecimal digits or in base64: %w", err)
	}
	return PinnedRoot(octets), nil
}

func decodeColons(text string) ([]byte, error) {
	for i := 2; i < len(text); i += 3 {
		if text[i] != ':' {
			return nil, fmt.Errorf("want a colon between each two octets, found %q", text[i])
		}
	}
	return hex.DecodeString(strings.ReplaceAll(text, ":", ""))
}

// PinOf returns the pin of a root certificate.
func PinOf(root *x509.Certificate) PinnedRoot { return sha256.Sum256(root.Raw) }

// String returns "sha256:" and 64 lower-case hexadecimal digits.
func (p PinnedRoot) String() string { return "sha256:" + hex.EncodeToString(p[:]) }

// MarshalText implements encoding.TextMarshaler with String.
func (p PinnedRoot) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParsePin.
func (p *PinnedRoot) UnmarshalText(text []byte) error {
	parsed, err := ParsePin(string(text))
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}

// Verify checks the chain that a server presented, leaf first: the pinned root must be in it and be a CA certificate,
// and the leaf must lead to that root, be valid at now, be meant for servers and carry serverName, a DNS name or an IP
// address. It returns the root. Without the pinned root the error matches ErrPinMismatch.
func (p PinnedRoot) Verify(chain []*x509.Certificate, serverName string, now time.Time) (*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, fmt.Errorf("verify server: %w: it presents no certificate", ErrPinMismatch)
	}
	var root *x509.Certificate
	intermediates := x509.NewCertPool()
	for _, cert := range chain {
		if PinOf(cert) == p {
			root = cert
			continue
		}
		intermediates.AddCert(cert)
	}
	if root == nil {
		last := chain[len(chain)-1]
		return nil, fmt.Errorf("verify server: %w: wanted %s, the last of %d it presents is %s; check the fingerprint and the address",
			ErrPinMismatch, p, len(chain), PinOf(last))
	}
	if !root.IsCA {
		return nil, fmt.Errorf("verify server: the fingerprint %s is that of a certificate that is no root; give the root's", p)
	}
	if serverName == "" {
		return nil, errors.New("verify server: no server name to expect")
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		DNSName:       serverName,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return nil, fmt.Errorf("verify server: %w", err)
	}
	return root, nil
}
