package agentapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/wire"
)

// A memoryNode applies commands to a state at once, without a log.
type memoryNode struct {
	mu        sync.Mutex
	state     *fleet.State
	proposals int
	fail      error
}

func (n *memoryNode) State() *fleet.State                     { return n.state }
func (n *memoryNode) IsLeader() bool                          { return true }
func (n *memoryNode) WaitIndex(context.Context, uint64) error { return nil }

func (n *memoryNode) Propose(_ context.Context, commands ...fleet.Command) ([]fleet.Result, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return nil, n.fail
	}
	n.proposals++
	entry, err := fleet.EncodeEntry(commands)
	if err != nil {
		return nil, err
	}
	results, _, err := n.state.Apply(n.state.Index()+1, entry)
	return results, err
}

func (n *memoryNode) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proposals
}

func (n *memoryNode) fails(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail = err
}

// presenceService has agents a0, a1, ... in its state.
func presenceService(t *testing.T, agents int) (*Service, *memoryNode) {
	state, err := fleet.New()
	require.NoError(t, err)
	node := &memoryNode{state: state}
	do := func(payload fleet.Payload) {
		command, err := fleet.NewCommand(time.Now(), payload)
		require.NoError(t, err)
		results, err := node.Propose(t.Context(), command)
		require.NoError(t, err)
		require.NoError(t, results[0].Err())
	}
	do(fleet.CreateEnrollmentToken{ID: "token"})
	for i := range agents {
		id := fmt.Sprintf("a%d", i)
		do(fleet.EnrollAgent{TokenID: "token", AgentID: id, Identity: fleet.Identity{Fingerprint: "f" + id, PublicKeyFingerprint: "p" + id}})
	}
	node.proposals = 0
	return &Service{node: node, log: slog.New(slog.DiscardHandler), now: time.Now}, node
}

func TestPresenceIsFlushedInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const agents = 200
		s, node := presenceService(t, agents)
		ctx, cancel := context.WithCancel(t.Context())
		var loop sync.WaitGroup
		loop.Go(func() { assert.NoError(t, s.flushPresence(ctx)) })
		pass := func() {
			<-time.After(2 * flushInterval)
			synctest.Wait()
		}

		pass()
		assert.Zero(t, node.count(), "nothing to say costs nothing")

		for range 3 {
			for i := range agents {
				s.presence.touch(fmt.Sprintf("a%d", i), time.Now())
			}
		}
		seen := time.Now()
		pass()
		assert.Equal(t, 1, node.count(), "one entry for all of them")
		assert.True(t, node.state.View().LastSeen("a7").Equal(seen))
		pass()
		assert.Equal(t, 1, node.count())

		// What cannot be stored is stored with the next ones.
		node.fails(errors.New("no leader"))
		s.presence.touch("a1", time.Now())
		first := time.Now()
		pass()
		s.presence.touch("a2", time.Now())
		second := time.Now()
		node.fails(nil)
		pass()
		assert.Equal(t, 2, node.count())
		assert.True(t, node.state.View().LastSeen("a1").Equal(first))
		assert.True(t, node.state.View().LastSeen("a2").Equal(second))

		// A change that was committed has said it already.
		s.presence.touch("a3", time.Now())
		s.presence.stored("a3", time.Now())
		pass()
		assert.Equal(t, 2, node.count())

		// A planned stop leaves nothing untold.
		s.presence.touch("a4", time.Now())
		last := time.Now()
		cancel()
		loop.Wait()
		assert.Equal(t, 3, node.count())
		assert.True(t, node.state.View().LastSeen("a4").Equal(last))
	})
}

func TestPresenceOnlyMovesForward(t *testing.T) {
	s, _ := presenceService(t, 0)
	at := time.Now()
	s.presence.touch("a", at)
	s.presence.touch("a", at.Add(-time.Hour))
	seen, ok := s.LastSeen("a")
	require.True(t, ok)
	assert.True(t, seen.Equal(at))
	taken := s.presence.take()
	s.presence.touch("a", at.Add(time.Second))
	s.presence.putBack(taken)
	assert.True(t, s.presence.take()["a"].Equal(at.Add(time.Second)))
	_, ok = s.LastSeen("b")
	assert.False(t, ok)
}

