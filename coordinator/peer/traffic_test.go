package peer

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/counts"
)

// Calls go on while certificates are renewed and the root is rotated. Those fail
// that were on a connection which the old root vouched for when that was ended,
// and the same call made again succeeds.
func TestCallsGoOnThroughRenewalsAndARotation(t *testing.T) {
	w := newTown(t)
	all := []*resident{w.member("a"), w.member("b"), w.member("c")}
	identities := make([]*Identity, len(all))
	for i, r := range all {
		identities[i] = r.identity
	}
	var made, failed, lost atomic.Int64
	rotating := atomic.Bool{}
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for i, from := range all {
		for j, to := range all {
			if i == j {
				continue
			}
			group.Go(func() {
				for ctx.Err() == nil {
					made.Add(1)
					if _, err := from.ask(to); err == nil {
						continue
					}
					failed.Add(1)
					if !rotating.Load() {
						lost.Add(1)
					}
					_, err := from.ask(to)
					for again := 0; err != nil && again < 10; again++ { // that one may have met the end of the other's connection
						failed.Add(1)
						_, err = from.ask(to)
					}
					assert.NoError(t, err)
				}
			})
		}
	}
	// progress waits until every pair has got through many times more.
	progress := func() {
		until := made.Load() + 300
		require.Eventually(t, func() bool { return made.Load() >= until }, patience, time.Millisecond)
	}
	progress()
	for range 3 {
		for _, i := range identities {
			renewed, err := i.Renew(true)
			require.NoError(t, err)
			require.True(t, renewed)
		}
		progress()
	}
	require.Zero(t, failed.Load(), "renewals end nothing")
	rotations := 0
	for range 2 {
		rotating.Store(true)
		w.rotate(identities, progress)
		rotations++
	}
	for _, r := range all {
		require.Eventually(t, r.upToDate, patience, time.Millisecond)
	}
	rotating.Store(false)
	progress()
	stop()
	group.Wait()
	var closed uint64
	for _, r := range all {
		closed += r.Stats().Closed
	}
	assert.Zero(t, lost.Load(), "a call failed while nothing was rotated")
	assert.LessOrEqual(t, failed.Load(), int64(closed), "no more calls failed than connections were ended")
	counts.Report(t, "peer-calls-through-rotation", int(made.Load()), "calls between nodes through two rotations of the root")
	t.Logf("%d calls, %d failed, %d connections ended, %d rotations", made.Load(), failed.Load(), closed, rotations)
}

// meddling does something when it is asked about a member for the second time:
// when a connection is made already, and not given to anybody yet.
type meddling struct {
	*resident
	asked  int
	meddle func()
}

func (m *meddling) Member(id string) bool {
	if m.asked++; m.asked == 2 {
		m.meddle()
	}
	return m.resident.Member(id)
}

// A connection that is being made while its root goes, or its peer, does not slip
// through.
func TestAConnectionThatIsBeingMadeIsNotForgotten(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	a.SetMembers(&meddling{resident: a, meddle: func() {
		w.rotate([]*Identity{a.identity, b.identity}, func() {})
	}})
	_, err := a.ask(b)
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorIs(t, err, ErrNotSent)
	a.SetMembers(&meddling{resident: a, meddle: func() { w.leave("b") }})
	_, err = a.ask(b)
	require.ErrorIs(t, err, ErrNotMember)
	w.join(b)
	_, err = a.ask(b)
	require.NoError(t, err)
}
