package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/history/postgres"
	"github.com/certctl/certctl/shared/wire"
)

// A shelf is a database that has what a journal has, and months that can be pruned.
type shelf struct {
	mu     sync.Mutex
	asked  []history.Query
	facts  []fleet.Fact
	away   error
	months []postgres.PrunedMonth
	pruned []string
	status postgres.Status
}

func (s *shelf) Facts(_ context.Context, q history.Query) ([]fleet.Fact, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, q)
	if _, _, err := history.Position(q.After); err != nil {
		return nil, "", err
	}
	return s.facts, "", s.away
}

func (s *shelf) Prune(_ context.Context, before time.Time, dry bool) ([]postgres.PrunedMonth, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pruned = append(s.pruned, fmt.Sprint(before.Format(time.DateOnly), " ", dry))
	return s.months, s.away
}

func (s *shelf) Status() postgres.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func startWith(t *testing.T, database *shelf) *world {
	t.Helper()
	c := apitest.StartWith(t, database)
	return &world{Coordinator: c, t: t, token: c.Admin.Reveal()}
}

// Without a database the history is what the journal keeps.
func TestTheJournalIsTheHistory(t *testing.T) {
	w := start(t)
	w.Agent("agent1", "web1.example.com", nil).Event(wire.EventRenewed, "www", "serial 0a")
	w.events("/api/v1/audit?scope=all&kind=certificate.renewed", 1)
	everything := get[resource.Page[resource.Event]](w, "/api/v1/history")
	audited := w.events("/api/v1/audit?scope=all", len(everything.Items))
	assert.Equal(t, audited.Items, everything.Items)
	at := everything.Items[2].Time
	for query, want := range map[string]int{
		"kind=certificate.renewed": 1, "agent=agent1&scope=audit": 1, "actor=nobody": 0,
		"until=" + at.Add(-time.Hour).Format(time.RFC3339Nano): 0, "since=" + at.Add(time.Hour).Format(time.RFC3339Nano): 0,
		"since=" + at.Add(-time.Hour).Format(time.RFC3339Nano): len(everything.Items),
	} {
		assert.Len(t, get[resource.Page[resource.Event]](w, "/api/v1/history?"+query).Items, want, query)
	}
	w.ask(http.MethodGet, "/api/v1/history?since=yesterday", nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	w.ask(http.MethodGet, "/api/v1/history?cursor=x", nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	status := get[resource.HistoryStatus](w, "/api/v1/history/status")
	assert.Equal(t, resource.HistoryInJournal, status.Source)
	assert.Nil(t, status.Database)
	assert.NotZero(t, status.Journal.AuditFacts)
	assert.False(t, get[resource.Status](w, "/api/v1/status").Database)
	p := w.ask(http.MethodPost, "/api/v1/history/prune", `{"before":"2020-01-01T00:00:00Z"}`).problem(t, http.StatusConflict, wire.CodeConflict)
	assert.Contains(t, p.Mend, "journal.retention")
}

// With one it is what the database has; while that is away the answer is 503.
func TestTheDatabaseIsTheHistory(t *testing.T) {
	old := fleet.Fact{Index: 3, Time: time.Date(2019, 5, 1, 12, 0, 0, 1, time.UTC), Kind: "certificate.renewed", Actor: "agent:a", Agent: "a", Object: "www", Detail: []byte(`{"a":1}`)}
	database := &shelf{facts: []fleet.Fact{old}, status: postgres.Status{
		Leads: true, Attached: true, ServerVersion: "15.1", MaxConns: 50, Connections: 2, Granted: 97, Through: 77, Facts: 9,
		Missing: history.Gaps{{From: 3, To: 5}}, Floor: 2, ExportedAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}}
	w := startWith(t, database)
	page := get[resource.Page[resource.Event]](w, "/api/v1/history?order=oldest&scope=audit&since=2019-01-01T00:00:00Z&until=2019-06-01T00:00:00.5Z&kind=a,b&agent=a&object=www&actor=agent:a&limit=7")
	require.Len(t, page.Items, 1)
	assert.Equal(t, old.Time, page.Items[0].Time)
	assert.JSONEq(t, `{"a":1}`, string(page.Items[0].Detail))
	assert.Equal(t, history.Query{
		Limit: 7, AuditOnly: true, Kinds: []fleet.Kind{"a", "b"}, Agent: "a", Object: "www", Actor: "agent:a",
		Since: time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC), Until: time.Date(2019, 6, 1, 0, 0, 0, 500e6, time.UTC),
	}, database.asked[0])
	status := get[resource.HistoryStatus](w, "/api/v1/history/status")
	assert.Equal(t, resource.HistoryInDatabase, status.Source)
	assert.Equal(t, &resource.HistoryDatabase{
		Usable: true, ServerVersion: "15.1", Connections: 2, MaxConnections: 50, Granted: 97, Through: 77, Facts: 9, Missing: 3, DroppedBefore: 2,
		ExportedAt: database.status.ExportedAt,
	}, status.Database)
	assert.True(t, get[resource.Status](w, "/api/v1/status").Database)

	database.mu.Lock()
	database.away = fmt.Errorf("%w: the server does not answer", postgres.ErrAway)
	database.status.Err = errors.New("the server does not answer")
	database.mu.Unlock()
	p := w.ask(http.MethodGet, "/api/v1/history", nil).problem(t, http.StatusServiceUnavailable, wire.CodeUnavailable)
	assert.Contains(t, p.Detail, "the server does not answer")
	assert.Contains(t, p.Mend, "certctl history status")
	assert.NotZero(t, p.RetryAfterSeconds)
	status = get[resource.HistoryStatus](w, "/api/v1/history/status")
	assert.False(t, status.Database.Usable)
	assert.Equal(t, "the server does not answer", status.Database.Error)
	get[resource.Page[resource.Event]](w, "/api/v1/audit") // is there all the same
}

// Whoever prunes is told before what would go, and stands in the audit trail before
// it has gone.
func TestPruningTheHistory(t *testing.T) {
	month := func(m time.Month, facts int64) postgres.PrunedMonth {
		return postgres.PrunedMonth{Month: time.Date(2024, m, 1, 0, 0, 0, 0, time.UTC), Facts: facts, Bytes: 100 * facts}
	}
	database := &shelf{months: []postgres.PrunedMonth{month(1, 10), month(2, 20)}, status: postgres.Status{Leads: true, Attached: true}}
	w := startWith(t, database)
	const path = "/api/v1/history/prune"
	plan := post[resource.PrunedHistory](w, path, resource.PruneHistory{Before: time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC), DryRun: true}, http.StatusOK)
	assert.Equal(t, resource.PrunedHistory{DryRun: true, Facts: 30, Bytes: 3000, Months: []resource.PrunedMonth{
		{Month: "2024-01", Facts: 10, Bytes: 1000}, {Month: "2024-02", Facts: 20, Bytes: 2000},
	}}, plan)
	assert.Equal(t, []string{"2024-03-01 true"}, database.pruned)
	assert.Empty(t, get[resource.Page[resource.Event]](w, "/api/v1/audit?kind=history.pruned").Items)

	done := post[resource.PrunedHistory](w, path, resource.PruneHistory{Before: time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC)}, http.StatusOK)
	plan.DryRun = false
	assert.Equal(t, plan, done)
	assert.Equal(t, []string{"2024-03-01 true", "2024-03-01 true", "2024-03-01 false"}, database.pruned)
	noted := w.events("/api/v1/audit?kind=history.pruned", 1).Items[0]
	assert.Equal(t, "api_token:"+w.Admin.ID, noted.Actor)
	assert.JSONEq(t, `{"before":"2024-03-01T00:00:00Z","months":2,"first":"2024-01","last":"2024-02","facts":30}`, string(noted.Detail))

	for body, field := range map[string]string{`{}`: "before", `{"before":"2224-01-01T00:00:00Z"}`: "before", `{"before":"0001-01-01T00:00:00Z"}`: "before"} {
		p := w.ask(http.MethodPost, path, body).problem(t, http.StatusBadRequest, wire.CodeInvalid)
		assert.True(t, strings.HasPrefix(p.Field, field), "%s: %s", body, p.Field)
	}
	database.mu.Lock()
	database.away = fmt.Errorf("%w: gone", postgres.ErrAway)
	database.mu.Unlock()
	w.ask(http.MethodPost, path, `{"before":"2024-03-01T00:00:00Z"}`).problem(t, http.StatusServiceUnavailable, wire.CodeUnavailable)
	assert.Len(t, w.events("/api/v1/audit?kind=history.pruned", 1).Items, 1, "nothing was about to go")
}
