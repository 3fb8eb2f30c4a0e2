package clusterfaults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/recovery"
	"github.com/certctl/certctl/shared/durable"
)

const (
	electionTimeout = 250 * time.Millisecond
	// patience bounds whatever has to happen in the end.
	patience = 2 * time.Minute
)

// bench is a cluster of three in this process, on real files and sockets.
type bench struct {
	t       testing.TB
	form    form
	random  *rand.Rand // of the one goroutine that injects faults
	network *network
	members []*member
	leads   *leads
	ledger  *ledger
	loads   int // that were begun
	// losses is how often the cluster has lost a part of its log, and clusters how
	// often all of it: the indexes of another cluster have nothing to do with those
	// of the one before. Changed by the one goroutine that injects faults.
	losses, clusters atomic.Int64
	// kept are facts of journals that are gone with their disk: a new node does
	// not get those of before.
	kept []fleet.Fact
	// replaced are the parts of the log that were undone, the newest at last.
	replaced []replaced
	restored uint64   // index of the newest restore that the verifiers know of
	found    findings // since the last report
}

// at is a log index that no other cluster of this bench has had.
func (b *bench) at(index uint64) uint64 { return uint64(b.clusters.Load())*end + index }

// applied is the newest entry that any node has applied.
func (b *bench) applied() (index uint64) {
	for _, m := range b.members {
		if node := m.node.Load(); node != nil {
			index = max(index, node.AppliedIndex())
		}
	}
	return b.at(index)
}

// form is what the nodes of a bench are made of.
type form interface {
	// found starts a node with an empty directory as a cluster of its own.
	found(m *member)
	// join starts a node with an empty directory as one more of the cluster.
	join(m *member)
	// open opens what is in a member's directory.
	open(m *member) (*opened, error)
	// dir is where a member's folder "raft" is.
	dir(m *member) string
	// orders reports whether nobody but the clients completes orders.
	orders() bool

	// recover makes a node that is down a cluster of its own, as an operator does,
	// and returns what was said about it before.
	recover(m *member) *recovery.Comparison
	// save takes a snapshot at a node.
	save(m *member) snapshot
	// restore replaces the state of the cluster by that of a snapshot, at a node.
	restore(m *member, s snapshot) error
}

// opened is a node that is ready to run.
type opened struct {
	node    *cluster.Node
	journal *history.Journal
	// run returns when everything has ended.
	run func(context.Context) error
}

// member is one node, which may be down.
type member struct {
	bench *bench
	id    string
	disk  *faultyDisk
	// clock is how far this node's clock is ahead, in nanoseconds.
	clock   atomic.Int64
	spoiled bool // its log was changed, and the node has not refused it

	node    atomic.Pointer[cluster.Node] // nil while it is down
	journal *history.Journal
	cancel  context.CancelFunc
	ended   chan struct{}
	failure error // valid once ended is closed
}

func newBench(t testing.TB, seed uint64, form form) *bench {
	b := &bench{
		t: t, form: form, random: rand.New(rand.NewPCG(seed, 0)), network: newNetwork(rand.New(rand.NewPCG(seed, 1))),
		leads: newLeads(), ledger: newLedger(),
	}
	for i := range 3 {
		b.members = append(b.members, &member{bench: b, id: fmt.Sprintf("node%d", i), disk: &faultyDisk{}})
	}
	t.Cleanup(func() {
		for _, m := range b.members {
			b.network.unplug(m.id) // or each waits for the others to take over
		}
		for _, m := range b.members {
			if m.node.Load() != nil {
				m.stop()
			}
		}
	})
	b.begin()
	return b
}

// begin makes a cluster of all members, whose directories are empty.
func (b *bench) begin() {
	b.t.Helper()
	b.form.found(b.members[0])
	for _, m := range b.members[1:] {
		b.form.join(m)
	}
	b.awaitVoters()
}

