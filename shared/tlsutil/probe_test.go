package tlsutil_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/tlsutil"
)

func TestProbeServedTrustsNobody(t *testing.T) {
	root := newRoot(t, "root")
	issuer := root.newIssuer(t, "issuer")
	source := issuer.serverSource(t, issuer.cert)
	expired := issuer.source(t, func() *x509.Certificate {
		tmpl := leafTemplate(x509.ExtKeyUsageServerAuth)
		tmpl.NotAfter = time.Now().Add(-time.Hour)
		return tmpl
	}(), issuer.cert)
	for _, c := range []struct {
		name   string
		source *tlsutil.CertSource
		config *tls.Config
	}{
		{"TLS 1.3", source, serverConfig(t, tlsutil.ServerOptions{Source: source})},
		{"expired", expired, serverConfig(t, tlsutil.ServerOptions{Source: expired})},
		{"TLS 1.3, client certificate required", source, serverConfig(t, tlsutil.ServerOptions{
			Source: source, Clients: tlsutil.RequireClientCert, ClientRoots: root.pool})},
		{"TLS 1.2", source, &tls.Config{GetCertificate: source.GetCertificate, MaxVersion: tls.VersionTLS12}},
		{"TLS 1.2, client certificate required", source, &tls.Config{
			GetCertificate: source.GetCertificate, MaxVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert}},
		{"TLS 1.0", source, &tls.Config{
			GetCertificate: source.GetCertificate, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain, err := tlsutil.ProbeServed(t.Context(), tlsutil.Probe{Address: serve(t, c.config)})
			require.NoError(t, err)
			require.Len(t, chain, 2)
			assert.Equal(t, c.source.Leaf().Raw, chain[0].Raw)
			assert.Equal(t, issuer.cert.Raw, chain[1].Raw)
		})
	}
}

func TestProbeServedSendsTheServerName(t *testing.T) {
	root := newRoot(t, "root")
	source := root.serverSource(t)
	names := make(chan string, 1)
	addr := serve(t, &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		names <- hello.ServerName
		return source.GetCertificate(hello)
	}})
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	for _, c := range []struct {
		probe tlsutil.Probe
		want  string
	}{
		{tlsutil.Probe{Address: addr, ServerName: "web.example.com"}, "web.example.com"},
		{tlsutil.Probe{Address: addr}, ""},
		{tlsutil.Probe{Network: "tcp4", Address: "localhost:" + port}, "localhost"},
	} {
		_, err := tlsutil.ProbeServed(t.Context(), c.probe)
		require.NoError(t, err)
		assert.Equal(t, c.want, <-names)
	}
}

// A server whose key does not fit its certificate must not pass as serving that certificate.
func TestProbeServedDemandsTheKey(t *testing.T) {
	root := newRoot(t, "root")
	cert, err := root.serverSource(t).GetCertificate(nil)
	require.NoError(t, err)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, auth := range []tls.ClientAuthType{tls.NoClientCert, tls.RequireAnyClientCert} {
			forged := &tls.Certificate{Certificate: cert.Certificate, PrivateKey: newKey(t)}
			addr := serve(t, &tls.Config{MaxVersion: version, ClientAuth: auth,
				GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return forged, nil }})
			chain, err := tlsutil.ProbeServed(t.Context(), tlsutil.Probe{Address: addr})
			require.ErrorContains(t, err, "TLS handshake", tls.VersionName(version))
			assert.Nil(t, chain)
		}
	}
}

func TestProbeServedFails(t *testing.T) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := plain.Addr().String()
	require.NoError(t, plain.Close())

	// It accepts into its backlog and never answers.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()

	for _, c := range []struct {
		name  string
		ctx   context.Context
		probe tlsutil.Probe
		wants string
	}{
		{"nobody listens", t.Context(), tlsutil.Probe{Address: closed}, "probe " + closed + ": connect: "},
		{"no answer", t.Context(), tlsutil.Probe{Address: silent.Addr().String(), Timeout: time.Second}, "TLS handshake: context deadline exceeded"},
		{"canceled", canceled, tlsutil.Probe{Address: silent.Addr().String()}, "canceled"},
		{"no port", t.Context(), tlsutil.Probe{Address: "127.0.0.1"}, "want host:port"},
		{"udp", t.Context(), tlsutil.Probe{Network: "udp", Address: closed}, `network "udp"; want tcp, tcp4, tcp6 or unix`},
		{"negative timeout", t.Context(), tlsutil.Probe{Address: closed, Timeout: -1}, "negative timeout"},
		{"no socket", t.Context(), tlsutil.Probe{Network: "unix", Address: filepath.Join(t.TempDir(), "s")}, "connect: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain, err := tlsutil.ProbeServed(c.ctx, c.probe)
			require.ErrorContains(t, err, c.wants)
			assert.Nil(t, chain)
		})
	}
}
