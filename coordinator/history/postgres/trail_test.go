package postgres_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/history/historytest"
	"github.com/certctl/certctl/coordinator/trail"
)

// What is changed in a row of the audit trail is found, whichever column it is.
func TestEveryChangeOfARowIsFound(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	facts := historytest.Facts(60)
	w.append(facts...)
	e, _ := w.start(w.config)
	exported(t, e, 59)
	var last fleet.Fact
	for _, f := range facts {
		if f.Audit > 0 {
			last = f
		}
	}
	verify := func() *trail.Report {
		v := trail.NewVerifier(1, trail.Anchor{Number: last.Audit, Hash: last.Hash, From: "a note"})
		q := history.Query{AuditOnly: true, Limit: 11}
		for {
			page, next, err := e.Facts(t.Context(), q)
			require.NoError(t, err)
			for _, f := range page {
				v.Add(f.Record())
			}
			if q.After = next; next == "" {
				return v.End()
			}
		}
	}
	report := verify()
	require.Empty(t, report.Breaks)
	require.EqualValues(t, 5, report.NotChained)
	require.Equal(t, last.Audit, report.Last)

	const one = " where audit = 12"
	keep := "create table kept as select * from certctl.facts" + one
	w.exec(keep)
	for name, change := range map[string]string{
		"log_index": "log_index = log_index + 1000000", "ordinal": "ordinal = ordinal + 1", "time": "time = time + interval '1 microsecond'",
		"nanos": "nanos = (nanos + 1) % 1000", "kind": "kind = kind || 'x'", "actor": "actor = ''", "object": "object = object || ' '", "agent": "agent = 'a9'",
		"detail": `detail = '{"why":"\"❥\""}'`, "no detail": "detail = null", "audit": "audit = 1000", "before": `before = '{"revision":13}'`, "after": `after = '{"x":0}'`,
		"no after": "after = null", "prev": "prev = set_byte(prev, 7, (get_byte(prev, 7) + 1) % 256)", "hash": "hash = set_byte(hash, 31, (get_byte(hash, 31) + 1) % 256)",
		"no hash": "prev = null, hash = null",
	} {
		w.exec("update certctl.facts set " + change + one)
		assert.True(t, verify().Broken(), name)
		w.exec("delete from certctl.facts where audit in (12, 1000)")
		w.exec("insert into certctl.facts select * from kept")
		require.Empty(t, verify().Breaks, "%s: as it was before", name)
	}
	// The meaning is covered, and not how JSON is written down.
	w.exec(`update certctl.facts set after = '{ "x" : null }'` + one)
	assert.Empty(t, verify().Breaks)

	w.exec("delete from certctl.facts" + one)
	report = verify()
	require.Len(t, report.Breaks, 1)
	assert.Equal(t, trail.FaultMissing, report.Breaks[0].Fault)
	assert.EqualValues(t, 12, report.Breaks[0].Number)
	w.exec("insert into certctl.facts select * from kept")
	w.exec(fmt.Sprintf("delete from certctl.facts where audit >= %d", last.Audit-1))
	report = verify()
	require.Len(t, report.Breaks, 1)
	assert.Equal(t, []uint64{last.Audit - 1, last.Audit}, []uint64{report.Breaks[0].Number, report.Breaks[0].Last}, "the end is missing")
}

// Tables of before the chain get its columns, and their facts have none.
func TestTablesOfBeforeTheChain(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	facts := historytest.Facts(12)
	w.append(facts...)
	e, stop := w.start(w.config)
	exported(t, e, 11)
	stop()
	// As they were: without what later steps add, views among it.
	w.exec(`do $$ declare name text; begin
		for name in select viewname from pg_views where schemaname = 'certctl' loop execute format('drop view if exists certctl.%I cascade', name); end loop;
	end $$`)
	w.exec("alter table certctl.facts drop column before, drop column after, drop column prev, drop column hash")
	w.exec("update certctl.schema_version set version = 1")

	more := historytest.Facts(30)
	w.append(more[len(facts):]...)
	e, _ = w.start(w.config)
	exported(t, e, 30)
	got := historytest.ReadAll(t.Context(), t, e, history.Query{})
	for i, f := range more {
		if i < len(facts) {
			f.Before, f.After, f.Prev, f.Hash = nil, nil, trail.Hash{}, trail.Hash{}
		}
		require.Equal(t, f, got[i])
	}
	assert.Equal(t, "0", w.query("select count(*)::text from certctl.facts where log_index <= 11 and hash is not null"))
}
