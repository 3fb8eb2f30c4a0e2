package cluster

import "time"

// ApplyUnchecked puts an entry into the log as a node of another version would.
func (n *Node) ApplyUnchecked(entry []byte) error {
	return n.raft.Apply(entry, time.Minute).Error()
}
