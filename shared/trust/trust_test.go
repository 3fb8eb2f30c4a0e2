package trust_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/trust"
)

func newRoot(t testing.TB, algorithm pki.KeyAlgorithm) trust.Signer {
	t.Helper()
	key, err := pki.GenerateKey(algorithm)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	root, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return trust.Signer{Root: root, Key: key}
}

func rootsOf(signers ...trust.Signer) (roots []*x509.Certificate) {
	for _, s := range signers {
		roots = append(roots, s.Root)
	}
	return roots
}

// history makes chains.
type history struct {
	t     testing.TB
	chain [][]byte
	last  []trust.Signer
}

// add makes a generation with these roots, signed as it must be.
func (h *history) add(roots ...trust.Signer) {
	h.addSignedBy(roots, append(slices.Clone(h.last), roots...))
}

func (h *history) addSignedBy(roots, signers []trust.Signer) {
	h.t.Helper()
	g := trust.Generation{Number: uint64(len(h.chain)) + 1, CreatedAt: time.Unix(int64(len(h.chain)), 0), Roots: rootsOf(roots...)}
	if len(h.chain) > 0 {
		g.Previous = h.at(len(h.chain)).Digest
	}
	signed, err := trust.Sign(g, signers...)
	require.NoError(h.t, err)
	h.chain, h.last = append(h.chain, signed), roots
}

// at is what a host holds that goes by a generation.
func (h *history) at(number int) trust.Held {
	h.t.Helper()
	g, err := trust.Parse(h.chain[number-1])
	require.NoError(h.t, err)
	return trust.Held{Number: g.Number, Digest: g.Digest(), Roots: g.Roots}
}

// rotated is a history of three rotations: generations of A, AB, B, BC, C, CD, D.
func rotated(t testing.TB) (*history, []trust.Signer) {
	t.Helper()
	var roots []trust.Signer
	for range 4 {
		roots = append(roots, newRoot(t, pki.ECDSAP256))
	}
	h := &history{t: t}
	h.add(roots[0])
	for i := 1; i < len(roots); i++ {
		h.add(roots[i-1], roots[i])
		h.add(roots[i])
	}
	return h, roots
}

func TestFollowFromAnywhere(t *testing.T) {
	h, roots := rotated(t)
	newest := h.at(7)
	require.True(t, trust.SameRoots(newest.Roots, rootsOf(roots[3])))
	for number := 1; number <= 7; number++ {
		held := h.at(number)
		missing, known, err := trust.After(h.chain, held.Number, held.Digest)
		require.NoError(t, err)
		assert.EqualValues(t, number, known)
		assert.Len(t, missing, 7-number)
		if number < 7 {
			got, err := held.Follow(missing)
			require.NoError(t, err)
			assert.Equal(t, newest, got)
		}
		got, err := held.Follow(h.chain)
		require.NoError(t, err, "the whole chain does as well")
		assert.Equal(t, newest, got)
		got, err = trust.Held{Roots: held.Roots}.Follow(h.chain)
		require.NoError(t, err, "who knows the roots alone finds the place")
		assert.Equal(t, newest, got)
	}
	for i, root := range roots {
		got, err := trust.FromPin(sha256.Sum256(root.Root.Raw), h.chain)
		require.NoError(t, err, i)
		assert.Equal(t, newest, got)
	}
	missing, known, err := trust.After(h.chain, 3, trust.Digest{1})
	require.NoError(t, err)
	assert.Zero(t, known)
	assert.Equal(t, h.chain, missing, "who is on another branch is told everything")
	_, _, err = trust.After([][]byte{{1}}, 1, trust.Digest{})
	require.ErrorIs(t, err, trust.ErrMalformed)
}

