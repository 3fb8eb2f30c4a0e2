package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
)

// saved is a node's state as a restore takes it.
func saved(t *testing.T, n *Node) Restoration {
	t.Helper()
	r := Restoration{Index: n.State().Index(), Now: time.Now, Note: fleet.NoteRestore{Actor: "local", Snapshot: "test"}}
	packer, err := fleet.NewRestorePacker(func(piece []byte) error {
		r.Pieces = append(r.Pieces, bytes.Clone(piece))
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, n.State().Snapshot().Persist(packer))
	require.NoError(t, packer.Close())
	return r
}

// announce lets the nodes say what they understand: no entry of a later level is
// made before they have.
func announce(t *testing.T, list []*survivor) {
	t.Helper()
	var commands []fleet.Command
	for _, s := range list {
		command, err := fleet.NewCommand(time.Now(), fleet.AnnounceNode{Node: fleet.ClusterNode{
			ID: s.config.NodeID, Address: string(s.transport.LocalAddr()), Level: fleet.Level,
		}})
		require.NoError(t, err)
		commands = append(commands, command)
	}
	entry, err := fleet.EncodeEntry(commands)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return leaderOf(t, list...).node.raft.Apply(entry, recoverPatience).Error() == nil
	}, recoverPatience, time.Millisecond)
}

// TestARestoreOfALiveCluster: the leader is lost after the restore, and all know
// the restored state, at an index that has only grown; the journal has no gap.
func TestARestoreOfALiveCluster(t *testing.T) {
	list := newSurvivors(t, 3)
	connectAll(list...)
	for _, s := range list {
		s.start()
	}
	announce(t, list)
	tokens(t, list, "one")
	r := saved(t, leaderOf(t, list...).node)
	tokens(t, list, "two")
	var done int
	r.Progress = func(n, of int) { done = n; assert.Equal(t, len(r.Pieces), of) }
	var before uint64
	var err error
	require.Eventually(t, func() bool {
		leader := leaderOf(t, list...).node
		before = leader.AppliedIndex()
		err = leader.Restore(t.Context(), r)
		return err == nil
	}, recoverPatience, time.Millisecond, "%v", err)
	assert.Equal(t, len(r.Pieces), done)
	leader := leaderOf(t, list...)
	index := leader.node.AppliedIndex()
	assert.Greater(t, index, before)
	for _, s := range list {
		require.NoError(t, s.node.WaitIndex(t.Context(), index))
		s.has("one")
		_, ok := s.node.State().View().EnrollmentToken("two")
		assert.False(t, ok)
		require.NoError(t, s.node.writer.wait(t.Context(), s.node.AppliedIndex()))
		status, err := s.journal.Status()
		require.NoError(t, err)
		assert.Empty(t, status.Gaps, "the log went on, entry by entry")
		assert.Equal(t, map[string]int{"one": 1, "two": 1}, createdFacts(t, s.journal), "what happened has happened")
	}
	leader.stop()
	tokens(t, list, "three")
	for _, s := range list {
		if s.cancel != nil {
			require.NoError(t, s.node.WaitIndex(t.Context(), leaderOf(t, list...).node.AppliedIndex()))
			s.has("one", "three")
		}
	}
	// One that was away all the time learns of it.
	leader.connect()
	connectAll(list...)
	leader.start()
	require.NoError(t, leader.node.WaitIndex(t.Context(), leaderOf(t, list...).node.AppliedIndex()))
	leader.has("one", "three")
	for _, s := range list {
		s.transport.DisconnectAll() // or the last waits for those that are gone to take over
	}
}

