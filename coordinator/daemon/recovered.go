package daemon

import (
	"context"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/fleet"
)

// loadRecovery finds a recovery of this node that is not settled.
func (d *Daemon) loadRecovery() error {
	last, ok, err := cluster.LastRecovery(d.config.Settings.DataDir)
	if err == nil && ok && last.SettledAt.IsZero() {
		d.recovered.Store(&last)
	}
	return err
}

// settleRecovery parts the cluster of a recovered node from the one that it comes
// of, whose other nodes may run somewhere with their old data: it forgets their
// records, and the cluster gets a CA of its own, by which neither takes the other's
// nodes for its own. The node lets nobody in before, so that each step can be
// repeated after a crash.
func (d *Daemon) settleRecovery(ctx context.Context, stored *fleet.ClusterCA) error {
	last := d.recovered.Load()
	if last == nil {
		return nil
	}
	members, _ := d.node.Members()
	if !sameMembers(members, last.Servers) {
		// Nobody has joined since, so that this is the state of before the recovery,
		// which somebody has put back, with its nodes and its CA.
		d.log.Warn("the recovery of this node was undone; the nodes and the CA of the cluster stay as they are", "recovered_at", last.Time)
		return d.recoverySettled()
	}
	for _, node := range d.node.State().View().ClusterNodes() {
		if slices.ContainsFunc(members, func(m cluster.Member) bool { return m.ID == node.ID }) {
			continue
		}
		if err := d.propose(ctx, fleet.ForgetNode{Actor: systemActor, ID: node.ID}); err != nil {
			return err
		}
		d.log.Info("a node of before the recovery is forgotten", "node_id", node.ID)
	}
	// Nobody but this node has to trust the new root, if it is alone, so that it
	// can sign at once. One that is newer than the recovery is of an earlier attempt.
	if len(last.Servers) == 1 && stored.ModifyIndex <= last.LastIndex {
		root, err := clusterca.Create(d.directory.sealKey, time.Now())
		if err != nil {
			return err
		}
		change := fleet.ChangeClusterCA{Actor: systemActor, PrevIndex: stored.ModifyIndex, Authorities: []fleet.ClusterAuthority{root}}
		if err := d.propose(ctx, change); err != nil {
			return err
		}
	}
	d.adoptClusterCA() // before others are told of it
	d.log.Info("after a recovery the nodes of before are forgotten, and the cluster has a CA of its own", "recovered_at", last.Time)
	return d.recoverySettled()
}

func (d *Daemon) recoverySettled() error {
	if err := cluster.SettleRecovery(d.config.Settings.DataDir, time.Now()); err != nil {
		return err
	}
	d.recovered.Store(nil)
	return nil
}

func sameMembers(members []cluster.Member, servers []cluster.ServerReport) bool {
	return len(members) == len(servers) && !slices.ContainsFunc(members, func(m cluster.Member) bool {
		return !slices.ContainsFunc(servers, func(s cluster.ServerReport) bool { return s.ID == m.ID })
	})
}
