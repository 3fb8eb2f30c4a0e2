package clock

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Verify checks the chain that a server presented, leaf first, as of the given
// time: that it leads to a root that is trusted, is meant for servers, and
// carries host.
type Verify func(chain []*x509.Certificate, host string, at time.Time) error

// VerifyRoots verifies by a pool of roots; nil is the system's.
func VerifyRoots(roots *x509.CertPool) Verify {
	return func(chain []*x509.Certificate, host string, at time.Time) error {
		if len(chain) == 0 {
			return errors.New("the server presents no certificate")
		}
		intermediates := x509.NewCertPool()
		for _, cert := range chain[1:] {
			intermediates.AddCert(cert)
		}
		_, err := chain[0].Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: intermediates, DNSName: host, CurrentTime: at,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		return err
	}
}

// OutOfTime reports whether a connection failed for nothing but the dates of
// the server's certificate, as it does when this host's time is wrong.
func OutOfTime(err error) bool {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok && invalid.Reason == x509.Expired
}

// Dial is net.Dialer's DialContext.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Probe asks an https server for the time although this host's may be so wrong
// that the server's certificate does not verify by it, and observes what it says
// under name. The request carries nothing, and shows no certificate of this
// host. A nil dial is the network.
//
// The chain has to verify as of the time that the server claims, and then one of
// two things: it verifies as of the wall clock too, as every TLS client asks; or
// the claim is not before what is known to have been (DESIGN.md says why).
func (c *Clock) Probe(ctx context.Context, name, server string, verify Verify, dial Dial) error {
	chain, claimed, sent, err := c.claim(ctx, server, verify, dial)
	if err != nil {
		return fmt.Errorf("ask %s for the time: %w", server, err)
	}
	host := chain.host
	if err := verify(chain.certs, host, claimed); err != nil {
		return fmt.Errorf("ask %s for the time: it says %s, when its own certificate is not valid: %w", server, claimed.Format(time.RFC3339), err)
	}
	if floor := c.floor(); claimed.Before(floor.Add(-Tolerance)) {
		if err := verify(chain.certs, host, c.Wall()); err != nil {
			return fmt.Errorf("ask %s for the time: it says %s, which has long been: it was %s before, and the clock of this host does not agree: %w; "+
				"if that server is right, set the clock of this host", server, claimed.Format(time.RFC3339), floor.Format(time.RFC3339), err)
		}
	}
	c.Observe(name, sent, claimed, time.Second)
	return nil
}

// floor is a time that is certain to have come: the present where it is
// confirmed, and else what the mark says.
func (c *Clock) floor() time.Time {
	now := c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.vouched && c.confirmed {
		return now
	}
	if !c.mark.Vouched {
		return time.Time{}
	}
	at, _ := c.atLeast()
	return at
}

type presented struct {
	certs []*x509.Certificate
	host  string
}

// claim connects without regard to dates and reads the Date of the answer.
func (c *Clock) claim(ctx context.Context, server string, verify Verify, dial Dial) (presented, time.Time, Stamp, error) {
	none := func(err error) (presented, time.Time, Stamp, error) { return presented{}, time.Time{}, Stamp{}, err }
	target, err := url.Parse(server)
	if err != nil {
		return none(err)
	}
	if target.Scheme != "https" {
		return none(errors.New("only https proves who says it"))
	}
	seen := presented{host: target.Hostname()}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: seen.host,
		// The chain is verified when the claim is known, before that is believed.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			seen.certs = state.PeerCertificates
			return nil
		},
	}
	if dial == nil {
		dial = (&net.Dialer{Timeout: askLimit / 2}).DialContext
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dial, TLSClientConfig: config, DisableKeepAlives: true,
		TLSHandshakeTimeout: askLimit / 2, MaxResponseHeaderBytes: 64 << 10,
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, target.String(), nil)
	if err != nil {
		return none(err)
	}
	sent := c.Stamp()
	// Not a Client: a redirect would lead to somebody else.
	response, err := transport.RoundTrip(request)
	if err != nil {
		return none(err)
	}
	defer response.Body.Close()
	if _, err := io.CopyN(io.Discard, response.Body, 1<<10); err != nil && !errors.Is(err, io.EOF) {
		return none(err)
	}
	at, err := dateOf(response)
	if err != nil {
		return none(err)
	}
	return seen, at, sent, nil
}

// dateOf reads when an answer was made (RFC 9110, section 6.6.1). One that a
// cache kept says nothing about now (RFC 9111, section 5.1).
func dateOf(response *http.Response) (time.Time, error) {
	if age := response.Header.Get("Age"); age != "" && age != "0" {
		return time.Time{}, errors.New("the answer came from a cache")
	}
	at, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return time.Time{}, errors.New("the answer has no Date")
	}
	return at.UTC(), nil
}