// TestARestoreOntoAFreshCluster: the snapshot is of a log that is far longer.
func TestARestoreOntoAFreshCluster(t *testing.T) {
	old := newSurvivors(t, 1)[0]
	old.start()
	tokens(t, []*survivor{old}, "one")
	for range 200 {
		command, err := fleet.NewCommand(time.Now(), fleet.DropRestore{})
		require.NoError(t, err)
		_, err = old.node.Propose(t.Context(), command)
		require.NoError(t, err)
	}
	tokens(t, []*survivor{old}, "two")
	r := saved(t, old.node)
	old.stop()

	// With others in the cluster it is refused, and nothing is changed.
	three := newSurvivors(t, 3)
	connectAll(three...)
	for _, s := range three {
		s.start()
	}
	tokens(t, three, "theirs")
	leader := leaderOf(t, three...)
	leader.has("theirs")
	var refused error
	require.Eventually(t, func() bool {
		refused = leaderOf(t, three...).node.Restore(t.Context(), r)
		return !errors.Is(refused, ErrNotLeader)
	}, recoverPatience, time.Millisecond)
	require.ErrorIs(t, refused, ErrBehindSnapshot)
	for _, s := range three {
		s.transport.DisconnectAll()
	}

	fresh := newSurvivors(t, 1)[0]
	fresh.start()
	tokens(t, []*survivor{fresh}, "replaced")
	// While a member is added or removed the log is not moved on: only alone there is
	// nobody to differ from.
	fresh.node.changing <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	require.ErrorIs(t, fresh.node.Restore(ctx, r), context.DeadlineExceeded)
	cancel()
	assert.Less(t, fresh.node.raft.LastIndex(), r.Index)
	fresh.has("replaced")
	<-fresh.node.changing
	// Others go on proposing, and lose nothing of what is acknowledged before and
	// after the restore.
	stop := make(chan struct{})
	var proposing sync.WaitGroup
	proposing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				command, err := fleet.NewCommand(time.Now(), fleet.TouchAgents{})
				assert.NoError(t, err)
				_, err = fresh.node.Propose(t.Context(), command)
				assert.NoError(t, err)
			}
		}
	})
	require.NoError(t, fresh.node.Restore(t.Context(), r))
	close(stop)
	proposing.Wait()
	check := func() {
		t.Helper()
		fresh.has("one", "two")
		_, ok := fresh.node.State().View().EnrollmentToken("replaced")
		assert.False(t, ok)
		assert.Greater(t, fresh.node.AppliedIndex(), r.Index)
	}
	check()
	tokens(t, []*survivor{fresh}, "after")
	fresh.stop()
	// A log with a hole is inspected, and started, like any other.
	report := fresh.inspect()
	assert.Equal(t, report.LastIndex, report.JournalThrough)
	fresh.start()
	leaderOf(t, fresh)
	check()
	fresh.has("after")
	fresh.stop()

	// And so it can be restored again.
	again := saved(t, fresh.node)
	fresh.start()
	leaderOf(t, fresh)
	require.NoError(t, fresh.node.Restore(t.Context(), again))
	fresh.has("one", "two", "after")
}

func TestARestoreThatFailsLeavesNothingBehind(t *testing.T) {
	s := newSurvivors(t, 1)[0]
	s.start()
	tokens(t, []*survivor{s}, "one")
	r := saved(t, s.node)
	tokens(t, []*survivor{s}, "two")
	r.Pieces[0][len(r.Pieces[0])/2] ^= 1
	err := s.node.Restore(t.Context(), r)
	require.Error(t, err)
	s.has("one", "two")
	var stream bytes.Buffer
	require.NoError(t, s.node.State().Snapshot().Persist(&stream))
	assert.NotContains(t, stream.String(), string(r.Pieces[0][:100]), "the pieces are dropped")
}

