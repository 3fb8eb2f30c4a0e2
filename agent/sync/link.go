package sync

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync/call"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

// credential is one identity certificate with what is trusted along with it.
type credential struct {
	agentID  string
	keyID    string
	chainPEM string
	rootsPEM string
	trust    wire.TrustPosition
	// pending is true for a new certificate that was not used with success yet.
	pending bool
}

// credentialOf is what to show the coordinator next: the new certificate as
// soon as there is one.
func credentialOf(identity *store.Identity) credential {
	c := credential{
		agentID: identity.AgentID,
		keyID:   identity.KeyID, chainPEM: identity.ChainPEM, rootsPEM: identity.RootsPEM,
		trust: positionOf(identity),
	}
	if p := identity.Pending; p != nil && p.ChainPEM != "" {
		c.keyID, c.chainPEM, c.pending = p.KeyID, p.ChainPEM, true
		if p.RootsPEM != "" {
			c.rootsPEM = p.RootsPEM
		}
	}
	return c
}

// same ignores pending and trust: a certificate that has proved itself goes on
// over the connection that it proved itself on, and the same roots do whatever
// their number.
func (c *credential) same(other *credential) bool {
	return c.agentID == other.agentID && c.keyID == other.keyID && c.chainPEM == other.chainPEM &&
		c.rootsPEM == other.rootsPEM
}

// link is the way to the coordinator with one credential: one connection, kept
// alive between syncs. It belongs to one goroutine.
type link struct {
	credential
	leaf    *x509.Certificate
	client  *http.Client
	base    *http.Transport // of client
	timeout time.Duration
	servers servers
	// several says that there is more than one server, and so less patience with
	// each.
	several bool
	tried   string // the last server that was tried; "" before the first
}

func newLink(cred credential, key crypto.Signer, several bool, timeout time.Duration, clk *clock.Clock, dial clock.Dial) (*link, error) {
	chain, err := pki.ParseChainPEM([]byte(cred.chainPEM))
	if err != nil {
		return nil, fmt.Errorf("stored identity: chain: %w", err)
	}
	roots, err := pki.ParseChainPEM([]byte(cred.rootsPEM))
	if err != nil {
		return nil, fmt.Errorf("stored identity: roots: %w", err)
	}
	pool := x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	source := new(tlsutil.CertSource)
	if err := source.Set(chain, key); err != nil {
		return nil, fmt.Errorf("stored identity: %w", err)
	}
	options := tlsutil.ClientOptions{Roots: pool, Source: source}
	if clk != nil {
		options.Time = clk.Now
	}
	config, err := tlsutil.ClientConfig(options)
	if err != nil {
		return nil, err
	}
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	base := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dial, TLSClientConfig: config,
		MaxIdleConnsPerHost: 1, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
	}
	if several {
		base.DialContext = quickly(dial)
		base.TLSHandshakeTimeout, base.ResponseHeaderTimeout = handshakePatience, answerPatience
	}
	var way http.RoundTripper = base
	if clk != nil {
		way = clk.Transport(clock.Coordinator, clock.VerifyRoots(pool), base.DialContext, base)
	}
	return &link{
		credential: cred, leaf: chain[0], several: several, timeout: timeout, base: base,
		client: &http.Client{
			Transport:     way,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// quickly is dial for a server that may be dead while others are not.
func quickly(dial clock.Dial) clock.Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, connectPatience)
		defer cancel()
		return dial(ctx, network, address)
	}
}

// server is the one that was tried last, or will be the first.
func (l *link) server() string { return cmp.Or(l.tried, l.servers.list[l.servers.current]) }

func (l *link) close() { l.base.CloseIdleConnections() }

