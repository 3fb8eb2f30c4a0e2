package sync

import (
	"strings"
	"time"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

// Standing is how the agent stands with its coordinator.
type Standing string

// Standings.
const (
	NotEnrolled Standing = "not_enrolled"
	Starting    Standing = "starting"  // no answer in this run yet, and no failure
	Connected   Standing = "connected" // the last exchange succeeded
	CutOff      Standing = "cut_off"   // it did not
	// Unknown says that the coordinator does not know this identity: it was
	// restored from an old backup, or is another one. Tried once an hour.
	Unknown Standing = "unknown"
	// Retired says that the coordinator no longer wants this agent. Nothing is
	// tried before the host is enrolled anew.
	Retired Standing = "retired"
)

// State is what a status report says of the coordinator.
type State struct {
	Standing Standing
	AgentID  string
	Server   string // the last one tried

	LastSuccess time.Time
	CutOffSince time.Time // first failure since the last success; zero if there is none
	LastError   string
	LastErrorAt time.Time

	NextSync time.Time     // zero while nothing is planned
	Pause    time.Duration // as the coordinator last asked for
	// ClockOffset is the coordinator's clock minus this host's.
	ClockOffset time.Duration

	IdentityNotAfter time.Time
	IdentityRenewAt  time.Time // by the coordinator's clock
	// IdentityPending says that a renewal of the identity is under way.
	IdentityPending bool
	// IdentityProblem is why the identity on this host's disk cannot be used, with
	// the mend, which only a person can do; "" if it can.
	IdentityProblem string
	// SharedAt is when it last looked as if another host used this identity:
	// the second stale sequence within sharedWithin. Zero if it never did in
	// this run.
	SharedAt time.Time
}

// sharedWithin is how close together two stale sequences are when another host
// is at work. One alone is a virtual machine that was set back.
const sharedWithin = time.Hour

// sharedFor is how long it counts that another host used this identity.
const sharedFor = 24 * time.Hour

// Shared reports whether another host uses a copy of this identity.
func (s *State) Shared(now time.Time) bool {
	return !s.SharedAt.IsZero() && now.Sub(s.SharedAt) < sharedFor
}

// State returns the present facts.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func (c *Client) update(fn func(*State)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn(&c.state)
}

// remember takes over what an earlier run stored.
func (s *State) remember(stored store.SyncState) {
	s.LastSuccess, s.ClockOffset = stored.LastSuccess, stored.ClockOffset
	s.LastError, s.LastErrorAt, s.CutOffSince = stored.LastError, stored.LastErrorAt, stored.CutOffSince
	if !stored.CutOffSince.IsZero() {
		s.Standing = CutOff
	}
}

// keepEvery is how often a success that changed nothing is stored: LastSuccess
// must not cost every idle host a synced write per minute.
const keepEvery = 5 * time.Minute

// keep stores what has changed in the sync state, if it matters.
func (c *Client) keep() error {
	idle := c.kept
	idle.LastSuccess = c.ack.LastSuccess
	if idle == c.ack && c.ack.LastSuccess.Sub(c.kept.LastSuccess).Abs() < keepEvery {
		return nil
	}
	if err := c.store.SaveSyncState(c.ack); err != nil {
		return err
	}
	c.kept = c.ack
	return nil
}

// succeeded records an exchange that reached its end.
func (c *Client) succeeded(now time.Time) error {
	now = now.Round(0).UTC()
	cutOff := c.ack.CutOffSince
	c.failures = 0
	c.ack.LastSuccess = now
	c.ack.CutOffSince, c.ack.LastErrorAt, c.ack.LastError = time.Time{}, time.Time{}, ""
	c.update(func(s *State) {
		s.Standing, s.LastSuccess = Connected, now
		s.CutOffSince, s.LastErrorAt, s.LastError = time.Time{}, time.Time{}, ""
	})
	if c.complained || !cutOff.IsZero() {
		c.complained = false
		c.log.Info("coordinator is reached again", "server", c.link.server(), "cut_off_since", cutOff)
	}
	return c.keep()
}

// failed records an exchange that did not. Only the change is logged as a
// warning: being cut off is a normal state.
func (c *Client) failed(standing Standing, err error, now time.Time) error {
	now = now.Round(0).UTC()
	text := clip(err.Error())
	if c.ack.CutOffSince.IsZero() {
		c.ack.CutOffSince = now
	}
	changed := c.State().Standing != standing
	if !c.complained || changed && standing != CutOff {
		c.complained = true
		c.log.Warn("no sync with the coordinator; this host goes on by itself", "standing", standing, "err", err)
	} else {
		c.log.Debug("no sync with the coordinator", "standing", standing, "attempt", c.failures, "err", err)
	}
	since := c.ack.CutOffSince
	c.update(func(s *State) {
		s.Standing, s.CutOffSince, s.LastError, s.LastErrorAt = standing, since, text, now
	})
	// The first error is stored, and one of another text; not each repetition.
	if c.ack.LastError != text {
		c.ack.LastError, c.ack.LastErrorAt = text, now
	}
	return c.keep()
}

// clockError is how far an offset may be from the stored one before it is
// stored anew.
const clockError = time.Second

// clock learns the offset of the clocks from one answer: the server's time was
// taken somewhere between sending and the head of the answer.
func (c *Client) clock(server, sentAt time.Time, took time.Duration) {
	if server.IsZero() {
		return
	}
	if c.cfg.Clock != nil {
		c.cfg.Clock.Observe(clock.Coordinator, c.cfg.Clock.Stamp().Before(took), server, 0)
	}
	// Without the monotonic reading, which says nothing about the wall clock.
	offset := server.Sub(sentAt.Round(0).Add(took / 2))
	if (offset - c.ack.ClockOffset).Abs() <= max(clockError, took/2) {
		return
	}
	c.ack.ClockOffset = offset
	c.update(func(s *State) { s.ClockOffset = offset })
	if offset.Abs() > clock.Tolerance && c.cfg.Clock == nil {
		c.log.Warn("the clocks of this host and the coordinator differ; check the time service of both", "offset", offset)
	}
}

// serverNow is the coordinator's time, as far as it is known.
func (c *Client) serverNow() time.Time { return time.Now().Round(0).Add(c.ack.ClockOffset) }

func clip(text string) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= wire.MaxTextLen {
		return text
	}
	return strings.ToValidUTF8(text[:wire.MaxTextLen-3], "") + "..."
}
