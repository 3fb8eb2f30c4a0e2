package sync

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync/call"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/trust"
	"github.com/certctl/certctl/shared/wire"
)

// trustPause is how long the coordinator is not asked for its trust chain after
// one that did not continue ours: it would send all of it with each answer.
const trustPause = time.Hour

// heldBy is what an identity trusts at present.
func heldBy(identity *store.Identity) (trust.Held, error) {
	roots, err := pki.ParseChainPEM([]byte(identity.RootsPEM))
	if err != nil {
		return trust.Held{}, fmt.Errorf("stored identity: roots: %w", err)
	}
	held := trust.Held{Number: identity.TrustGeneration, Roots: roots}
	copy(held.Digest[:], identity.TrustDigest)
	return held, nil
}

// positionOf is the place in the chain that an identity has come to.
func positionOf(identity *store.Identity) wire.TrustPosition {
	return wire.TrustPosition{Generation: identity.TrustGeneration, Digest: identity.TrustDigest}
}

// follow goes along a chain from what an identity trusts, and stores where it
// leads. It reports whether other roots are trusted from now on. A chain that does
// not continue what this host trusts changes nothing.
func (c *Client) follow(identity *store.Identity, chain [][]byte) (moved bool, err error) {
	held, err := heldBy(identity)
	if err != nil {
		return false, err
	}
	next, err := held.Follow(chain)
	if err != nil || next.Number == held.Number && next.Digest == held.Digest {
		return false, err
	}
	err = c.identities.UpdateIdentity(func(current *store.Identity) (*store.Identity, error) {
		if agentID(current) != identity.AgentID || current.RootsPEM != identity.RootsPEM || current.TrustGeneration != identity.TrustGeneration {
			return nil, errIdentityChanged
		}
		current.RootsPEM = string(pki.EncodeChainPEM(next.Roots))
		current.TrustGeneration, current.TrustDigest = next.Number, next.Digest[:]
		if current.Pending != nil {
			current.Pending.RootsPEM = ""
		}
		return current, nil
	})
	if err != nil {
		return false, err
	}
	if trust.SameRoots(held.Roots, next.Roots) {
		return false, nil // it has learnt the number of what it trusts
	}
	c.log.Info("this host trusts a new generation of the coordinator's roots", "trust_generation", next.Number, "roots", len(next.Roots))
	return true, nil
}

// learn takes over the generations that came with an answer. What is wrong with
// them is reported, and keeps nothing else from being exchanged.
func (c *Client) learn(chain [][]byte) error {
	if len(chain) == 0 {
		return nil
	}
	identity, err := c.identities.Identity()
	if err != nil {
		return err
	}
	if agentID(identity) != c.link.agentID {
		return errIdentityChanged
	}
	moved, err := c.follow(identity, chain)
	switch {
	case refusedChain(err):
		c.trustAfter = time.Now().Add(trustPause)
		c.log.Warn("the coordinator's trust chain was refused; what is trusted stays. If its root is rotated this host has to be enrolled again with --replace", "err", err)
	case err != nil:
		return err // the store's; the answer is learnt again
	case moved:
		c.Kick() // the coordinator waits to hear of it
	}
	return nil
}

// refusedChain reports whether an error is a judgement about a chain.
func refusedChain(err error) bool {
	return errors.Is(err, trust.ErrNotContinued) || errors.Is(err, trust.ErrForged) || errors.Is(err, trust.ErrMalformed)
}

// distrusted reports whether a failure may come from roots that were replaced:
// the server's certificate leads to none that this host trusts, or to one that
// has expired.
func distrusted(err error) bool {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok && invalid.Reason == x509.Expired
}

// catchUp looks for the way from what this host trusts to what the coordinator
// uses now, after a connection that could not be verified: the host may have
// been off while roots were replaced. The chain is believed for its signatures,
// whoever sends it; then everything begins again with full verification.
func (c *Client) catchUp(ctx context.Context, cause error) (moved bool, err error) {
	identity, err := c.identities.Identity()
	if err != nil {
		return false, err
	}
	if agentID(identity) != c.link.agentID {
		return true, nil // enrolled anew meanwhile
	}
	var refused error
	timeout := c.cfg.Timeout
	if c.link.several {
		timeout = min(timeout, answerPatience)
	}
	for _, i := range c.link.servers.round(time.Now()) {
		chain, err := call.Trust(ctx, c.dial, c.link.servers.list[i], positionOf(identity), timeout)
		if err == nil && len(chain) > 0 {
			moved, err = c.follow(identity, chain)
		}
		if moved || fatal(err) || errors.Is(err, errIdentityChanged) {
			return moved, err
		}
		switch {
		case refusedChain(err):
			refused = fmt.Errorf("%w; %w: something else than this host's coordinator answers there, such as a proxy that opens TLS, or the coordinator was set up anew: "+
				"check the address, and enrol again with --replace if it is right; nothing was told to it", cause, err)
		case len(chain) > 0 && err != nil:
			refused = fmt.Errorf("%w; the trust chain could not be stored: %w", cause, err)
		}
	}
	if refused != nil {
		return false, refused
	}
	return false, cause
}
