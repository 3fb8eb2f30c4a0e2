package cluster

import (
	"strconv"
	"time"

	"github.com/hashicorp/raft"
)

// Status is where a node stands in its log, for reports.
type Status struct {
	Leader       bool // Raft's word: this node was elected
	Term         uint64
	CommitIndex  uint64 // newest entry that is known to be committed
	AppliedIndex uint64 // newest entry that Raft has handed to the state
	LastIndex    uint64 // newest entry in this node's log
	// SnapshotIndex is the newest entry that the newest snapshot covers; 0
	// without one.
	SnapshotIndex uint64
	// LastContact is when a follower last heard of its leader; zero for the
	// leader, and if it never has.
	LastContact time.Time
}

// Status is the node's standing now.
func (n *Node) Status() Status {
	s := Status{
		Leader: n.raft.State() == raft.Leader, Term: n.raft.CurrentTerm(),
		CommitIndex: n.raft.CommitIndex(), AppliedIndex: n.raft.AppliedIndex(), LastIndex: n.raft.LastIndex(),
	}
	if !s.Leader {
		s.LastContact = n.raft.LastContact()
	}
	// Raft gives it in this form alone, and as a number always.
	s.SnapshotIndex, _ = strconv.ParseUint(n.raft.Stats()["last_snapshot_index"], 10, 64)
	return s
}
