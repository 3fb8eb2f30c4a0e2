package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
)

// snapshots has a new node get a snapshot, and not the log.
func snapshots(c *cluster.Config) {
	c.SnapshotEntries, c.SnapshotInterval, c.TrailingEntries = 20, 20*time.Millisecond, 5
	c.BackfillPace, c.Stabilization = 50*time.Millisecond, 200*time.Millisecond
}

// addVoter has a new node join, and returns when it has a vote.
func (m *mesh) addVoter(id string) *meshNode {
	m.t.Helper()
	n := m.join(id, id)
	require.NoError(m.t, m.leader().AddMember(m.t.Context(), id, id, 0))
	require.Eventually(m.t, func() bool { return n.Ready().Ready() && n.Status().Voter }, testPatience, 5*time.Millisecond, "%s gets a vote", id)
	return n
}

func (n *meshNode) gaps() history.Gaps {
	n.mesh.t.Helper()
	status, err := n.journal.Status()
	require.NoError(n.mesh.t, err)
	return status.Gaps
}

// filled waits until a node has the whole history.
func (n *meshNode) filled() {
	n.mesh.t.Helper()
	require.Eventually(n.mesh.t, func() bool { return len(n.gaps()) == 0 }, testPatience, 10*time.Millisecond, "%s has the whole history", n.id)
}

// flushed waits until all that is applied on the leader is in each node's journal.
func (m *mesh) flushed() {
	m.t.Helper()
	newest := uint64(0)
	m.applied()
	require.Eventually(m.t, func() bool {
		for _, n := range m.all() {
			_, last, err := n.journal.Bounds()
			require.NoError(m.t, err)
			newest = max(newest, last)
		}
		for _, n := range m.all() {
			if _, last, _ := n.journal.Bounds(); last < newest || n.Status().Journal.Facts > 0 {
				return false
			}
		}
		return true
	}, testPatience, 10*time.Millisecond, "the journals are written")
}

// applied waits until each node has applied what the leader has.
func (m *mesh) applied() {
	m.t.Helper()
	for _, n := range m.all() {
		ctx, cancel := context.WithTimeout(m.t.Context(), testPatience)
		require.NoError(m.t, n.WaitIndex(ctx, m.leader().AppliedIndex()))
		cancel()
	}
}

// everyFact reads a journal from its beginning.
func everyFact(t testing.TB, journal *history.Journal) []fleet.Fact {
	t.Helper()
	var all []fleet.Fact
	for query := (history.Query{Limit: history.MaxLimit}); ; {
		page, next, err := journal.Read(query)
		require.NoError(t, err)
		all = append(all, page...)
		if next == "" {
			return all
		}
		query.After = next
	}
}