// post sends body to one server after the other, beginning with the one that
// answered last, until one of them decides or is too busy to: a crowd that is
// told to wait must not become the next one's. All get the same bytes: what one of
// them carried out without an answer, the next one recognises. Of several
// failures one that has to do with trust is told, because there is a mend for it,
// or else one that says when to come back.
func (l *link) post(ctx context.Context, path string, body []byte, out any) (result call.Result, err error) {
	var doubt, later error
	order := l.servers.round(time.Now())
	for n, i := range order {
		if n > 0 {
			if stopped := backoff.Wait(ctx, rand.N(scatter)); stopped != nil { //nolint:gosec // spreads load, guards nothing
				return result, cmp.Or(doubt, later, err)
			}
		}
		l.tried = l.servers.list[i]
		result, err = l.postTo(ctx, path, body, out)
		if lost, ok := errors.AsType[*call.LostError](err); ok && lost.StaleConnection && !lost.Timeout() && ctx.Err() == nil {
			// The connection may have died while it was idle.
			l.close()
			result, err = l.postTo(ctx, path, body, out)
		}
		if call.Decided(err) || call.Overloaded(err) {
			l.servers.answered(i, time.Now())
			return result, err
		}
		if ctx.Err() != nil {
			return result, err
		}
		if doubt == nil && distrusted(err) {
			doubt = err
		}
		if later == nil && call.RetryAfter(err) > 0 {
			later = err
		}
	}
	l.servers.failed(order)
	return result, cmp.Or(doubt, later, err)
}

func (l *link) postTo(ctx context.Context, path string, body []byte, out any) (call.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	return call.Post(ctx, l.client, l.tried, path, body, out)
}

// know takes over another list of servers.
func (l *link) know(list []string, nodes int) {
	if nodes == l.servers.nodes && slices.Equal(list, l.servers.list) {
		return
	}
	l.servers.set(list, nodes, time.Now())
	if !slices.Contains(list, l.tried) {
		l.tried = ""
	}
}

// unlink drops the connection.
func (c *Client) unlink() {
	if c.link != nil {
		c.link.close()
		c.link = nil
	}
}

// connect makes the link for the stored identity, unless it is there already. A
// new certificate closes the old one's idle connection, so that what comes next
// is shown the new one.
func (c *Client) connect(identity *store.Identity) error {
	want := credentialOf(identity)
	c.update(func(s *State) {
		s.AgentID, s.IdentityRenewAt, s.IdentityPending = identity.AgentID, identity.RenewAt, identity.Pending != nil
	})
	list, nodes := serversOf(identity, c.cfg.Servers)
	if len(list) == 0 {
		return c.unusable(want, errors.New("stored identity: it names no server"))
	}
	if c.link != nil && c.link.same(&want) && c.link.several == (len(list) > 1) {
		c.link.pending, c.link.trust = want.pending, want.trust
		c.link.know(list, nodes)
		return nil
	}
	key, err := c.cfg.Keys.Load(want.keyID)
	if err != nil {
		return c.unusable(want, fmt.Errorf("key of the identity: %w", err))
	}
	next, err := newLink(want, key, len(list) > 1, c.cfg.Timeout, c.cfg.Clock, c.dial)
	if err != nil {
		return c.unusable(want, err)
	}
	if c.link == nil || c.link.agentID != want.agentID {
		// Another agent in the coordinator's eyes: it knows nothing of ours.
		c.unanswered, c.ackedEvent = nil, 0
		clear(c.placed)
		c.failures, c.renewAttempt, c.renewAfter = 0, 0, time.Time{}
	}
	if c.link != nil {
		next.servers, next.tried = c.link.servers, c.link.tried
	}
	next.know(list, nodes)
	c.unlink()
	c.link = next
	c.update(func(s *State) {
		s.Server, s.IdentityNotAfter, s.IdentityProblem = next.server(), next.leaf.NotAfter, ""
	})
	return nil
}

// unusable is the error of an identity that cannot be used. A new one that cannot
// is given up for the one before, and needs nobody.
func (c *Client) unusable(cred credential, err error) error {
	e := &identityError{pending: cred.pending, err: err}
	if !cred.pending {
		c.update(func(s *State) { s.IdentityProblem = e.Error() })
	}
	return e
}

// identityError is an identity on this host's disk that cannot be used.
type identityError struct {
	pending bool // it was the new one
	err     error
}

func (e *identityError) Error() string {
	return e.err.Error() + "; restore the key directory from a backup, or enrol again with --replace"
}

func (e *identityError) Unwrap() error { return e.err }
