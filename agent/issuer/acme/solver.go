package acme

import (
	"context"
	"fmt"
	"sync"

	"github.com/mholt/acmez/v3/acme"
)

// Challenge types (RFC 8555 section 9.7.8, RFC 8737 section 3).
const (
	challengeHTTP01    = acme.ChallengeTypeHTTP01
	challengeTLSALPN01 = acme.ChallengeTypeTLSALPN01
	challengeDNS01     = acme.ChallengeTypeDNS01
)

// Solver is one of the ways to answer challenges: HTTP01, HTTP01Webroot,
// TLSALPN01, DNS01Exec or DNS01RFC2136.
type Solver interface {
	// ChallengeType is the type of challenge that the solver answers.
	ChallengeType() string
	validate() error
	presenter(*Listeners) presenter
}

// presenter puts the answers to challenges where the CA looks for them.
type presenter interface {
	// present returns when the answer can be seen. What it has done when it
	// returns an error, withdraw undoes.
	present(ctx context.Context, challenge acme.Challenge) error
	// withdraw takes the answer away; one that is not there is no error.
	withdraw(ctx context.Context, challenge acme.Challenge) error
}

// counted lets several orders use one challenge: a CA may give a pending
// authorization to each of them (RFC 8555 section 7.1.3), and the order that is
// done first must not take the answer away from the others.
type counted struct {
	inner presenter

	mu   sync.Mutex
	uses map[string]*use // by challenge token
}

type use struct {
	holders int           // who has called present and not withdraw; guarded by counted.mu
	turn    chan struct{} // capacity 1: held while inner is called
	shown   bool          // inner.present succeeded; guarded by turn
}

func newCounted(inner presenter) *counted {
	return &counted{inner: inner, uses: map[string]*use{}}
}

func (c *counted) present(ctx context.Context, challenge acme.Challenge) error {
	c.mu.Lock()
	u := c.uses[challenge.Token]
	if u == nil {
		u = &use{turn: make(chan struct{}, 1)}
		c.uses[challenge.Token] = u
	}
	u.holders++
	c.mu.Unlock()

	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-u.turn }()
	if u.shown {
		return nil
	}
	if err := c.inner.present(ctx, challenge); err != nil {
		return err
	}
	u.shown = true
	return nil
}

// withdraw must be called once for each call of present, whatever that returned.
func (c *counted) withdraw(ctx context.Context, challenge acme.Challenge) error {
	c.mu.Lock()
	u := c.uses[challenge.Token]
	u.holders--
	last := u.holders == 0
	c.mu.Unlock()
	if !last {
		return nil
	}
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-u.turn }()
	c.mu.Lock()
	if u.holders > 0 { // somebody came while this waited for its turn
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	err := c.inner.withdraw(ctx, challenge)
	u.shown = false
	c.mu.Lock()
	if u.holders == 0 {
		delete(c.uses, challenge.Token)
	}
	c.mu.Unlock()
	return err
}

// maxToken is far above the 22 characters that 128 bits of entropy need.
const maxToken = 256

// checkToken refuses a token that is not what RFC 8555 section 8 describes: "It
// MUST NOT contain any characters outside the base64url alphabet". It becomes
// part of a path.
func checkToken(token string) error {
	if token == "" || len(token) > maxToken {
		return fmt.Errorf("challenge token of %d characters: want 1 to %d", len(token), maxToken)
	}
	for i := range len(token) {
		switch c := token[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return fmt.Errorf("challenge token %q holds a character outside base64url", token)
		}
	}
	return nil
}
