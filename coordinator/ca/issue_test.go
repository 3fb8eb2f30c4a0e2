package ca

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/pki"
)

func verify(t *testing.T, ca *CA, chain []*x509.Certificate, usage x509.ExtKeyUsage, name string, at time.Time) error {
	t.Helper()
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca.Root())
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: at, DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	return err
}

func TestIssueLeaf(t *testing.T) {
	ca, _ := newCA(t, &clock{noon})
	names := pki.MustParseNames("www.example.com", "*.api.example.com", "192.0.2.7")
	for _, algorithm := range []pki.KeyAlgorithm{pki.ECDSAP256, pki.RSA2048, pki.Ed25519} {
		key, err := pki.GenerateKey(algorithm)
		require.NoError(t, err)
		leaf, err := ca.IssueLeaf(names, key.Public(), 0)
		require.NoError(t, err)
		chain, err := ca.LeafChain(leaf)
		require.NoError(t, err)
		require.NoError(t, verify(t, ca, chain, x509.ExtKeyUsageServerAuth, "www.example.com", noon))
		require.NoError(t, verify(t, ca, chain, x509.ExtKeyUsageClientAuth, "a.api.example.com", noon))
		checked, err := pki.CheckIssued(chain, key.Public(), names, noon)
		require.NoError(t, err, "as an agent checks it")
		assert.Len(t, checked, 2)
		assert.False(t, leaf.IsCA)
		assert.Empty(t, leaf.URIs)
		assert.Equal(t, noon.Add(30*24*time.Hour), leaf.NotAfter)
		assert.Equal(t, noon.Add(-time.Minute), leaf.NotBefore)
		assert.Equal(t, algorithm == pki.RSA2048, leaf.KeyUsage&x509.KeyUsageKeyEncipherment != 0)
		assert.NotEmpty(t, leaf.AuthorityKeyId)
		assert.NotEmpty(t, leaf.SubjectKeyId)
	}
}

func TestLeafWithoutACommonName(t *testing.T) {
	ca, _ := newCA(t, &clock{noon})
	long := strings.Repeat("a", 60) + ".example.com"
	for _, names := range []pki.Names{pki.MustParseNames("192.0.2.7"), pki.MustParseNames(long)} {
		leaf, err := ca.IssueLeaf(names, newKey(t).Public(), 0)
		require.NoError(t, err)
		assert.Empty(t, leaf.Subject.Names)
		for _, ext := range leaf.Extensions {
			if ext.Id.String() == "2.5.29.17" {
				assert.True(t, ext.Critical, "RFC 5280, section 4.1.2.6")
			}
		}
	}
}

func TestLifetimes(t *testing.T) {
	ca, _ := newCA(t, &clock{noon.Add(300 * time.Millisecond)})
	names, pub := pki.MustParseNames("www.example.com"), newKey(t).Public()
	for _, c := range []struct{ asked, got, back time.Duration }{
		{0, 30 * 24 * time.Hour, time.Minute},
		{1000 * 24 * time.Hour, 30 * 24 * time.Hour, time.Minute},
		{24 * time.Hour, 24 * time.Hour, time.Minute},
		{10 * time.Minute, 10 * time.Minute, time.Minute},
		{time.Minute, time.Minute, 6 * time.Second},
		{MinLifetime, MinLifetime, time.Second},
	} {
		leaf, err := ca.IssueLeaf(names, pub, c.asked)
		require.NoError(t, err)
		assert.Equal(t, noon.Add(c.got), leaf.NotAfter, "asked for %v", c.asked)
		assert.Equal(t, noon.Add(-c.back), leaf.NotBefore.Round(time.Second), "asked for %v", c.asked)
	}
	_, err := ca.IssueLeaf(names, pub, MinLifetime-1)
	require.ErrorContains(t, err, "ask for at least 10s")
}

