package clock

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	day  = 24 * time.Hour
	year = 365 * day
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// machine is a host: the real time, and what its clocks make of it.
type machine struct {
	real   time.Time
	wrong  time.Duration // wall clock minus real time
	uptime time.Duration
	boot   string
	mark   Mark
	*Clock
}

func newMachine(t require.TestingT) *machine {
	m := &machine{real: epoch, uptime: time.Hour, boot: "one"}
	m.start(t)
	return m
}

// start begins a run of the agent.
func (m *machine) start(t require.TestingT) {
	c, err := New(Config{
		Wall:    func() time.Time { return m.real.Add(m.wrong) },
		Elapsed: func() time.Duration { return m.uptime },
		BootID:  m.boot,
		Save:    func(mark Mark) error { m.mark = mark; return nil },
		Log:     slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	m.Clock = c
	m.Restore(m.mark)
}

func (m *machine) pass(d time.Duration) {
	m.real, m.uptime = m.real.Add(d), m.uptime+d
	m.Now()
}

func (m *machine) set(by time.Duration) { m.wrong += by; m.Now() }

// reboot turns the machine off for a while.
func (m *machine) reboot(t require.TestingT, off time.Duration) {
	m.save()
	m.real, m.uptime, m.boot = m.real.Add(off), time.Minute, m.boot+"+"
	m.start(t)
}

func (m *machine) hear(name string, wrong time.Duration) {
	m.Observe(name, m.Stamp(), m.real.Add(wrong), 0)
}

// off is how far the trusted time is from the real one.
func (m *machine) off() time.Duration { return m.Now().Sub(m.real) }

func TestConfigIsChecked(t *testing.T) {
	_, err := New(Config{})
	require.ErrorContains(t, err, "Log")
}

func TestSystemClocks(t *testing.T) {
	c, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	began := time.Now()
	assert.WithinRange(t, c.Now(), began.Add(-time.Second), time.Now().Add(time.Second))
	before := sinceBoot()
	assert.GreaterOrEqual(t, sinceBoot(), before)
	assert.Positive(t, before)
	assert.Equal(t, c.boot, bootID(), "the same within one run of the machine")
}

func TestRightClockIsLeftAlone(t *testing.T) {
	m := newMachine(t)
	m.hear("coordinator", 20*time.Second)
	m.pass(10 * day)
	r := m.Reading()
	assert.Zero(t, m.off())
	assert.Equal(t, BasisWall, r.Basis)
	assert.True(t, r.Confirmed)
	assert.Empty(t, r.Warnings())
}

func TestSuspendIsRealTime(t *testing.T) {
	m := newMachine(t)
	m.pass(40 * day) // both clocks count it
	assert.Zero(t, m.off())
	assert.Equal(t, BasisWall, m.Reading().Basis)
}

func TestStepOfTheWallClockIsNoTime(t *testing.T) {
	for _, by := range []time.Duration{year, -year, 5 * time.Hour, -5 * time.Hour, 2 * time.Minute} {
		m := newMachine(t)
		m.pass(time.Hour)
		m.set(by)
		m.pass(30 * time.Minute)
		assert.Zero(t, m.off(), by)
		r := m.Reading()
		assert.Equal(t, BasisHeld, r.Basis, by)
		assert.Equal(t, by, r.Skew)
		require.Len(t, r.Warnings(), 1)
		assert.Contains(t, r.Warnings()[0], "time service")

		m.set(-by)
		assert.Zero(t, m.off())
		assert.Equal(t, BasisWall, m.Reading().Basis, "it was set right again")
	}
}

func TestObservedClock(t *testing.T) {
	for _, wrong := range []time.Duration{year, -year, 3 * time.Hour, -2 * time.Minute} {
		m := newMachine(t)
		m.wrong = wrong
		m.start(t) // first start of all: no mark
		m.hear("coordinator", 0)
		assert.Zero(t, m.off(), wrong)
		r := m.Reading()
		assert.Equal(t, BasisObserved, r.Basis)
		assert.Equal(t, wrong, r.Skew)
		assert.False(t, r.Confirmed, "one server alone, before the others were asked")
		require.True(t, m.Confirm(t.Context(), ""))
		assert.True(t, m.Reading().Confirmed, "there are no others")

		m.set(-wrong + time.Second)
		assert.Less(t, m.off().Abs(), 2*time.Second)
		assert.Equal(t, BasisWall, m.Reading().Basis)

		m.set(wrong)
		assert.Less(t, m.off().Abs(), 2*time.Second, "what was heard holds over steps")
	}
}

func TestRoundTripBoundsAnObservation(t *testing.T) {
	m := newMachine(t)
	sent := m.Stamp()
	m.pass(10 * time.Second)
	m.Observe("slow", sent, m.real.Add(-5*time.Second), time.Second)
	o := m.Reading().Sources
	require.Len(t, o, 1)
	assert.Equal(t, 5500*time.Millisecond, o[0].Bound)
	assert.Equal(t, -500*time.Millisecond, o[0].Skew)
}

func TestSourcesThatDisagree(t *testing.T) {
	m := newMachine(t)
	m.hear("coordinator", year)
	m.hear("acme", 0)
	assert.Zero(t, m.off(), "the wall clock agrees with one of them")
	r := m.Reading()
	assert.True(t, r.Confirmed)
	assert.True(t, r.Disputed)
	require.Len(t, r.Warnings(), 1)
	assert.Contains(t, r.Warnings()[0], "coordinator says 2027-03-01T12:00:00Z")

	m.hear("another", year)
	assert.Equal(t, year, m.off(), "two against one")
	m.hear("another", 0)
	m.hear("coordinator", 0)
	assert.Zero(t, m.off())
	assert.False(t, m.Reading().Disputed)
}

func TestOneServerThatGoesMadIsNotFollowed(t *testing.T) {
	for _, by := range []time.Duration{year, -year} {
		m := newMachine(t)
		m.hear("coordinator", 0)
		m.pass(day)
		m.hear("coordinator", by)
		require.True(t, m.Confirm(t.Context(), "coordinator"))
		assert.Zero(t, m.off(), by)
		assert.True(t, m.Reading().Disputed)
		m.hear("coordinator", 0)
		assert.False(t, m.Reading().Disputed)
	}
}

func TestRestartOfTheAgent(t *testing.T) {
	m := newMachine(t)
	m.save()
	m.pass(20 * day)
	m.wrong = year // while the agent was not running
	m.start(t)
	assert.Zero(t, m.off(), "the machine knows how long it was")
	assert.Equal(t, BasisHeld, m.Reading().Basis)
}

func TestRebootWithAClockThatIsBehind(t *testing.T) {
	m := newMachine(t)
	m.wrong = 0
	m.hear("coordinator", 0)
	m.wrong = -year
	m.reboot(t, 2*time.Hour)
	assert.Equal(t, -2*time.Hour, m.off(), "it is at least what it was")
	r := m.Reading()
	assert.Equal(t, BasisMark, r.Basis)
	assert.False(t, r.Confirmed)
	require.Len(t, r.Warnings(), 1)
	assert.Contains(t, r.Warnings()[0], "at least")
	m.set(year) // a time service does its work
	assert.Zero(t, m.off())
	assert.True(t, m.Reading().Confirmed)
}

func TestRebootAfterALongTimeIsPlausibleOrNot(t *testing.T) {
	m := newMachine(t)
	m.hear("coordinator", 0)
	m.reboot(t, 3*day)
	assert.True(t, m.Reading().Confirmed)
	m.reboot(t, 60*day)
	r := m.Reading()
	assert.False(t, r.Confirmed, "off for two months, or set ahead?")
	assert.Zero(t, m.off(), "nothing else is known")
	require.Len(t, r.Warnings(), 1)
	m.hear("coordinator", 0)
	assert.True(t, m.Reading().Confirmed)

	m.wrong = year
	m.reboot(t, day)
	assert.Equal(t, year, m.off())
	require.False(t, m.Reading().Confirmed)
	m.hear("coordinator", 0)
	assert.Zero(t, m.off())
	assert.True(t, m.Reading().Confirmed, "it fits the mark")
}

func TestUnconfirmedTimeLeavesNoMark(t *testing.T) {
	m := newMachine(t)
	m.save()
	kept := m.mark
	m.wrong = year
	m.reboot(t, time.Hour)
	m.pass(day)
	m.reboot(t, time.Hour)
	assert.Equal(t, kept, m.mark)
	m.wrong = 0
	m.reboot(t, time.Hour)
	assert.Zero(t, m.off())
}

func TestMarkOfAWrongServerIsTakenBack(t *testing.T) {
	m := newMachine(t)
	m.wrong = year
	m.start(t)
	m.hear("coordinator", year) // both wrong
	m.wrong = 0
	m.reboot(t, time.Hour)
	require.Equal(t, BasisMark, m.Reading().Basis)
	m.hear("coordinator", 0)
	assert.Zero(t, m.off(), "the wall clock and the server agree")
	m.reboot(t, time.Hour)
	assert.Equal(t, BasisWall, m.Reading().Basis)
}

func TestConfirmAsksEverySourceOnceAMinute(t *testing.T) {
	m := newMachine(t)
	m.hear("coordinator", 0)
	m.wrong = year
	m.reboot(t, time.Hour)
	asked := 0
	m.AddSource("acme", func(context.Context) error { asked++; return errors.New("no route to host") })
	for range 5 {
		assert.False(t, m.Confirm(t.Context(), "acme"), "without it nothing could be done anyway")
		assert.True(t, m.Confirm(t.Context(), "script"), "which needs nobody")
	}
	assert.Equal(t, 1, asked)
	m.pass(2 * time.Minute)
	m.sources[0].ask = func(context.Context) error { m.hear("acme", 0); return nil }
	assert.True(t, m.Confirm(t.Context(), "acme"))
	assert.Zero(t, m.off())

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	m.set(0)
	m.confirmed = false
	m.pass(2 * time.Minute)
	m.sources[0].ask = func(ctx context.Context) error { return ctx.Err() }
	assert.False(t, m.Confirm(ended, "acme"))
}

// A virtual machine that was paused for weeks, and whose clock was then put
// right, looks like one whose clock was set ahead.
func TestStepAheadIsBelievedWhereNobodyCanBeAsked(t *testing.T) {
	m := newMachine(t)
	m.real = m.real.Add(30 * day)
	assert.Equal(t, -30*day, m.off())
	require.NoError(t, m.askAll(t.Context()))
	m.pass(patience + time.Second)
	assert.Zero(t, m.off())
	assert.False(t, m.Reading().Confirmed)
	assert.True(t, m.Confirm(t.Context(), ""), "it must not block")

	m = newMachine(t)
	m.set(-30 * day)
	require.NoError(t, m.askAll(t.Context()))
	m.pass(20 * day)
	assert.Zero(t, m.off(), "time does not go back")
}

func TestNonsenseIsNotHeard(t *testing.T) {
	m := newMachine(t)
	m.Observe("mad", m.Stamp(), time.Date(12_000, 1, 1, 0, 0, 0, 0, time.UTC), 0)
	m.Observe("mad", m.Stamp(), time.Time{}, 0)
	assert.Empty(t, m.Reading().Sources)
	for i := range 2 * maxOffsets {
		m.hear(string(rune('a'+i)), 0)
	}
	assert.Len(t, m.Reading().Sources, maxOffsets)
	m.pass(freshFor + time.Hour)
	assert.Empty(t, m.Reading().Sources, "history is bounded in time too")
}

// Whatever happens to the wall clock, a server that can be asked and is right
// makes the trusted time right; without one, time never goes back within a run.
func TestTrustedTimeUnderRandomEvents(t *testing.T) {
	// An old observation may be off by what a time service has slewed since.
	aged := offset{}.boundAt(freshFor)
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		m.hear("coordinator", 0)
		last, sure := m.Now(), true
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			ran := true
			switch rapid.IntRange(0, 4).Draw(t, "event") {
			case 0:
				m.set(time.Duration(rapid.Int64Range(-int64(2*year), int64(2*year)).Draw(t, "step")))
			case 1:
				m.pass(time.Duration(rapid.Int64Range(0, int64(20*day)).Draw(t, "pass")))
			case 2:
				ran = false
				m.reboot(t, time.Duration(rapid.Int64Range(0, int64(90*day)).Draw(t, "off")))
			case 3:
				ran = false
				m.hear("coordinator", 0)
				m.Confirm(context.Background(), "coordinator")
				if m.off().Abs() > Tolerance {
					t.Fatalf("trusted time is off by %v although a server was heard: %+v", m.off(), m.Reading())
				}
			case 4:
				ran = false
				m.start(t)
			}
			now := m.Now()
			if ran && sure && last.Sub(now) > Tolerance+stepLimit+aged {
				t.Fatalf("confirmed time went back from %v to %v", last, now)
			}
			last, sure = now, m.Reading().Confirmed
		}
	})
}
