package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/runner"
)

// closingPatience bounds each of the polite steps of stopping: handing over the
// leadership, the last snapshot, the rest of the journal. Nothing is lost when
// one is cut short; the next start only has more to do.
const closingPatience = 10 * time.Second

// Node is one node of the cluster. Its methods are safe for concurrent use.
type Node struct {
	config    Config
	log       *slog.Logger
	raft      *raft.Raft
	transport raft.Transport
	store     io.Closer
	machine   *machine
	writer    *journalWriter
	backfill  *backfill
	members   *configurations
	leaders   *leaderWatch
	stored    *histogram // how long it took to sync entries
	snapshots raft.SnapshotStore
	logs      raft.LogStore // as Raft reads it

	reads              coalescer // of ConsistentIndex
	verifications      coalescer // of leaderIndex
	termCalls          termCalls // of confirm
	outgoing, incoming allowance // forwarded proposals under way
	forwarded          forwardCounts
	changing           chan struct{} // holds the one change of the membership under way
	pilot              *pilot
	nudger             *nudger
	expelled           atomic.Bool // the members that can be reached do not let this node in
	admitted           uint64      // the index of a configuration that has this node in it, if it was told; see behindAdmission
	waits              atomic.Bool // Raft was begun with the timeouts of a node that is behind it

	queue    chan *proposal
	inflight chan dispatched
	flying   sync.WaitGroup // entries that Raft has; only the dispatcher adds
	gate     sync.RWMutex   // held while entries must not be handed to Raft; see moveOn
	stopping chan struct{}  // closed when Run ends: nothing is accepted any more

	work        []runner.Task // of the leader; fixed once Run is called
	asking      questions
	life        context.Context // ends when the node stops
	endLife     context.CancelFunc
	down        chan struct{} // closed when Raft has ended: it answers nothing any more
	lost        chan struct{} // closed when Raft cannot go on, see surrender
	lose        sync.Once
	established atomic.Uint64 // the term in which this node leads and its work may run; 0 if it does not
	running     atomic.Bool
	closeOnce   sync.Once
	closeErr    error
}

func newNode(c Config, state *fleet.State, store io.Closer) *Node {
	writer := newJournalWriter(c.Journal, c.Log)
	members := &configurations{}
	n := &Node{
		config: c, log: c.Log, transport: c.Transport, store: store,
		machine: newMachine(state, writer, members, c.Log), writer: writer, members: members,
		leaders: newLeaderWatch(c.NodeID, c.Log), stored: &histogram{}, changing: make(chan struct{}, 1),
		queue:    make(chan *proposal, c.MaxWaiting),
		inflight: make(chan dispatched, maxInflight),
		stopping: make(chan struct{}),
		down:     make(chan struct{}),
		lost:     make(chan struct{}),
	}
	n.backfill = newBackfill(n, c.Journal)
	writer.gapped = n.backfill.nudge
	n.pilot, n.nudger = newPilot(n), newNudger(n)
	n.work = []runner.Task{{Name: "autopilot", Run: n.pilot.run}, {Name: "records of members", Run: n.keepRecords}}
	n.life, n.endLife = context.WithCancel(context.Background())
	if n.transport == nil {
		_, n.transport = raft.NewInmemTransport(c.address())
	}
	return n
}

// Lead adds work that runs while this node leads; see [Node.Run]. It must be
// called before Run.
//
// The work starts when everything that earlier leaders committed is applied
// here, and its context ends when the leadership does. The next leader may then
// be at work already: whatever has an effect outside is claimed in the state
// first. Work that fails, or ends early with an error, is started again after a
// pause, together with the rest.
func (n *Node) Lead(name string, work func(ctx context.Context) error) {
	if n.running.Load() {
		panic("cluster: Lead after Run")
	}
	n.work = append(n.work, runner.Task{Name: name, Run: work})
}

