package tlsutil_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var serial atomic.Int64

// authority is a CA for tests: a certificate and the key that it signs with.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := pki.GenerateKey(pki.DefaultKeyAlgorithm)
	require.NoError(t, err)
	return key
}

func sign(t testing.TB, tmpl *x509.Certificate, pub crypto.PublicKey, by authority) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, by.cert, pub, by.key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

func caTemplate(cn string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: cn},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

func newRoot(t testing.TB, cn string) authority {
	t.Helper()
	key, tmpl := newKey(t), caTemplate(cn)
	return authority{cert: sign(t, tmpl, key.Public(), authority{cert: tmpl, key: key}), key: key}
}

func (a authority) newIssuer(t testing.TB, cn string) authority {
	t.Helper()
	key := newKey(t)
	return authority{cert: sign(t, caTemplate(cn), key.Public(), a), key: key}
}

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func leafTemplate(usage x509.ExtKeyUsage) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)),
		NotBefore:    time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
}

// serverSource makes a certificate for server.example.com and 127.0.0.1; more follows the leaf in the chain.
func (a authority) serverSource(t testing.TB, more ...*x509.Certificate) *tlsutil.CertSource {
	t.Helper()
	tmpl := leafTemplate(x509.ExtKeyUsageServerAuth)
	tmpl.DNSNames, tmpl.IPAddresses = []string{"server.example.com"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	return a.source(t, tmpl, more...)
}

func (a authority) clientSource(t testing.TB, edit func(*x509.Certificate)) *tlsutil.CertSource {
	t.Helper()
	tmpl := leafTemplate(x509.ExtKeyUsageClientAuth)
	tmpl.Subject.CommonName = "client"
	if edit != nil {
		edit(tmpl)
	}
	return a.source(t, tmpl)
}

func (a authority) source(t testing.TB, tmpl *x509.Certificate, more ...*x509.Certificate) *tlsutil.CertSource {
	t.Helper()
	key := newKey(t)
	var source tlsutil.CertSource
	require.NoError(t, source.Set(append([]*x509.Certificate{sign(t, tmpl, key.Public(), a)}, more...), key))
	return &source
}

// serve runs a TLS server that reads one octet, to make TLS 1.3 show whether the client was accepted, answers with the
// client's common name and closes. It returns the address.
func serve(t testing.TB, config *tls.Config) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			answer(tls.Server(conn, config))
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		<-done
	})
	return listener.Addr().String()
}

func answer(conn *tls.Conn) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return
	}
	name := "nobody"
	if peers := conn.ConnectionState().PeerCertificates; len(peers) > 0 {
		name = peers[0].Subject.CommonName
	}
	_, _ = io.WriteString(conn, name)
}

// call connects, and returns what the server answers and the connection's state.
func call(t testing.TB, addr string, config *tls.Config) (string, tls.ConnectionState, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", tls.ConnectionState{}, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{1}); err != nil {
		return "", tls.ConnectionState{}, err
	}
	text, err := io.ReadAll(conn)
	return string(text), conn.(*tls.Conn).ConnectionState(), err
}

func clientConfig(t testing.TB, o tlsutil.ClientOptions) *tls.Config {
	t.Helper()
	config, err := tlsutil.ClientConfig(o)
	require.NoError(t, err)
	return config
}

func serverConfig(t testing.TB, o tlsutil.ServerOptions) *tls.Config {
	t.Helper()
	config, err := tlsutil.ServerConfig(o)
	require.NoError(t, err)
	return config
}

func TestCertSource(t *testing.T) {
	var source tlsutil.CertSource
	assert.Nil(t, source.Leaf())
	_, err := source.GetCertificate(nil)
	require.ErrorIs(t, err, tlsutil.ErrNoCertificate)
	_, err = source.GetClientCertificate(nil)
	require.ErrorIs(t, err, tlsutil.ErrNoCertificate)

	root, key := newRoot(t, "root"), newKey(t)
	leaf := sign(t, leafTemplate(x509.ExtKeyUsageServerAuth), key.Public(), root)
	require.NoError(t, source.Set([]*x509.Certificate{leaf, root.cert}, key))
	require.ErrorIs(t, source.Set([]*x509.Certificate{leaf}, newKey(t)), pki.ErrKeyMismatch)
	require.ErrorContains(t, source.Set(nil, key), "the chain is empty")
	assert.Same(t, leaf, source.Leaf(), "a refused certificate leaves the old one")
	cert, err := source.GetCertificate(nil)
	require.NoError(t, err)
	assert.Equal(t, [][]byte{leaf.Raw, root.cert.Raw}, cert.Certificate)
}

func TestServerCertificateIsReplacedWhileRunning(t *testing.T) {
	root := newRoot(t, "root")
	source := root.serverSource(t)
	addr := serve(t, serverConfig(t, tlsutil.ServerOptions{Source: source}))
	client := clientConfig(t, tlsutil.ClientOptions{Roots: root.pool(), ServerName: "server.example.com"})
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for range 3 {
		key, tmpl := newKey(t), leafTemplate(x509.ExtKeyUsageServerAuth)
		tmpl.DNSNames = []string{"server.example.com"}
		require.NoError(t, source.Set([]*x509.Certificate{sign(t, tmpl, key.Public(), root)}, key))
		_, state, err := call(t, addr, client)
		require.NoError(t, err)
		assert.Equal(t, source.Leaf().Raw, state.PeerCertificates[0].Raw)
		assert.False(t, state.DidResume)
		assert.EqualValues(t, tls.VersionTLS13, state.Version)
	}
}

