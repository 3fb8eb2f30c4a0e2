package cluster

import (
	"context"

	"github.com/hashicorp/raft"

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
// not understand. What a member said last counts, to this leader or in its record.
// One that seems to be behind is asked; if it does not answer either, it is.
func (n *Node) understood(ctx context.Context, required uint32) error {
	if required <= 1 {
		return nil
	}
	_, servers := n.configuration()
	behind := n.behind(servers, required)
	if len(behind) == 0 {
		return nil
	}
	answers := n.probe(ctx, behind)
	var ids []string
	for _, s := range behind {
		if answers[s.ID].Level < required {
			ids = append(ids, string(s.ID))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return &LevelError{Required: required, Nodes: ids}
}

// behind are the members that do not understand a level, as far as is known.
func (n *Node) behind(servers []raft.Server, required uint32) (behind []raft.Server) {
	view := n.State().View()
	for _, s := range servers {
		level := uint32(1)
		if id := string(s.ID); id == n.config.NodeID || n.config.Peers == nil { // nobody else can say
			level = fleet.Level
		} else if said := n.pilot.level(s.ID); said > 0 {
			level = said
		} else if node, ok := view.ClusterNode(id); ok {
			level = node.Level
		}
		if level < required {
			behind = append(behind, s)
		}
	}
	return behind
}
