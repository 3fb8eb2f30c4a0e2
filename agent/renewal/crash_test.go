package renewal

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/shared/wire"
)

// crashPoint is the world at one moment.
type crashPoint struct {
	label string
	w     *world
}

// record runs fn and returns the world at every step of it.
func recordCrashes(w *world, fn func()) []crashPoint {
	var points []crashPoint
	w.point = func(label string) {
		points = append(points, crashPoint{fmt.Sprintf("%02d %s", len(points)+1, label), w.snapshot()})
	}
	fn()
	w.point = func(string) {}
	return points
}

// After every step of a first issuance and of a renewal the state is copied,
// and an engine that is started on the copy must end with one certificate for
// each and a matching pair in service everywhere.
func TestCrashAtEveryStep(t *testing.T) {
	w := newWorld(t)
	w.open()
	first := recordCrashes(w, func() { w.settleDown() })
	w.toRenewal()
	second := recordCrashes(w, func() { w.tick(); w.settleDown() })
	kinds := requireRecovery(t, [][]crashPoint{first, second}, 0, func(*testing.T, *world, int) {})
	// A check that covers nothing passes: name what must have been covered.
	for label, times := range map[string]int{
		"keys: after a new key": 2, "keys: after a removal": 1, "store: after a commit": 16,
		"authority: before new order": 2, "authority: new order's answer lost": 2,
		"authority: before finalize": 2, "authority: finalize's answer lost": 2,
		"place front: between the files": 2, "place back: between the files": 2,
		"place front: after the reload": 2, "place back: before the reload": 2,
	} {
		assert.GreaterOrEqual(t, kinds[label], times, label)
	}
	t.Logf("%d crash points", len(first)+len(second))
}

// The same where the second renewal keeps the key of the first one, and the third
// is one that an operator asked for, which makes a new key.
func TestCrashAtEveryStepWithAKeyThatIsKept(t *testing.T) {
	w := newWorld(t)
	w.reuse, w.ca.reuse = true, true
	w.open()
	first := recordCrashes(w, func() { w.settleDown() })
	key := w.record().Current.KeyID
	w.toRenewal()
	second := recordCrashes(w, func() { w.tick(); w.settleDown() })
	w.requireServed(2)
	require.NoError(t, w.e.Renew(t.Context(), "web"))
	third := recordCrashes(w, func() { w.tick(); w.settleDown() })
	w.requireServed(3)

	kinds := requireRecovery(t, [][]crashPoint{first, second, third}, 0, func(t *testing.T, w *world, n int) {
		switch id := w.record().Current.KeyID; n {
		case 2:
			require.Equal(t, key, id, "the key in service was not kept")
		case 3:
			require.NotEqual(t, key, id)
		}
	})
	// Made with the first certificate and the one that was asked for; removed with
	// the last alone.
	assert.Equal(t, 2, kinds["keys: after a new key"])
	assert.Equal(t, 1, kinds["keys: after a removal"])
	assert.GreaterOrEqual(t, kinds["store: after a commit"], 24)
	assert.Equal(t, 3, kinds["authority: finalize's answer lost"])
	counts.Report(t, "kept-key-crash-points", len(first)+len(second)+len(third), "states of an agent that keeps a key, on which a new one was started")
}

// The same where every order needs a turn: one that was used up for nothing is
// waited for again, and no order is made without one.
func TestCrashAtEveryStepWithABudget(t *testing.T) {
	w := newWorld(t)
	w.limits = Limits{OrdersPerHour: 2, Burst: 1}
	w.open()
	first := recordCrashes(w, func() { w.settleDown() })
	w.toRenewal()
	second := recordCrashes(w, func() { w.tick(); w.settleDown() })
	kinds := requireRecovery(t, [][]crashPoint{first, second}, time.Hour, func(t *testing.T, w *world, _ int) {
		require.Empty(t, w.events(wire.EventFailed), "to wait is no failure")
	})
	assert.Equal(t, 2, kinds["store: after a turn"])
}

// requireRecovery starts an engine on each state, and counts them by what had
// just happened. The nth list is of the nth renewal; patience is for what has to
// wait for a turn.
func requireRecovery(t *testing.T, renewals [][]crashPoint, patience time.Duration, check func(t *testing.T, w *world, n int)) (kinds map[string]int) {
	kinds = map[string]int{}
	for i, points := range renewals {
		for _, p := range points {
			kinds[p.label[3:]]++
			t.Run(fmt.Sprintf("renewal %d/%s", i+1, p.label), func(t *testing.T) {
				p.w.t, p.w.ca.t = t, t
				for _, place := range p.w.places {
					place.t = t
				}
				p.w.open()
				if patience > 0 {
					p.w.run(patience, 10*time.Minute)
				}
				p.w.requireServed(i + 1)
				check(t, p.w, i+1)
			})
		}
	}
	return kinds
}

