package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/jitter"
)

// auditChainInterval is how often the leader looks whether the chain of the audit trail
// can be begun: it cannot as long as a member is of a version that makes facts without.
const auditChainInterval = 5 * time.Second

// leadAuditChain begins the chain of the audit trail where it was not begun, which is so
// in a cluster that was set up by an earlier version.
func (d *Daemon) leadAuditChain(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	wake <- struct{}{} // look at once
	jitter.Loop(ctx, auditChainInterval, jitter.DefaultSchedulerJitter, wake, func(ctx context.Context) {
		if err := d.beginAuditChain(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("the chain of the audit trail was not begun; it is tried again", "err", err)
		}
	})
	return nil
}

// beginAuditChain begins the chain, if it is not begun and all members know it. In a
// new cluster it comes before everything else, so that all facts are in it.
func (d *Daemon) beginAuditChain(ctx context.Context) error {
	if _, begun := d.node.State().View().AuditHead(); begun {
		return nil
	}
	err := d.propose(ctx, fleet.BeginAuditChain{Actor: systemActor})
	if early, ok := errors.AsType[*cluster.LevelError](err); ok {
		d.log.Debug("the chain of the audit trail waits for members of an earlier version", "nodes", early.Nodes)
		return nil
	}
	return err
}
