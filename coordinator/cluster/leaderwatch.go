package cluster

import (
	"context"
	"log/slog"
	"sync"

	"github.com/hashicorp/raft"
)

// leaderWatch follows what Raft says about leaders. Raft calls it from its own
// goroutines: nothing here waits.
type leaderWatch struct {
	self string // this node
	log  *slog.Logger

	mu      sync.Mutex
	leader  string        // the last one that was known
	changed chan struct{} // closed and replaced when another leads

	elections uint64 // how often this node stood for election
	changes   uint64 // how often another node than before led
}

func newLeaderWatch(self string, log *slog.Logger) *leaderWatch {
	return &leaderWatch{self: self, log: log, changed: make(chan struct{})}
}

// observe is a filter of Raft's observations: one that keeps nothing, because
// a channel could overflow.
func (w *leaderWatch) observe(o *raft.Observation) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch data := o.Data.(type) {
	case raft.RaftState:
		if data == raft.Candidate {
			w.elections++
		}
	case raft.LeaderObservation:
		if data.LeaderID != "" && string(data.LeaderID) != w.leader {
			w.leader = string(data.LeaderID)
			w.changes++
			if w.leader != w.self { // what this one does is told where it does it
				w.log.Info("another node leads the cluster", "node_id", w.self, "leader", w.leader)
			}
			close(w.changed)
			w.changed = make(chan struct{})
		}
	}
	return false
}

// while is a context that ends when another node than id is known to lead.
func (w *leaderWatch) while(ctx context.Context, id string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for {
			w.mu.Lock()
			leader, changed := w.leader, w.changed
			w.mu.Unlock()
			if leader != "" && leader != id {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}

func (w *leaderWatch) counts() (elections, changes uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.elections, w.changes
}
