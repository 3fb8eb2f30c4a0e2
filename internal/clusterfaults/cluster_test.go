package clusterfaults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
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
	random  *rand.Rand // of the one goroutine that injects faults
	network *network
	members []*member
	leads   *leads
	ledger  *ledger
	loads   int // that were begun
	voters  []raft.Server
}

// member is one node, which may be down.
type member struct {
	bench *bench
	id    string
	dir   string
	disk  *faultyDisk
	// clock is how far this node's clock is ahead, in nanoseconds.
	clock atomic.Int64

	node    atomic.Pointer[cluster.Node] // nil while it is down
	journal *history.Journal
	cancel  context.CancelFunc
	ended   chan struct{}
	failure error // valid once ended is closed
}

func newBench(t testing.TB, seed uint64) *bench {
	b := &bench{t: t, random: rand.New(rand.NewPCG(seed, 0)), network: newNetwork(rand.New(rand.NewPCG(seed, 1))), leads: newLeads(), ledger: newLedger()}
	for i := range 3 {
		id := fmt.Sprintf("node%d", i)
		b.members = append(b.members, &member{bench: b, id: id, dir: filepath.Join(t.TempDir(), id), disk: &faultyDisk{}})
		b.voters = append(b.voters, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
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
	for _, m := range b.members {
		require.NoError(t, os.Mkdir(m.dir, 0o700))
		m.found()
		require.NoError(t, m.start())
	}
	return b
}

func (m *member) config(journal cluster.Journal, transport raft.Transport) cluster.Config {
	return cluster.Config{
		Dir: m.dir, NodeID: m.id, Journal: journal, Log: slog.New(&watcher{leads: m.bench.leads, node: m.id}),
		Transport: transport, Peers: &calls{bench: m.bench, from: m.id}, ElectionTimeout: electionTimeout, Hook: m.disk.hook,
		// The log is cut often, so that a node that was away needs a snapshot.
		SnapshotEntries: 200, SnapshotInterval: 300 * time.Millisecond, TrailingEntries: 300,
	}
}

// found makes the first state of a node.
func (m *member) found() {
	m.bench.t.Helper()
	journal, err := history.Create(m.journalConfig())
	require.NoError(m.bench.t, err)
	defer func() { require.NoError(m.bench.t, journal.Close()) }()
	_, transport := raft.NewInmemTransport(raft.ServerAddress(m.id))
	require.NoError(m.bench.t, cluster.Bootstrap(m.config(journal, transport), m.bench.voters))
}

func (m *member) journalConfig() history.Config {
	return history.Config{Path: filepath.Join(m.dir, "journal.db"), Log: slog.New(slog.DiscardHandler)}
}

// start runs the node on what is in its directory. It returns an error when the
// node refuses that.
func (m *member) start() error {
	journal, err := history.Open(m.journalConfig())
	if err != nil {
		return err
	}
	listener, err := m.bench.network.listen(m.id)
	require.NoError(m.bench.t, err)
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  &streams{Listener: listener, network: m.bench.network, node: m.id},
		MaxPool: 3, Timeout: 2 * electionTimeout, Logger: hclog.NewNullLogger(),
		MaxRPCsInFlight: 1, // a pipeline of Raft's can block for good when a follower refuses an entry
	})
	node, err := cluster.Open(m.config(&faultyJournal{Journal: journal, disk: m.disk}, transport))
	if err != nil {
		m.bench.network.unplug(m.id)
		return errors.Join(err, transport.Close(), journal.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.journal, m.cancel, m.ended = journal, cancel, make(chan struct{})
	go func() {
		defer close(m.ended)
		m.failure = node.Run(ctx)
	}()
	m.node.Store(node)
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
		stacks := make([]byte, 1<<20)
		m.bench.t.Logf("%s", stacks[:runtime.Stack(stacks, true)])
		require.FailNow(m.bench.t, "the node does not end", m.id)
	}
	require.NoError(m.bench.t, m.failure, m.id)
	m.bench.network.unplug(m.id)
	require.NoError(m.bench.t, m.journal.Close())
}

// crash ends the node without a word to the others.
func (m *member) crash() {
	m.bench.t.Helper()
	m.bench.network.unplug(m.id)
	m.stop()
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

// calls are those of one node to the others, over the same links as Raft's.
type calls struct {
	bench *bench
	from  string
}

// Call implements cluster.Caller.
func (c *calls) Call(ctx context.Context, id, _, method string, request []byte) ([]byte, error) {
	network := c.bench.network
	if !network.plugged(id) || !network.plugged(c.from) || !network.link(c.from, id).pass(ctx, network.draw) {
		return nil, fmt.Errorf("call %s: it is not reached", id)
	}
	for _, m := range c.bench.members {
		node := m.node.Load()
		if m.id != id || node == nil {
			continue
		}
		answer, err := node.HandleCall(ctx, c.from, method, request)
		if err != nil || !network.link(id, c.from).pass(ctx, network.draw) || !network.plugged(id) || !network.plugged(c.from) {
			return nil, errors.Join(err, fmt.Errorf("call %s: no answer", id))
		}
		return answer, nil
	}
	return nil, fmt.Errorf("call %s: it is down", id)
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
