package clusterca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
)

func TestCreatedRoot(t *testing.T) {
	stored := found(t, ca.NewSealKey())
	roots := parse(t, stored)
	root := roots.Signer()
	spki, err := pki.PublicKeyFingerprint(root.PublicKey)
	require.NoError(t, err)
	assert.Equal(t, spki[:16], roots.ClusterID)
	assert.Equal(t, elliptic.P256(), root.PublicKey.(*ecdsa.PublicKey).Curve)
	assert.Equal(t, x509.KeyUsageCertSign, root.KeyUsage)
	assert.True(t, root.IsCA && root.MaxPathLenZero)
	assert.Equal(t, noon.Add(RootLifetime), root.NotAfter)
	assert.Equal(t, noon.Add(-24*time.Hour), root.NotBefore)
	assert.Equal(t, "certctl://"+roots.ClusterID, root.URIs[0].String())
	assert.Equal(t, []string{stored.Authorities[0].Fingerprint()}, roots.Fingerprints())
	assert.NotEqual(t, roots.ClusterID, parse(t, found(t, ca.NewSealKey())).ClusterID)
}

func TestIssuedCertificate(t *testing.T) {
	key := ca.NewSealKey()
	stored := found(t, key)
	roots := parse(t, stored)
	for _, id := range []string{"node-abcdefghij", "Knoten 1/Köln", "a%2Fb", "..", "a?b#c", strings.Repeat("n", 64)} {
		cert, err := Issue(stored, key, id, newKey(t).Public(), noon)
		require.NoError(t, err)
		assert.Equal(t, noon.Add(NodeLifetime), cert.NotAfter)
		assert.Equal(t, noon.Add(-24*time.Hour), cert.NotBefore)
		assert.Equal(t, noon.Add(20*24*time.Hour), RenewAt(cert))
		assert.Equal(t, x509.KeyUsageDigitalSignature, cert.KeyUsage)
		assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, cert.ExtKeyUsage)
		assert.Len(t, cert.URIs, 1)
		assert.Equal(t, roots.Fingerprints()[0], roots.SignerOf(cert))
		for _, role := range []Role{Client, Server} {
			got, err := roots.Verify([]*x509.Certificate{cert}, role, noon)
			require.NoError(t, err, "%q", id)
			assert.Equal(t, id, got)
		}
		assert.Equal(t, id, NodeOf(cert))
	}
}

// Nothing outlives the root, and a renewal comes the nearer the nearer its end is.
func TestIssueNearTheEndOfTheRoot(t *testing.T) {
	key := ca.NewSealKey()
	stored := found(t, key)
	end := parse(t, stored).Signer().NotAfter
	cert, err := Issue(stored, key, "n", newKey(t).Public(), end.Add(-3*time.Hour))
	require.NoError(t, err)
	assert.Equal(t, end, cert.NotAfter)
	assert.Equal(t, end.Add(-time.Hour), RenewAt(cert))
	_, err = Issue(stored, key, "n", newKey(t).Public(), end)
	require.ErrorIs(t, err, ErrExpired)
	// A clock that was behind when the root was made.
	cert, err = Issue(stored, key, "n", newKey(t).Public(), noon.Add(-time.Hour))
	require.NoError(t, err)
	assert.Equal(t, parse(t, stored).Signer().NotBefore, cert.NotBefore)
}

func TestIssueRefuses(t *testing.T) {
	key := ca.NewSealKey()
	stored := found(t, key)
	for _, id := range []string{"", strings.Repeat("n", 65), "a\nb", "\xff"} {
		_, err := Issue(stored, key, id, newKey(t).Public(), noon)
		require.ErrorIs(t, err, ErrNodeID, "%q", id)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	_, err = Issue(stored, key, "n", weak.Public(), noon)
	require.ErrorIs(t, err, pki.ErrWeakKey)
	_, err = Issue(stored, ca.NewSealKey(), "n", newKey(t).Public(), noon)
	require.ErrorIs(t, err, ca.ErrWrongSealKey)
	_, err = Issue(&fleet.ClusterCA{}, key, "n", newKey(t).Public(), noon)
	require.ErrorIs(t, err, ErrDamaged)
}

// forge signs whatever it is asked to with a cluster's own root.
func forge(t *testing.T, roots *Roots, key ca.SealKey, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	signer, err := roots.Unseal(key)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: ca.SerialNumber(), NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{nodeURI(roots.ClusterID, "n")},
	}
	change(template)
	return sign(t, template, roots.Signer(), signer)
}

