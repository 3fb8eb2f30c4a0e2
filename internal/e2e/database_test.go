//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/internal/testpostgres"
)

// Postgres is killed while hosts sync and operators work at three coordinators, and
// is away for a while. Nobody but the history notices. When it is back, it gets what it
// missed, and in the end it has each fact of the journals once.
func TestPostgresIsAway(t *testing.T) {
	t.Parallel()
	away, hosts := 2*time.Second, times(2, 4)
	if soaking() {
		away = 10 * time.Minute
	}
	db, err := testpostgres.Start(testpostgres.Options{Durable: true})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	require.NoError(t, db.Create(t.Context(), "history"))
	c := startCluster(t, "CERTCTL_DATABASE_URL="+db.URL("history"), "CERTCTL_DATABASE_MAX_CONNS=10")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := startLoad(ctx, c, hosts, 1, 1)
	failed := func() (n int64) {
		for _, h := range l.hosts {
			n += h.failed.Load()
		}
		return n
	}
	state := func() (s resource.HistoryStatus, err error) {
		err = c.nodes[0].try(http.MethodGet, "/api/v1/history/status", nil, &s)
		if err == nil && s.Database == nil {
			err = errors.New("there is no database")
		}
		return s, err
	}
	await(t, 2*time.Minute, "facts are exported", func() error {
		s, err := state()
		if err == nil && s.Database.Facts < 20 {
			err = fmt.Errorf("%d are", s.Database.Facts)
		}
		return err
	})

	before := failed()
	gone := time.Now()
	require.NoError(t, db.Kill())
	await(t, 2*time.Minute, "the leader notices", func() error {
		s, err := state()
		if err == nil && s.Database.Error == "" {
			err = errors.New("it has not")
		}
		return err
	})
	longest := time.Duration(0)
	for time.Since(gone) < away {
		asked := time.Now()
		longest = max(longest, l.acknowledgedAfter(asked).Sub(asked))
		pause(ctx, 100*time.Millisecond)
	}
	missed, err := state()
	require.NoError(t, err)
	assert.NotZero(t, missed.Database.Waiting)
	failures := failed() - before
	require.NoError(t, db.Run())
	back := time.Now()
	await(t, 5*time.Minute, "what was missed is exported", func() error {
		s, err := state()
		if err == nil && s.Database.Facts < missed.Database.Facts+uint64(missed.Database.Waiting) {
			err = fmt.Errorf("%d facts are: %s", s.Database.Facts, s.Database.Error)
		}
		return err
	})
	took := time.Since(back)
	cancel()
	l.wait()
	found := l.verify()
	facts := c.equal()
	lost, twice := compareHistory(t, db, facts)
	t.Logf("Postgres was away for %v: %d facts waited, and were exported %v after it was back; %d syncs acknowledged in all, the longest pause between two %v",
		away, missed.Database.Waiting, took.Round(time.Millisecond), found.acknowledged, longest.Round(time.Millisecond))
	counts.Report(t, "postgres-away", int(away.Seconds()), fmt.Sprintf("seconds that Postgres was away under load; %d facts waited, and were there %d ms after it was back", missed.Database.Waiting, took.Milliseconds()))
	counts.Report(t, "postgres-away-failed-syncs", int(failures), "syncs meanwhile that had to be repeated")
	counts.Report(t, "postgres-away-facts-lost", lost, fmt.Sprintf("of %d facts of the journals, those that the database has not", len(facts)))
	counts.Report(t, "postgres-away-facts-twice", twice, "facts that the database has more than once")
	assert.Zero(t, lost+twice+found.wrong())
	if soaking() { // a machine with much else to do may be slow for a moment
		assert.Zero(t, failures)
	}
}

// compareHistory waits until the database has all facts of the journals, and counts
// those that it lacks all the same, and those that it has twice.
func compareHistory(t *testing.T, db *testpostgres.Server, facts []resource.Event) (lost, twice int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		conn, err := db.Connect(t.Context(), "history")
		require.NoError(t, err)
		rows, err := conn.Query(t.Context(), "select log_index || '.' || ordinal from certctl.facts")
		require.NoError(t, err)
		keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.NoError(t, conn.Close(t.Context()))
		seen := map[string]int{}
		lost, twice = 0, 0
		for _, key := range keys {
			if seen[key]++; seen[key] > 1 {
				twice++
			}
		}
		for _, fact := range facts {
			if seen[fmt.Sprintf("%d.%d", fact.Index, fact.Ordinal)] == 0 {
				lost++
			}
		}
		if lost == 0 || time.Now().After(deadline) {
			return lost, twice
		}
		pause(t.Context(), 100*time.Millisecond)
	}
}
