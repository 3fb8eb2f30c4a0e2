package cli

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/history/postgres"
)

// A cellar is a database with one fact and one month in it.
type cellar struct {
	asked  atomic.Pointer[history.Query]
	pruned atomic.Int64
	status atomic.Pointer[postgres.Status]
}

func (c *cellar) Facts(_ context.Context, q history.Query) ([]fleet.Fact, string, error) {
	c.asked.Store(&q)
	return []fleet.Fact{{Index: 1, Time: time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC), Kind: "certificate.renewed", Object: "www", Agent: "web1"}}, "", nil
}

func (c *cellar) Prune(_ context.Context, _ time.Time, dry bool) ([]postgres.PrunedMonth, error) {
	if !dry {
		c.pruned.Add(1)
	}
	return []postgres.PrunedMonth{{Month: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), Facts: 12, Bytes: 3 << 20}}, nil
}

func (c *cellar) Status() postgres.Status { return *c.status.Load() }

func TestHistoryCommands(t *testing.T) {
	database := new(cellar)
	good := postgres.Status{Leads: true, Attached: true, ServerVersion: "15.1", MaxConns: 50, Connections: 1, Granted: 97, Through: 7, Facts: 9}
	database.status.Store(&good)
	p := logIn(t, apitest.StartWith(t, database))

	table := lines(p.does("history", "list", "--since", "2024-01-01", "--until", "2024-02-01T00:00:00Z", "--actor", "agent:x", "--kind", "a,b", "--scope", "audit", "--oldest"))
	require.Len(t, table, 2)
	assert.Equal(t, []string{"certificate.renewed", "-", "www", "web1"}, columns(table[1])[1:5])
	asked := database.asked.Load()
	assert.Equal(t, time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), asked.Since)
	assert.Equal(t, time.Date(2024, 2, 1, 0, 0, 0, 0, time.UTC), asked.Until)
	assert.True(t, asked.AuditOnly && !asked.NewestFirst)
	assert.Equal(t, "agent:x", asked.Actor)
	assert.Len(t, asked.Kinds, 2)
	p.does("history", "list", "--since", "30d")
	assert.WithinDuration(t, time.Now().Add(-30*day), database.asked.Load().Since, time.Hour)
	assert.Contains(t, p.fails(1, "history", "list", "--since", "monday"), "--since")

	text := p.does("history", "status")
	for _, part := range []string{"in the database", "usable; nothing waits", "PostgreSQL 15.1, 1 connections of 50, of which it grants 97", "9 facts, up to log entry 7"} {
		assert.Contains(t, text, part)
	}
	assert.Contains(t, p.does("status"), "usable; nothing waits")
	away := good
	away.Err, away.ErrAt, away.Warning = errors.New("connection refused"), time.Now(), "too few"
	away.Waiting = history.Backlog{Facts: 3, Oldest: time.Now().Add(-time.Hour - time.Minute)}
	away.Missing, away.Floor = history.Gaps{{From: 2, To: 4}}, 5
	database.status.Store(&away)
	text = p.does("history", "status")
	for _, part := range []string{"AWAY; 3 facts wait, the oldest for ", "connection refused", "too few", "the facts of 3 log entries", "up to log entry 5 had gone"} {
		assert.Contains(t, text, part)
	}
	assert.Contains(t, p.does("status"), "AWAY; 3 facts wait")
	refused := away
	refused.Refused = true
	database.status.Store(&refused)
	assert.Contains(t, p.does("history", "status"), "REFUSED")
	assert.Equal(t, resource.HistoryInDatabase, reads[resource.HistoryStatus](p, "history", "status").Source)

	text = p.does("history", "prune", "--before", "2024-02-01", "--dry-run")
	assert.Contains(t, text, "2024-01")
	assert.Contains(t, text, "would go: 1 month of routine facts, 12 facts, 3.0 MiB. The audit trail stays.")
	_, said, status := p.run("history", "prune", "--before", "2024-02-01")
	assert.Equal(t, 1, status)
	assert.Contains(t, said, "12 facts, 3.0 MiB", "what would go is said before anybody is asked")
	assert.Contains(t, said, "--yes")
	assert.Zero(t, database.pruned.Load(), "nobody has said yes")
	assert.Contains(t, p.does("history", "prune", "--before", "2024-02-01", "--yes"), "gone: 1 month of routine facts, 12 facts, 3.0 MiB.")
	assert.EqualValues(t, 1, database.pruned.Load())
	assert.Contains(t, p.fails(1, "history", "prune"), "before")
}

// Without a database nothing is said of one.
func TestHistoryWithoutADatabase(t *testing.T) {
	p := logIn(t, apitest.Start(t))
	assert.NotContains(t, p.does("status"), "database")
	assert.Contains(t, p.does("history", "status"), "in the journal")
	assert.Contains(t, p.does("history", "list"), "ca.created")
	assert.Contains(t, p.fails(1, "history", "prune", "--before", "400d", "--yes"), "no database")
}
