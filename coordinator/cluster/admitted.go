package cluster

import (
	"time"

	"github.com/hashicorp/raft"
)

// standstill is the timeout of a node that is not to stand for election.
const standstill = 10 * 365 * 24 * time.Hour

// behindAdmission reports whether the log has not reached the configuration yet that
// this node became a member with. Until then it may hold an older one in which its
// id has a vote, of a node that was removed since; were that the only vote, the node
// would elect itself, and decide alone what the cluster decides otherwise.
func (n *Node) behindAdmission() bool { return n.members.index() < n.admitted }

// electionTimeouts are those that Raft begins with.
func (n *Node) electionTimeouts(c *raft.Config) {
	if n.behindAdmission() {
		n.waits.Store(true)
		c.HeartbeatTimeout, c.ElectionTimeout = standstill, standstill
	}
}

// noteAdmission lets Raft stand for elections as soon as the log is far enough. It
// is called after each configuration.
func (n *Node) noteAdmission(r *raft.Raft) {
	if r == nil || n.behindAdmission() || !n.waits.CompareAndSwap(true, false) {
		return
	}
	usual, timeouts := n.config.raftConfig(), r.ReloadableConfig()
	timeouts.HeartbeatTimeout, timeouts.ElectionTimeout = usual.HeartbeatTimeout, usual.ElectionTimeout
	if err := r.ReloadConfig(timeouts); err != nil {
		panic("cluster: " + err.Error()) // the same values were good at every other start
	}
	n.log.Info("this node has caught up with its admission to the cluster, and may be elected from here on")
}
