package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// KeyAlgorithm names a kind and size of key pair as configuration and API write it.
type KeyAlgorithm string

// The key algorithms that certctl makes.
const (
	ECDSAP256 KeyAlgorithm = "ecdsa-p256"
	ECDSAP384 KeyAlgorithm = "ecdsa-p384"
	RSA2048   KeyAlgorithm = "rsa-2048"
	RSA3072   KeyAlgorithm = "rsa-3072"
	RSA4096   KeyAlgorithm = "rsa-4096"
	Ed25519   KeyAlgorithm = "ed25519"

	// DefaultKeyAlgorithm is used where nothing is configured.
	DefaultKeyAlgorithm = ECDSAP256
)

const (
	minRSABits     = 2048
	maxRSABits     = 8192
	minRSAExponent = 65537
	maxKeyPEM      = 64 << 10
)

// KeyAlgorithms returns all algorithms, the default first.
func KeyAlgorithms() []KeyAlgorithm {
	return []KeyAlgorithm{ECDSAP256, ECDSAP384, RSA2048, RSA3072, RSA4096, Ed25519}
}

// ParseKeyAlgorithm reads the exact text of one of KeyAlgorithms.
func ParseKeyAlgorithm(s string) (KeyAlgorithm, error) {
	if a := KeyAlgorithm(s); slices.Contains(KeyAlgorithms(), a) {
		return a, nil
	}
	return "", fmt.Errorf("key algorithm %q: %w", clip(s), errUnknownAlgorithm())
}

func errUnknownAlgorithm() error {
	var all []string
	for _, a := range KeyAlgorithms() {
		all = append(all, string(a))
	}
	return fmt.Errorf("want one of %s", strings.Join(all, ", "))
}

// String returns the algorithm as ParseKeyAlgorithm reads it.
func (a KeyAlgorithm) String() string { return string(a) }

// MarshalText implements encoding.TextMarshaler; an unknown algorithm, the empty one included, is an error.
func (a KeyAlgorithm) MarshalText() ([]byte, error) {
	known, err := ParseKeyAlgorithm(string(a))
	return []byte(known), err
}

// UnmarshalText implements encoding.TextUnmarshaler with the rules of ParseKeyAlgorithm.
func (a *KeyAlgorithm) UnmarshalText(text []byte) error {
	parsed, err := ParseKeyAlgorithm(string(text))
	if err != nil {
		return errUnknownAlgorithm() // whoever reads a field names its value
	}
	*a = parsed
	return nil
}

// GenerateKey makes a new key pair from the system's random source. RSA keys take up to seconds.
func GenerateKey(a KeyAlgorithm) (crypto.Signer, error) {
	var key crypto.Signer
	var err error
	switch a {
	case ECDSAP256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		key, err = rsa.GenerateKey(rand.Reader, 4096)
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		_, err = ParseKeyAlgorithm(string(a))
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("generate %s key: %w", a, err)
	}
	return key, nil
}

// MarshalKeyPEM encodes a private key as one PKCS #8 "PRIVATE KEY" block (RFC 5958, RFC 7468 section 10).
func MarshalKeyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKeyPEM reads exactly one unencrypted private key of at most 64 KiB in PKCS #8, SEC 1 ("EC PRIVATE KEY") or
// PKCS #1 ("RSA PRIVATE KEY") form. An "EC PARAMETERS" block before it, as openssl writes, is accepted. The key must
// satisfy CheckPublicKey. Errors never repeat the input.
func ParseKeyPEM(data []byte) (crypto.Signer, error) {
	if len(data) > maxKeyPEM {
		return nil, fmt.Errorf("private key: %d octets, more than the %d that a key file may have", len(data), maxKeyPEM)
	}
	blocks, err := decodePEM(data)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	if len(blocks) > 1 && blocks[0].Type == "EC PARAMETERS" {
		blocks = blocks[1:]
	}
	if len(blocks) != 1 {
		return nil, fmt.Errorf("private key: found %d PEM blocks; want exactly one, the key", len(blocks))
	}
	block := blocks[0]
	if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["Proc-Type"] != "" {
		return nil, errors.New("private key: is encrypted; decrypt it first, for example with \"openssl pkey\"")
	}
	var parsed any
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("private key: PEM block is a %q; want \"PRIVATE KEY\"", clip(block.Type))
	}
	if err != nil {
		return nil, fmt.Errorf("private key: the %q block is damaged: %w", block.Type, err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key: %T cannot sign; %s", parsed, wantedKeys)
	}
	if err := CheckPublicKey(key.Public()); err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	return key, nil
}

const wantedKeys = "want RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519"

// ErrWeakKey marks a public key that the strength policy of CheckPublicKey refuses.
var ErrWeakKey = errors.New("key refused")

// CheckPublicKey is the strength policy for every key that certctl asks a certificate for or issues one to: RSA with a
// modulus of 2048 to 8192 bits and an odd exponent of at least 65537, ECDSA on P-256, P-384 or P-521, or Ed25519. Its
// errors match ErrWeakKey.
func CheckPublicKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if k == nil || k.N == nil {
			return fmt.Errorf("%w: the RSA key is empty; %s", ErrWeakKey, wantedKeys)
		}
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("%w: RSA of %d bits; %s", ErrWeakKey, bits, wantedKeys)
		}
		if k.N.Bit(0) == 0 {
			return fmt.Errorf("%w: the RSA modulus is even; generate a new key", ErrWeakKey)
		}
		if k.E < minRSAExponent || k.E%2 == 0 {
			return fmt.Errorf("%w: RSA exponent %d; want an odd one of at least %d", ErrWeakKey, k.E, minRSAExponent)
		}
	case *ecdsa.PublicKey:
		if k == nil {
			return fmt.Errorf("%w: the ECDSA key is empty; %s", ErrWeakKey, wantedKeys)
		}
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return fmt.Errorf("%w: ECDSA on another curve; %s", ErrWeakKey, wantedKeys)
		}
		// ECDH is the one conversion of the standard library that checks that the point lies on its curve.
		if _, err := k.ECDH(); err != nil {
			return fmt.Errorf("%w: the ECDSA point is not on its curve; generate a new key", ErrWeakKey)
		}
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("%w: the Ed25519 key has %d octets, not %d", ErrWeakKey, len(k), ed25519.PublicKeySize)
		}
	default:
		return fmt.Errorf("%w: unknown kind of key %T; %s", ErrWeakKey, pub, wantedKeys)
	}
	return nil
}

// SamePublicKey reports whether a and b are the same public key.
func SamePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
