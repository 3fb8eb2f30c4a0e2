package tlsutil

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// ClientPolicy says what a server asks of the certificates of its clients.
type ClientPolicy int

const (
	// NoClientCert does not ask for a certificate.
	NoClientCert ClientPolicy = iota
	// OptionalClientCert asks for one; a client that presents none is served, one that presents a wrong one is refused.
	OptionalClientCert
	// RequireClientCert refuses clients without a certificate that verifies.
	RequireClientCert
)

// ServerOptions describe one TLS server.
type ServerOptions struct {
	// Source holds the server's certificate. Required.
	Source *CertSource
	// Clients says whether clients need a certificate.
	Clients ClientPolicy
	// ClientRoots returns the roots that the clients' certificates must lead to. It is called in every handshake, from
	// many goroutines, so that roots can change. Required unless Clients is NoClientCert.
	ClientRoots func() *x509.CertPool
	// AcceptExpiredClients lets clients in whose certificate was right in everything but has expired. The handler must
	// then look at the leaf's NotAfter itself, and allow no more than a renewal.
	AcceptExpiredClients bool
	// NextProtos are the ALPN protocols, most wanted first; net/http adds its own.
	NextProtos []string
}

// ServerConfig returns a TLS 1.3 configuration. Client certificates are verified on every connection: there are no
// session tickets, because a resumed session would carry an old identity past its replacement or its end. The verified
// leaf is PeerCertificates[0] of the connection state; VerifiedChains stays empty.
func ServerConfig(o ServerOptions) (*tls.Config, error) {
	if o.Source == nil {
		return nil, errors.New("TLS server: Source is missing")
	}
	config := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		GetCertificate:         o.Source.GetCertificate,
		NextProtos:             o.NextProtos,
		SessionTicketsDisabled: true,
	}
	switch o.Clients {
	case NoClientCert:
		if o.ClientRoots != nil || o.AcceptExpiredClients {
			return nil, errors.New("TLS server: ClientRoots and AcceptExpiredClients need a policy that asks for client certificates")
		}
		return config, nil
	case OptionalClientCert:
		config.ClientAuth = tls.RequestClientCert
	case RequireClientCert:
		config.ClientAuth = tls.RequireAnyClientCert
	default:
		return nil, fmt.Errorf("TLS server: unknown client policy %d", o.Clients)
	}
	if o.ClientRoots == nil {
		return nil, errors.New("TLS server: ClientRoots is missing")
	}
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return nil // only OptionalClientCert comes this far
		}
		return verifyClient(state.PeerCertificates, o.ClientRoots(), time.Now(), o.AcceptExpiredClients)
	}
	return config, nil
}

// verifyClient checks a client's chain; that the client holds the leaf's key, the handshake has proved. An accepted
// expired chain is judged as of the last moment of its leaf.
func verifyClient(chain []*x509.Certificate, roots *x509.CertPool, now time.Time, acceptExpired bool) error {
	if roots == nil {
		// A nil pool would mean the system's roots: any public CA could then make a client.
		return errors.New("client certificate: there are no roots to verify it with")
	}
	leaf := chain[0]
	if acceptExpired && now.After(leaf.NotAfter) {
		now = leaf.NotAfter
	}
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("client certificate: %w", err)
	}
	return nil
}

// ClientOptions describe one TLS client. Exactly one of Roots, Pin and SystemRoots says whom it trusts.
type ClientOptions struct {
	// Roots are the roots that the server's certificate must lead to.
	Roots *x509.CertPool
	// Pin trusts a root by its fingerprint; the server must present that root too.
	Pin *PinnedRoot
	// SystemRoots trusts what the operating system trusts.
	SystemRoots bool
	// Source holds the client's certificate; nil presents none.
	Source *CertSource
	// ServerName is the DNS name or IP address that the server's certificate must carry. With Pin it is required;
	// otherwise it may be empty, and net/http then sets it to the host of the URL.
	ServerName string
	// NextProtos are the ALPN protocols, most wanted first; net/http adds its own.
	NextProtos []string
	// Time is what the dates of the server's certificates are compared with; nil is the wall clock.
	Time func() time.Time
}

// ClientConfig returns a TLS 1.3 configuration without session resumption, so that each connection presents the
// certificate that Source holds at that moment.
func ClientConfig(o ClientOptions) (*tls.Config, error) {
	trusts := 0
	for _, given := range []bool{o.Roots != nil, o.Pin != nil, o.SystemRoots} {
		if given {
			trusts++
		}
	}
	if trusts != 1 {
		return nil, errors.New("TLS client: give exactly one of Roots, Pin and SystemRoots")
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    o.Roots,
		ServerName: o.ServerName,
		NextProtos: o.NextProtos,
		Time:       o.Time,
	}
	if o.Source != nil {
		config.GetClientCertificate = o.Source.GetClientCertificate
	}
	if o.Pin == nil {
		return config, nil
	}
	if o.ServerName == "" {
		return nil, errors.New("TLS client: ServerName is missing; a pinned root needs to know whom to expect")
	}
	pin, serverName, now := *o.Pin, o.ServerName, o.Time
	if now == nil {
		now = time.Now
	}
	// The standard verification knows no pins, so VerifyConnection does all of it.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error {
		// Not state.ServerName: that is empty for an IP address.
		_, err := pin.Verify(state.PeerCertificates, serverName, now())
		return err
	}
	return config, nil
}