func TestTLS12IsRefused(t *testing.T) {
	root := newRoot(t, "root")
	addr := serve(t, serverConfig(t, tlsutil.ServerOptions{Source: root.serverSource(t)}))
	_, _, err := call(t, addr, &tls.Config{RootCAs: root.pool(), MaxVersion: tls.VersionTLS12})
	require.ErrorContains(t, err, "protocol version")

	old := serve(t, &tls.Config{GetCertificate: root.serverSource(t).GetCertificate, MaxVersion: tls.VersionTLS12})
	_, _, err = call(t, old, clientConfig(t, tlsutil.ClientOptions{Roots: root.pool()}))
	require.ErrorContains(t, err, "protocol version")
}

func TestClientPolicies(t *testing.T) {
	root, clients := newRoot(t, "root"), newRoot(t, "clients")
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }
	sources := map[string]*tlsutil.CertSource{
		"none":             nil,
		"good":             clients.clientSource(t, nil),
		"stranger":         newRoot(t, "clients").clientSource(t, nil),
		"server usage":     clients.clientSource(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"expired":          clients.clientSource(t, expired),
		"expired stranger": newRoot(t, "clients").clientSource(t, expired),
	}
	for _, c := range []struct {
		name     string
		options  tlsutil.ServerOptions
		accepted map[string]string
	}{
		{"no certificate asked", tlsutil.ServerOptions{}, map[string]string{"none": "nobody", "good": "nobody",
			"stranger": "nobody", "server usage": "nobody", "expired": "nobody", "expired stranger": "nobody"}},
		{"optional", tlsutil.ServerOptions{Clients: tlsutil.OptionalClientCert}, map[string]string{"none": "nobody", "good": "client"}},
		{"required", tlsutil.ServerOptions{Clients: tlsutil.RequireClientCert}, map[string]string{"good": "client"}},
		{"expired too", tlsutil.ServerOptions{Clients: tlsutil.RequireClientCert, AcceptExpiredClients: true},
			map[string]string{"good": "client", "expired": "client"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.options.Source = root.serverSource(t)
			if c.options.Clients != tlsutil.NoClientCert {
				c.options.ClientRoots = clients.pool
			}
			addr := serve(t, serverConfig(t, c.options))
			for name, source := range sources {
				got, _, err := call(t, addr, clientConfig(t, tlsutil.ClientOptions{Roots: root.pool(), Source: source}))
				want, accepted := c.accepted[name]
				if !accepted {
					assert.Error(t, err, name)
					assert.Empty(t, got, name)
					continue
				}
				assert.NoError(t, err, name)
				assert.Equal(t, want, got, name)
			}
		})
	}
}

func TestClientRootsAreReadPerHandshake(t *testing.T) {
	root, first, second := newRoot(t, "root"), newRoot(t, "first"), newRoot(t, "second")
	var pool atomic.Pointer[x509.CertPool]
	addr := serve(t, serverConfig(t, tlsutil.ServerOptions{
		Source: root.serverSource(t), Clients: tlsutil.RequireClientCert, ClientRoots: pool.Load,
	}))
	client := clientConfig(t, tlsutil.ClientOptions{Roots: root.pool(), Source: second.clientSource(t, nil)})
	for _, c := range []struct {
		pool *x509.CertPool
		ok   bool
	}{{nil, false}, {first.pool(), false}, {second.pool(), true}, {first.pool(), false}} {
		pool.Store(c.pool)
		_, _, err := call(t, addr, client)
		assert.Equal(t, c.ok, err == nil, "%v", err)
	}
}

func TestEmptyClientSourceSaysSo(t *testing.T) {
	root := newRoot(t, "root")
	addr := serve(t, serverConfig(t, tlsutil.ServerOptions{
		Source: root.serverSource(t), Clients: tlsutil.RequireClientCert, ClientRoots: root.pool,
	}))
	_, _, err := call(t, addr, clientConfig(t, tlsutil.ClientOptions{Roots: root.pool(), Source: new(tlsutil.CertSource)}))
	require.ErrorIs(t, err, tlsutil.ErrNoCertificate)
}

func TestOptionsAreChecked(t *testing.T) {
	source, pool := new(tlsutil.CertSource), newRoot(t, "root").pool
	for _, o := range []tlsutil.ServerOptions{
		{},
		{Source: source, Clients: tlsutil.RequireClientCert},
		{Source: source, Clients: tlsutil.OptionalClientCert},
		{Source: source, Clients: 7, ClientRoots: pool},
		{Source: source, ClientRoots: pool},
		{Source: source, AcceptExpiredClients: true},
	} {
		config, err := tlsutil.ServerConfig(o)
		assert.ErrorContains(t, err, "TLS server: ")
		assert.Nil(t, config)
	}
	for _, o := range []tlsutil.ClientOptions{
		{},
		{Roots: pool(), SystemRoots: true},
		{Roots: pool(), Pin: new(tlsutil.PinnedRoot), ServerName: "x"},
		{Pin: new(tlsutil.PinnedRoot)},
	} {
		config, err := tlsutil.ClientConfig(o)
		assert.ErrorContains(t, err, "TLS client: ")
		assert.Nil(t, config)
	}
	config, err := tlsutil.ClientConfig(tlsutil.ClientOptions{SystemRoots: true})
	require.NoError(t, err)
	assert.Nil(t, config.RootCAs, "nil is how crypto/tls says the system's roots")
	assert.False(t, config.InsecureSkipVerify)
}
