package sync

import (
	"context"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// Kicks within this time make one sync.
	debounce = 200 * time.Millisecond
	// minGap lies between the beginnings of two rounds, whatever happens here.
	minGap = wire.MinPause
	// urgeGap lies between two attempts that orders make while cut off.
	urgeGap = 5 * time.Second
	// slowPause is for what only a person can change.
	slowPause = time.Hour
	// maxAtOnce bounds how often one round begins again at once, and how often
	// it follows the wish for a full inventory.
	maxAtOnce = 4

	pauseJitter = 0.1
)

// reconnect spreads a fleet that has lost its coordinator at one moment.
var reconnect = backoff.Policy{Initial: 2 * time.Second, Max: 5 * time.Minute, Multiplier: 2, FullJitter: true}

// slow is for a state that lasts until a person acts.
var slow = backoff.Policy{Initial: slowPause, Max: slowPause, Multiplier: 1, Jitter: pauseJitter}

// pause is how a round wants to be followed.
type pause struct {
	length time.Duration // 0 is until something happens
	// deaf ignores kicks, except for a changed identity.
	deaf bool
	// urgent lets an order through that deaf would ignore.
	urgent bool
}

// round does everything that is to be done with the coordinator now. Its error
// ends the client.
func (c *Client) round(ctx context.Context) (pause, error) {
	c.began = time.Now()
	for times := 1; ; times++ {
		answer, err := c.talk(ctx)
		switch {
		case ctx.Err() != nil:
			return pause{}, ctx.Err()
		case fatal(err):
			return pause{}, err
		case err == nil && answer == nil: // not enrolled, or retired
			return pause{deaf: true}, nil
		case err == nil:
			return c.obey(answer), c.tolerate(c.succeeded(c.now()))
		}
		next, again, err := c.react(ctx, err, times < maxAtOnce)
		if err = c.tolerate(err); err != nil || !again {
			return next, err
		}
	}
}

// talk exchanges all there is, and renews the identity when it is time. A nil
// answer without an error means that there is nobody to talk to.
func (c *Client) talk(ctx context.Context) (*wire.SyncResponse, error) {
	for times := 1; ; times++ {
		identity, err := c.identities.Identity()
		if err != nil {
			return nil, err
		}
		if standing := StandingOf(identity); standing != "" {
			c.unlink()
			c.update(func(s *State) { s.Standing, s.AgentID, s.NextSync = standing, agentID(identity), time.Time{} })
			return nil, nil
		}
		c.welcome()
		if err := c.connect(identity); err != nil {
			return nil, err
		}
		answer, err := c.exchangeAll(ctx)
		if err != nil {
			return nil, err
		}
		if c.link.pending {
			if err := c.promote(identity); err != nil {
				return nil, err
			}
			return answer, nil
		}
		renewed, err := c.renewIfDue(ctx, identity)
		if err != nil || !renewed || times == maxAtOnce {
			return answer, err
		}
		// The new certificate is used at once: until then both are good.
	}
}

// welcome tells that there is an identity, if there was none a moment ago.
func (c *Client) welcome() {
	switch c.State().Standing {
	case NotEnrolled, Retired:
	default:
		return
	}
	c.update(func(s *State) { s.Standing = Starting })
	if c.cfg.OnEnrolled != nil {
		c.cfg.OnEnrolled()
	}
}

// StandingOf is what an identity says without any contact; "" if there is to be
// contact.
func StandingOf(identity *store.Identity) Standing {
	switch {
	case agentID(identity) == "":
		return NotEnrolled
	case identity.Retired:
		return Retired
	}
	return ""
}

func agentID(identity *store.Identity) string {
	if identity == nil {
		return ""
	}
	return identity.AgentID
}

// maxPages bounds the requests of one round.
const maxPages = 1000

// progress is what at least one request after the other has to change.
type progress struct {
	acked, cursor, event uint64
	resyncID             string
	placed, collected    int
}

// exchangeAll sends page after page until all is said.
func (c *Client) exchangeAll(ctx context.Context) (*wire.SyncResponse, error) {
	var last progress
	resyncs := 0
	for page := 1; ; page++ {
		answer, more, err := c.exchange(ctx)
		if err != nil || !more {
			return answer, err
		}
		collected, err := c.store.CollectedOrders()
		if err != nil {
			return nil, err
		}
		now := progress{
			acked: c.ack.AckedRevision, cursor: c.cursor, event: answer.Event, resyncID: c.ack.ResyncID,
			placed: len(c.placed), collected: len(collected),
		}
		if c.ack.ResyncID != "" && c.cursor == 0 {
			resyncs++
		}
		if page > 1 && now == last || resyncs > maxAtOnce || page == maxPages {
			// It goes on after the pause: a hot loop would help nobody.
			c.log.Warn("sync makes no progress; it goes on after the pause", "pages", page, "resync_id", c.ack.ResyncID)
			return answer, nil
		}
		last = now
	}
}

// obey turns the pause that the coordinator asks for into ours.
func (c *Client) obey(answer *wire.SyncResponse) pause {
	millis := min(max(answer.PauseMillis, wire.MinPause.Milliseconds()), wire.MaxPause.Milliseconds())
	asked := time.Duration(millis) * time.Millisecond
	c.update(func(s *State) { s.Pause = asked })
	length := backoff.Policy{Initial: asked, Max: asked, Multiplier: 1, Jitter: pauseJitter}.Delay(1, nil)
	// A short-lived identity does not wait for the end of a long pause.
	if renewAt := c.State().IdentityRenewAt; !renewAt.IsZero() && c.renewAttempt == 0 {
		length = min(length, max(renewAt.Sub(c.serverNow()), wire.MinPause))
	}
	return pause{length: length}
}

// tolerate lets pass what may mend itself, such as a full disk: what was not
// stored is learnt again.
func (c *Client) tolerate(err error) error {
	if err == nil || fatal(err) {
		return err
	}
	c.log.Error("sync state was not stored", "err", err)
	return nil
}

// wait waits as a round wants to be followed.
func (c *Client) wait(ctx context.Context, p pause) {
	var over <-chan time.Time
	next := time.Time{}
	if p.length > 0 {
		timer := time.NewTimer(p.length)
		defer timer.Stop()
		over, next = timer.C, c.now().Add(p.length)
	}
	c.update(func(s *State) { s.NextSync = next })
	for {
		select {
		case <-ctx.Done():
			return
		case <-over:
			return
		case <-c.kick:
			if p.deaf && !c.identityChanged() {
				continue
			}
		case <-c.urge:
			if p.deaf && !c.identityChanged() && (!p.urgent || time.Since(c.began) < urgeGap) {
				continue
			}
		}
		// The rest of the burst comes along.
		if backoff.Wait(ctx, max(debounce, minGap-time.Since(c.began))) != nil {
			return
		}
		drain(c.kick)
		drain(c.urge)
		return
	}
}

func drain(from <-chan struct{}) {
	select {
	case <-from:
	default:
	}
}

// identityChanged reports whether the host was enrolled, or enrolled anew,
// since the link was made.
func (c *Client) identityChanged() bool {
	identity, err := c.identities.Identity()
	if err != nil || StandingOf(identity) != "" {
		return c.link != nil
	}
	want := credentialOf(identity)
	return c.link == nil || !c.link.same(&want)
}
