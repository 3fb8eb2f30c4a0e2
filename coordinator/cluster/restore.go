package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/backoff"
)

// ErrBehindSnapshot says that a snapshot is of a later log index than the log
// of this cluster has, and that it cannot be moved on.
var ErrBehindSnapshot = errors.New("the snapshot is of a later log index than this cluster's log, which only a cluster of one node can move on: " +
	"restore it to a cluster of one, and let the others join afterwards")

const (
	// restorePatience bounds moving the log on.
	restorePatience = 2 * time.Minute
	// dropPatience bounds taking back what was staged, which is only a courtesy.
	dropPatience = time.Second
)

// ID is this node's name in the cluster.
func (n *Node) ID() string { return n.config.NodeID }

// Restoration is a snapshot that is to take the state's place.
type Restoration struct {
	// Index is the log index that the snapshot was taken at.
	Index uint64
	// Pieces are the snapshot, as a fleet.RestorePacker makes them.
	Pieces [][]byte
	// APIToken stays good besides those of the snapshot, "" for none.
	APIToken string
	Note     fleet.NoteRestore
	// Now is the clock of the commands.
	Now func() time.Time
	// Progress is called after each piece that is stored; nil tells nobody.
	Progress func(done, of int)
}

// Behind reports whether a log that has come to index has to be moved on before it
// can take the snapshot, which only a cluster of one node can do: the last command
// of the restore, which comes after the pieces, has to be later than all that is
// restored.
func (r Restoration) Behind(index uint64) bool { return index+uint64(len(r.Pieces)) <= r.Index }

// Restore replaces the state of the whole cluster by a snapshot. It goes through
// the log like every other change, piece by piece, and is done when the last
// command of it is applied: until then nothing changes, and what is lost in
// between changes nothing. Every node may be asked.
//
// A log that has not come to the snapshot's index yet is moved on to it first,
// if this node is a cluster of its own; else the error wraps ErrBehindSnapshot.
// The other errors are those of Propose, and *fleet.RejectedError.
func (n *Node) Restore(ctx context.Context, r Restoration) error {
	index, err := n.ConsistentIndex(ctx) // this node may be behind
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if r.Behind(index) {
		if err := n.moveOn(ctx, r.Index); err != nil {
			return err
		}
	}
	id := fleet.NewID().String()
	err = n.stage(ctx, id, r)
	if err == nil {
		err = n.restoreStep(ctx, r, fleet.ApplyRestore{ID: id, Pieces: uint32(len(r.Pieces)), APIToken: r.APIToken, Note: r.Note}) // bounded by its check
	}
	if err == nil {
		return nil
	}
	// What is left behind is in the way of nobody, and goes by itself.
	drop, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropPatience)
	defer cancel()
	if dropErr := n.restoreStep(drop, r, fleet.DropRestore{ID: id}); dropErr != nil {
		n.log.Warn("the pieces of a restore that failed were not dropped; they go by themselves after some hours", "err", dropErr)
	}
	return err
}

func (n *Node) stage(ctx context.Context, id string, r Restoration) error {
	for i, piece := range r.Pieces {
		if err := n.restoreStep(ctx, r, fleet.StageRestore{ID: id, Piece: uint32(i), Data: piece}); err != nil { // bounded by its check
			return err
		}
		if r.Progress != nil {
			r.Progress(i+1, len(r.Pieces))
		}
	}
	return nil
}

func (n *Node) restoreStep(ctx context.Context, r Restoration, payload fleet.Payload) error {
	command, err := fleet.NewCommand(r.Now(), payload)
	if err != nil {
		return err
	}
	results, err := n.Propose(ctx, command)
	for {
		busy, overloaded := errors.AsType[*OverloadedError](err)
		if !overloaded || backoff.Wait(ctx, busy.RetryAfter) != nil {
			break
		}
		results, err = n.Propose(ctx, command)
	}
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := results[0].Err(); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}

// moveOn lets the log go on behind an index, with the state as it is: every
// record of a snapshot is then older than what is changed next, which the rules
// of the fleet go by.
//
// Raft can do this by taking a snapshot for its own. It does so before any other
// node knows of it: with others, the loss of this node in that moment would let
// two histories have the same index. Alone there is nobody to differ from.
func (n *Node) moveOn(ctx context.Context, index uint64) error {
	// Nor does a member come meanwhile, or it would not be one of the histories
	// that are the same.
	select {
	case n.changing <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("restore: %w", ctx.Err())
	}
	defer func() { <-n.changing }()
	n.gate.Lock() // nothing is handed to Raft meanwhile
	defer n.gate.Unlock()
	configuration := n.raft.GetConfiguration()
	if err := configuration.Error(); err != nil {
		return raftError(err)
	}
	servers := configuration.Configuration().Servers
	if len(servers) != 1 || string(servers[0].ID) != n.config.NodeID {
		return fmt.Errorf("restore: a snapshot of log index %d, the log is at %d, with %d nodes: %w", index, n.raft.LastIndex(), len(servers), ErrBehindSnapshot)
	}
	if err := n.barrier(ctx); err != nil {
		return err
	}
	if n.raft.LastIndex() > index {
		return nil
	}
	// The state is not applied to now, so that it is the same twice.
	pinned := n.machine.state.Snapshot()
	// Raft puts what it is given in the place of the log, from which the journal
	// could not be completed any more.
	if err := n.writer.wait(ctx, pinned.Index()); err != nil {
		return fmt.Errorf("restore: move the log on: %w", err)
	}
	size := new(octets)
	if err := pinned.Persist(size); err != nil {
		return fmt.Errorf("restore: move the log on: %w", err)
	}
	n.log.Info("the log is moved on, so that an older state can be restored", "from", n.raft.LastIndex(), "to", index)
	return n.asking.ask(ctx, func() error {
		reader, writer := io.Pipe()
		go func() { _ = writer.CloseWithError(pinned.Persist(writer)) }() // always nil
		defer reader.Close()
		meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: index, Size: int64(*size)}
		return wrap("restore: move the log on", raftError(n.raft.Restore(meta, reader, restorePatience)))
	})
}

// octets counts what is written to it.
type octets int64

// Write implements io.Writer.
func (o *octets) Write(p []byte) (int, error) {
	*o += octets(len(p))
	return len(p), nil
}
