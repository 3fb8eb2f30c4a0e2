package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func TestAFollowerForwardsAndSeesItsOwnWrites(t *testing.T) {
	m := newMesh(t, 3, nil)
	follower := m.follower()
	for i := range 20 {
		id := fmt.Sprintf("token%d", i)
		require.True(t, m.do(follower, newToken(id)).OK())
		_, ok := follower.State().View().EnrollmentToken(id)
		require.True(t, ok, "what was stored is here when Propose returns")
	}
	assert.Equal(t, wire.CodeConflict, m.do(follower, newToken("token1")).Code, "a refusal crosses the wire as a result")
	status := follower.Status()
	assert.GreaterOrEqual(t, status.Forwarded.Stored, uint64(21))
	assert.Zero(t, m.leader().Status().Forwarded.Stored)
	leader, _ := follower.Leader()
	assert.Equal(t, leader, status.LeaderID)

	// What is refused for good is refused the same way on both.
	later := mustCommand(t, newToken("later"))
	later.Type = 250
	for _, n := range []*meshNode{follower, m.leader()} {
		_, err := n.Propose(t.Context(), later)
		var level *cluster.LevelError
		require.ErrorAs(t, err, &level)
		assert.ElementsMatch(t, []string{"n0", "n1", "n2"}, level.Nodes)
		assert.Equal(t, fleet.Level+1, level.Required)
	}
}

// Commands are sent to followers and leaders alike while the leadership moves and
// answers get lost: each is applied once, and answered.
func TestForwardedWritesAreAppliedOnceWhileTheLeadChanges(t *testing.T) {
	m := newMesh(t, 3, nil)
	m.do(m.leader(), newToken("load"))
	var turn atomic.Uint64
	m.mu.Lock()
	m.lose = func(method string) bool { return method == "propose" && turn.Add(1)%5 == 0 }
	m.mu.Unlock()

	ctx, cancel := context.WithTimeout(t.Context(), 2*testPatience)
	defer cancel()
	done := make(chan struct{})
	var acked, unknown sync.Map
	var count atomic.Int64
	var wg sync.WaitGroup
	for worker := range 6 {
		n := m.nodes[nodeID(worker%3)]
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				id := fmt.Sprintf("w%d-%d", worker, i)
				results, err := n.Propose(ctx, mustCommand(t, enrolment(id)))
				var uncertain *cluster.UnknownOutcomeError
				switch {
				case err == nil:
					assert.NoError(t, results[0].Err(), "%s: a command that was applied before is no conflict", id)
					acked.Store(id, true)
					count.Add(1)
				case errors.As(err, &uncertain):
					unknown.Store(id, true)
				default:
					assert.NoError(t, err)
				}
			}
		})
	}
	for range 4 {
		before := count.Load()
		require.Eventually(t, func() bool { return count.Load() > before+30 }, testPatience, time.Millisecond)
		old := m.leader()
		if rand.IntN(2) == 0 {
			m.isolate(old)
			m.leader(old)
			m.heal()
		} else {
			assert.NoError(t, m.follower().Transfer(ctx, ""))
		}
	}
	close(done)
	wg.Wait()

	index, err := m.follower().ConsistentIndex(ctx)
	require.NoError(t, err)
	for _, n := range m.all() {
		require.NoError(t, n.WaitIndex(ctx, index))
		view := n.State().View()
		token, ok := view.EnrollmentToken("load")
		require.True(t, ok)
		assert.EqualValues(t, view.Rows(fleet.TableAgents), token.Uses, "each enrolment spends one use")
		acked.Range(func(id, _ any) bool {
			_, ok := view.Agent(id.(string))
			return assert.True(t, ok, "%s was acknowledged and is not on %s", id, n.id)
		})
	}
}

func TestWithoutALeaderNothingIsSaidToBeDone(t *testing.T) {
	m := newMesh(t, 3, nil)
	follower := m.follower()
	m.isolate(m.all()...)
	require.Eventually(t, func() bool { id, _ := follower.Leader(); return id == "" }, testPatience, time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := follower.Propose(ctx, mustCommand(t, newToken("nobody")))
	require.Error(t, err)
	var unknown *cluster.UnknownOutcomeError
	assert.False(t, errors.As(err, &unknown), "it was sent to nobody")
	_, err = follower.ConsistentIndex(ctx)
	require.Error(t, err)
}

func TestAThousandConsistentReadersShareTheirQuestions(t *testing.T) {
	m := newMesh(t, 3, nil)
	follower := m.follower()
	m.do(m.leader(), newToken("seen"))
	before := m.count("index")
	const readers = 1000
	start := make(chan struct{})
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			<-start
			index, err := follower.ConsistentIndex(t.Context())
			if assert.NoError(t, err) {
				assert.GreaterOrEqual(t, follower.AppliedIndex(), index)
			}
			_, ok := follower.State().View().EnrollmentToken("seen")
			assert.True(t, ok)
		})
	}
	close(start)
	wg.Wait()
	assert.Less(t, m.count("index")-before, readers, "callers that wait share a question")
}

// A reader on any node sees what was acknowledged before on any other.
func TestConsistentReadsSeeEveryAcknowledgedWrite(t *testing.T) {
	m := newMesh(t, 3, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*testPatience)
	defer cancel()
	nodes := m.all()
	for i := range 60 {
		id := fmt.Sprintf("t%d", i)
		require.True(t, m.do(nodes[i%3], newToken(id)).OK())
		if i%20 == 10 {
			require.NoError(t, nodes[0].Transfer(ctx, ""))
		}
		reader := nodes[(i+1)%3]
		_, err := reader.ConsistentIndex(ctx)
		require.NoError(t, err)
		_, ok := reader.State().View().EnrollmentToken(id)
		require.True(t, ok, "%s on %s", id, reader.id)
	}
}

// A command whose answer was lost is proposed again. When so much has happened
// meanwhile that it would not be recognized, it is not stored a second time.
func TestWhatWouldNotBeRecognizedIsNotStoredAgain(t *testing.T) {
	m := newMesh(t, 3, nil)
	leader := m.leader()
	m.do(leader, newToken("load"))
	follower := m.follower()
	later := mustCommand(t, newToken("later"))
	later.Time = time.Now().Add(3 * time.Hour).UnixNano() // a clock that is wrong empties the memory
	for _, forgets := range []bool{false, true} {
		var turn atomic.Uint64
		m.mu.Lock()
		m.answered = func(method string) {
			if method != "propose" || turn.Add(1) != 1 || !forgets {
				return
			}
			_, err := leader.Propose(t.Context(), later)
			assert.NoError(t, err)
		}
		m.lose = func(method string) bool { return method == "propose" && turn.Load() == 1 }
		m.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), testPatience)
		results, err := follower.Propose(ctx, mustCommand(t, enrolment(fmt.Sprint("forgets ", forgets))))
		require.NoError(t, ctx.Err())
		cancel()
		if !forgets {
			require.NoError(t, err)
			require.True(t, results[0].OK(), "it is recognized")
			continue
		}
		require.ErrorAs(t, err, new(*cluster.UnknownOutcomeError))
		require.ErrorContains(t, err, "applied twice")
	}
	index, err := follower.ConsistentIndex(t.Context())
	require.NoError(t, err)
	require.NoError(t, follower.WaitIndex(t.Context(), index))
	for _, n := range m.all() {
		_, ok := n.State().View().Agent("forgets true")
		assert.True(t, ok || n != follower, "the first attempt counts")
	}
}
