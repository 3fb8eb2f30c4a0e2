package renewal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentclock "github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/internal/counts"
)

// hostOfTime is a host whose wall clock may be wrong, with the agent's own clock
// under its engine. The clock of its world is the real time, by which its
// authority goes.
type hostOfTime struct {
	*world
	trusted *agentclock.Clock
	wrong   atomic.Int64 // the wall clock minus the real time
	cut     atomic.Bool  // off the network, so that nobody tells the time
	first   time.Time
}

func newHostOfTime(t *testing.T, certificates int) *hostOfTime {
	h := &hostOfTime{world: newWorldOfMany(t, certificates, Limits{})}
	h.first = h.clock.now()
	var err error
	h.trusted, err = agentclock.New(agentclock.Config{
		Wall:    func() time.Time { return h.clock.now().Add(time.Duration(h.wrong.Load())) },
		Elapsed: func() time.Duration { return time.Hour + h.clock.now().Sub(h.first) },
		BootID:  "one", Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	h.trusted.AddSource("ca.test", func(context.Context) error {
		if h.cut.Load() {
			return errors.New("no route to host")
		}
		h.trusted.Observe("ca.test", h.trusted.Stamp(), h.clock.now(), 0)
		return nil
	})
	h.issuer = timed{h.ca}
	h.ca.interfere(func(context.Context, *issuer.Order) error {
		if h.cut.Load() {
			return errors.New("no route to host")
		}
		return nil
	})
	h.tune = func(c *Config) { c.Now, c.Wall, c.Confirm = h.trusted.Now, h.trusted.Wall, h.trusted.Confirm }
	h.open()
	h.tick()
	require.Equal(t, certificates, h.ca.issuedCount())
	return h
}

// live lets real time pass, and requires that nothing is served that has expired.
func (h *hostOfTime) live(d, step time.Duration) {
	h.t.Helper()
	for end := h.clock.now().Add(d); h.clock.now().Before(end); h.clock.advance(step) {
		h.tick()
		for name, rec := range h.records() {
			require.True(h.t, rec.Current.NotAfter.After(h.clock.now()), "%s has expired", name)
		}
	}
}

// liveAsking is live while the agent's clock does what it does by itself: in a
// bubble, it asks the time of whoever can tell it.
func (h *hostOfTime) liveAsking(d, step time.Duration) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	ended := make(chan error)
	go func() { ended <- h.trusted.Run(ctx) }()
	for range d / step {
		h.live(step, step)
		<-time.After(step)
	}
	cancel()
	require.NoError(h.t, <-ended)
}

// A clock that is set a year ahead or back renews nothing early and lets nothing
// expire, whether somebody can tell the time or not.
func TestAClockThatJumpsAYear(t *testing.T) {
	const certificates = 12
	jumps := 0
	for _, by := range []time.Duration{365 * day, -365 * day} {
		for _, alone := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/alone=%v", by, alone), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { jump(t, certificates, by, alone) })
			})
			jumps += certificates
		}
	}
	counts.Report(t, "clock-jumps", jumps, "certificates whose host's clock was set a year ahead or back, none of them renewed early or late")
}

func jump(t *testing.T, certificates int, by time.Duration, alone bool) {
	h := newHostOfTime(t, certificates)
	h.live(10*day, 6*time.Hour)
	h.wrong.Store(int64(by))
	h.cut.Store(alone)
	h.liveAsking(6*time.Hour, time.Minute) // longer than the clock waits for an answer
	require.Equal(t, certificates, h.ca.orders(), "renewed for a clock that was set")
	if alone && by > 0 {
		status, err := h.e.Status()
		require.NoError(t, err)
		said := 0
		for _, s := range status {
			if s.Problem != "" || s.Record.NeedsAttention != "" {
				said++
			}
		}
		assert.Equal(t, certificates, said, "what the host takes to have expired is said, not kept silent")
	}
	h.cut.Store(false)
	h.reopen()
	h.live(44*day, 6*time.Hour) // the earliest is renewed after 55.5 of 90 days
	require.Equal(t, certificates, h.ca.orders(), "renewed before its window")
	h.live(12*day, 6*time.Hour)
	require.Equal(t, 2*certificates, h.ca.issuedCount(), "all are renewed in their window")
	require.Equal(t, 2*certificates, h.ca.orders())
	for name, rec := range h.records() {
		require.Empty(t, rec.NeedsAttention, name)
	}
	h.close()
}

// What fell due while the machine slept is renewed when it wakes up.
func TestAMachineThatSleeps(t *testing.T) {
	h := newHostOfTime(t, 5)
	h.live(10*day, 6*time.Hour)
	h.clock.advance(60 * day) // without a tick; both clocks of a machine count sleep
	h.live(2*time.Minute, 5*time.Second)
	require.Equal(t, 10, h.ca.issuedCount())
	require.Equal(t, 10, h.ca.orders())
}
