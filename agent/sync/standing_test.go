package sync

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync/coordinatortest"
	"github.com/certctl/certctl/shared/wire"
)

// An agent with nothing to say sends one small request per interval and writes
// next to nothing.
func TestIdleAgentIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		for i := range 10 {
			h.certificate(fmt.Sprint(i), "issuer")
		}
		largest := 0
		var dialed atomic.Int32
		h.network.Down = func() bool { dialed.Add(1); return false }
		h.start()
		h.pass(time.Minute)
		h.coord.Change(func() { h.coord.Body = func(body []byte) { largest = max(largest, len(body)) } })
		before := h.coord.Requests(wire.SyncPath)
		h.pass(10 * time.Hour)
		requests := h.coord.Requests(wire.SyncPath) - before
		assert.InDelta(t, 600, requests, 12, "one request a minute, ±10 % each")
		assert.Less(t, largest, 600, "bytes of an idle request")
		assert.EqualValues(t, 1, dialed.Load(), "one connection, kept alive")
		stored, err := h.store.SyncState()
		require.NoError(t, err)
		assert.Less(t, time.Since(stored.LastSuccess), keepEvery+2*time.Minute)
		assert.Less(t, time.Since(h.client.State().LastSuccess), 70*time.Second)
	})
}

func TestPauseIsObeyedWithinLimits(t *testing.T) {
	for _, c := range []struct {
		asked     time.Duration
		low, high int // requests in ten hours
	}{
		{10 * time.Minute, 55, 66},
		{1000 * time.Hour, 9, 12},
		{-time.Hour, 32000, 40000},
	} {
		t.Run(c.asked.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				h.enrol()
				h.coord.Pause = c.asked
				h.start()
				length := 10 * time.Hour
				if c.asked < 0 {
					length /= 100 // a second each is enough to count
				}
				h.pass(length)
				requests := h.coord.Requests(wire.SyncPath) * int(10*time.Hour/length)
				assert.GreaterOrEqual(t, requests, c.low)
				assert.LessOrEqual(t, requests, c.high)
			})
		})
	}
}

func TestKicksMakeOneSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		h.start()
		h.pass(5 * time.Second)
		require.Equal(t, 1, h.coord.Requests(wire.SyncPath))
		for i := range 50 {
			h.fact(fmt.Sprint(i))
			h.client.Kick()
		}
		h.pass(time.Second)
		assert.Equal(t, 2, h.coord.Requests(wire.SyncPath))
		assert.Len(t, details(h.agent()), 50)
	})
}

// Cut off: one warning, growing pauses, kicks do not defeat them, an order gets
// one attempt, and what was written meanwhile arrives in order.
func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		var log bytes.Buffer
		h.log = slog.New(slog.NewTextHandler(&log, nil))
		var up atomic.Bool
		var dials atomic.Int32
		var lastDial atomic.Int64
		h.network.Down = func() bool {
			dials.Add(1)
			lastDial.Store(time.Now().UnixNano())
			return !up.Load()
		}
		h.start()
		h.pass(time.Hour)
		first := dials.Load()
		assert.Greater(t, first, int32(12))
		assert.Less(t, first, int32(60))
		assert.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
		state := h.client.State()
		assert.Equal(t, CutOff, state.Standing)
		assert.InDelta(t, time.Hour, time.Since(state.CutOffSince), float64(time.Second))
		assert.NotEmpty(t, state.LastError)

		for range 20 {
			h.client.Kick()
		}
		// In the middle of a pause of unknown length, so over a short time only.
		h.pass(300 * time.Millisecond)
		assert.LessOrEqual(t, dials.Load()-first, int32(1))

		for time.Since(time.Unix(0, lastDial.Load())) < urgeGap {
			h.pass(time.Second)
		}
		before := dials.Load()
		for range 10 {
			h.client.Urge()
			h.pass(300 * time.Millisecond)
		}
		assert.LessOrEqual(t, dials.Load()-before, int32(3), "one for all the orders, and what may have been due")
		assert.GreaterOrEqual(t, dials.Load()-before, int32(1))

		h.restart() // the state survives
		synctest.Wait()
		require.Equal(t, state.CutOffSince.Unix(), h.client.State().CutOffSince.Unix())
		var want []string
		for i := range 5 {
			want = append(want, fmt.Sprint("fact ", i))
			h.fact(want[i])
		}
		up.Store(true)
		h.pass(6 * time.Minute)
		assert.Equal(t, want, details(h.agent()))
		assert.Equal(t, Connected, h.client.State().Standing)
		assert.Zero(t, h.client.State().CutOffSince)
		assert.Contains(t, log.String(), "coordinator is reached again")
	})
}

func TestRetryAfterIsObeyedEvenByOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		var requests atomic.Int32
		h.coord.Fault = func(*http.Request) coordinatortest.Fault { requests.Add(1); return coordinatortest.Unavailable }
		h.start()
		h.pass(time.Second)
		require.EqualValues(t, 1, requests.Load())
		h.client.Urge()
		h.pass(5 * time.Second)
		assert.EqualValues(t, 1, requests.Load(), "Retry-After is 7")
		h.pass(5 * time.Second)
		assert.EqualValues(t, 2, requests.Load())
	})
}

