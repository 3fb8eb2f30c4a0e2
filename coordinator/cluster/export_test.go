package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// ApplyUnchecked puts an entry into the log as a node of another version would.
func (n *Node) ApplyUnchecked(entry []byte) error {
	return n.raft.Apply(entry, time.Minute).Error()
}

// AnnounceAs has a node take the announcement that the node id is at an address,
// from another node or that one.
func AnnounceAs(ctx context.Context, n *Node, from, id, address string) error {
	data, err := n.HandleCall(ctx, from, methodAnnounce, mustEncode(memberRequest{ID: id, Address: address}))
	if err != nil {
		return err
	}
	var a answer
	if err := decodeCall(data, &a); err != nil {
		return err
	}
	if a.Error != nil {
		return decodeError(a.Error)
	}
	return nil
}

// LeaderIndex is what this node answers as the leader, once and by itself.
func (n *Node) LeaderIndex(ctx context.Context) (uint64, error) { return n.leaderIndex(ctx) }

// SetCommitTimeout sets how long a leader with nothing to send waits before Raft
// tells the others what is committed.
func SetCommitTimeout(c *Config, timeout time.Duration) { c.commitTimeout = timeout }

// RemoveDead does what autopilot has done to a member that it takes for dead.
func (n *Node) RemoveDead(id string) { n.pilot.removeDead(id) }

// SetFloorPatience sets how long a gap waits for members that do not answer.
func SetFloorPatience(c *Config, patience time.Duration) { c.floorPatience = patience }

// RemoveUnchecked has the leader write that a node is removed, and does not wait.
func (n *Node) RemoveUnchecked(id string) { n.raft.RemoveServer(raft.ServerID(id), 0, time.Minute) }