func sign(t *testing.T, template, issuer *x509.Certificate, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	cert, err := ca.Sign(template, newKey(t).Public(), issuer, signer)
	require.NoError(t, err)
	return cert
}

func TestVerifyRefuses(t *testing.T) {
	key := ca.NewSealKey()
	stored := found(t, key)
	roots := parse(t, stored)
	uri := func(text string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			parsed, err := url.Parse(text)
			require.NoError(t, err)
			c.URIs = []*url.URL{parsed}
		}
	}
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		role   Role
		want   error
	}{
		"expired":           {func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Second) }, Client, ErrNotNow},
		"of the future":     {func(c *x509.Certificate) { c.NotBefore = noon.Add(time.Second) }, Client, ErrNotNow},
		"no client":         {func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }, Client, ErrNotNode},
		"no server":         {func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }, Server, ErrNotNode},
		"no signing":        {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }, Client, ErrNotNode},
		"no URI":            {func(c *x509.Certificate) { c.URIs = nil }, Client, ErrNotNode},
		"two URIs":          {func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }, Client, ErrNotNode},
		"a DNS name too":    {func(c *x509.Certificate) { c.DNSNames = []string{"example.com"} }, Client, ErrNotNode},
		"an agent":          {uri("certctl://" + roots.ClusterID + "/agent/n"), Client, ErrNotNode},
		"another scheme":    {uri("spiffe://" + roots.ClusterID + "/node/n"), Client, ErrNotNode},
		"no id":             {uri("certctl://" + roots.ClusterID + "/node/"), Client, ErrNotNode},
		"another spelling":  {uri("certctl://" + roots.ClusterID + "/node/%6e"), Client, ErrNotNode},
		"a query":           {uri("certctl://" + roots.ClusterID + "/node/n?x"), Client, ErrNotNode},
		"a fragment":        {uri("certctl://" + roots.ClusterID + "/node/n#x"), Client, ErrNotNode},
		"a user":            {uri("certctl://u@" + roots.ClusterID + "/node/n"), Client, ErrNotNode},
		"a port":            {uri("certctl://" + roots.ClusterID + ":1/node/n"), Client, ErrNotNode},
		"no cluster":        {uri("certctl:///node/n"), Client, ErrNotNode},
		"another cluster's": {uri("certctl://0123456789abcdef/node/n"), Client, ErrUntrusted},
		"a CA": {func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
		}, Client, ErrNotNode},
	} {
		t.Run(name, func(t *testing.T) {
			cert := forge(t, roots, key, c.change)
			_, err := roots.Verify([]*x509.Certificate{cert}, c.role, noon)
			require.ErrorIs(t, err, c.want)
		})
	}
	_, err := roots.Verify(nil, Client, noon)
	require.ErrorIs(t, err, ErrNotNode)
	_, err = roots.Verify([]*x509.Certificate{roots.Signer()}, Client, noon)
	require.ErrorIs(t, err, ErrNotNode, "the root itself")
	assert.Empty(t, NodeOf(roots.Signer()))

	other := found(t, key)
	foreign, err := Issue(other, key, "n", newKey(t).Public(), noon)
	require.NoError(t, err)
	_, err = roots.Verify([]*x509.Certificate{foreign, parse(t, other).Signer()}, Client, noon)
	require.ErrorIs(t, err, ErrUntrusted, "another cluster's, which brings its root along")
	assert.Empty(t, roots.SignerOf(foreign))
}