func TestIssueRefuses(t *testing.T) {
	ca, _ := newCA(t, &clock{noon})
	names, pub := pki.MustParseNames("www.example.com"), newKey(t).Public()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)

	_, err = ca.IssueLeaf(pki.Names{}, pub, 0)
	require.ErrorIs(t, err, pki.ErrNoNames)
	_, err = ca.IssueServer(pki.Names{}, pub)
	require.ErrorIs(t, err, pki.ErrNoNames)
	_, err = ca.IssueLeaf(names, weak.Public(), 0)
	require.ErrorIs(t, err, pki.ErrWeakKey)
	_, err = ca.IssueIdentity("agent", weak.Public())
	require.ErrorIs(t, err, pki.ErrWeakKey)
	for _, id := range []string{"", "../root", "a/b", "a b", "ä", strings.Repeat("a", 65)} {
		_, err = ca.IssueIdentity(id, pub)
		require.Error(t, err, id)
	}
}

func TestIssueIdentity(t *testing.T) {
	now := &clock{noon}
	ca, _ := newCA(t, now)
	identity, err := ca.IssueIdentity("agent-1", newKey(t).Public())
	require.NoError(t, err)
	chain, err := ca.IdentityChain(identity)
	require.NoError(t, err)
	require.NoError(t, verify(t, ca, chain, x509.ExtKeyUsageClientAuth, "", noon), "as an agent checks it")
	require.Error(t, verify(t, ca, chain, x509.ExtKeyUsageServerAuth, "", noon), "an identity is no server")
	assert.Equal(t, "certctl://"+ca.ClusterID()+"/agent/agent-1", identity.URIs[0].String())
	assert.Equal(t, noon.Add(10*24*time.Hour), identity.NotAfter)

	for _, at := range []time.Time{noon, noon.Add(-24 * time.Hour), noon.Add(365 * 24 * time.Hour)} {
		now.at = at
		id, err := ca.AgentOf(identity)
		require.NoError(t, err, "it names its agent at any time")
		assert.Equal(t, "agent-1", id)
	}
}

