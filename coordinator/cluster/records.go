package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/jitter"
)

const (
	// recordsInterval is how often the leader looks for records of nodes that are
	// no members.
	recordsInterval = 10 * time.Minute
	// forgetAfter is how old such a record has to be: that of a node which joins is
	// stored before it is a member.
	forgetAfter = time.Hour
	// systemActor is who acts when nobody asked for it.
	systemActor = "system"
)

// keepRecords is leader work: it forgets what nodes said about themselves that
// are no members any more.
func (n *Node) keepRecords(ctx context.Context) error {
	jitter.Loop(ctx, recordsInterval, jitter.DefaultSchedulerJitter, nil, func(ctx context.Context) {
		_, servers := n.configuration()
		for _, node := range n.State().View().ClusterNodes() {
			if serverOf(servers, node.ID) == nil && time.Since(node.UpdatedAt) > forgetAfter {
				n.forget(ctx, node.ID, systemActor)
			}
		}
	})
	return nil
}

// forget removes the record of a node that is no member. What fails is done by
// keepRecords some time.
func (n *Node) forget(ctx context.Context, id, actor string) {
	if _, ok := n.State().View().ClusterNode(id); !ok {
		return
	}
	command, err := fleet.NewCommand(time.Now(), fleet.ForgetNode{Actor: actor, ID: id})
	if err == nil {
		_, err = n.Propose(ctx, command)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		n.log.Warn("the record of a node that was removed is still there", "node_id", id, "err", err)
	}
}
