//go:build linux

package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	coordinatorcluster "github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/fleet/fleettest"
	"github.com/certctl/certctl/coordinator/history"
)

// TestScaleOfAStart says how long a coordinator with 100,000 agents and 1,000,000
// certificates on its disk takes from its exec until it is ready, after an orderly
// stop and after a kill, and what memory it has then; CERTCTL_SCALE_AGENTS makes it
// another number.
func TestScaleOfAStart(t *testing.T) {
	if !soaking() {
		t.Skip("takes minutes and gigabytes: runs with CERTCTL_SOAK set")
	}
	agents := 100_000
	if text := os.Getenv("CERTCTL_SCALE_AGENTS"); text != "" {
		var err error
		agents, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	c := startCoordinator(t)
	empty := c.restarted()
	t.Logf("with an empty state: ready in %v", empty)
	c.stop()
	c.fill(agents, 10)
	snapshots, err := filepath.Glob(filepath.Join(c.data, "raft", "snapshots", "*", "state.bin"))
	require.NoError(t, err)
	for _, snapshot := range snapshots {
		info, err := os.Stat(snapshot)
		require.NoError(t, err)
		t.Logf("a snapshot of %d MiB", info.Size()>>20)
	}

	began := time.Now()
	c.start()
	c.awaitReady(10*time.Minute, c.connect)
	t.Logf("%d agents, %d certificates: ready in %v; %s of memory, at most %s", agents, 10*agents, time.Since(began).Round(time.Millisecond), c.memory("VmRSS"), c.memory("VmHWM"))
	var status resource.Status
	require.NoError(t, c.try(http.MethodGet, "/api/v1/status", nil, &status))
	require.Equal(t, agents, status.Agents.Active)
	counted := status.Certificates
	require.Equal(t, 10*agents, counted.OK+counted.Renewing+counted.Unknown+counted.AtRisk+counted.Unserved+counted.Revoked+counted.Expired)
	t.Logf("once more: %v", c.restarted())
	c.kill()
	began = time.Now()
	c.start()
	c.awaitReady(10*time.Minute, c.connect)
	t.Logf("after a kill: ready in %v; %s of memory, at most %s", time.Since(began).Round(time.Millisecond), c.memory("VmRSS"), c.memory("VmHWM"))
}

// restarted stops the coordinator in order, and says how long it takes to be ready
// again.
func (c *coordinator) restarted() time.Duration {
	c.t.Helper()
	c.stop()
	began := time.Now()
	c.start()
	c.awaitReady(10*time.Minute, c.connect)
	return time.Since(began).Round(time.Millisecond)
}

// memory is a line of the process's status.
func (c *coordinator) memory(what string) string {
	c.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	require.NoError(c.t, err)
	found := regexp.MustCompile(`(?m)^` + what + `:\s*(\d+) kB$`).FindSubmatch(text)
	require.NotNil(c.t, found, what)
	octets, err := strconv.Atoi(string(found[1]))
	require.NoError(c.t, err)
	return fmt.Sprintf("%d MiB", octets>>10)
}

// fill opens the data directory of a coordinator that does not run, and stores a
// large fleet in it.
func (c *coordinator) fill(agents, each int) {
	c.t.Helper()
	id, err := os.ReadFile(filepath.Join(c.data, config.NodeIDFile))
	require.NoError(c.t, err)
	log := slog.New(slog.DiscardHandler)
	journal, err := history.Open(history.Config{Path: filepath.Join(c.data, "journal.db"), Log: log})
	require.NoError(c.t, err)
	node, err := coordinatorcluster.Open(coordinatorcluster.Config{Dir: c.data, NodeID: strings.TrimSpace(string(id)), Journal: journal, Log: log})
	require.NoError(c.t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	began := time.Now()
	f := fleettest.Large{T: c.t, Agents: agents, Each: each, At: time.Now().UTC(), Store: func(commands []fleet.Command) {
		storing, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		results, err := node.Propose(storing, commands...)
		require.NoError(c.t, err)
		for _, result := range results {
			require.NoError(c.t, result.Err())
		}
	}}
	f.Fill()
	c.t.Logf("stored in %v", time.Since(began).Round(time.Millisecond))
	began = time.Now()
	stop()
	require.NoError(c.t, <-ended)
	require.NoError(c.t, journal.Close())
	c.t.Logf("stopped, with a snapshot, in %v", time.Since(began).Round(time.Millisecond))
}