// TestALeaderLostInARestore: wherever the leader is lost, all nodes have the same
// state afterwards, the one of before or the restored one, and what is repeated
// ends in the restored one.
func TestALeaderLostInARestore(t *testing.T) {
	list := newSurvivors(t, 3)
	connectAll(list...)
	for _, s := range list {
		s.start()
	}
	announce(t, list)
	tokens(t, list, "one")
	r := saved(t, leaderOf(t, list...).node)
	tokens(t, list, "two")
	// Any parts of the stream are as good.
	whole := r.Pieces[0]
	require.Len(t, r.Pieces, 1)
	r.Pieces = [][]byte{whole[:len(whole)/3], whole[len(whole)/3 : len(whole)/2], whole[len(whole)/2:]}

	for lostAt := 1; lostAt <= len(r.Pieces); lostAt++ {
		leader := leaderOf(t, list...)
		interrupted := r
		ctx, cancel := context.WithTimeout(t.Context(), recoverPatience)
		interrupted.Progress = func(done, _ int) {
			if done == lostAt {
				for _, s := range list {
					if s != leader {
						leader.transport.Disconnect(s.transport.LocalAddr())
						s.transport.Disconnect(leader.transport.LocalAddr())
					}
				}
				time.AfterFunc(2*time.Second, cancel) // as long as it takes to notice
			}
		}
		err := leader.node.Restore(ctx, interrupted)
		cancel()
		require.Error(t, err, "nobody has confirmed it")
		var others []*survivor
		for _, s := range list {
			if s != leader {
				others = append(others, s)
			}
		}
		leaderOf(t, others...).has("one", "two")
		connectAll(list...)
		tokens(t, list, fmt.Sprintf("after%d", lostAt))
		same(t, list)
	}
	require.Eventually(t, func() bool { return leaderOf(t, list...).node.Restore(t.Context(), r) == nil }, recoverPatience, time.Millisecond)
	same(t, list)
	for _, s := range list {
		s.has("one")
		_, ok := s.node.State().View().EnrollmentToken("two")
		assert.False(t, ok)
		s.transport.DisconnectAll()
	}
}

// same compares the states of all nodes, byte for byte.
func same(t *testing.T, list []*survivor) {
	t.Helper()
	require.Eventually(t, func() bool {
		var first []byte
		for _, s := range list {
			var stream bytes.Buffer
			require.NoError(t, s.node.State().Snapshot().Persist(&stream))
			if first == nil {
				first = stream.Bytes()
			}
			if !bytes.Equal(first, stream.Bytes()) {
				return false
			}
		}
		return true
	}, recoverPatience, 10*time.Millisecond, "the states differ")
}

// stuckJournal takes nothing while its disk does not.
type stuckJournal struct {
	Journal
	stuck *atomic.Bool
}

// Append implements Journal.
func (s stuckJournal) Append(through uint64, facts []fleet.Fact) error {
	if s.stuck.Load() {
		return errors.New("no room is left")
	}
	return s.Journal.Append(through, facts)
}

// A log that is moved on holds the facts no more that the journal lacks: so it waits
// for the journal, and is not moved on while that cannot be written.
func TestALogIsMovedOnWhenTheJournalHasItAll(t *testing.T) {
	old := newSurvivors(t, 1)[0]
	old.start()
	for range 200 {
		command, err := fleet.NewCommand(time.Now(), fleet.DropRestore{})
		require.NoError(t, err)
		_, err = old.node.Propose(t.Context(), command)
		require.NoError(t, err)
	}
	r := saved(t, old.node)
	old.stop()

	var stuck atomic.Bool
	s := newSurvivors(t, 1)[0]
	s.wrap = func(j Journal) Journal { return stuckJournal{j, &stuck} }
	s.start()
	tokens(t, []*survivor{s}, "before")
	require.NoError(t, s.node.writer.wait(t.Context(), s.node.AppliedIndex()))
	stuck.Store(true)
	tokens(t, []*survivor{s}, "acknowledged")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := s.node.Restore(ctx, r)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "no room is left")
	assert.Less(t, s.node.raft.LastIndex(), r.Index, "the log is where it was")
	s.has("before", "acknowledged")

	stuck.Store(false)
	require.NoError(t, s.node.Restore(t.Context(), r))
	require.NoError(t, s.node.writer.wait(t.Context(), s.node.AppliedIndex()))
	assert.Equal(t, map[string]int{"before": 1, "acknowledged": 1}, createdFacts(t, s.journal))
}
