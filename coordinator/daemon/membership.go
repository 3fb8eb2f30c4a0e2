package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// systemActor is whose acts the leader's own are in the journal.
	systemActor = "system"
	// clusterCAInterval is how often the leader looks whether the rotation of the
	// cluster's CA can go on, and followInterval how soon a change of it reaches a
	// node.
	clusterCAInterval = 5 * time.Second
	followInterval    = time.Second
	// announcePatience bounds one attempt to tell the others about this node.
	announcePatience = 15 * time.Second
	// refusalPause is how long a node whose address is refused waits before it asks
	// again: somebody has to change something first.
	refusalPause = 15 * time.Second
)

// record is what this node says about itself to the others.
func (d *Daemon) record() (fleet.ClusterNode, error) {
	node := fleet.ClusterNode{Address: d.advertise, URL: d.url, Version: buildinfo.Version(), Level: fleet.Level}
	err := d.directory.identity.Describe(&node)
	return node, err
}

// sealKey is the node's seal key, and whether a node that joins may be given it:
// one of the configuration is the operators' own matter.
// Nobody joins while the cluster of a recovered node has the CA of the old one.
func (d *Daemon) sealKey() (key ca.SealKey, give bool, err error) {
	if d.recovered.Load() != nil {
		return ca.SealKey{}, false, problem.Later(wire.CodeUnavailable, "this node was recovered, and parts from the nodes of before first", 2*time.Second)
	}
	return d.directory.sealKey, !d.config.Settings.CA.SealKey.IsSet(), nil
}

// keepMembership takes over what the replicated state says about the cluster's CA
// and tells the others what has changed about this node, until ctx is done.
func (d *Daemon) keepMembership(ctx context.Context) error {
	var pause time.Time // until when nothing is announced
	jitter.Loop(ctx, followInterval, jitter.DefaultSchedulerJitter, d.directory.identity.Changed(), func(ctx context.Context) {
		d.adoptClusterCA()
		if time.Now().Before(pause) {
			return
		}
		if _, taken := errors.AsType[*cluster.AddressTakenError](d.announce(ctx)); taken {
			pause = time.Now().Add(refusalPause)
		}
	})
	return nil
}

// announce tells the others what has changed about this node. A node that is no
// member has nothing to say; what does not get through now does so later.
func (d *Daemon) announce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, announcePatience)
	defer cancel()
	var err error
	if d.node.State().View().AuditFacts() == 0 && d.node.IsLeader() { // the cluster is being founded
		err = d.beginAuditChain(ctx)
	}
	if err == nil {
		err = d.node.Announce(ctx)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, cluster.ErrNoMember) {
		d.log.Warn("the others were not told what has changed about this node; it is tried again", "err", err)
	}
	return err
}

// adoptClusterCA takes over a change of the cluster's CA: a new root to trust, or
// another one that signs. The network ends the connections that no trusted root
// vouches for any more.
func (d *Daemon) adoptClusterCA() {
	view := d.node.State().View()
	stored, ok := view.ClusterCA()
	if !ok || !d.knownTo(view) {
		return // the leader stores it soon
	}
	changed, err := d.directory.identity.Adopt(stored)
	if err != nil {
		d.log.Error("a change of the cluster's CA was not taken over; it is tried again", "err", err)
		return
	}
	if changed {
		d.log.Info("the cluster's CA has changed", "trusted", len(stored.Authorities), "not_after", d.directory.identity.Leaf().NotAfter)
	}
}

// knownTo reports whether this node was let in by then. A node that joins is sent a
// snapshot first, which may be older than what it was told when it was let in: if
// the CA was replaced since, nobody that the older one vouches for is there any
// more, and the node would never get the rest of the log.
func (d *Daemon) knownTo(view *fleet.View) bool {
	own, err := d.record()
	record, ok := view.ClusterNode(d.node.ID())
	return err == nil && ok && record.KeyFingerprint == own.KeyFingerprint
}

// followMembership ends the connections of nodes that are no members any more, by
// the newest that is known: what is committed here may be older.
func (d *Daemon) followMembership([]raft.Server) { d.network.CloseExcept(d.node.Member) }

// leadClusterCA stores the cluster's CA if the state has none, which it has not
// where the cluster was founded just now or by a version that knew no other nodes.
// After a recovery it replaces the CA. It begins a rotation in the last year of the
// root, and takes one on, step by step.
func (d *Daemon) leadClusterCA(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	wake <- struct{}{} // look at once
	jitter.Loop(ctx, clusterCAInterval, jitter.DefaultSchedulerJitter, wake, func(ctx context.Context) {
		if err := d.advanceClusterCA(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("the cluster's CA was not taken on; it is tried again", "err", err)
		}
	})
	return nil
}

func (d *Daemon) advanceClusterCA(ctx context.Context) error {
	view := d.node.State().View()
	stored, ok := view.ClusterCA()
	if !ok {
		if err := d.beginAuditChain(ctx); err != nil {
			return err
		}
		own := d.directory.identity.Authority()
		return d.propose(ctx, fleet.InitClusterCA{Actor: systemActor, Authority: own.Authorities[0]})
	}
	if d.recovered.Load() != nil {
		return d.settleRecovery(ctx, stored)
	}
	roots, err := clusterca.Parse(stored)
	if err != nil {
		return err
	}
	if now := time.Now(); len(stored.Authorities) == 1 && roots.Due(now) {
		change, err := clusterca.Begin(stored, d.directory.sealKey, systemActor, now)
		if err != nil {
			return err
		}
		return d.propose(ctx, change)
	}
	members, _ := d.node.Members()
	ids := make([]string, len(members))
	for i, member := range members {
		ids[i] = member.ID
	}
	change, _, err := clusterca.Next(stored, view.ClusterNodes(), ids, systemActor)
	if err != nil || change == nil {
		return err
	}
	return d.propose(ctx, *change)
}

func (d *Daemon) propose(ctx context.Context, payload fleet.Payload) error {
	command, err := fleet.NewCommand(time.Now(), payload)
	if err != nil {
		return err
	}
	results, err := d.node.Propose(ctx, command)
	if err != nil {
		return err
	}
	return results[0].Err()
}