func TestWhatIsRefused(t *testing.T) {
	h, roots := rotated(t)
	held := h.at(2) // A and B
	missing := h.chain[2:]
	flip := func(signed []byte, at int) []byte {
		altered := bytes.Clone(signed)
		altered[(at+len(altered))%len(altered)] ^= 1
		return altered
	}
	stranger, thief := newRoot(t, pki.ECDSAP256), newRoot(t, pki.ECDSAP256)
	foreign := &history{t: t}
	foreign.add(stranger)
	foreign.add(stranger, thief)
	// One of the two roots that are trusted has been stolen: its key alone moves nobody.
	stolen := &history{t: t, chain: slices.Clone(h.chain[:2]), last: []trust.Signer{roots[0], roots[1]}}
	stolen.addSignedBy([]trust.Signer{thief}, []trust.Signer{roots[0], thief})
	// Without the chain before it, a generation that names the right one before it.
	alone := &history{t: t, chain: slices.Clone(h.chain[:2]), last: []trust.Signer{roots[0], roots[1]}}
	alone.addSignedBy([]trust.Signer{thief}, []trust.Signer{thief})
	elsewhere := &history{t: t, chain: slices.Clone(h.chain[:1]), last: roots[:1]}
	elsewhere.add(roots[0], roots[2])
	elsewhere.add(roots[2])

	for name, c := range map[string]struct {
		held  trust.Held
		chain [][]byte
		want  error
	}{
		"nothing":                    {held, nil, trust.ErrNotContinued},
		"a gap":                      {held, slices.Concat(missing[:1], missing[2:]), trust.ErrForged},
		"a gap at the front":         {held, missing[1:], trust.ErrNotContinued},
		"another order":              {held, [][]byte{missing[1], missing[0], missing[2]}, trust.ErrForged},
		"one twice":                  {held, slices.Concat(missing[:1], missing[:1]), trust.ErrForged},
		"the past":                   {h.at(5), h.chain[:3], trust.ErrNotContinued},
		"the past, with the roots":   {trust.Held{Number: 9, Digest: trust.Digest{1}, Roots: rootsOf(roots[3])}, h.chain, trust.ErrNotContinued},
		"another coordinator":        {held, foreign.chain, trust.ErrNotContinued},
		"a stolen root alone":        {held, stolen.chain, trust.ErrForged},
		"a stolen root, cut":         {held, stolen.chain[2:], trust.ErrForged},
		"nobody's":                   {held, alone.chain[2:], trust.ErrForged},
		"a fork of before":           {held, elsewhere.chain, trust.ErrNotContinued},
		"a fork of before, cut":      {held, elsewhere.chain[2:], trust.ErrNotContinued},
		"an altered signature":       {held, [][]byte{flip(missing[0], -1)}, trust.ErrForged},
		"an altered root":            {held, [][]byte{flip(missing[0], 400)}, nil},
		"an altered number":          {held, [][]byte{flip(missing[0], 4+28+7)}, nil},
		"cut short":                  {held, [][]byte{missing[0][:len(missing[0])-1]}, trust.ErrMalformed},
		"something after the end":    {held, [][]byte{append(bytes.Clone(missing[0]), 0)}, trust.ErrMalformed},
		"too large":                  {held, [][]byte{make([]byte, trust.MaxGenerationBytes+1)}, trust.ErrMalformed},
		"too many":                   {held, slices.Repeat(missing[:1], trust.MaxGenerations+1), trust.ErrMalformed},
		"no more than a certificate": {held, [][]byte{roots[0].Root.Raw}, trust.ErrMalformed},
		"empty":                      {held, [][]byte{{}}, trust.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.held.Follow(c.chain)
			require.Error(t, err)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			}
			assert.Equal(t, c.held, got, "what is held stays")
		})
	}
	_, err := trust.FromPin(sha256.Sum256(stranger.Root.Raw), h.chain)
	require.ErrorIs(t, err, trust.ErrNotContinued)
	_, err = trust.FromPin(sha256.Sum256(roots[0].Root.Raw), h.chain[1:])
	require.ErrorIs(t, err, trust.ErrNotContinued, "the generation of that root alone is missing")
}

// The coordinator was restored from a backup, and has rotated again: hosts whose
// roots are still a generation of it find their way, others stay where they are.
func TestAForkWithTheSameRoots(t *testing.T) {
	h, roots := rotated(t)
	again := &history{t: t, chain: slices.Clone(h.chain[:2]), last: []trust.Signer{roots[0], roots[1]}}
	again.add(roots[1]) // as generation 3, but at another moment
	again.chain[2] = func() []byte {
		before := h.at(2)
		signed, err := trust.Sign(trust.Generation{Number: 3, CreatedAt: time.Unix(1000, 0), Previous: before.Digest, Roots: rootsOf(roots[1])}, roots[0], roots[1])
		require.NoError(t, err)
		return signed
	}()
	again.add(roots[1], roots[3])
	held := h.at(3)
	require.NotEqual(t, held.Digest, again.at(3).Digest)
	missing, known, err := trust.After(again.chain, held.Number, held.Digest)
	require.NoError(t, err)
	require.Zero(t, known)
	got, err := held.Follow(missing)
	require.NoError(t, err)
	assert.Equal(t, again.at(4), got)
	_, err = h.at(4).Follow(again.chain)
	require.ErrorIs(t, err, trust.ErrNotContinued, "its new root is one that the coordinator has lost")
}