// A node cannot sign for others: its certificate is no CA, and what comes in
// between is not looked at.
func TestNodesDoNotSign(t *testing.T) {
	key := ca.NewSealKey()
	stored := found(t, key)
	roots := parse(t, stored)
	nodeKey := newKey(t)
	node, err := Issue(stored, key, "n", nodeKey.Public(), noon)
	require.NoError(t, err)
	below := sign(t, &x509.Certificate{
		SerialNumber: ca.SerialNumber(), NotBefore: noon, NotAfter: noon.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{nodeURI(roots.ClusterID, "other")},
	}, node, nodeKey)
	_, err = roots.Verify([]*x509.Certificate{below, node}, Client, noon)
	require.ErrorIs(t, err, ErrUntrusted)
}

func TestParseRefuses(t *testing.T) {
	key := ca.NewSealKey()
	stored, other := found(t, key), found(t, key)
	node, err := Issue(stored, key, "n", newKey(t).Public(), noon)
	require.NoError(t, err)
	one := stored.Authorities[0]
	with := func(change func(*fleet.ClusterAuthority)) fleet.ClusterAuthority {
		a := one
		change(&a)
		return a
	}
	published := with(func(a *fleet.ClusterAuthority) { a.State = fleet.AuthorityPublished })
	foreign := other.Authorities[0]
	foreign.State = fleet.AuthorityRetiring
	for name, list := range map[string][]fleet.ClusterAuthority{
		"nothing":           {},
		"too many":          make([]fleet.ClusterAuthority, fleet.MaxClusterAuthorities+1),
		"no certificate":    {with(func(a *fleet.ClusterAuthority) { a.Certificate = []byte("x") })},
		"no root":           {with(func(a *fleet.ClusterAuthority) { a.Certificate = node.Raw })},
		"none that signs":   {published},
		"two that sign":     {one, one},
		"of two clusters":   {one, foreign},
		"an unknown state":  {with(func(a *fleet.ClusterAuthority) { a.State = "x" })},
		"the order changed": {published, one},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(&fleet.ClusterCA{Authorities: list})
			require.ErrorIs(t, err, ErrDamaged)
		})
	}
	// Of the built-in CA.
	builtIn, err := ca.New(ca.Config{SealKey: key.Reveal(), Name: "Example", LeafLifetime: time.Hour, IdentityLifetime: time.Hour})
	require.NoError(t, err)
	authorities, err := builtIn.Create()
	require.NoError(t, err)
	_, err = Parse(&fleet.ClusterCA{Authorities: []fleet.ClusterAuthority{{Certificate: authorities[0].Certificate, SealedKey: authorities[0].SealedKey}}})
	require.ErrorIs(t, err, ErrDamaged)
}

func TestSealedKeysAreBoundToTheirRoot(t *testing.T) {
	key := ca.NewSealKey()
	stored, other := found(t, key), found(t, key)
	stored.Authorities[0].SealedKey = other.Authorities[0].SealedKey
	_, err := parse(t, stored).Unseal(key)
	require.ErrorIs(t, err, ca.ErrSealDamaged)
}

// Whatever is read as a name is written in the same way, and names one node.
func FuzzNodeURI(f *testing.F) {
	for _, text := range []string{
		"certctl://0123456789abcdef/node/n", "certctl://0123456789abcdef/node/a%2Fb", "certctl://0123456789abcdef/node/%6E",
		"certctl://0123456789ABCDEF/node/n", "certctl:0123456789abcdef/node/n", "certctl://0123456789abcdef/node/K%C3%B6ln%201",
		"certctl://0123456789abcdef//node/n", "certctl://0123456789abcdef/node/%00",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		uri, err := url.Parse(text)
		if err != nil {
			return
		}
		cluster, node, err := parseNodeURI(uri)
		if err != nil {
			return
		}
		require.NoError(t, CheckNodeID(node))
		require.NoError(t, checkClusterID(cluster))
		again, err := url.Parse(nodeURI(cluster, node).String())
		require.NoError(t, err)
		require.Equal(t, uri.String(), again.String())
		sameCluster, same, err := parseNodeURI(again)
		require.NoError(t, err)
		require.Equal(t, node, same)
		require.Equal(t, cluster, sameCluster)
	})
}
