package postgres_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/history/historytest"
	"github.com/certctl/certctl/internal/testpostgres"
)

// benchFacts is how many facts one round has.
const benchFacts = 100_000

// BenchmarkExport measures facts/s on a server that syncs what it promises: of the
// whole export, from the journal on disk to the last commit, of COPY of the same rows
// into the same tables, and of a bare COPY of them into a table without an index.
func BenchmarkExport(b *testing.B) {
	server, err := testpostgres.Start(testpostgres.Options{Durable: true, Settings: map[string]string{"shared_buffers": "128MB", "max_wal_size": "1GB"}})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, server.Close()) })
	facts := make([]fleet.Fact, benchFacts)
	rows := make([][]any, benchFacts)
	for i := range facts {
		n := uint64(i) + 1
		facts[i] = fleet.Fact{
			Index: n, Time: historytest.Start.Add(time.Duration(i) * 100 * time.Millisecond), Kind: "certificate.renewed",
			Actor: fmt.Sprintf("agent:%016x", i%5000), Agent: fmt.Sprintf("%016x", i%5000), Object: fmt.Sprintf("web-%d", i%20),
			Detail: []byte(fmt.Sprintf(`{"serial":"%032x","not_after":"2026-08-01T00:00:00Z","issuer":"builtin","fingerprint":"%064x"}`, i, i)),
		}
		f := facts[i]
		rows[i] = []any{int64(n), int32(0), false, f.Time, int16(0), string(f.Kind), f.Actor, f.Object, f.Agent, string(f.Detail), int64(0)}
	}
	columns := []string{"log_index", "ordinal", "audited", "time", "nanos", "kind", "actor", "object", "agent", "detail", "audit"}
	rate := func(b *testing.B, elapsed time.Duration) {
		b.ReportMetric(float64(b.N)*benchFacts/elapsed.Seconds(), "facts/s")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("export", func(b *testing.B) {
		var elapsed time.Duration
		var size float64
		for range b.N {
			w := newWorld(b, server)
			for i := 0; i < len(facts); i += 10_000 {
				w.append(facts[i : i+10_000]...)
			}
			began := time.Now()
			e, stop := w.start(w.config)
			exported(b, e, benchFacts)
			elapsed += time.Since(began)
			stop()
			text := w.query("select sum(pg_total_relation_size(oid))::text from pg_class where relnamespace = 'certctl'::regnamespace and relkind = 'r'")
			size, err = strconv.ParseFloat(text, 64)
			require.NoError(b, err)
			require.NoError(b, server.Drop(b.Context(), w.name))
		}
		rate(b, elapsed)
		b.ReportMetric(size/benchFacts, "B/fact")
	})
	copying := func(table, prepare string) func(b *testing.B) {
		return func(b *testing.B) {
			var elapsed time.Duration
			for range b.N {
				w := newWorld(b, server)
				w.append(routine(1, historytest.Start), routine(2, historytest.Start.Add(time.Hour))) // for the tables of both months
				e, stop := w.start(w.config)
				exported(b, e, 2)
				stop()
				w.exec("delete from certctl.facts")
				w.exec(prepare)
				conn, err := server.Connect(b.Context(), w.name)
				require.NoError(b, err)
				began := time.Now()
				_, err = conn.CopyFrom(b.Context(), pgx.Identifier{"certctl", table}, columns, pgx.CopyFromRows(rows))
				require.NoError(b, err)
				elapsed += time.Since(began)
				require.NoError(b, conn.Close(b.Context()))
				require.NoError(b, server.Drop(b.Context(), w.name))
			}
			rate(b, elapsed)
		}
	}
	b.Run("copy into the same tables", copying("facts", "select 1"))
	b.Run("bare copy", copying("bare", "create table certctl.bare (like certctl.facts)"))
}

// BenchmarkRead measures pages of 400,000 facts of thirteen months: of 5,000 hosts, with
// one fact in a thousand of the audit trail.
func BenchmarkRead(b *testing.B) {
	server, err := testpostgres.Start(testpostgres.Options{Settings: map[string]string{"shared_buffers": "128MB", "max_wal_size": "1GB"}})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, server.Close()) })
	w := newWorld(b, server)
	const count = 4 * benchFacts
	begin := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	facts := make([]fleet.Fact, count)
	for i := range facts {
		n := uint64(i) + 1
		facts[i] = fleet.Fact{
			Index: n, Time: begin.Add(time.Duration(n) * 85 * time.Second), Kind: "certificate.renewed", Actor: fmt.Sprintf("agent:a%d", n%5000),
			Agent: fmt.Sprintf("a%d", n%5000), Object: fmt.Sprintf("web-%d", n%20), Detail: []byte(`{"serial":"0a"}`),
		}
		if n%1000 == 0 {
			facts[i].Audit, facts[i].Actor, facts[i].Kind = n/1000, "api_token:x", "enrollment_token.created"
		}
	}
	facts[1233].Kind = "certificate.failed"
	for i := 0; i < count; i += 10_000 {
		w.append(facts[i : i+10_000]...)
	}
	e, _ := w.start(w.config)
	exported(b, e, count)
	w.exec("vacuum analyze")
	day := begin.AddDate(0, 7, 0)
	for _, one := range []struct {
		name  string
		query history.Query
	}{
		{"newest", history.Query{NewestFirst: true}},
		{"500 from the middle on", history.Query{After: history.Cursor(fleet.Fact{Index: count / 2}), Limit: 500}},
		{"one agent", history.Query{NewestFirst: true, Agent: "a77"}},
		{"one object", history.Query{NewestFirst: true, Object: "web-3"}},
		{"a rare kind", history.Query{NewestFirst: true, Kinds: []fleet.Kind{"certificate.failed"}}},
		{"an hour", history.Query{Since: day, Until: day.Add(time.Hour)}},
		{"the audit trail", history.Query{NewestFirst: true, AuditOnly: true}},
		{"one actor of the audit trail", history.Query{AuditOnly: true, Actor: "api_token:x"}},
		{"one actor of all", history.Query{Actor: "agent:a44"}},
	} {
		b.Run(one.name, func(b *testing.B) {
			for b.Loop() {
				found, _, err := e.Facts(b.Context(), one.query)
				require.NoError(b, err)
				require.NotEmpty(b, found)
			}
		})
	}
}