func TestSignRefuses(t *testing.T) {
	root, edwards := newRoot(t, pki.ECDSAP384), newRoot(t, pki.Ed25519)
	leaf := *root.Root
	leaf.IsCA = false
	good := func() trust.Generation {
		return trust.Generation{Number: 1, Roots: rootsOf(root), CreatedAt: time.Unix(1, 0)}
	}
	_, err := trust.Sign(good(), root)
	require.NoError(t, err)
	for name, spoil := range map[string]func(*trust.Generation){
		"number 0":             func(g *trust.Generation) { g.Number = 0 },
		"first with a before":  func(g *trust.Generation) { g.Previous = trust.Digest{1} },
		"second without":       func(g *trust.Generation) { g.Number = 2 },
		"no roots":             func(g *trust.Generation) { g.Roots = nil },
		"no CA":                func(g *trust.Generation) { g.Roots = []*x509.Certificate{&leaf} },
		"another kind of key":  func(g *trust.Generation) { g.Roots = rootsOf(edwards) },
		"a time before time":   func(g *trust.Generation) { g.CreatedAt = time.Unix(-1, 0) },
		"a root has no signer": func(g *trust.Generation) { g.Roots = rootsOf(newRoot(t, pki.ECDSAP256)) },
		"many roots": func(g *trust.Generation) {
			for range trust.MaxRoots {
				g.Roots = append(g.Roots, newRoot(t, pki.ECDSAP256).Root)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := good()
			spoil(&g)
			_, err := trust.Sign(g, root)
			require.Error(t, err)
		})
	}
	_, err = trust.Sign(good(), trust.Signer{Root: root.Root, Key: brokenKey{root.Key}})
	require.ErrorContains(t, err, "out of order")
}

type brokenKey struct{ crypto.Signer }

func (brokenKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, fmt.Errorf("the key is out of order")
}

// Whatever roots come and go, a host at any place that follows whatever part of
// the chain it is sent ends at the newest, or stays; never anywhere else.
func TestFollowProperty(t *testing.T) {
	var pool []trust.Signer
	for range 5 {
		pool = append(pool, newRoot(t, pki.ECDSAP256))
	}
	rapid.Check(t, func(rt *rapid.T) {
		h := &history{t: t}
		for range rapid.IntRange(1, 6).Draw(rt, "generations") {
			n := rapid.IntRange(1, 3).Draw(rt, "roots")
			h.add(rapid.Permutation(pool).Draw(rt, "pool")[:n]...)
		}
		number := rapid.IntRange(1, len(h.chain)).Draw(rt, "held")
		from := rapid.IntRange(0, len(h.chain)-1).Draw(rt, "from")
		to := rapid.IntRange(from+1, len(h.chain)).Draw(rt, "to")
		held := h.at(number)
		got, err := held.Follow(h.chain[from:to])
		switch {
		case err != nil && got.Number != held.Number:
			rt.Fatalf("an error, and yet it moved from %d to %d", held.Number, got.Number)
		case err == nil && (got.Number != uint64(to) || got.Number < held.Number):
			rt.Fatalf("from %d with %d to %d it came to %d", number, from+1, to, got.Number)
		case err != nil && from <= number && to >= number:
			rt.Fatalf("from %d with %d to %d: %v", number, from+1, to, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	h, _ := rotated(f)
	for _, signed := range h.chain[:3] {
		f.Add(signed)
	}
	f.Add([]byte{})
	held, known := h.at(1), []trust.Digest{h.at(1).Digest, h.at(2).Digest}
	f.Fuzz(func(t *testing.T, signed []byte) {
		g, err := trust.Parse(signed)
		if err != nil {
			require.ErrorIs(t, err, trust.ErrMalformed)
			return
		}
		require.LessOrEqual(t, len(g.Roots), trust.MaxRoots)
		require.Positive(t, g.Number)
		if _, err := held.Follow([][]byte{signed}); err == nil {
			require.Contains(t, known, g.Digest(), "followed what nobody has signed")
		}
	})
}