// After every step from the report of a revocation to its end, an engine that is
// started on a copy must replace the certificate once, with a new key.
func TestCrashAtEveryStepOfAReplacement(t *testing.T) {
	w := newWorld(t)
	w.open()
	lost := w.settleDown().Current
	points := recordCrashes(w, func() { w.revoke(); w.tick(); w.settleDown() })
	for _, p := range points {
		t.Run(p.label, func(t *testing.T) {
			p.w.t, p.w.ca.t = t, t
			for _, place := range p.w.places {
				place.t = t
			}
			p.w.open()
			p.w.requireServed(2)
			rec := p.w.record()
			require.NotEqual(t, lost.KeyID, rec.Current.KeyID)
			require.NotEqual(t, lost.Serial, rec.Current.Serial)
			require.Empty(t, rec.NeedsAttention)
		})
	}
	assert.Equal(t, "store: after a commit", points[0].label[3:], "the report itself")
	assert.Greater(t, len(points), 12)
}

// Where renewals keep the key, a replacement does not, also when a renewal for the
// key in service was under way.
func TestAReplacementHasANewKey(t *testing.T) {
	for _, underWay := range []bool{false, true} {
		w := newWorld(t)
		w.reuse, w.ca.reuse = true, true
		w.open()
		lost := w.settleDown().Current
		if underWay {
			w.toRenewal()
			w.ca.interfere(func(context.Context, *issuer.Order) error { return errors.New("no route to host") })
			w.tick()
			require.Equal(t, lost.KeyID, w.record().Next.KeyID)
			w.ca.interfere(nil)
		}
		points := recordCrashes(w, func() { w.revoke(); w.tick(); w.settleDown() })
		require.NotEmpty(t, points)
		for _, p := range points {
			p.w.open()
			p.w.requireServed(2)
			require.NotEqual(t, lost.KeyID, p.w.record().Current.KeyID, p.label)
			p.w.close()
		}
		w.requireServed(2)
		w.close()
	}
}

// The write of the report fails, before or after it reached the disk: whoever
// reported repeats it to the next process.
func TestTheStoreFailsAtTheReportOfARevocation(t *testing.T) {
	for _, after := range []bool{false, true} {
		w := newWorld(t)
		w.open()
		rec := w.settleDown()
		w.store.writes, w.store.failAt, w.store.after, w.store.failure = 0, 1, after, errDisk
		require.ErrorIs(t, w.e.Revoked("web", rec.Current.Serial, w.clock.now(), 1), store.ErrStateUnknown)
		require.ErrorIs(t, w.e.fatal, store.ErrStateUnknown)
		w.reopen()
		require.Equal(t, after, w.record().Current.Revoked != nil)
		require.NoError(t, w.e.Revoked("web", rec.Current.Serial, w.clock.now(), 1))
		w.requireServed(2)
		w.close()
	}
}

// A crash of the crash's recovery, at every step of that one.
func TestCrashAtEveryStepOfARecovery(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.toRenewal()
	covered := 0
	for _, p := range recordCrashes(w, func() { w.tick(); w.settleDown() }) {
		switch p.label[3:] {
		case "authority: finalize's answer lost", "place back: between the files":
		default:
			continue
		}
		p.w.open()
		for _, again := range recordCrashes(p.w, func() { p.w.tick(); p.w.settleDown() }) {
			covered++
			t.Run(p.label+"/"+again.label, func(t *testing.T) {
				again.w.t, again.w.ca.t = t, t
				again.w.open()
				again.w.requireServed(2)
			})
		}
	}
	assert.Greater(t, covered, 10)
}

// Every write of a renewal fails once, before and after it reached the disk. The
// engine must stop, and its successor must end with one certificate.
func TestStoreFailsAtEveryWrite(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			w := newWorld(t)
			w.open()
			w.settleDown()
			w.toRenewal()
			w.store.writes, w.store.failAt, w.store.after, w.store.failure = 0, at, after, errDisk
			w.tick()
			if w.store.writes < at {
				require.Greater(t, at, 8, "writes of one renewal")
				w.close()
				break
			}
			require.ErrorIs(t, w.e.fatal, store.ErrStateUnknown, "write %d", at)
			require.Equal(t, at, w.store.writes, "nothing may be written after write %d failed", at)
			require.ErrorContains(t, w.e.fatal, "restart the agent")
			err := w.e.Run(t.Context())
			require.ErrorIs(t, err, store.ErrStateUnknown, "a stopped engine must not run again")
			w.reopen()
			w.requireServed(2)
			w.close()
		}
	}
}

// The disk is full at every write in turn: nothing is ordered that could not be
// stored, and the engine goes on by itself.
func TestDiskFullAtEveryWrite(t *testing.T) {
	for at := 1; ; at++ {
		w := newWorld(t)
		w.open()
		w.settleDown()
		w.toRenewal()
		w.store.writes, w.store.failAt, w.store.failure = 0, at, errNoSpace
		w.tick()
		if w.store.writes < at {
			require.Greater(t, at, 8, "writes of one renewal")
			w.close()
			break
		}
		require.NoError(t, w.e.fatal)
		w.requireServed(2)
		w.close()
	}
}

var errNoSpace = errors.Join(errors.New("state file"), noSpace)