// What an agent can order must never open the door that is meant for identities.
func TestNothingElsePassesForAnIdentity(t *testing.T) {
	ca, _ := newCA(t, &clock{noon})
	other, _ := newCA(t, &clock{noon})
	key := newKey(t)
	m, err := ca.opened()
	require.NoError(t, err)
	uri := func(text string) []*url.URL {
		u, err := url.Parse(text)
		require.NoError(t, err)
		return []*url.URL{u}
	}
	own := "certctl://" + ca.ClusterID() + "/agent/"
	forged := func(by authority, uris []*url.URL, change func(*x509.Certificate)) *x509.Certificate {
		template := endEntityTemplate(key.Public(), x509.ExtKeyUsageClientAuth)
		template.Subject = pkix.Name{CommonName: "agent-1"}
		template.URIs = uris
		template.NotBefore, template.NotAfter = Validity(noon, leafBackdate, time.Hour, by.cert)
		if change != nil {
			change(template)
		}
		cert, err := Sign(template, key.Public(), by.cert, by.key)
		require.NoError(t, err)
		return cert
	}
	issued := func(cert *x509.Certificate, err error) *x509.Certificate {
		require.NoError(t, err)
		return cert
	}
	identity := forged(m.hierarchies[0].identity, uri(own+"agent-1"), nil)
	id, err := ca.AgentOf(identity)
	require.NoError(t, err, "the control")
	assert.Equal(t, "agent-1", id)

	selfSigned := func() *x509.Certificate {
		template := endEntityTemplate(key.Public(), x509.ExtKeyUsageClientAuth)
		template.URIs = uri(own + "agent-1")
		template.NotBefore, template.NotAfter = Validity(noon, leafBackdate, time.Hour, nil)
		return issued(Sign(template, key.Public(), nil, key))
	}
	for name, cert := range map[string]*x509.Certificate{
		"a leaf":              issued(ca.IssueLeaf(pki.MustParseNames("agent-1"), key.Public(), 0)),
		"the server's":        issued(ca.IssueServer(pki.MustParseNames("localhost"), key.Public())),
		"issuing CA's forged": forged(m.hierarchies[0].issuing, uri(own+"agent-1"), nil),
		"of another cluster":  issued(other.IssueIdentity("agent-1", key.Public())),
		"self-signed":         selfSigned(),
		"the identity CA":     m.hierarchies[0].identity.cert,
		"the root":            m.hierarchies[0].root,
		"no URI":              forged(m.hierarchies[0].identity, nil, nil),
		"two URIs":            forged(m.hierarchies[0].identity, append(uri(own+"agent-1"), uri(own+"agent-2")...), nil),
		"another scheme":      forged(m.hierarchies[0].identity, uri("https://"+ca.ClusterID()+"/agent/agent-1"), nil),
		"another cluster":     forged(m.hierarchies[0].identity, uri("certctl://0123456789abcdef/agent/agent-1"), nil),
		"another path":        forged(m.hierarchies[0].identity, uri("certctl://"+ca.ClusterID()+"/node/agent-1"), nil),
		"a longer path":       forged(m.hierarchies[0].identity, uri(own+"agent-1/x"), nil),
		"a query":             forged(m.hierarchies[0].identity, uri(own+"agent-1?x=y"), nil),
		"a user":              forged(m.hierarchies[0].identity, uri("certctl://me@"+ca.ClusterID()+"/agent/agent-1"), nil),
		"an escaped id":       forged(m.hierarchies[0].identity, uri(own+"agent%2d1"), nil),
		"no id":               forged(m.hierarchies[0].identity, uri(own), nil),
		"a DNS name too":      forged(m.hierarchies[0].identity, uri(own+"agent-1"), func(c *x509.Certificate) { c.DNSNames = []string{"example.com"} }),
		"for servers only": forged(m.hierarchies[0].identity, uri(own+"agent-1"), func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ca.AgentOf(cert)
			require.ErrorIs(t, err, ErrNotIdentity)
		})
	}
}

func TestServerChainHoldsTheRoot(t *testing.T) {
	ca, _ := newCA(t, &clock{noon})
	leaf, err := ca.IssueServer(pki.MustParseNames("pki.example.com"), newKey(t).Public())
	require.NoError(t, err)
	chain, err := ca.ServerChain(leaf)
	require.NoError(t, err)
	require.Len(t, chain, 3)
	assert.True(t, chain[2].Equal(ca.Root()), "who knows only the root's fingerprint finds it")
	require.NoError(t, verify(t, ca, chain, x509.ExtKeyUsageServerAuth, "pki.example.com", noon))
	require.Error(t, verify(t, ca, chain, x509.ExtKeyUsageClientAuth, "", noon))
}

// A host whose clock is hours slow reaches a coordinator that was made a moment
// ago, and hears from it what time it is.
func TestASlowClockAcceptsTheServer(t *testing.T) {
	ca, _ := newCA(t, &clock{noon})
	leaf, err := ca.IssueServer(pki.MustParseNames("pki.example.com"), newKey(t).Public())
	require.NoError(t, err)
	chain, err := ca.ServerChain(leaf)
	require.NoError(t, err)
	for _, slow := range []time.Duration{time.Minute, 3 * time.Hour, 23 * time.Hour} {
		assert.NoError(t, verify(t, ca, chain, x509.ExtKeyUsageServerAuth, "pki.example.com", noon.Add(-slow)), "%v slow", slow)
	}
	assert.Equal(t, noon.Add(ServerLifetime), leaf.NotAfter)
}

func TestSerialNumbers(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		serial := SerialNumber()
		assert.Equal(t, 1, serial.Sign())
		require.Len(t, serial.Bytes(), 16)
		require.Zero(t, serial.Bytes()[0]&0x80, "16 octets on the wire too")
		require.False(t, seen[serial.String()])
		seen[serial.String()] = true
	}
}
