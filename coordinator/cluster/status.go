package cluster

import (
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Status is where a node stands in its log, for reports.
type Status struct {
	Leader       bool   // Raft's word: this node was elected
	LeaderID     string // the node that leads, as far as this one knows; "" for none
	Voter        bool   // this node has a vote
	Term         uint64
	CommitIndex  uint64 // newest entry that is known to be committed
	AppliedIndex uint64 // newest entry that Raft has handed to the state
	LastIndex    uint64 // newest entry in this node's log
	// SnapshotIndex is the newest entry that the newest snapshot covers; 0
	// without one, and then the other two are zero too.
	SnapshotIndex uint64
	SnapshotTaken time.Time
	SnapshotSize  int64 // bytes
	// LastContact is when a follower last heard of its leader; zero for the
	// leader, and if it never has.
	LastContact time.Time

	// Health is how the cluster is, in the eyes of the node that leads; nil on the
	// others.
	Health *Health

	Elections     uint64 // how often this node stood for election since it started
	LeaderChanges uint64 // how often another node than before led, as it saw it
	Waiting       int    // proposals in the queue
	WaitingMax    int    // where it is full
	InFlight      int    // entries that Raft has and that are not applied
	Apply         Histogram
	Store         Histogram // to sync new entries in the log, one call for all that came together
	Forwarded     Forwarded
	Journal       JournalLag
	// ReadQuestions counts what consistent reads asked: one question for all that
	// waited for it.
	ReadQuestions uint64
}

// Status is the node's standing now.
func (n *Node) Status() Status {
	leader, _ := n.Leader()
	s := Status{
		Leader: n.raft.State() == raft.Leader, LeaderID: leader, Term: n.raft.CurrentTerm(),
		CommitIndex: n.raft.CommitIndex(), AppliedIndex: n.raft.AppliedIndex(), LastIndex: n.raft.LastIndex(),
		Waiting: len(n.queue), WaitingMax: cap(n.queue), InFlight: len(n.inflight),
		Apply: n.machine.took.read(), Store: n.stored.read(), Forwarded: n.forwarded.read(), Journal: n.writer.lag(n.AppliedIndex()),
		ReadQuestions: n.reads.asked() + n.verifications.asked(),
	}
	s.Elections, s.LeaderChanges = n.leaders.counts()
	if !s.Leader {
		s.LastContact = n.raft.LastContact()
	}
	if health, err := n.ownHealth(); err == nil { // else it is not the leader's
		s.Health = health
	}
	_, servers := n.configuration()
	if own := serverOf(servers, n.config.NodeID); own != nil {
		s.Voter = own.Suffrage == raft.Voter
	}
	if list, err := n.snapshots.List(); err == nil && len(list) > 0 {
		newest := list[0]
		s.SnapshotIndex, s.SnapshotSize, s.SnapshotTaken = newest.Index, newest.Size, takenAt(newest.ID)
	}
	return s
}

// takenAt is when a snapshot was taken: the last part of the id that Raft's store
// of files gives it is that, in milliseconds.
func takenAt(id string) time.Time {
	ms, err := strconv.ParseInt(id[strings.LastIndexByte(id, '-')+1:], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
