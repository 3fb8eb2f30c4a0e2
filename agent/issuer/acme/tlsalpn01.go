package acme

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// TLSALPN01 answers tls-alpn-01 challenges (RFC 8737) on a port of its own, open
// only while it is needed.
type TLSALPN01 struct {
	// Listen is the address, ":443" if empty. The CA always connects to port 443:
	// another port makes sense only behind something that forwards connections by
	// their ALPN protocol.
	Listen string
}

// ChallengeType is "tls-alpn-01".
func (TLSALPN01) ChallengeType() string { return challengeTLSALPN01 }

func (s TLSALPN01) validate() error { return checkListen("tls-alpn-01", s.Listen) }

func (s TLSALPN01) presenter(l *Listeners) presenter {
	address := s.Listen
	if address == "" {
		address = ":443"
	}
	return &tlsALPN01{listeners: l, address: address}
}

type tlsALPN01 struct {
	listeners *Listeners
	address   string
}

func (p *tlsALPN01) present(ctx context.Context, challenge acme.Challenge) error {
	name, err := serverName(challenge.Identifier)
	if err != nil {
		return err
	}
	certificate, err := acmez.TLSALPN01ChallengeCert(challenge)
	if err != nil {
		return fmt.Errorf("make the tls-alpn-01 certificate for %s: %w", challenge.Identifier.Value, err)
	}
	return p.listeners.tls.add(ctx, p.address, name, challenge.Token, certificate)
}

func (p *tlsALPN01) withdraw(_ context.Context, challenge acme.Challenge) error {
	name, err := serverName(challenge.Identifier)
	if err != nil {
		return err
	}
	p.listeners.tls.remove(p.address, name, challenge.Token)
	return nil
}

func newTLSALPN01Server(find func(name string) (*tls.Certificate, bool)) (*http.Server, *tls.Config) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, // RFC 8737 section 4
		NextProtos: []string{acmez.ACMETLS1Protocol},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if !slices.Contains(hello.SupportedProtos, acmez.ACMETLS1Protocol) {
				return nil, fmt.Errorf("only %s is spoken here", acmez.ACMETLS1Protocol)
			}
			certificate, known := find(strings.ToLower(hello.ServerName))
			if !known {
				return nil, fmt.Errorf("no challenge for %q", hello.ServerName)
			}
			return certificate, nil
		},
	}
	// The handshake is all (RFC 8737 section 3): the server hands the connection
	// over after it and closes it when this returns.
	server := &http.Server{TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){
		acmez.ACMETLS1Protocol: func(*http.Server, *tls.Conn, http.Handler) {},
	}}
	return server, config
}

// serverName is what the CA sends as SNI: the name, or for an address its
// reverse-DNS form (RFC 8738 section 6).
func serverName(id acme.Identifier) (string, error) {
	if id.Type != identifierIP {
		return strings.ToLower(id.Value), nil
	}
	address, err := netip.ParseAddr(id.Value)
	if err != nil {
		return "", fmt.Errorf("identifier of the authorization: %w", err)
	}
	return reverseName(address), nil
}

func reverseName(address netip.Addr) string {
	var name strings.Builder
	octets := address.AsSlice()
	slices.Reverse(octets)
	if address.Is4() {
		for _, o := range octets {
			fmt.Fprintf(&name, "%d.", o)
		}
		return name.String() + "in-addr.arpa"
	}
	for _, o := range octets {
		fmt.Fprintf(&name, "%x.%x.", o&0xf, o>>4)
	}
	return name.String() + "ip6.arpa"
}
