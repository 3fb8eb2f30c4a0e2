package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// nudgePause is how long a leader that has nothing more to send waits before it
// tells the others what is committed, unless it knows of somebody who waits there.
const nudgePause = 2 * time.Millisecond

// A nudger tells the other nodes that what they have stored is committed. Raft
// tells them with the next entry, and without one after its CommitTimeout: so long
// would wait who writes through a follower, or reads there what was just written.
//
// What it sends is what Raft sends then: a message without entries. It says of an
// entry of its leader's term, which the receiver has stored, that it is committed,
// and that stays true whatever happens: it may arrive late, twice or never.
type nudger struct {
	node *Node
	// changed says that there may be something to tell, and awaited that another
	// node waits for it. Each holds one.
	changed, awaited chan struct{}

	mu     sync.Mutex
	stored map[raft.ServerID]storedMark // guarded by mu; what a node has stored last, as this one knows
	told   map[raft.ServerID]uint64     // guarded by mu; the index that it was told to be committed
	calls  sync.WaitGroup
}

// storedMark is an entry, and the leader's term in which it was stored: up to there
// the log is the leader's.
type storedMark struct {
	term, index uint64
}

func newNudger(n *Node) *nudger {
	return &nudger{
		node: n, changed: make(chan struct{}, 1), awaited: make(chan struct{}, 1),
		stored: map[raft.ServerID]storedMark{}, told: map[raft.ServerID]uint64{},
	}
}

// noteStored notes that a node has stored what this one sent it.
func (u *nudger) noteStored(id raft.ServerID, term, index uint64) {
	u.mu.Lock()
	u.stored[id] = storedMark{term, index}
	u.mu.Unlock()
	signal(u.changed)
}

// hurry is called when an entry is committed for which another node waits.
func (u *nudger) hurry() { signal(u.awaited) }

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run tells what is committed whenever Raft has nothing more to send, until ctx is
// done.
func (u *nudger) run(ctx context.Context) {
	defer u.calls.Wait()
	for {
		select {
		case <-u.awaited:
		case <-u.changed:
			u.pause(ctx)
		case <-ctx.Done():
			return
		}
		// While an entry is on its way, the next message tells of those before it.
		if commit := u.node.raft.CommitIndex(); commit == u.node.raft.LastIndex() {
			u.tell(commit)
		}
	}
}

// pause ends early when somebody waits.
func (u *nudger) pause(ctx context.Context) {
	over := time.NewTimer(nudgePause)
	defer over.Stop()
	select {
	case <-u.awaited:
	case <-over.C:
	case <-ctx.Done():
	}
}

// tell tells those that have an entry and do not know that it is committed.
func (u *nudger) tell(index uint64) {
	n := u.node
	var entry raft.Log
	if err := n.logs.GetLog(index, &entry); err != nil || n.raft.State() != raft.Leader || n.raft.CurrentTerm() != entry.Term {
		return
	}
	self := n.transport.EncodePeer(raft.ServerID(n.config.NodeID), n.transport.LocalAddr())
	request := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.config.NodeID), Addr: self},
		Term:      entry.Term, PrevLogEntry: index, PrevLogTerm: entry.Term, LeaderCommitIndex: index,
	}
	_, servers := n.configuration()
	u.mu.Lock()
	defer u.mu.Unlock()
	stored := u.stored
	u.stored = map[raft.ServerID]storedMark{}
	for _, server := range servers {
		mark, known := stored[server.ID]
		if !known {
			continue
		}
		u.stored[server.ID] = mark
		if mark.term != entry.Term || mark.index < index || u.told[server.ID] >= index {
			continue
		}
		u.told[server.ID] = index
		u.calls.Go(func() {
			var response raft.AppendEntriesResponse
			// Whatever comes of it, Raft's own messages go on.
			_ = n.transport.AppendEntries(server.ID, server.Address, request, &response)
		})
	}
}
