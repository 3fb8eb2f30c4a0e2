package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// bodyMagic begins what a root signs. No certificate begins like it (those are
// an ASN.1 SEQUENCE), so that a signature over one can never pass for the other.
const bodyMagic = "certctl trust generation v1\x00"

// ErrMalformed says that something is no signed generation.
var ErrMalformed = errors.New("malformed trust generation")

// encodeBody is the one encoding of a generation:
//
//	magic, number (8 octets), created_at (8, Unix seconds), previous (32),
//	count of roots (1), and for each its length (2) and DER
//
// with all numbers in network byte order.
func encodeBody(g Generation) []byte {
	body := []byte(bodyMagic)
	body = binary.BigEndian.AppendUint64(body, g.Number)
	body = binary.BigEndian.AppendUint64(body, uint64(g.CreatedAt.Unix())) // checked: not negative
	body = append(body, g.Previous[:]...)
	body = append(body, byte(len(g.Roots))) // at most MaxRoots
	for _, root := range g.Roots {
		body = binary.BigEndian.AppendUint16(body, uint16(len(root.Raw))) // at most MaxRootBytes
		body = append(body, root.Raw...)
	}
	return body
}

// encodeSigned is the body's length (4 octets) and the body, the count of
// signatures (1), and for each the root's fingerprint (32), its length (2) and
// value, in the order of the fingerprints.
func encodeSigned(body []byte, signatures []signature) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(body))) // far below 4 GiB
	out = append(out, body...)
	out = append(out, byte(len(signatures))) // at most 2 MaxRoots
	for _, s := range signatures {
		out = append(out, s.root[:]...)
		out = binary.BigEndian.AppendUint16(out, uint16(len(s.value))) // an ECDSA signature
		out = append(out, s.value...)
	}
	return out
}

// Parse reads a signed generation, strictly: every generation has one encoding.
// Its signatures are not judged; see [Held.Follow]. Errors wrap ErrMalformed.
func Parse(signed []byte) (*Signed, error) {
	if len(signed) > MaxGenerationBytes {
		return nil, fmt.Errorf("%w: %d bytes; at most %d are read", ErrMalformed, len(signed), MaxGenerationBytes)
	}
	in := reader{rest: signed}
	s := &Signed{body: bytes.Clone(in.take(int(in.number(4))))}
	count := int(in.number(1))
	for range count {
		if in.failed || len(s.signatures) == 2*MaxRoots {
			break
		}
		var sig signature
		copy(sig.root[:], in.take(len(sig.root)))
		sig.value = bytes.Clone(in.take(int(in.number(2))))
		if n := len(s.signatures); n > 0 && bytes.Compare(s.signatures[n-1].root[:], sig.root[:]) >= 0 {
			return nil, fmt.Errorf("%w: the signatures are not in order", ErrMalformed)
		}
		if len(sig.value) == 0 || len(sig.value) > maxSignatureBytes {
			return nil, fmt.Errorf("%w: a signature of %d bytes", ErrMalformed, len(sig.value))
		}
		s.signatures = append(s.signatures, sig)
	}
	if in.failed || len(in.rest) > 0 || len(s.signatures) != count {
		return nil, fmt.Errorf("%w: it is cut short, or something follows its end", ErrMalformed)
	}
	if err := s.parseBody(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return s, nil
}

func (s *Signed) parseBody() error {
	in := reader{rest: s.body}
	if string(in.take(len(bodyMagic))) != bodyMagic {
		return errors.New("it does not begin like one of this version")
	}
	s.Number = in.number(8)
	created := in.number(8)
	if created > 1<<40 {
		return errors.New("created_at is out of range")
	}
	s.CreatedAt = time.Unix(int64(created), 0).UTC() // bounded above
	copy(s.Previous[:], in.take(len(s.Previous)))
	count := int(in.number(1))
	if count > MaxRoots {
		return fmt.Errorf("%d roots; expected at most %d", count, MaxRoots)
	}
	for range count {
		der := in.take(int(in.number(2)))
		if in.failed {
			break
		}
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("a root: %w", err)
		}
		s.Roots = append(s.Roots, root)
	}
	if in.failed || len(in.rest) > 0 {
		return errors.New("its content is cut short, or something follows its end")
	}
	return s.check()
}

// reader takes octets from the front; after too few it has failed for good.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n < 0 || n > len(r.rest) {
		r.failed = true
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) number(octets int) (n uint64) {
	for _, octet := range r.take(octets) {
		n = n<<8 | uint64(octet)
	}
	return n
}