// All nodes of a cluster are replaced, one after the other, while it works, as an
// upgrade of the operating system does it. In the end each of the new nodes has
// every fact of the time before any of them was there, once.
func TestReplacingAllNodesKeepsTheHistory(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3, snapshots)
	old := m.all()
	acked := map[string]bool{}
	add := func(id string) {
		m.do(m.leader(), newToken(id))
		acked[id] = true
	}
	for i := range 60 {
		add(fmt.Sprintf("before%d", i))
	}
	loadCtx, endLoad := context.WithCancel(t.Context())
	defer endLoad()
	var load sync.WaitGroup
	var mu sync.Mutex
	load.Go(func() {
		for i := 0; loadCtx.Err() == nil; i++ {
			id := fmt.Sprintf("during%d", i)
			for _, n := range m.all() {
				if n.IsLeader() {
					if results, err := n.Propose(loadCtx, mustCommand(t, newToken(id))); err == nil && results[0].OK() {
						mu.Lock()
						acked[id] = true
						mu.Unlock()
					}
					break
				}
			}
		}
	})
	for i, gone := range old {
		n := m.addVoter(fmt.Sprintf("new%d", i))
		n.filled()
		require.NoError(t, m.leader().RemoveMember(t.Context(), gone.id, 0, ""))
		m.leader(gone)
		m.isolate(gone)
		gone.stop()
	}
	endLoad()
	load.Wait()
	m.flushed()
	nodes := m.all()
	require.Len(t, nodes, 3)
	whole := everyFact(t, nodes[0].journal)
	trail := uint64(0)
	for _, f := range whole {
		if f.Audit > 0 {
			trail++
			require.Equal(t, trail, f.Audit, "the audit trail has no hole")
		}
	}
	for _, n := range nodes {
		there := everyFact(t, n.journal)
		require.Equal(t, len(whole), len(there), n.id)
		for i := range there {
			require.Equal(t, fmt.Sprint(whole[i]), fmt.Sprint(there[i]))
		}
		created := map[string]int{}
		for _, f := range there {
			if f.Kind == fleet.KindEnrollmentTokenCreated {
				created[f.Object]++
			}
		}
		for id := range acked {
			require.Equal(t, 1, created[id], "%s on %s", id, n.id)
		}
		assert.LessOrEqual(t, slices.Max(slices.Collect(maps.Values(created))), 1)
	}
	t.Logf("all nodes replaced under load: %d acknowledged facts, %d facts and %d of the audit trail on each of %d new nodes, 0 lost, 0 twice",
		len(acked), len(whole), trail, len(nodes))
	assert.Positive(t, m.count("journal_chunk"), "they had gaps")
}

// A part of the history that only one member has, and another part that only others
// have, come together at each of them.
func TestAGapIsFilledFromSeveralMembers(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 1, snapshots)
	m.setOldFacts(true) // nobody gives anything at first
	founder := m.leader()
	for i := range 60 {
		m.do(founder, newToken(fmt.Sprintf("early%d", i)))
	}
	others := []*meshNode{m.addVoter("a"), m.addVoter("b")}
	require.NotEmpty(t, others[0].gaps())
	require.NotEmpty(t, others[1].gaps())
	m.applied()
	m.isolate(founder)
	for i := range 60 {
		m.do(m.leader(founder), newToken(fmt.Sprintf("late%d", i)))
	}
	m.heal()
	require.Eventually(t, func() bool { return len(founder.gaps()) > 0 }, testPatience, 10*time.Millisecond, "it gets a snapshot")
	m.setOldFacts(false)
	others = append(others, founder)
	for _, n := range others {
		n.filled()
	}
	m.flushed()
	for _, n := range others {
		assert.Len(t, facts(t, n.journal, fleet.KindEnrollmentTokenCreated), 120, n.id)
		assert.Equal(t, fmt.Sprint(everyFact(t, founder.journal)), fmt.Sprint(everyFact(t, n.journal)), n.id)
	}
}

func (m *mesh) setOldFacts(old bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.oldFacts = old
}

// A member of an earlier version does not know the question. It is said once, the
// others are asked, and it is asked again.
func TestMembersOfAnEarlierVersionGiveNoFacts(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	m := newMesh(t, 1, snapshots)
	for i := range 60 {
		m.do(m.leader(), newToken(fmt.Sprintf("t%d", i)))
	}
	m.setOldFacts(true)
	m.tweak = func(c *cluster.Config) {
		snapshots(c)
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	}
	n := m.join("new", "new")
	require.NoError(t, m.leader().AddMember(t.Context(), "new", "new", 0))
	asked := func() int { return m.count("journal_extent") }
	require.Eventually(t, func() bool { return n.Ready().Ready() && asked() > 0 }, testPatience, 5*time.Millisecond)
	first := asked()
	require.Eventually(t, func() bool { return asked() > first+3 }, testPatience, 5*time.Millisecond, "it is asked again")
	assert.NotEmpty(t, n.gaps())
	assert.Equal(t, 1, bytes.Count(log.bytes(), []byte("a member gives no facts")), "it is said once")
	m.setOldFacts(false) // it is upgraded
	n.filled()
	m.flushed()
	assert.Equal(t, fmt.Sprint(everyFact(t, m.leader().journal)), fmt.Sprint(everyFact(t, n.journal)))
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.b.Bytes())
}

