package tlsutil

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// DefaultProbeTimeout bounds a probe that sets no time limit of its own.
const DefaultProbeTimeout = 10 * time.Second

// Probe says where to look at what a TLS server presents.
type Probe struct {
	// Network is "tcp", "tcp4", "tcp6" or "unix"; empty is "tcp".
	Network string
	// Address is host:port, or the path of a Unix socket.
	Address string
	// ServerName goes into the SNI extension; empty takes the host of Address. Addresses are never sent (RFC 6066
	// section 3).
	ServerName string
	// Timeout bounds connecting and handshake together; 0 is DefaultProbeTimeout.
	Timeout time.Duration
}

// ProbeServed connects, does a TLS handshake (1.0 to 1.3) and returns the certificates that the server presents, leaf
// first, at least one. It trusts none of them: it proves only that the server holds the leaf's key. A server that goes
// on to ask for a client certificate, and refuses the probe for lack of one, has shown its own by then.
func ProbeServed(ctx context.Context, p Probe) ([]*x509.Certificate, error) {
	p.Network = cmp.Or(p.Network, "tcp")
	if !slices.Contains([]string{"tcp", "tcp4", "tcp6", "unix"}, p.Network) {
		return nil, fmt.Errorf("probe %s: network %q; want tcp, tcp4, tcp6 or unix", p.Address, p.Network)
	}
	if p.Timeout < 0 {
		return nil, fmt.Errorf("probe %s: negative timeout %v", p.Address, p.Timeout)
	}
	if p.ServerName == "" && p.Network != "unix" {
		host, _, err := net.SplitHostPort(p.Address)
		if err != nil {
			return nil, fmt.Errorf("probe %q: want host:port: %w", p.Address, err)
		}
		p.ServerName = host
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(p.Timeout, DefaultProbeTimeout))
	defer cancel()

	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, p.Network, p.Address)
	if err != nil {
		return nil, fmt.Errorf("probe %s: connect: %w", p.Address, err)
	}
	chain, err := presented(ctx, conn, p.ServerName)
	// What the server showed is known by now; how the connection ends cannot change it.
	_ = conn.Close()
	if err != nil {
		return nil, fmt.Errorf("probe %s: TLS handshake: %w", p.Address, err)
	}
	return chain, nil
}

func presented(ctx context.Context, conn net.Conn, serverName string) ([]*x509.Certificate, error) {
	var shown []*x509.Certificate
	signs, proved := false, false
	client := tls.Client(conn, &tls.Config{
		ServerName: serverName,
		// Nothing is sent over this connection: the question is what the server presents, whoever it is.
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS10, // an old server must be seen to be reported
		CipherSuites:       allCipherSuites(),
		VerifyConnection: func(state tls.ConnectionState) error {
			shown = state.PeerCertificates
			// With RSA key transport the server signs nothing: its proof is that it can finish the handshake.
			signs = !strings.HasPrefix(tls.CipherSuiteName(state.CipherSuite), "TLS_RSA_")
			return nil
		},
		// In all versions this runs only after the server's signature, where there is one, was verified.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			proved = signs
			return new(tls.Certificate), nil
		},
	})
	if err := client.HandshakeContext(ctx); err != nil && !proved {
		return nil, err
	}
	if len(shown) == 0 {
		return nil, errors.New("the server presents no certificate")
	}
	return shown, nil
}

func allCipherSuites() []uint16 {
	var ids []uint16
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		ids = append(ids, suite.ID)
	}
	return ids
}
