package sync

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync/call"
	"github.com/certctl/certctl/shared/wire"
)

// errIdentityChanged says that the stored identity is another one than the one
// that was being worked on: the host was enrolled anew meanwhile.
var errIdentityChanged = errors.New("the host was enrolled anew meanwhile")

func codeOf(err error) wire.Code {
	if problem, ok := errors.AsType[*wire.Problem](err); ok {
		return problem.Code
	}
	return ""
}

// react decides what a failure leads to; it is the one table from codes to
// acts. With again the round begins anew at once, which it does only while
// mayRepeat. The error is one of the store.
func (c *Client) react(ctx context.Context, err error, mayRepeat bool) (next pause, again bool, _ error) {
	if broken, ok := errors.AsType[*identityError](err); ok && broken.pending && mayRepeat {
		return pause{}, true, c.dropPending("it cannot be used", err)
	}
	if errors.Is(err, errIdentityChanged) && mayRepeat {
		return pause{}, true, nil
	}
	if distrusted(err) && mayRepeat {
		moved, cause := c.catchUp(ctx, err)
		switch {
		case fatal(cause):
			return pause{}, false, cause
		case moved, errors.Is(cause, errIdentityChanged):
			return pause{}, true, nil
		}
		return c.backOff(cause)
	}
	switch code := codeOf(err); {
	case code == wire.CodeIdentityExpired && mayRepeat:
		return c.renewExpired(ctx)
	case code == wire.CodeIdentityUnknown && mayRepeat && c.link.pending:
		// It was restored from a backup that is older than the new certificate.
		return pause{}, true, c.dropPending("the coordinator does not know it", err)
	case code == wire.CodeIdentityUnknown:
		c.failures++
		return pause{length: slow.Delay(1, nil), deaf: true}, false, c.failed(Unknown, err, c.now())
	case code == wire.CodeAgentRetired:
		return pause{deaf: true}, false, c.retire(err)
	case code == wire.CodeStale && mayRepeat:
		c.newBoot(err)
		return pause{}, true, nil
	case code == wire.CodeBodyTooLarge && mayRepeat && c.limits != c.limits.halved():
		c.limits = c.limits.halved()
		c.log.Warn("sync request was too large for the coordinator; smaller ones follow", "rows", c.limits.rows, "err", err)
		return pause{}, true, nil
	case code == wire.CodeProtocol:
		c.failures++
		return pause{length: slow.Delay(1, nil), deaf: true}, false, c.failed(CutOff, err, c.now())
	}
	return c.backOff(err)
}

// backOff waits longer from failure to failure.
func (c *Client) backOff(err error) (next pause, again bool, _ error) {
	c.failures++
	after := call.RetryAfter(err)
	length := max(reconnect.DelayAfter(c.failures, after, nil), debounce)
	return pause{length: length, deaf: true, urgent: after == 0}, false, c.failed(CutOff, err, c.now())
}

// renewExpired renews an identity that has expired by proof of its key, which
// is the one thing that it is still good for.
func (c *Client) renewExpired(ctx context.Context) (next pause, again bool, _ error) {
	identity, err := c.identities.Identity()
	if err == nil && StandingOf(identity) != "" {
		return pause{}, true, nil
	}
	if err == nil {
		c.log.Info("identity has expired; it is renewed")
		err = c.renew(ctx, identity, true)
	}
	switch {
	case err == nil:
		return pause{}, true, nil
	case fatal(err):
		return pause{}, false, err
	case codeOf(err) == wire.CodeIdentityExpired:
		return c.backOff(err) // it contradicts itself
	}
	return c.react(ctx, err, true)
}

// retire remembers that the coordinator does not want this agent any more.
func (c *Client) retire(err error) error {
	link := c.link
	c.log.Warn("the coordinator has retired this agent; renewals at direct issuers go on", "agent_id", link.agentID, "err", err)
	c.complained = true
	c.unlink()
	stored := c.identities.UpdateIdentity(func(current *store.Identity) (*store.Identity, error) {
		if agentID(current) != link.agentID {
			return current, nil
		}
		current.Retired = true
		return current, nil
	})
	return errors.Join(stored, c.failed(Retired, err, c.now()))
}

// newBoot begins a new series of sequence numbers. The old one cannot go on: a
// later number of it is known there, as after a virtual machine was set back,
// or another run has begun since, as with a cloned host.
func (c *Client) newBoot(err error) {
	var id [16]byte
	rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	now := c.now()
	if !c.staleAt.IsZero() && now.Sub(c.staleAt) < sharedWithin {
		c.update(func(s *State) { s.SharedAt = now })
	}
	c.staleAt = now
	c.bootID, c.sequence, c.unanswered = hex.EncodeToString(id[:]), 0, nil
	c.log.Warn("coordinator has heard of a later sync of this agent; if this repeats, another host uses a copy of this identity", "err", err)
}
