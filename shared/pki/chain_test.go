package pki_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/shared/pki"
)

func subjects(chain []*x509.Certificate) []string {
	var list []string
	for _, cert := range chain {
		if cert.Subject.CommonName == "" {
			list = append(list, "leaf")
			continue
		}
		list = append(list, cert.Subject.CommonName)
	}
	return list
}

func TestChainPEMRoundTrip(t *testing.T) {
	root := newRoot(t, "root")
	chain := []*x509.Certificate{root.issue(t, newKey(t).Public(), "a.example.com"), root.cert}
	text := pki.EncodeChainPEM(chain)
	back, err := pki.ParseChainPEM(append([]byte("# a comment\n"), text...))
	require.NoError(t, err)
	require.Len(t, back, 2)
	assert.True(t, chain[0].Equal(back[0]) && chain[1].Equal(back[1]))
	assert.Equal(t, text, pki.EncodeChainPEM(back))
}

func TestParseChainPEMRefuses(t *testing.T) {
	root := newRoot(t, "root")
	one := string(pki.EncodeChainPEM([]*x509.Certificate{root.cert}))
	key, err := pki.MarshalKeyPEM(newKey(t))
	require.NoError(t, err)
	damaged := strings.Replace(one, "\nMII", "\n!!!", 1)
	require.NotEqual(t, one, damaged)
	for _, c := range []struct{ name, text, wants string }{
		{"empty", "", "no PEM block found"},
		{"too large", strings.Repeat(" ", pki.MaxChainPEM+1), "at most 1048576 are read"},
		{"too many", strings.Repeat(one, 11), "11 certificates; a chain has at most 10"},
		{"second damaged", one + damaged, "2 blocks begin but 1 are whole"},
		{"second truncated", one + one[:len(one)/2], "2 blocks begin but 1 are whole"},
		{"key among them", one + string(key), `block 2 is a "PRIVATE KEY"`},
		{"not a certificate", one + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), "certificate 2: x509"},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain, err := pki.ParseChainPEM([]byte(c.text))
			require.ErrorContains(t, err, c.wants)
			assert.Nil(t, chain)
		})
	}
}

func TestSortChainFindsTheOrder(t *testing.T) {
	root := newRoot(t, "root")
	upper := root.newIssuer(t, "upper")
	lower := upper.newIssuer(t, "lower")
	leaf := lower.issue(t, newKey(t).Public(), "a.example.com")
	all := []*x509.Certificate{leaf, lower.cert, upper.cert, root.cert, lower.cert}
	rapid.Check(t, func(t *rapid.T) {
		shuffled := rapid.Permutation(all).Draw(t, "order")
		before := append([]*x509.Certificate(nil), shuffled...)
		chain, err := pki.SortChain(shuffled)
		require.NoError(t, err)
		require.Equal(t, []string{"leaf", "lower", "upper"}, subjects(chain))
		require.Equal(t, before, shuffled, "the input must stay as it was")
	})
}

func TestSortChainSpecialForms(t *testing.T) {
	root, other := newRoot(t, "root"), newRoot(t, "other")
	issuer := root.newIssuer(t, "issuer")
	leaf := issuer.issue(t, newKey(t).Public(), "a.example.com")
	// The same issuer, certified by another root too.
	crossed := sign(t, template("issuer", true), issuer.key.Public(), other)

	for _, c := range []struct {
		name  string
		certs []*x509.Certificate
		wants []string
	}{
		{"leaf alone", []*x509.Certificate{leaf}, []string{"leaf"}},
		{"self-signed alone", []*x509.Certificate{root.cert}, []string{"root"}},
		{"cross-signed, first way", []*x509.Certificate{leaf, issuer.cert, crossed, root.cert, other.cert}, []string{"leaf", "issuer"}},
		{"issuers without leaf", []*x509.Certificate{root.cert, issuer.cert}, []string{"issuer"}},
	} {
		chain, err := pki.SortChain(c.certs)
		require.NoError(t, err, c.name)
		assert.Equal(t, c.wants, subjects(chain), c.name)
	}
	chain, err := pki.SortChain([]*x509.Certificate{leaf, crossed, issuer.cert})
	require.NoError(t, err)
	assert.Same(t, crossed, chain[1], "the order given decides between two ways up")
}

func TestSortChainRefuses(t *testing.T) {
	root := newRoot(t, "root")
	issuer := root.newIssuer(t, "issuer")
	leaf := issuer.issue(t, newKey(t).Public(), "a.example.com")
	// Same name as the true issuer, another key: only the signature tells them apart.
	impostor := newRoot(t, "other").newIssuer(t, "issuer")

	for name, certs := range map[string][]*x509.Certificate{
		"nothing":        nil,
		"issuer missing": {leaf, root.cert},
		"impostor":       {leaf, impostor.cert},
		"two leaves":     {leaf, issuer.issue(t, newKey(t).Public(), "b.example.com"), issuer.cert},
		"stranger":       {leaf, issuer.cert, newRoot(t, "stranger").cert},
		"too many":       make([]*x509.Certificate, 11),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := pki.SortChain(certs)
			require.ErrorIs(t, err, pki.ErrBrokenChain)
		})
	}
}

func TestSortChainRing(t *testing.T) {
	// Two CAs that certified each other: there is no leaf to start from.
	a, b := newRoot(t, "a"), newRoot(t, "b")
	_, err := pki.SortChain([]*x509.Certificate{
		sign(t, template("a", true), a.key.Public(), b),
		sign(t, template("b", true), b.key.Public(), a),
	})
	require.ErrorIs(t, err, pki.ErrBrokenChain)
	assert.ErrorContains(t, err, "ring")
}

