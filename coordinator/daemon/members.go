package daemon

import (
	"context"

	"github.com/certctl/certctl/coordinator/cluster"
)

// members are those that the node knows of.
type members struct{ node *cluster.Node }

// Member implements peer.Members.
func (m members) Member(id string) bool {
	list, _ := m.node.Members()
	for _, member := range list {
		if member.ID == id {
			return true
		}
	}
	return false
}

// At implements peer.Members.
func (m members) At(address string) (string, bool) {
	list, _ := m.node.Members()
	for _, member := range list {
		if member.Address == address {
			return member.ID, true
		}
	}
	return "", false
}

// Refresh implements peer.Members.
func (m members) Refresh(context.Context) error { return nil }
