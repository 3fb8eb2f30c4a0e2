package daemon_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/daemon"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
)

// A coordinator that takes the place of another one gets the state as a snapshot,
// and the history of before over the connections between the nodes.
func TestAReplacedCoordinatorLeavesItsHistory(t *testing.T) {
	t.Parallel()
	var log lines
	options := func(int) daemontest.Options {
		return daemontest.Options{Log: slog.New(slog.NewTextHandler(&log, nil)), Faults: daemon.Faults{Cluster: func(c *cluster.Config) {
			c.SnapshotEntries, c.SnapshotInterval, c.TrailingEntries = 20, 20*time.Millisecond, 5
			c.BackfillPace = 100 * time.Millisecond
		}}}
	}
	c := daemontest.Start(t, 1, options)
	old := c.Leader()
	for i := range 60 {
		old.Do(fleet.CreateEnrollmentToken{ID: fmt.Sprintf("before%d", i), SecretHash: [32]byte{1}, ExpiresAt: time.Now().Add(time.Hour)})
	}
	require.Eventually(t, func() bool { return old.Node().Status().SnapshotIndex > 25 }, patience, 20*time.Millisecond, "the log is cut")
	fresh := c.Add(options(1))
	c.AwaitVoters(2)
	require.Eventually(t, func() bool { return log.has("the journal has no gap any more") }, patience, 20*time.Millisecond)
	require.NoError(t, fresh.Node().RemoveMember(t.Context(), old.ID, 0, ""))
	c.Leader(old)
	old.Stop()
	fresh.Do(fleet.CreateEnrollmentToken{ID: "after", SecretHash: [32]byte{1}, ExpiresAt: time.Now().Add(time.Hour)})
	fresh.Stop()

	before, after := journalOf(t, old), journalOf(t, fresh)
	require.Greater(t, len(after), len(before))
	assert.Equal(t, before, after[:len(before)], "each fact of before is there, once")
	created := 0
	for _, f := range after {
		if f.Kind == fleet.KindEnrollmentTokenCreated {
			created++
		}
	}
	assert.Equal(t, 61, created)
}

// journalOf reads the journal of a node that was stopped.
func journalOf(t *testing.T, n *daemontest.Node) (all []fleet.Fact) {
	t.Helper()
	journal, err := history.Open(history.Config{Path: filepath.Join(n.Settings.DataDir, "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer journal.Close()
	for query := (history.Query{Limit: history.MaxLimit}); ; {
		page, next, err := journal.Read(query)
		require.NoError(t, err)
		all = append(all, page...)
		if next == "" {
			return all
		}
		query.After = next
	}
}

// lines are what several nodes log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) has(part string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.text.Bytes(), []byte(part))
}