func TestCheckIssued(t *testing.T) {
	root := newRoot(t, "root")
	issuer := root.newIssuer(t, "issuer")
	key := newKey(t)
	leaf := issuer.issue(t, key.Public(), "a.example.com", "B.example.com", "*.example.com")
	names := pki.MustParseNames("a.example.com", "b.example.com")

	chain, err := pki.CheckIssued([]*x509.Certificate{root.cert, issuer.cert, leaf}, key.Public(), names, noon)
	require.NoError(t, err)
	assert.Equal(t, []string{"leaf", "issuer"}, subjects(chain))
	require.NoError(t, pki.MatchKey(leaf, key))

	old := template("old", true)
	old.NotAfter = noon.Add(-time.Minute)
	oldIssuer := authority{key: newKey(t)}
	oldIssuer.cert = sign(t, old, oldIssuer.key.Public(), root)
	underscored := template("", false)
	underscored.DNSNames = []string{"a_b.example.com"}

	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		names pki.Names
		now   time.Time
		wants error
	}{
		{"nothing", nil, names, noon, pki.ErrBrokenChain},
		{"other key", []*x509.Certificate{issuer.issue(t, newKey(t).Public(), "a.example.com"), issuer.cert}, names, noon, pki.ErrKeyMismatch},
		{"CA certificate", []*x509.Certificate{sign(t, template("ca", true), key.Public(), issuer), issuer.cert}, names, noon, pki.ErrNotLeaf},
		{"issuer missing", []*x509.Certificate{leaf, root.cert}, names, noon, pki.ErrBrokenChain},
		{"just expired", []*x509.Certificate{leaf, issuer.cert}, names, leaf.NotAfter.Add(time.Nanosecond), pki.ErrExpired},
		{"issuer expired", []*x509.Certificate{oldIssuer.issue(t, key.Public(), "a.example.com", "b.example.com"), oldIssuer.cert}, names, noon, pki.ErrExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain, err := pki.CheckIssued(c.chain, key.Public(), c.names, c.now)
			require.ErrorIs(t, err, c.wants)
			assert.Nil(t, chain)
		})
	}

	_, err = pki.CheckIssued([]*x509.Certificate{leaf, issuer.cert}, key.Public(), pki.MustParseNames("a.example.com", "c.example.com", "192.0.2.1"), noon)
	var missing *pki.MissingNamesError
	require.ErrorAs(t, err, &missing)
	assert.Equal(t, pki.MustParseNames("c.example.com", "192.0.2.1"), missing.Missing, "the wildcard does not stand in for c")

	_, err = pki.CheckIssued([]*x509.Certificate{sign(t, underscored, key.Public(), issuer), issuer.cert}, key.Public(), names, noon)
	require.ErrorContains(t, err, `name "a_b.example.com"`)

	_, err = pki.CheckIssued([]*x509.Certificate{leaf, issuer.cert}, key.Public(), names, leaf.NotAfter)
	require.NoError(t, err, "notAfter itself is inside the validity (RFC 5280 section 4.1.2.5)")
	_, err = pki.CheckIssued([]*x509.Certificate{leaf, issuer.cert}, key.Public(), names, leaf.NotBefore.Add(-time.Hour))
	require.NoError(t, err, "a slow clock here must not make a good certificate bad")
	require.ErrorIs(t, pki.MatchKey(leaf, newKey(t)), pki.ErrKeyMismatch)
}

func TestFingerprints(t *testing.T) {
	key := newKey(t)
	tmpl := template("x", false)
	tmpl.SerialNumber = big.NewInt(0x0abc)
	root := newRoot(t, "root")
	cert := sign(t, tmpl, key.Public(), root)

	sum := sha256.Sum256(cert.Raw)
	assert.Equal(t, hex.EncodeToString(sum[:]), pki.Fingerprint(cert))
	spki := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	got, err := pki.PublicKeyFingerprint(key.Public())
	require.NoError(t, err)
	assert.Equal(t, hex.EncodeToString(spki[:]), got)
	_, err = pki.PublicKeyFingerprint("no key")
	require.Error(t, err)

	assert.Equal(t, "0abc", pki.SerialHex(cert))
	assert.Equal(t, "00", pki.SerialHex(&x509.Certificate{SerialNumber: new(big.Int)}))
	assert.Equal(t, "-05", pki.SerialHex(&x509.Certificate{SerialNumber: big.NewInt(-5)}))
}

func FuzzParseChainPEM(f *testing.F) {
	root := newRoot(f, "root")
	leaf := root.issue(f, newKey(f).Public(), "a.example.com")
	text := pki.EncodeChainPEM([]*x509.Certificate{leaf, root.cert})
	f.Add(text)
	f.Add(text[:len(text)-40])
	f.Add(bytes.Repeat([]byte("-----BEGIN CERTIFICATE-----\n"), 3))
	f.Fuzz(func(t *testing.T, data []byte) {
		chain, err := pki.ParseChainPEM(data)
		if err != nil {
			return
		}
		require.NotEmpty(t, chain)
		require.LessOrEqual(t, len(chain), pki.MaxChain)
		back, err := pki.ParseChainPEM(pki.EncodeChainPEM(chain))
		require.NoError(t, err)
		require.Len(t, back, len(chain))
		if sorted, err := pki.SortChain(chain); err == nil {
			require.NotEmpty(t, sorted)
		}
	})
}