func TestNotEnrolledIdlesUntilAnIdentityAppears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.start()
		var enrolled atomic.Int32
		h.client.cfg.OnEnrolled = func() {
			assert.NotEqual(t, NotEnrolled, h.client.State().Standing, "orders can be placed when it is called")
			enrolled.Add(1)
		}
		h.pass(time.Hour)
		assert.Equal(t, NotEnrolled, h.client.State().Standing)
		h.client.Kick()
		h.pass(time.Hour)
		assert.Equal(t, NotEnrolled, h.client.State().Standing)
		require.NoError(t, h.store.SaveIdentity(&store.Identity{Enrolling: &store.Enrolling{TokenID: "t", KeyID: "k"}}))
		h.client.Kick()
		h.pass(time.Hour)
		assert.Equal(t, NotEnrolled, h.client.State().Standing, "an enrolment under way is no identity")
		assert.Zero(t, enrolled.Load())
		h.enrol()
		h.client.Kick()
		h.pass(2 * time.Second)
		assert.EqualValues(t, 1, enrolled.Load())
		assert.Equal(t, Connected, h.client.State().Standing)
		assert.Equal(t, h.agentID, h.client.State().AgentID)
	})
}

func TestRetiredAgentStopsForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		h.start()
		h.pass(time.Second)
		h.coord.Change(func() { h.coord.AgentLocked(h.agentID).Retired = true })
		h.pass(2 * time.Minute)
		assert.Equal(t, Retired, h.client.State().Standing)
		assert.True(t, h.identity().Retired)
		before := h.coord.Requests(wire.SyncPath)
		h.client.Kick()
		h.client.Urge()
		h.pass(48 * time.Hour)
		h.restart()
		h.pass(time.Hour)
		assert.Equal(t, Retired, h.client.State().Standing)
		assert.Equal(t, before, h.coord.Requests(wire.SyncPath))
		h.enrol() // anew
		h.client.Kick()
		h.pass(2 * time.Second)
		assert.Equal(t, Connected, h.client.State().Standing)
	})
}

func TestUnknownIdentityIsTriedOnceAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		h.start()
		h.pass(time.Second)
		h.coord.Change(func() { h.coord.AgentLocked(h.agentID).Unknown = true })
		h.pass(2 * time.Minute)
		assert.Equal(t, Unknown, h.client.State().Standing)
		before := h.coord.Requests(wire.SyncPath)
		h.client.Kick()
		h.client.Urge()
		h.pass(10 * time.Hour)
		assert.InDelta(t, 10, h.coord.Requests(wire.SyncPath)-before, 1)
		h.coord.Change(func() { h.coord.AgentLocked(h.agentID).Unknown = false })
		h.pass(70 * time.Minute)
		assert.Equal(t, Connected, h.client.State().Standing)
	})
}

// Two hosts with one identity, as after cloning a virtual machine: each of them
// finds that a later run is known, and says so.
func TestStaleSequenceBeginsANewBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		var log bytes.Buffer
		h.log = slog.New(slog.NewTextHandler(&log, nil))
		h.start()
		h.pass(2 * time.Minute)
		old := h.client.bootID
		h.stop()
		h.client.sequence = 0 // set back, and kept running
		h.prepare = func(c *Client) { c.bootID = old }
		h.start()
		h.fact("after")
		h.pass(2 * time.Minute)
		assert.Equal(t, Connected, h.client.State().Standing)
		assert.Equal(t, []string{"after"}, details(h.agent()))
		assert.Contains(t, log.String(), "another host uses a copy of this identity")
		state := h.client.State()
		assert.False(t, state.Shared(time.Now()), "once is a machine that was set back")
	})
}

// A sequence that is stale again and again is another host's doing.
func TestAnotherHostUsesThisIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		h.start()
		h.pass(2 * time.Minute)
		shared := func() bool {
			state := h.client.State()
			return state.Shared(time.Now())
		}
		for _, want := range []bool{false, true} {
			h.coord.Change(func() { h.coord.AgentLocked(h.agentID).Overtake() })
			h.pass(10 * time.Minute)
			assert.Equal(t, Connected, h.client.State().Standing)
			assert.Equal(t, want, shared())
		}
		h.pass(25 * time.Hour)
		assert.False(t, shared(), "it has stopped")
	})
}

func TestUnsupportedProtocolIsTriedSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		h.coord.Refuse = &wire.Problem{Status: http.StatusBadRequest, Code: wire.CodeProtocol, Detail: "too new"}
		h.start()
		h.pass(10 * time.Hour)
		assert.LessOrEqual(t, h.coord.Requests(wire.SyncPath), 13)
		assert.Equal(t, CutOff, h.client.State().Standing)
		assert.Contains(t, h.client.State().LastError, "protocol_unsupported")
	})
}

func TestClockOffset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		h.coord.Clock = 3 * time.Hour
		h.start()
		h.pass(time.Second)
		assert.InDelta(t, 3*time.Hour, h.client.State().ClockOffset, float64(time.Second))
		stored, err := h.store.SyncState()
		require.NoError(t, err)
		assert.Equal(t, h.client.State().ClockOffset, stored.ClockOffset)
		h.coord.Change(func() { h.coord.Clock = 3*time.Hour + 500*time.Millisecond })
		h.pass(2 * time.Minute)
		again, err := h.store.SyncState()
		require.NoError(t, err)
		assert.Equal(t, stored.ClockOffset, again.ClockOffset, "less than a second is no news")
	})
}

// A clock that is a year ahead makes neither an early renewal of the identity
// nor a storm of them: the coordinator's time counts.
func TestWrongClockRenewsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.coord.Pause, h.coord.IdentityLifetime = 10*time.Minute, 4*time.Hour
		h.coord.Clock = -365 * 24 * time.Hour // that is, this host is ahead
		h.enrol()
		h.start()
		h.pass(100 * time.Minute)
		require.Equal(t, Connected, h.client.State().Standing)
		assert.Equal(t, 1, h.coord.IdentitiesIssued())
		h.pass(time.Hour)
		assert.Equal(t, 2, h.coord.IdentitiesIssued())
		assert.Equal(t, Connected, h.client.State().Standing)
	})
}
