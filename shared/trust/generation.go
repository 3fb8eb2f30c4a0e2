package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Limits of a generation and of a chain.
const (
	// MaxRoots is how many roots one generation may list: a rotation has two.
	MaxRoots = 4
	// MaxRootBytes bounds the DER of one root.
	MaxRootBytes = 4 << 10
	// MaxGenerations is the longest chain. A coordinator that has come to it
	// refuses to rotate its root; it never forgets a generation, because a host
	// that was off meanwhile needs all of them.
	MaxGenerations = 256
	// MaxGenerationBytes bounds the signed form of one generation.
	MaxGenerationBytes = 20 << 10

	maxSignatureBytes = 256
)

// Digest is the SHA-256 of a generation's signed content. The zero value stands
// for no generation.
type Digest [sha256.Size]byte

// String is lower-case hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Generation is what is trusted from one moment on.
type Generation struct {
	// Number counts from 1, without a hole.
	Number uint64
	// CreatedAt is told to people and decides nothing. It counts in seconds.
	CreatedAt time.Time
	// Previous is the digest of the generation before; zero for the first.
	Previous Digest
	// Roots are 1 to MaxRoots CA certificates with ECDSA keys, in the order of
	// their SHA-256 fingerprints.
	Roots []*x509.Certificate
}

// Signer is a root with its key.
type Signer struct {
	Root *x509.Certificate
	Key  crypto.Signer
}

// Signed is a generation as it was signed, well-formed but judged by nobody yet.
type Signed struct {
	Generation
	body       []byte
	signatures []signature
}

type signature struct {
	root  [sha256.Size]byte // fingerprint of the signing root
	value []byte            // ASN.1 ECDSA over the SHA-384 of the body
}

// Digest is what the next generation names as Previous.
func (s *Signed) Digest() Digest { return sha256.Sum256(s.body) }

func fingerprint(root *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(root.Raw) }

func compareRoots(a, b *x509.Certificate) int {
	x, y := fingerprint(a), fingerprint(b)
	return bytes.Compare(x[:], y[:])
}

// SameRoots reports whether two lists hold the same certificates, in any order.
func SameRoots(a, b []*x509.Certificate) bool {
	x, y := sorted(a), sorted(b)
	return slices.EqualFunc(x, y, func(p, q *x509.Certificate) bool { return p.Equal(q) })
}

func sorted(roots []*x509.Certificate) []*x509.Certificate {
	list := slices.Clone(roots)
	slices.SortFunc(list, compareRoots)
	return slices.CompactFunc(list, func(a, b *x509.Certificate) bool { return a.Equal(b) })
}

// Sign makes the signed form of a generation, of which Roots may be in any
// order. The signers are all roots of the generation before and all of its own.
func Sign(g Generation, signers ...Signer) ([]byte, error) {
	g.Roots = sorted(g.Roots)
	if err := g.check(); err != nil {
		return nil, fmt.Errorf("sign trust generation %d: %w", g.Number, err)
	}
	body := encodeBody(g)
	digest := sha512.Sum384(body)
	signers = slices.Clone(signers)
	slices.SortFunc(signers, func(a, b Signer) int { return compareRoots(a.Root, b.Root) })
	signers = slices.CompactFunc(signers, func(a, b Signer) bool { return a.Root.Equal(b.Root) })
	var signatures []signature
	for _, s := range signers {
		value, err := s.Key.Sign(rand.Reader, digest[:], crypto.SHA384)
		if err != nil {
			return nil, fmt.Errorf("sign trust generation %d with %s: %w", g.Number, s.Root.Subject.CommonName, err)
		}
		signatures = append(signatures, signature{root: fingerprint(s.Root), value: value})
	}
	signed := encodeSigned(body, signatures)
	parsed, err := Parse(signed)
	if err != nil {
		return nil, fmt.Errorf("sign trust generation %d: %w", g.Number, err)
	}
	return signed, parsed.signedBy(g.Roots)
}

// check judges what can be judged of a generation alone.
func (g *Generation) check() error {
	switch {
	case g.Number == 0:
		return errors.New("generations count from 1")
	case (g.Number == 1) != (g.Previous == Digest{}):
		return errors.New("the first generation, and only the first, has none before it")
	case len(g.Roots) == 0 || len(g.Roots) > MaxRoots:
		return fmt.Errorf("%d roots; expected 1 to %d", len(g.Roots), MaxRoots)
	case g.CreatedAt.Unix() < 0 || g.CreatedAt.UTC().Year() > 9999:
		return errors.New("created_at is out of range")
	}
	for i, root := range g.Roots {
		if _, ok := root.PublicKey.(*ecdsa.PublicKey); !ok || !root.IsCA || len(root.Raw) > MaxRootBytes {
			return fmt.Errorf("root %d: expected a CA certificate of at most %d bytes with an ECDSA key", i, MaxRootBytes)
		}
		if i > 0 && compareRoots(g.Roots[i-1], root) >= 0 {
			return errors.New("the roots are not in the order of their fingerprints")
		}
	}
	return nil
}

// signedBy checks that each of the roots has signed.
func (s *Signed) signedBy(roots []*x509.Certificate) error {
	for _, root := range roots {
		id := fingerprint(root)
		i := slices.IndexFunc(s.signatures, func(sig signature) bool { return sig.root == id })
		if i < 0 {
			return fmt.Errorf("generation %d is not signed by %q (%x)", s.Number, root.Subject.CommonName, id[:8])
		}
		if err := root.CheckSignature(x509.ECDSAWithSHA384, s.body, s.signatures[i].value); err != nil {
			return fmt.Errorf("generation %d: the signature of %q (%x) is wrong", s.Number, root.Subject.CommonName, id[:8])
		}
	}
	return nil
}