// A member that gives nonsense is believed nothing, and another one is asked.
func TestAMemberThatLiesIsNotBelieved(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	m := newMesh(t, 3, snapshots)
	for i := range 60 {
		m.do(m.leader(), newToken(fmt.Sprintf("t%d", i)))
	}
	m.flushed()
	m.mu.Lock()
	m.lying = true // whoever is asked first
	m.mu.Unlock()
	m.tweak = func(c *cluster.Config) {
		snapshots(c)
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	}
	n := m.addVoter("new")
	n.filled()
	m.flushed()
	assert.Equal(t, fmt.Sprint(everyFact(t, m.leader().journal)), fmt.Sprint(everyFact(t, n.journal)))
	m.mu.Lock()
	defer m.mu.Unlock()
	assert.Equal(t, 1, m.lies, "it is not asked again")
	assert.Equal(t, 1, bytes.Count(log.bytes(), []byte("the facts that a member gives are refused")))
}

// A floored journal says that retention has dropped facts up to an index.
type floored struct {
	cluster.Journal
	floor uint64
}

func (f floored) Status() (history.Status, error) {
	s, err := f.Journal.Status()
	s.Floor = f.floor
	return s, err
}

// Where retention may have dropped facts on the members that answer, a gap waits for
// those that do not, for a time.
func TestAGapWaitsForMembersThatMayHaveMore(t *testing.T) {
	t.Parallel()
	const floor = 20
	for name, patience := range map[string]time.Duration{"the member is gone": time.Hour, "the time is over": 5 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t, 1, func(c *cluster.Config) {
				snapshots(c)
				c.Journal = floored{c.Journal, floor}
			})
			for i := range 60 {
				m.do(m.leader(), newToken(fmt.Sprintf("t%d", i)))
			}
			require.NoError(t, m.leader().AddMember(t.Context(), "silent", "silent", 0))
			m.tweak = func(c *cluster.Config) {
				snapshots(c)
				cluster.SetFloorPatience(c, patience)
			}
			n := m.join("new", "new")
			require.NoError(t, m.leader().AddMember(t.Context(), "new", "new", 0))
			want := history.Gaps{{From: 1, To: floor}}
			require.Eventually(t, func() bool { return slices.Equal(n.gaps(), want) }, testPatience, 5*time.Millisecond, "what is above the floor is taken")
			if patience == time.Hour {
				asked := m.count("journal_extent")
				require.Eventually(t, func() bool { return m.count("journal_extent") > asked+6 }, testPatience, 5*time.Millisecond)
				require.Equal(t, want, n.gaps(), "and nothing below")
				require.NoError(t, m.leader().RemoveMember(t.Context(), "silent", 0, ""))
			}
			n.filled()
		})
	}
}

// What no member has is lost, and said so once.
func TestWhatNoMemberHasIsSaidToBeLost(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	m := newMesh(t, 1, snapshots)
	for i := range 60 {
		m.do(m.leader(), newToken(fmt.Sprintf("t%d", i)))
	}
	founder := m.leader()
	m.setOldFacts(true) // nobody gives anything, as it was once
	first := m.addVoter("first")
	m.tweak = func(c *cluster.Config) {
		snapshots(c)
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	}
	second := m.addVoter("second")
	require.NoError(t, m.leader().RemoveMember(t.Context(), founder.id, 0, ""))
	m.leader(founder)
	m.isolate(founder)
	founder.stop()
	m.setOldFacts(false)
	require.Eventually(t, func() bool { return bytes.Contains(log.bytes(), []byte("lost to the cluster")) }, testPatience, 10*time.Millisecond)
	asked := m.count("journal_extent")
	require.Eventually(t, func() bool { return m.count("journal_extent") > asked+4 }, testPatience, 10*time.Millisecond)
	assert.Equal(t, 1, bytes.Count(log.bytes(), []byte("lost to the cluster")), "it is said once")
	assert.Equal(t, first.gaps().And(second.gaps()), second.gaps(), "what the first one had the second one has")
}