// Run takes part in the cluster until ctx is done, then stops in order and
// returns when everything that it started has ended: leader work first, then
// proposals, a last snapshot, the journal, Raft, the transport, and the log
// last. It returns nil after such a stop, and an error that says what to do
// when this node cannot apply the log.
func (n *Node) Run(ctx context.Context) error {
	if n.running.Swap(true) {
		return errors.New("cluster: Run was called before")
	}
	// The parts below outlive ctx: they are stopped one after the other.
	var journal, proposals, leading sync.WaitGroup
	journalCtx, stopJournal := context.WithCancel(context.WithoutCancel(ctx))
	defer stopJournal()
	proposalCtx, stopProposals := context.WithCancel(context.WithoutCancel(ctx))
	defer stopProposals()
	leadCtx, stopLeading := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLeading()

	journal.Go(func() { n.writer.run(journalCtx) })
	proposals.Go(func() { n.dispatch(proposalCtx) })
	proposals.Go(n.complete)
	leading.Go(func() { n.lead(leadCtx) })
	leading.Go(func() { n.watchMembership(leadCtx) })
	leading.Go(func() { n.watchCandidacy(leadCtx) })
	leading.Go(func() { n.backfill.run(leadCtx) })
	leading.Go(func() { n.nudger.run(leadCtx) })

	var failure error
	select {
	case <-ctx.Done():
	case <-n.machine.failed:
		failure = fmt.Errorf("the coordinator node %s has to stop: %w", n.config.NodeID, n.machine.err())
		n.log.Error("the log cannot be applied; the node stops", "err", n.machine.err())
	}

	stopLeading()
	leading.Wait()
	close(n.stopping)
	stopProposals()
	if failure == nil {
		n.farewell()
	} else {
		stopJournal() // Raft may be waiting for it
	}
	err := n.shutdown()
	proposals.Wait()
	stopJournal()
	journal.Wait()
	return errors.Join(failure, wrap("stop Raft", err), n.release())
}

// Close releases a node whose Run was never called, and does nothing else.
func (n *Node) Close() error {
	if n.running.Swap(true) {
		return nil
	}
	close(n.stopping)
	n.writer.close()
	err := n.shutdown()
	return errors.Join(wrap("stop Raft", err), n.release())
}

// shutdown ends Raft, which ends the proposals under way.
func (n *Node) shutdown() error {
	defer close(n.down)
	impatient := time.AfterFunc(closingPatience, n.writer.close)
	defer impatient.Stop()
	n.endLife()
	n.asking.end(n.lost)
	return n.raft.Shutdown().Error()
}

// surrender says that Raft has ended halfway, because a term or vote could not be
// stored before the stop. It answers nothing any more, so that the stop waits for
// no answer.
func (n *Node) surrender() {
	n.lose.Do(func() { close(n.lost) })
	n.endLife()
}

// release closes what Raft used, the log last.
func (n *Node) release() error {
	n.closeOnce.Do(func() {
		n.closeErr = errors.Join(
			wrap("close the transport", closeTransport(n.transport)),
			wrap("close the Raft log", n.store.Close()))
	})
	return n.closeErr
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// farewell makes the stop easy on the others and the next start quick.
func (n *Node) farewell() {
	_, servers := n.configuration()
	if n.raft.State() == raft.Leader && len(votersOf(servers)) > 1 {
		if err := n.patiently(func() error { return n.handOver(n.life, servers, "") }); err != nil {
			n.log.Warn("the leadership was not handed over; the others elect a leader", "err", err)
		}
	}
	err := n.patiently(func() error { return n.raft.Snapshot().Error() })
	if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		n.log.Warn("no snapshot was taken at the end; the next start replays the log", "err", err)
	}
}

// EnsureSnapshot takes a snapshot if there is none yet: without one, a node that
// starts again has an empty state until a leader tells it how much of its log is
// committed. Errors are Raft's, ErrStopped or ctx's.
func (n *Node) EnsureSnapshot(ctx context.Context) error {
	if n.Status().SnapshotIndex > 0 {
		return nil
	}
	err := n.asking.ask(ctx, func() error { return n.raft.Snapshot().Error() })
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return raftError(err)
}

