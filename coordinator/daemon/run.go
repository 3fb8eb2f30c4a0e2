package daemon

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/runner"
)

const (
	// leaderPatience is how long a start waits for a leader before it says so.
	leaderPatience = 5 * time.Second
	// acceptPause spaces attempts to accept connections that cannot be accepted.
	acceptPause = 50 * time.Millisecond
)

// Run is the coordinator's life. It returns when ctx is done and everything has
// ended, with nil, or when a part has failed. A node that has left its cluster ends
// with a *LeftError.
func (d *Daemon) Run(ctx context.Context) error {
	defer d.Close()
	// What answers ends first, so that requests under way at a stop can still be
	// answered; then the node, which hands over the leadership; then the
	// connections to the others, over which it does so. A part that fails ends
	// those above it.
	serving, stopServing := context.WithCancelCause(ctx)
	defer stopServing(nil)
	d.end.Store(&stopServing)
	nodeCtx, stopNode := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopNode(nil)
	peersCtx, stopPeers := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPeers()

	peersEnded, nodeEnded := make(chan error, 1), make(chan error, 1)
	go func() {
		err := runner.Run(peersCtx,
			runner.Task{Name: "connections to other nodes", Run: d.network.Run},
			runner.Task{Name: "node identity", Run: d.directory.identity.Run},
		)
		stopNode(err)
		peersEnded <- err
	}()
	go func() {
		err := runner.Run(nodeCtx,
			runner.Task{Name: "cluster node", Run: d.node.Run},
			runner.Task{Name: "journal", Run: d.directory.journal.Run},
			runner.Task{Name: "membership", Run: d.keepMembership},
			runner.Task{Name: "backups", Run: d.keepBackups},
			runner.Task{Name: "issuers", Run: d.accounts.Run},
		)
		stopServing(err)
		nodeEnded <- err
	}()
	err := d.serve(serving)
	left := d.left.Load()
	if errors.Is(err, context.Canceled) && (ctx.Err() != nil || left != nil) {
		err = nil // asked to stop in the middle of the start
	}
	stopNode(nil)
	nodeErr := <-nodeEnded
	stopPeers()
	if err := errors.Join(<-peersEnded, nodeErr, err); err != nil {
		return err
	}
	d.log.Info("coordinator stops")
	if left != nil {
		return left
	}
	return nil
}

// keepBackups writes snapshots of the state to files, if that is wanted.
func (d *Daemon) keepBackups(ctx context.Context) error {
	if d.backups == nil {
		return nil
	}
	return d.backups.Run(ctx)
}

// serve answers until ctx is done. A node that knows its CA answers what it can
// from the start, leader or not: that is when people look. One that has yet to
// hear of it, because it founds or joins a cluster, turns everybody away until it
// has what it needs.
func (d *Daemon) serve(ctx context.Context) error {
	stored, known := d.node.State().View().CA()
	if known {
		if err := d.ca.Unseal(stored); err != nil {
			return err
		}
		return runner.Run(ctx,
			runner.Task{Name: "server", Run: func(ctx context.Context) error {
				d.config.Ready()
				return d.front.Run(ctx)
			}},
			runner.Task{Name: "start", Run: d.bootstrap},
		)
	}
	let := d.turnAway(ctx)
	err := d.bootstrap(ctx)
	let()
	if err != nil {
		return err
	}
	d.config.Ready()
	return d.front.Run(ctx)
}

// bootstrap makes what the first start has to make, as soon as there is a leader,
// and sees that the node knows its CA also when it starts again without one.
func (d *Daemon) bootstrap(ctx context.Context) error {
	waiting := time.AfterFunc(leaderPatience, func() {
		members, _ := d.node.Members()
		d.log.Warn("this node waits for a leader, and stores nothing until there is one; see that the other nodes run and can be reached",
			"members", len(members))
	})
	defer waiting.Stop()
	if err := server.Bootstrap(ctx, d.node, d.ca, d.config.Settings.DataDir, d.log); err != nil {
		return err
	}
	if err := d.node.EnsureSnapshot(ctx); err != nil && ctx.Err() == nil {
		d.log.Warn("no snapshot of the first state was taken; until there is one, a start without a leader answers nothing", "err", err)
	}
	return nil
}

// turnAway closes connections as soon as they are made, until the function that it
// returns is called: whoever comes goes on to the next node, and does not hang.
func (d *Daemon) turnAway(ctx context.Context) (stop func()) {
	listener, ok := d.listener.(*net.TCPListener)
	if !ok {
		return func() {}
	}
	turning, end := context.WithCancel(ctx)
	var task sync.WaitGroup
	task.Go(func() {
		for turning.Err() == nil {
			conn, err := listener.Accept()
			if err == nil {
				_ = conn.Close()
			} else if backoff.Wait(turning, acceptPause) != nil {
				return
			}
		}
	})
	return func() {
		end()
		_ = listener.SetDeadline(time.Now()) // ends Accept
		task.Wait()
		_ = listener.SetDeadline(time.Time{})
	}
}

// Close releases what Run did not.
func (d *Daemon) Close() {
	if d.listener != nil {
		_ = d.listener.Close() // closed by the server, if it ran
	}
	if d.issuers != nil {
		d.issuers.Close()
	}
	if d.node != nil {
		if err := d.node.Close(); err != nil {
			d.log.Error("the cluster's state did not close", "err", err)
		}
	}
	if d.transport != nil {
		// Or it would complain of the streams that end below it.
		if err := d.transport.Close(); err != nil {
			d.log.Error("the transport did not close", "err", err)
		}
	}
	if d.network != nil {
		d.network.Close()
	}
	if d.directory != nil && d.directory.journal != nil {
		if err := d.directory.journal.Close(); err != nil {
			d.log.Error("the journal did not close", "err", err)
		}
	}
}