// awaitVoters waits until all have a vote, and know it of each other: a node that
// has not heard of a promotion yet does not vote for the one that was promoted, so
// that the loss of the leader at that moment would be the loss of two.
func (b *bench) awaitVoters() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b.eventually(ctx, "all have a vote", func() bool {
		return !slices.ContainsFunc(b.members, func(m *member) bool {
			members, _ := m.node.Load().Members()
			return slices.ContainsFunc(members, func(m cluster.Member) bool { return !m.Voter }) || len(members) != len(b.members)
		})
	})
	b.leader()
}

// replace puts a node with an empty disk in the place of one that is down.
func (b *bench) replace(m *member) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b.eventually(ctx, m.id+" is removed", func() bool {
		node := b.leader().node.Load()
		if err := node.RemoveMember(ctx, m.id, 0, ""); err != nil && !errors.Is(err, cluster.ErrNoMember) {
			return false
		}
		_, known := node.State().View().ClusterNode(m.id)
		return !known
	})
	// It comes back with the same id. A snapshot of when that id had the only vote,
	// after a recovery or in a new cluster, would let it elect itself before the rest
	// of the log reaches it: nobody has one any more then.
	index := b.leader().node.Load().AppliedIndex()
	b.eventually(ctx, "all have a snapshot without "+m.id, func() bool {
		return !slices.ContainsFunc(b.others(m), func(other *member) bool { return other.node.Load().Status().SnapshotIndex < index })
	})
	require.NoError(b.t, emptyDir(b.form.dir(m)))
	b.form.join(m)
	b.awaitVoters()
}

// configure adds to a node's configuration what faults need.
func (m *member) configure(c *cluster.Config) {
	c.Journal = &faultyJournal{Journal: c.Journal, disk: m.disk}
	c.Hook = m.disk.hook
	c.ElectionTimeout = electionTimeout
	// The log is cut often, so that a node that was away needs a snapshot.
	c.SnapshotEntries, c.SnapshotInterval, c.TrailingEntries = 200, 300*time.Millisecond, 300
	c.Stabilization = 200 * time.Millisecond
}

// log is where a node writes what it does.
func (m *member) log() *slog.Logger { return slog.New(&watcher{leads: m.bench.leads, node: m.id}) }