func TestPeriod(t *testing.T) {
	assert.Equal(t, time.Minute, period(time.Minute, 500, 0))
	assert.Equal(t, time.Minute, period(time.Minute, 500, 30_000))
	assert.Equal(t, 2*time.Minute, period(time.Minute, 500, 60_000))
	assert.Equal(t, wire.MaxPause, period(time.Minute, 1, math.MaxInt32))
}

// An agent that comes whenever it was told to stays at its place, and comes once
// in a period.
func TestPause(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.String().Draw(t, "id")
		period := time.Duration(rapid.Int64Range(int64(wire.MinPause), int64(wire.MaxPause)).Draw(t, "period"))
		now := time.Unix(0, rapid.Int64Range(0, math.MaxInt64/2).Draw(t, "now"))
		first := pause(id, now, period)
		if first < wire.MinPause || first > wire.MaxPause || first < min(period/2, wire.MaxPause) || first > max(period*3/2, wire.MinPause) {
			t.Fatalf("pause %v of period %v", first, period)
		}
		if first == wire.MinPause || first == wire.MaxPause {
			return // cut off: it comes closer to its place step by step
		}
		now = now.Add(first)
		if place := time.Duration(now.UnixNano() % int64(period)); place != jitter.Spread(id, period) {
			t.Fatalf("comes at %v, its place is %v", place, jitter.Spread(id, period))
		}
		if second := pause(id, now, period); second != min(period, wire.MaxPause) {
			t.Fatalf("pauses %v, the period is %v", second, period)
		}
	})
}

// A fleet that comes all at once is spread after one round.
func TestPauseSpreadsAHerd(t *testing.T) {
	const agents, seconds = 6000, 60
	now := time.Unix(1_800_000_000, 0)
	arrivals := make([]int, seconds)
	for i := range agents {
		at := now.Add(pause(fmt.Sprintf("agent-%d", i), now, seconds*time.Second))
		arrivals[at.Unix()%seconds]++
	}
	for second, n := range arrivals {
		assert.InDelta(t, agents/seconds, n, 50, "second %d", second)
	}
}

func TestSessionsGoOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sessions
		enter := func(agentID string) *visit {
			v, err := s.arrive(agentID)
			require.NoError(t, err)
			require.NoError(t, v.begin(t.Context()))
			return v
		}
		first := enter("a")
		enter("b").leave() // agents do not wait for each other
		s.forget("a")

		var entered []int
		var all sync.WaitGroup
		for i := range maxPresent - 1 {
			all.Go(func() {
				mine, err := s.arrive("a")
				if assert.NoError(t, err) && assert.NoError(t, mine.begin(t.Context())) {
					assert.Same(t, first.session, mine.session, "a session in use is not forgotten")
					entered = append(entered, i) // a race if two were in
					mine.leave()
				}
			})
			synctest.Wait()
		}
		assert.Empty(t, entered)
		_, err := s.arrive("a")
		var p *wire.Problem
		require.ErrorAs(t, err, &p)
		assert.Equal(t, wire.CodeOverloaded, p.Code)
		assert.Positive(t, p.RetryAfterSeconds)

		first.leave()
		all.Wait()
		assert.Len(t, entered, maxPresent-1)

		held := enter("a")
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		late, err := s.arrive("a")
		require.NoError(t, err)
		require.ErrorAs(t, late.begin(impatient), &p)
		assert.Equal(t, wire.CodeOverloaded, p.Code)
		late.leave()
		held.leave()
		s.forget("a")
		assert.NotSame(t, first.session, enter("a").session)
	})
}

// Agents come and go for years; what is remembered of them here is the last hours,
// and what is not stored yet.
func TestAgentsThatAreGoneAreForgotten(t *testing.T) {
	p := new(presence)
	at := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	p.touch("unstored", at)
	for i := range 100_000 {
		id := fmt.Sprint(i)
		at = at.Add(time.Minute)
		p.touch(id, at)
		if i%10 == 0 {
			taken := p.take()
			if at, ok := taken["unstored"]; ok { // it cannot be stored
				p.putBack(map[string]time.Time{"unstored": at})
			}
		}
		require.LessOrEqual(t, len(p.seen), 2*60+2+10)
	}
	assert.Contains(t, p.seen, "unstored")
	assert.Contains(t, p.seen, "99999")
}