// patiently waits for a step of Raft, but not for ever. When it is cut short,
// the writer is closed so that the step ends too. It is at once when Raft has
// ended because of its disk.
func (n *Node) patiently(step func() error) error {
	ctx, cancel := context.WithTimeout(n.life, closingPatience)
	defer cancel()
	err := n.asking.ask(ctx, step)
	if ctx.Err() != nil {
		n.writer.close()
	}
	return err
}

// State is the replicated state, as far as it is applied here.
func (n *Node) State() *fleet.State { return n.machine.state }

// AppliedIndex is the log index of the last entry that changed the state. It
// never goes back: an older state is restored through the log too.
func (n *Node) AppliedIndex() uint64 { return n.machine.state.Index() }

// WaitIndex returns when the state here has reached a log index, as another
// node's AppliedIndex gave it.
func (n *Node) WaitIndex(ctx context.Context, index uint64) error {
	return n.machine.waitIndex(ctx, index)
}

// VerifyLeader returns nil if a majority confirms that this node leads, or did a
// heartbeat ago: Raft counts answers to heartbeats that were sent before the
// call. What a read may rely on is ConsistentIndex. Errors wrap ErrNotLeader,
// ErrStopped or ctx's error.
func (n *Node) VerifyLeader(ctx context.Context) error {
	err := n.asking.ask(ctx, func() error { return raftError(n.raft.VerifyLeader().Error()) })
	return wrap("verify the leadership", err)
}

// Term is the term in which this node leads and is ready to; 0 if it does not. It may
// be out of date as IsLeader may.
func (n *Node) Term() uint64 { return n.established.Load() }

// IsLeader reports whether this node leads and is ready to: everything that
// earlier leaders committed is applied. It may be out of date; see VerifyLeader.
func (n *Node) IsLeader() bool { return n.established.Load() != 0 }

// Leader is the id and the address of the leader, "" if none is known.
func (n *Node) Leader() (id, address string) {
	a, i := n.raft.LeaderWithID()
	return string(i), string(a)
}

// Readiness is what a node can do, as separate facts. It is no liveness: a node
// that is not ready is usually helped by waiting, not by a restart.
type Readiness struct {
	Running     bool  // Run was called and is not stopping
	LeaderKnown bool  // writes can go somewhere
	Leading     bool  // and that is here
	Applied     bool  // what is known to be committed is applied here
	Journal     error // why facts cannot be written; nil if they can
	Failure     error // why this node stopped applying; nil if it did not
	// Member tells that this node belongs to the cluster. One that joins does not
	// yet, and one that was removed does no more: it stays quiet, and waits.
	Member bool
}

// Ready reports whether requests should be sent here.
func (r Readiness) Ready() bool {
	return r.Running && r.LeaderKnown && r.Applied && r.Journal == nil && r.Failure == nil
}

// Ready is the node's readiness now.
func (n *Node) Ready() Readiness {
	address, _ := n.raft.LeaderWithID()
	r := Readiness{
		Running: n.running.Load(), LeaderKnown: address != "", Leading: n.IsLeader(),
		Journal: n.writer.health(), Failure: n.machine.err(), Member: n.isMember(),
	}
	select {
	case <-n.stopping:
		r.Running = false
	default:
	}
	// A leader has applied everything once its barrier has passed. A follower
	// learns what is committed from the leader's first words.
	commit := n.raft.CommitIndex()
	r.Applied = r.Leading || n.raft.State() != raft.Leader && commit > 0 && n.caughtUp(commit)
	return r
}

// caughtUp reports whether the commands up to an index are applied here. Of an
// entry that cannot be read nobody knows whether it is one.
func (n *Node) caughtUp(index uint64) bool {
	command, err := n.lastCommand(index)
	return err == nil && n.AppliedIndex() >= command
}
