package daemon_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/internal/testpostgres"
	"github.com/certctl/certctl/shared/settings"
)

// exportedKeys are the places of all facts that a database has.
func exportedKeys(t *testing.T, server *testpostgres.Server, database string) []string {
	t.Helper()
	conn, err := server.Connect(t.Context(), database)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), "select log_index || '.' || ordinal from certctl.facts order by log_index, ordinal")
	require.NoError(t, err)
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return keys
}

// Three nodes export to one database: it is killed and away for a while, and the
// leader stops. Nothing but the history waits, and in the end it has each fact of the
// journals once. Any node lists it, and no password is told.
func TestThreeNodesExportTheirHistory(t *testing.T) {
	t.Parallel()
	const canary = "CANARY-7d02-NEVER-SHOWN"
	db, err := testpostgres.Start(testpostgres.Options{Durable: true, Password: canary})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	require.NoError(t, db.Create(t.Context(), "history"))
	var log lines
	c := daemontest.Start(t, 3, func(int) daemontest.Options {
		return daemontest.Options{
			Change: func(s *config.Settings) { s.Database.URL = settings.NewSecret(db.URL("history")) },
			Log:    slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		}
	})
	made := 0
	act := func(n *daemontest.Node, count int) {
		for range count {
			n.Do(fleet.CreateEnrollmentToken{ID: fmt.Sprintf("t%d", made), SecretHash: [32]byte{1}, ExpiresAt: time.Now().Add(time.Hour)})
			made++
		}
	}
	listed := func(api *client.Client) (count int, err error) {
		events, _, err := client.Collect(t.Context(), api, client.ListHistoryParams{Kind: []string{string(fleet.KindEnrollmentTokenCreated)}}, 0)
		return len(events), err
	}
	awaitListed := func(api *client.Client) {
		t.Helper()
		require.Eventually(t, func() bool {
			count, err := listed(api)
			return err == nil && count == made
		}, patience, 50*time.Millisecond, "all is exported")
	}
	leader, follower := c.Leader(), c.Follower()
	api := administrator(t, c.Nodes[0], follower)
	act(leader, 20)
	awaitListed(api)
	status, err := api.ShowHistoryStatus(t.Context())
	require.NoError(t, err)
	assert.Equal(t, leader.ID, status.Node)
	require.NotNil(t, status.Database)
	assert.True(t, status.Database.Usable)
	assert.Contains(t, status.Database.Warning, "the pool may take 50 connections, and the server grants 37")
	for _, n := range c.Nodes {
		through, err := n.Exported(t.Context())
		require.NoError(t, err)
		assert.GreaterOrEqual(t, through, status.Database.Through, "%s knows what the journal may drop", n.ID)
	}
	pruned, err := api.PruneHistory(t.Context(), resource.PruneHistory{Before: time.Now()})
	require.NoError(t, err)
	assert.Empty(t, pruned.Months)

	require.NoError(t, db.Kill())
	act(follower, 30)
	require.Eventually(t, func() bool {
		status, err := api.ShowHistoryStatus(t.Context())
		require.NoError(t, err)
		return !status.Database.Usable && status.Database.Error != "" && status.Database.Waiting > 0
	}, patience, 50*time.Millisecond, "the leader notices")
	_, err = listed(api)
	require.ErrorContains(t, err, "the history cannot be read now")
	act(follower, 10)
	require.NoError(t, db.Run())
	awaitListed(api)

	leader.Stop()
	next := c.Leader(leader)
	act(next, 20)
	remaining := administrator(t, c.Nodes[0], next)
	awaitListed(remaining)
	status, err = remaining.ShowHistoryStatus(t.Context())
	require.NoError(t, err)
	assert.Equal(t, next.ID, status.Node)
	for name, body := range bundle(t, remaining) {
		assert.NotContains(t, body, canary, name)
	}
	assert.False(t, log.has(canary))
	assert.True(t, log.has("old facts stay in the journal"), "before there is a leader nobody knows what may be dropped")

	c.AwaitVoters(3)
	for _, n := range c.Nodes {
		if n != leader {
			n.Stop()
		}
	}
	var want []string
	facts := journalOf(t, next)
	exported := exportedKeys(t, db, "history")
	for _, f := range facts[:len(exported)] { // the last moments may not have been exported
		want = append(want, fmt.Sprintf("%d.%d", f.Index, f.Ordinal))
	}
	assert.Equal(t, want, exported)
	assert.GreaterOrEqual(t, len(exported), made)
}