// start runs the node on what is in its directory. It returns an error when the
// node refuses that.
func (m *member) start() error {
	o, err := m.bench.form.open(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.journal, m.cancel, m.ended = o.journal, cancel, make(chan struct{})
	go func(ended chan struct{}) {
		defer close(ended)
		m.failure = o.run(ctx)
	}(m.ended)
	m.node.Store(o.node)
	return nil
}

// stop ends the node in order.
func (m *member) stop() {
	m.bench.t.Helper()
	m.node.Store(nil)
	m.cancel()
	select {
	case <-m.ended:
	case <-time.After(patience):
		m.bench.tell()
		require.FailNow(m.bench.t, "the node does not end", m.id)
	}
	require.NoError(m.bench.t, m.failure, m.id)
	m.bench.network.unplug(m.id)
}

// crash ends the node without a word to the others.
func (m *member) crash() {
	m.bench.t.Helper()
	m.bench.network.unplug(m.id)
	m.stop()
}

// crashAll ends all nodes without a word to each other.
func (b *bench) crashAll() {
	b.t.Helper()
	for _, m := range b.members {
		b.network.unplug(m.id)
	}
	b.network.heal() // or what is held up is waited for
	for _, m := range b.members {
		m.stop()
	}
}

// now is the time by the node's clock.
func (m *member) now() time.Time { return time.Now().Add(time.Duration(m.clock.Load())) }

// leader waits for a node that leads, and that a majority confirms.
func (b *bench) leader() *member {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var found *member
	b.eventually(ctx, "a node leads", func() bool {
		for _, m := range b.members {
			node := m.node.Load()
			if node == nil || !node.IsLeader() {
				continue
			}
			ask, end := context.WithTimeout(ctx, electionTimeout)
			err := node.VerifyLeader(ask)
			end()
			if err == nil {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

// others are the members but one, in an order drawn at random.
func (b *bench) others(m *member) []*member {
	var list []*member
	for _, other := range b.members {
		if other != m {
			list = append(list, other)
		}
	}
	b.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

func (b *bench) eventually(ctx context.Context, what string, ok func() bool) {
	b.t.Helper()
	for !ok() {
		if ctx.Err() != nil {
			b.tell()
			require.FailNow(b.t, "not in time: "+what)
		}
		pause(ctx, 2*time.Millisecond)
	}
}

// caughtUp waits until every node runs, follows or leads, and has applied what
// the leader had.
func (b *bench) caughtUp() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	index := b.leader().node.Load().AppliedIndex()
	for _, m := range b.members {
		node := m.node.Load()
		require.NotNil(b.t, node, m.id)
		require.NoError(b.t, node.WaitIndex(ctx, index), m.id)
		b.eventually(ctx, m.id+" is ready", func() bool { return node.Ready().Ready() })
	}
}

// tell logs where the nodes stand, and what everything waits for.
func (b *bench) tell() {
	for _, m := range b.members {
		if node := m.node.Load(); node != nil {
			leader, _ := node.Leader()
			members, index := node.Members()
			b.t.Logf("%s: leader %q, members of entry %d %+v, %+v, %+v", m.id, leader, index, members, node.Status(), node.Ready())
		} else {
			b.t.Logf("%s is down", m.id)
		}
	}
	stacks := make([]byte, 4<<20)
	b.t.Logf("%s", stacks[:runtime.Stack(stacks, true)])
}

// faultyDisk is the disk of one node.
type faultyDisk struct {
	mu     sync.Mutex
	err    error         // of every write
	before bool          // it fails before anything is written; else after
	times  int           // how often it fails; negative for as long as err is set
	slow   time.Duration // the most that a write takes
	struck int           // writes that failed
}

func (d *faultyDisk) set(err error, before bool, times int, slow time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.before, d.times, d.slow, d.struck = err, before, times, slow, 0
}

func (d *faultyDisk) fails() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.struck
}

func (d *faultyDisk) hook(step durable.Step, path string, done bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.slow > 0 && !done {
		slow := rand.N(d.slow)
		d.mu.Unlock()
		pause(context.Background(), slow)
		d.mu.Lock()
	}
	if d.err == nil || d.times == 0 || done == d.before {
		return nil
	}
	if d.times > 0 {
		d.times--
	}
	d.struck++
	return fmt.Errorf("%s: %s: %w", step, path, d.err)
}

// faultyJournal is a journal on such a disk.
type faultyJournal struct {
	cluster.Journal
	disk *faultyDisk
}

func (j *faultyJournal) Append(through uint64, facts []fleet.Fact) error {
	if err := j.disk.hook("journal", "journal.db", false); err != nil {
		return err
	}
	return j.Journal.Append(through, facts)
}

// leads is who won which term.
type leads struct {
	mu      sync.Mutex
	winners map[uint64]map[string]bool
}

func newLeads() *leads { return &leads{winners: map[uint64]map[string]bool{}} }

func (l *leads) won(term uint64, node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.winners[term] == nil {
		l.winners[term] = map[string]bool{}
	}
	l.winners[term][node] = true
}

// counted is how many terms had a leader, and how many more than one.
func (l *leads) counted() (terms, twice int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, nodes := range l.winners {
		terms++
		if len(nodes) > 1 {
			twice++
		}
	}
	return terms, twice
}

// watcher is a log handler that notes the elections that Raft tells of.
type watcher struct {
	leads *leads
	node  string
}

func (w *watcher) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (w *watcher) WithAttrs([]slog.Attr) slog.Handler               { return w }
func (w *watcher) WithGroup(string) slog.Handler                    { return w }

func (w *watcher) Handle(_ context.Context, record slog.Record) error {
	if record.Message != "election won" {
		return nil
	}
	record.Attrs(func(a slog.Attr) bool {
		if a.Key == "term" {
			w.leads.won(a.Value.Uint64(), w.node)
		}
		return true
	})
	return nil
}
