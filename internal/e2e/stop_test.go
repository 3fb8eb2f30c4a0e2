//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stopLimit is how long a program may take to end when it is asked to: what the
// systemd units give it (TimeoutStopSec).
const stopLimit = 45 * time.Second

// SIGTERM ends both programs soon and with status 0, also in the middle of
// work, and what they were at goes on after the next start.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	c := startCoordinator(t)
	a := newAgent(t, "the agent", section{"certificates": []section{certificate("www", "coordinator", "www.example")}})
	a.enroll(c, "www.example")
	a.startAndAwait()
	a.awaitSettled(2 * time.Minute)

	took, status := c.end(syscall.SIGTERM)
	assert.Zero(t, status)
	assert.Less(t, took, stopLimit, "the coordinator, with an agent connected")
	// With the coordinator gone the agent is in the middle of an order.
	r := a.call("renew", "www", "--wait", "0s")
	require.Zero(t, r.status, r.stderr)
	took, status = a.end(syscall.SIGTERM)
	assert.Zero(t, status)
	assert.Less(t, took, stopLimit, "the agent, with an order under way")

	a.startAndAwait()
	c.start()
	c.awaitServing()
	await(t, 2*time.Minute, "the order goes on", func() error {
		own, err := a.certificate("www")
		if err == nil && own.Renewals != 2 {
			err = fmt.Errorf("%d certificates were put into service", own.Renewals)
		}
		return err
	})
}

// SIGHUP ends a program that has nothing to reload in the same orderly way, so
// that a service manager starts it with its new configuration.
func TestHangupEndsInOrder(t *testing.T) {
	t.Parallel()
	c := startCoordinator(t)
	took, status := c.end(syscall.SIGHUP)
	assert.Zero(t, status)
	assert.Less(t, took, stopLimit)
	c.start()
	c.awaitServing()
}

// A stop that comes in the middle of a start is no failure.
func TestStopDuringStart(t *testing.T) {
	t.Parallel()
	c := newCoordinator(t)
	a := newAgent(t, "the agent", nil)
	for _, d := range []*daemon{a.daemon, c.daemon} {
		for after := time.Duration(0); after < 360*time.Millisecond; after += 40 * time.Millisecond {
			written := d.output.size()
			d.start()
			// Its first words say that it has begun to listen to signals.
			for d.output.size() == written && d.running() {
				pause(t.Context(), time.Millisecond)
			}
			pause(t.Context(), after)
			took, status := d.end(syscall.SIGTERM)
			assert.Zerof(t, status, "%s, %v after its first words", d.name, after)
			assert.Less(t, took, stopLimit, d.name)
		}
	}
	c.start()
	c.awaitServing()
}

// A leader that is asked to stop hands over first: one of the others is told to
// stand for election at once, before the process has ended, and nobody waits for an
// election timeout.
func TestAStoppedLeaderHandsOver(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	c := &cluster{t: t, program: filepath.Join(binDir, "certctl-coordinator")}
	c.prepare = func(node *coordinator) {
		node.output.line = func(line []byte) {
			if bytes.Contains(line, []byte(`"msg":"the leader asks this node to take over"`)) {
				asked.Add(1)
			}
		}
	}
	c.start()
	for range c.nodes {
		leader := c.nodes[c.leader()]
		before := asked.Load()
		leader.stop()
		await(t, time.Minute, "another node was asked to take over from "+leader.name, func() error {
			if asked.Load() == before {
				return errors.New("none was")
			}
			return nil
		})
		leader.start()
		leader.awaitServing()
	}
}
