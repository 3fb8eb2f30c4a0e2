package sync

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/certctl/certctl/agent/enroll"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// The identity is renewed in steps, each of them stored before the next:
//
//	1. a new key is on disk                     Pending.KeyID
//	2. the coordinator has made its certificate Pending.ChainPEM
//	3. a sync with it has succeeded             KeyID, ChainPEM; Pending is gone
//	4. the old key is removed
//
// The coordinator takes the old certificate until it has seen the new one, and
// answers the same key with the same certificate. So a crash or a lost answer
// at any point leads on from the step that is stored.

// renewIfDue renews an identity whose time has come. It returns true when there
// is a new certificate to be used. Only what concerns the identity as a whole
// is an error: the present one is good for a while.
func (c *Client) renewIfDue(ctx context.Context, identity *store.Identity) (renewed bool, err error) {
	now := c.serverNow()
	if identity.RenewAt.IsZero() {
		drawn := enroll.DrawRenewAt(c.link.leaf, now, rand.Float64())
		return false, c.changeIdentity(identity, func(i *store.Identity) { i.RenewAt = drawn })
	}
	if identity.Pending == nil && now.Before(identity.RenewAt) || time.Now().Before(c.renewAfter) {
		return false, nil
	}
	err = c.renew(ctx, identity, false)
	switch code := codeOf(err); {
	case err == nil:
		return true, nil
	case fatal(err), ctx.Err() != nil, errors.Is(err, errIdentityChanged),
		code == wire.CodeAgentRetired, code == wire.CodeIdentityUnknown, code == wire.CodeIdentityExpired:
		return false, err
	}
	c.renewAttempt++
	wait := reconnect.DelayAfter(c.renewAttempt, 0, nil)
	c.renewAfter = time.Now().Add(wait)
	c.log.Warn("identity was not renewed; the present one goes on", "not_after", c.link.leaf.NotAfter, "attempt", c.renewAttempt, "err", err)
	return false, nil
}

// renew takes the renewal of the identity up to step 2. With anew it asks for a
// certificate even if there is one that waits to be used.
func (c *Client) renew(ctx context.Context, identity *store.Identity, anew bool) error {
	pending, key, err := c.pendingKey(identity)
	if err != nil {
		return err
	}
	if pending.ChainPEM != "" && !anew {
		return nil
	}
	csr, err := enroll.IdentityCSR(key)
	if err != nil {
		return err
	}
	body, err := json.Marshal(wire.IdentityRequest{Protocol: wire.Protocol, CSR: csr})
	if err != nil {
		return fmt.Errorf("identity request: %w", err)
	}
	answer := new(wire.IdentityResponse)
	result, err := c.link.post(ctx, wire.IdentityPath, body, answer)
	if codeOf(err) == wire.CodeConflict {
		// What was made for this key is of no use any more, as after a rotation
		// of the CA: the next attempt is one with another key.
		return errors.Join(fmt.Errorf("renew the identity: %w", err), c.dropPending("the coordinator does not renew its key", err))
	}
	if err != nil {
		return fmt.Errorf("renew the identity: %w", err)
	}
	c.clock(answer.ServerTime, result.SentAt, result.Took)
	leaf, err := enroll.CheckIdentity(answer.Chain, answer.Roots, key.Public(), time.Now())
	if err != nil {
		return fmt.Errorf("renew the identity: the answer was not accepted: %w", err)
	}
	c.log.Info("identity has a new certificate", "serial", pki.SerialHex(leaf), "not_after", leaf.NotAfter)
	return c.changeIdentity(identity, func(i *store.Identity) {
		i.Pending = &store.PendingIdentity{KeyID: pending.KeyID, ChainPEM: answer.Chain}
	})
}

// pendingKey is step 1. A recorded key that is not there any more is replaced.
func (c *Client) pendingKey(identity *store.Identity) (*store.PendingIdentity, crypto.Signer, error) {
	if identity.Pending != nil {
		key, err := c.cfg.Keys.Load(identity.Pending.KeyID)
		if err == nil {
			return identity.Pending, key, nil
		}
		if !errors.Is(err, keys.ErrNotFound) {
			return nil, nil, fmt.Errorf("renew the identity: its new key: %w", err)
		}
	}
	id, key, err := c.cfg.Keys.Create(pki.DefaultKeyAlgorithm)
	if err != nil {
		return nil, nil, fmt.Errorf("renew the identity: %w", err)
	}
	pending := &store.PendingIdentity{KeyID: id}
	if err := c.changeIdentity(identity, func(i *store.Identity) { i.Pending = pending }); err != nil {
		// Unless it is unknown whether the record is stored.
		if !fatal(err) {
			err = errors.Join(err, c.cfg.Keys.Remove(id))
		}
		return nil, nil, err
	}
	return pending, key, nil
}

// promote is step 3, after the first success with the new certificate, and 4.
func (c *Client) promote(identity *store.Identity) error {
	link := c.link
	renewAt := enroll.DrawRenewAt(link.leaf, c.serverNow(), rand.Float64())
	serial := pki.SerialHex(link.leaf)
	err := c.changeIdentity(identity, func(i *store.Identity) {
		if i.Pending != nil && i.Pending.RootsPEM != "" {
			i.RootsPEM = i.Pending.RootsPEM
		}
		i.KeyID, i.ChainPEM = link.keyID, link.chainPEM
		i.RenewAt, i.Pending = renewAt, nil
	}, wire.Event{Kind: wire.EventIdentityRenewed, Serial: serial})
	if err != nil {
		return err
	}
	link.pending = false
	c.renewAttempt, c.renewAfter = 0, time.Time{}
	c.update(func(s *State) { s.IdentityRenewAt, s.IdentityPending = renewAt, false })
	c.log.Info("identity is renewed", "serial", serial, "not_after", link.leaf.NotAfter, "renew_at", renewAt)
	c.removeKey(identity.KeyID)
	c.Kick() // for the fact
	return nil
}

// dropPending goes back to the certificate that was good before.
func (c *Client) dropPending(why string, cause error) error {
	c.log.Warn("new certificate of the identity is dropped, and the old one used again", "reason", why, "err", cause)
	var keyID string
	err := c.identities.UpdateIdentity(func(current *store.Identity) (*store.Identity, error) {
		keyID = ""
		if current != nil && current.Pending != nil {
			keyID, current.Pending = current.Pending.KeyID, nil
		}
		return current, nil
	})
	if err == nil && keyID != "" {
		c.removeKey(keyID)
	}
	return err
}

func (c *Client) removeKey(id string) {
	if err := c.cfg.Keys.Remove(id); err != nil {
		// Nothing refers to it any more, and the next sweep removes it.
		c.log.Warn("old key of the identity was not removed", "key_id", id, "err", err)
	}
}

// changeIdentity changes the stored identity, if it is still the one that
// before is a copy of.
func (c *Client) changeIdentity(before *store.Identity, fn func(*store.Identity), events ...wire.Event) error {
	return c.identities.UpdateIdentity(func(current *store.Identity) (*store.Identity, error) {
		if current == nil || current.AgentID != before.AgentID || current.KeyID != before.KeyID {
			return nil, errIdentityChanged
		}
		fn(current)
		return current, nil
	}, events...)
}
