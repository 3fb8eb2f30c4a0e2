package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// Errors of Follow and FromPin.
var (
	// ErrNotContinued says that a chain has nothing to do with what is trusted,
	// or leads back instead of on.
	ErrNotContinued = errors.New("the trust chain does not continue from what is trusted here")
	// ErrForged says that a chain does not hold together: a signature, a digest
	// or the order is wrong.
	ErrForged = errors.New("the trust chain is damaged or forged")
)

// Held is what somebody trusts at present, and where in the chain that is.
type Held struct {
	// Number and Digest name the generation; zero if it is not known, as on a
	// host that was enrolled before there were generations.
	Number uint64
	Digest Digest
	Roots  []*x509.Certificate
}

// Follow goes along a chain as far as it leads, and returns what is to be
// trusted from then on. The chain may come from anybody. It is good if its
// generations follow each other without a hole, and if
//
//   - it continues the generation that is held, or
//   - it holds a generation with exactly the roots that are held, which is none
//     before the one that is held. That is how a holder begins that does not
//     know its generation, or whose coordinator was restored from a backup and
//     has rotated again.
//
// In both cases what is taken over is signed, step by step, by every root that
// was trusted before the step. Errors wrap ErrNotContinued, ErrForged or
// ErrMalformed, and what is held stays.
func (h Held) Follow(chain [][]byte) (Held, error) {
	generations, err := verifyChain(chain)
	if err != nil {
		return h, err
	}
	first := generations[0]
	if h.Number > 0 && first.Number == h.Number+1 && first.Previous == h.Digest {
		if err := first.signedBy(h.Roots); err != nil {
			return h, fmt.Errorf("%w: %w", ErrForged, err)
		}
		return holding(generations), nil
	}
	for _, g := range slices.Backward(generations) {
		if g.Number >= h.Number && SameRoots(g.Roots, h.Roots) {
			return holding(generations), nil
		}
	}
	return h, fmt.Errorf("%w: it has the generations %d to %d, and this side holds generation %d", ErrNotContinued,
		first.Number, generations[len(generations)-1].Number, h.Number)
}

// FromPin begins with nothing but the SHA-256 of one root: the chain has to hold
// a generation of that root alone. Errors are those of Follow.
func FromPin(pin [sha256.Size]byte, chain [][]byte) (Held, error) {
	generations, err := verifyChain(chain)
	if err != nil {
		return Held{}, err
	}
	for _, g := range generations {
		if len(g.Roots) == 1 && fingerprint(g.Roots[0]) == pin {
			return holding(generations), nil
		}
	}
	return Held{}, fmt.Errorf("%w: none of its %d generations is of the pinned root alone", ErrNotContinued, len(generations))
}

func holding(generations []*Signed) Held {
	last := generations[len(generations)-1]
	return Held{Number: last.Number, Digest: last.Digest(), Roots: last.Roots}
}

// verifyChain parses a chain and checks all that does not depend on who asks:
// each generation is signed by all of its own roots, and each but the first
// follows the one before and is signed by all of that one's.
func verifyChain(chain [][]byte) ([]*Signed, error) {
	switch {
	case len(chain) == 0:
		return nil, fmt.Errorf("%w: it is empty", ErrNotContinued)
	case len(chain) > MaxGenerations:
		return nil, fmt.Errorf("%w: %d generations; at most %d are read", ErrMalformed, len(chain), MaxGenerations)
	}
	var generations []*Signed
	for _, signed := range chain {
		g, err := Parse(signed)
		if err != nil {
			return nil, err
		}
		signers := g.Roots
		if n := len(generations); n > 0 {
			before := generations[n-1]
			if g.Number != before.Number+1 || g.Previous != before.Digest() {
				return nil, fmt.Errorf("%w: generation %d does not follow generation %d", ErrForged, g.Number, before.Number)
			}
			signers = append(slices.Clone(signers), before.Roots...)
		}
		if err := g.signedBy(signers); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrForged, err)
		}
		generations = append(generations, g)
	}
	return generations, nil
}

// After is the part of a chain that somebody lacks who says to hold a
// generation: what follows it, or the whole chain if that generation is not one
// of it. known is the number of that generation, 0 if it is not one of the
// chain. The chain is the holder's own and trusted to be well-formed; its error
// wraps ErrMalformed.
func After(chain [][]byte, number uint64, digest Digest) (missing [][]byte, known uint64, err error) {
	for i, signed := range slices.Backward(chain) {
		g, err := Parse(signed)
		if err != nil {
			return nil, 0, err
		}
		if g.Number == number && g.Digest() == digest {
			return chain[i+1:], number, nil
		}
		if g.Number < number {
			break
		}
	}
	return chain, 0, nil
}
