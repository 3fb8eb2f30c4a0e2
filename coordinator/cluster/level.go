package cluster

import (
	"github.com/certctl/certctl/coordinator/fleet"
)

// requiredLevel is what a node has to understand to apply all of the commands.
func requiredLevel(commands []fleet.Command) uint32 {
	level := uint32(1)
	for _, command := range commands {
		level = max(level, fleet.RequiredLevel(command))
	}
	return level
}

// understood refuses what a member would stop at: the first entry that it does
// not understand. One that has not announced itself counts as of the first level.
func (n *Node) understood(required uint32) error {
	if required <= 1 {
		return nil
	}
	view := n.State().View()
	var behind []string
	_, servers := n.configuration()
	for _, server := range servers {
		level := uint32(1)
		if id := string(server.ID); id == n.config.NodeID {
			level = fleet.Level
		} else if node, ok := view.ClusterNode(id); ok {
			level = node.Level
		}
		if level < required {
			behind = append(behind, string(server.ID))
		}
	}
	if len(behind) > 0 {
		return &LevelError{Required: required, Nodes: behind}
	}
	return nil
}
