package postgres_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/history/historytest"
	"github.com/certctl/certctl/coordinator/history/postgres"
	"github.com/certctl/certctl/shared/settings"
)

func TestTheDatabaseIsAReaderOfHistory(t *testing.T) {
	historytest.TestReader(t, func(t *testing.T, facts []fleet.Fact) history.Reader {
		w := newWorld(t, sharedServer(t))
		w.append(facts...)
		e, _ := w.start(w.config)
		exported(t, e, 79) // entry 80 has no facts
		return e
	})
}

// Facts go on arriving while there are leaders, each once; a new leader goes on where
// the old one was, and what is exported and what is waiting is told.
func TestEachFactArrivesOnce(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	all := historytest.Facts(400)
	done := 0
	for _, until := range []uint64{9, 150, 151, 402} {
		end := slices.IndexFunc(all, func(f fleet.Fact) bool { return f.Index > until })
		if end < 0 {
			end = len(all)
		}
		e, stop := w.start(w.config)
		w.append(all[done:end]...)
		exported(t, e, all[end-1].Index)
		s := e.Status()
		assert.True(t, s.Leads && s.Attached && !s.Refused)
		assert.Zero(t, s.Waiting.Facts)
		assert.EqualValues(t, end, s.Facts)
		stop()
		assert.False(t, e.Status().Leads)
		done = end
	}
	assert.Equal(t, keysOf(all), w.stored())
	assert.Equal(t, fmt.Sprint(len(all)), w.query("select facts::text from certctl.export"))
}

// The connection is cut at each read and at each write of an export: before the
// server has it, after it, and after the answer to COMMIT was sent and not heard. Each
// fact arrives once all the same.
func TestEachFactArrivesOnceWhereverTheConnectionIsCut(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	w.append(routine(1, historytest.Start))
	e, stop := w.start(w.config)
	exported(t, e, 1) // the tables are there
	stop()
	index, failures, stride := uint64(1), 0, int64(5)
	if os.Getenv("CERTCTL_SOAK") != "" {
		stride = 1
	}
	for cut := int64(1); ; cut += stride {
		b := &breaker{}
		b.left.Store(cut)
		w.append(routine(index+1, historytest.Start), routine(index+2, historytest.Start))
		index += 2
		e, stop := w.start(w.config.Quick(b.dial))
		exported(t, e, index)
		if e.Status().Failures > 0 {
			failures++
		}
		stop()
		if b.left.Load() > 0 {
			require.Greater(t, failures, int(cut/stride/2), "of the cuts up to %d", cut-1) // the pool makes up for some
			break
		}
	}
	var want []string
	for i := range index {
		want = append(want, fmt.Sprintf("%d.0", i+1))
	}
	assert.Equal(t, want, w.stored())
}

// The same, from an empty database on: whatever was cut of setting it up is done
// again, in one piece.
func TestTablesAreSetUpWhereverTheConnectionIsCut(t *testing.T) {
	server := sharedServer(t)
	facts := historytest.Facts(12)
	stride := int64(41)
	if os.Getenv("CERTCTL_SOAK") != "" {
		stride = 1
	}
	for cut := int64(3); ; cut += stride {
		b := &breaker{}
		b.left.Store(cut)
		w := newWorld(t, server)
		w.append(facts...)
		e, stop := w.start(w.config.Quick(b.dial))
		exported(t, e, facts[len(facts)-1].Index)
		stop()
		require.Equal(t, keysOf(facts), w.stored(), "cut %d", cut)
		if b.left.Load() > 0 {
			return
		}
		require.NoError(t, server.Drop(t.Context(), w.name))
	}
}

// Two nodes that both believe to lead export at the same time: whoever is second does
// not write, and goes on from where the first one came to.
func TestTwoLeadersAtOnceExportEachFactOnce(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	one, _ := w.start(w.config)
	other, _ := w.start(w.config)
	var all []fleet.Fact
	index := uint64(0)
	for round := 0; round < 400; round++ {
		var burst []fleet.Fact
		for range 3 {
			index++
			burst = append(burst, routine(index, historytest.Start.Add(time.Duration(index)*time.Second)))
		}
		all = append(all, burst...)
		w.append(burst...)
		exported(t, one, index)
		exported(t, other, index)
		if round >= 20 && one.Status().Exported > 0 && other.Status().Exported > 0 {
			break // each was first and second
		}
	}
	assert.Equal(t, keysOf(all), w.stored())
	assert.EqualValues(t, len(all), one.Status().Exported+other.Status().Exported)
	assert.NotZero(t, one.Status().Exported)
	assert.NotZero(t, other.Status().Exported)
	assert.NotContains(t, w.log.String(), "cannot be exported", "who is second finds it out by the mark, not by an error")
}

// A journal lacks what its node got a snapshot in place of. What comes after is
// exported at once, and the rest when a leader has it, in the same order as ever.
func TestWhatTheJournalLacksIsExportedWhenItHasIt(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	all := historytest.Facts(60)
	part := func(from, to uint64) (facts []fleet.Fact) {
		for _, f := range all {
			if f.Index >= from && f.Index <= to {
				facts = append(facts, f)
			}
		}
		return facts
	}
	whole := newJournal(t)
	require.NoError(t, whole.Append(60, all))

	w.append(part(1, 20)...)
	require.NoError(t, w.journal.Skip(50))
	w.append(part(51, 60)...)
	e, stop := w.start(w.config)
	await(t, "what is there is exported", func() bool { return e.Status().Through == 59 })
	assert.Equal(t, history.Gaps{{From: 20, To: 50}}, e.Status().Missing)
	assert.Equal(t, keysOf(append(part(1, 20), part(51, 60)...)), w.stored())
	stop()

	e, _ = w.start(w.config)
	for _, asked := range []history.Gap{{From: 40, To: 50}, {From: 25, To: 30}, {From: 31, To: 39}, {From: 20, To: 24}} {
		chunk, err := whole.Chunk(asked, 1<<20)
		require.NoError(t, err)
		require.NoError(t, w.journal.Backfill(chunk))
	}
	exported(t, e, 59)
	assert.Equal(t, keysOf(all), w.stored())
	assert.Equal(t, all, readAll(t.Context(), t, e, history.Query{}))
	assert.Equal(t, "0", w.query("select count(*)::text from certctl.export_gaps"))
}

// Moving from the embedded journal to a database later exports all that is kept, and
// says what retention had dropped before.
func TestMovingToADatabaseExportsAllThatIsKept(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	var all []fleet.Fact
	old := time.Date(2024, 12, 31, 23, 0, 0, 0, time.UTC)
	for index := uint64(1); index <= 3*postgres.MaxFacts/2; index++ {
		all = append(all, routine(index, old.Add(time.Duration(index)*7*time.Minute)))
	}
	w.append(all...)
	e, _ := w.start(w.config)
	exported(t, e, all[len(all)-1].Index)
	assert.Equal(t, len(all), len(w.stored()))
	assert.Zero(t, e.Status().Floor)
	assert.Equal(t, all[:5], readAll(t.Context(), t, e, history.Query{Until: all[5].Time}))
	// The months of the facts are there, and those to come.
	months := w.query(`select string_agg(relname, ' ' order by relname) from pg_class where relnamespace = 'certctl'::regnamespace and relname ~ '^facts_[0-9_]+$'`)
	assert.Contains(t, months, "facts_2024_12 facts_2025_01 facts_2025_02")
	now := time.Now().UTC()
	for ahead := range 4 {
		month := time.Date(now.Year(), now.Month()+time.Month(ahead), 1, 0, 0, 0, 0, time.UTC)
		assert.Contains(t, months, month.Format("facts_2006_01"))
	}
}

func TestFactsThatRetentionDroppedBeforeTheExportAreTold(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	j, err := history.Create(history.Config{Path: t.TempDir() + "/journal.db", Log: w.config.Log, MaxAge: time.Hour})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, j.Close()) })
	now := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	require.NoError(t, j.Append(30, []fleet.Fact{routine(10, now.Add(-3*time.Hour)), routine(20, now.Add(-2*time.Hour)), routine(30, now)}))
	dropped, err := j.Trim(now)
	require.NoError(t, err)
	require.Equal(t, 2, dropped)
	w.applied.Store(30)
	w.config.Journal = j
	e, _ := w.start(w.config)
	exported(t, e, 30)
	assert.EqualValues(t, 20, e.Status().Floor)
	assert.Contains(t, w.log.String(), "were dropped from the journal before they could be exported")
}

// What PostgreSQL cannot have in its columns does not hold up the rest.
func TestOddFactsAreExported(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	deep := json.RawMessage(strings.Repeat("[", 9000) + strings.Repeat("]", 9000))
	odd := []fleet.Fact{
		{Index: 1, Time: historytest.Start, Kind: "a\x00b", Object: strings.Repeat("é", 1<<16), Agent: "'; drop table certctl.facts; --"},
		{Index: 2, Time: time.Unix(0, 0).UTC(), Kind: "k", Detail: deep},
		{Index: 3, Time: time.Date(2261, 12, 31, 23, 59, 59, 999999999, time.UTC), Kind: "k", Detail: json.RawMessage(`{"broken`)},
		{Index: 4, Time: time.Date(1969, 12, 31, 23, 59, 59, 999999999, time.UTC), Kind: "k", Detail: json.RawMessage(`"\ud800"`)},
		{Index: 5, Time: time.Date(1700, 1, 1, 0, 0, 0, 1, time.UTC), Kind: "k", Detail: json.RawMessage("\"a\x00\"")},
	}
	w.append(odd...)
	e, _ := w.start(w.config)
	exported(t, e, 5)
	got := readAll(t.Context(), t, e, history.Query{})
	require.Len(t, got, 5)
	for i, f := range got {
		assert.Equal(t, odd[i].Time, f.Time)
		if f.Detail != nil {
			assert.True(t, json.Valid(f.Detail))
		}
	}
	assert.Equal(t, fleet.Kind("a\uFFFDb"), got[0].Kind)
	assert.Equal(t, odd[0].Object, got[0].Object)
	assert.Equal(t, odd[3].Detail, got[3].Detail)
	var text string
	require.NoError(t, json.Unmarshal(got[1].Detail, &text))
	assert.Equal(t, string(deep), text)
}

// The pool is there while the node leads, and no longer: nothing of it is left when
// the work ends, readers get an answer at once, and a new leadership has a new one.
func TestThePoolIsTheLeadersAlone(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	w.append(historytest.Facts(5)...)
	count := func() string {
		return w.query("select count(*)::text from pg_stat_activity where datname = current_database() and application_name = 'certctl'")
	}
	e, err := postgres.New(w.config)
	require.NoError(t, err)
	_, _, err = e.Facts(t.Context(), history.Query{})
	require.ErrorIs(t, err, postgres.ErrAway)
	for range 2 {
		e, stop := w.start(w.config)
		exported(t, e, 5)
		assert.NotEqual(t, "0", count())
		// A reader that waits for a lock is ended with the leadership.
		conn, err := w.server.Connect(t.Context(), w.name)
		require.NoError(t, err)
		_, err = conn.Exec(t.Context(), "begin; lock table certctl.facts_audit in access exclusive mode")
		require.NoError(t, err)
		read := make(chan error, 1)
		go func() {
			_, _, err := e.Facts(context.Background(), history.Query{AuditOnly: true})
			read <- err
		}()
		await(t, "the reader waits", func() bool {
			return w.query("select count(*)::text from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") == "1"
		})
		stop()
		err = <-read
		require.ErrorIs(t, err, postgres.ErrAway)
		require.ErrorIs(t, err, context.Canceled, "it did not wait for the lock until the server gave up")
		require.NoError(t, conn.Close(t.Context()))
		_, _, err = e.Facts(t.Context(), history.Query{})
		require.ErrorIs(t, err, postgres.ErrAway)
		await(t, "no connection is left", func() bool { return count() == "0" })
	}
}

// Nodes that start at the same time on an empty database set it up together.
func TestTablesAreSetUpOnceByNodesThatStartTogether(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	w.append(historytest.Facts(5)...)
	var nodes []*postgres.Exporter
	var stops []func()
	for range 6 {
		e, stop := w.start(w.config)
		nodes, stops = append(nodes, e), append(stops, stop)
	}
	for _, e := range nodes {
		exported(t, e, 5)
	}
	for _, stop := range stops {
		stop()
	}
	assert.NotContains(t, w.log.String(), "cannot be exported", "they wait for each other, and nothing fails")
	assert.Equal(t, 1, strings.Count(w.log.String(), "set up the tables of the database"))
	assert.Equal(t, keysOf(historytest.Facts(5)), w.stored())
	// And again, on what is there.
	e, _ := w.start(w.config)
	exported(t, e, 5)
	assert.Equal(t, 1, strings.Count(w.log.String(), "set up the tables of the database"))
}

func TestADatabaseThatIsNotThisClustersIsRefused(t *testing.T) {
	cases := map[string]struct {
		change func(w *world)
		want   error
	}{
		"another cluster's": {func(w *world) { w.config.ClusterID = func() string { return "fedcba9876543210" } }, postgres.ErrOtherCluster},
		"of a later state":  {func(w *world) { w.applied.Store(30) }, postgres.ErrAhead},
		"of another life": {func(w *world) {
			w.journal = newJournal(w.t)
			w.config.Journal = w.journal
			facts := historytest.Facts(70)
			for i := range facts {
				facts[i].Time = facts[i].Time.Add(time.Second)
			}
			w.append(facts...)
		}, postgres.ErrOtherLife},
		"of another life, by the audit trail alone": {func(w *world) {
			j, err := history.Create(history.Config{Path: w.t.TempDir() + "/journal.db", Log: w.config.Log, MaxAge: time.Hour})
			require.NoError(w.t, err)
			w.t.Cleanup(func() { assert.NoError(w.t, j.Close()) })
			w.journal, w.config.Journal = j, j
			facts := historytest.Facts(70)
			for i := range facts {
				if facts[i].Audit > 0 {
					facts[i].Actor = "api_token:other"
				}
			}
			w.append(facts...)
			_, err = j.Trim(historytest.Start.AddDate(1, 0, 0)) // no routine fact is left to compare
			require.NoError(w.t, err)
		}, postgres.ErrOtherLife},
		"a later version's": {func(w *world) { w.exec("update certctl.schema_version set version = 1000") }, postgres.ErrNewer},
		"not certctl's":     {func(w *world) { w.exec("drop table certctl.schema_version") }, postgres.ErrForeign},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sharedServer(t))
			w.append(historytest.Facts(60)...)
			e, stop := w.start(w.config)
			exported(t, e, 59)
			stop()
			before := w.query("select export::text from certctl.export")
			c.change(w)
			e, stop = w.start(w.config)
			await(t, "it is refused", func() bool { return e.Status().Refused })
			require.ErrorIs(t, e.Status().Err, c.want)
			_, _, err := e.Facts(t.Context(), history.Query{})
			require.ErrorIs(t, err, postgres.ErrAway)
			require.ErrorIs(t, err, c.want, "a reader is told why")
			_, err = e.Prune(t.Context(), time.Now().AddDate(1, 0, 0), false)
			require.ErrorIs(t, err, postgres.ErrAway)
			stop()
			assert.Equal(t, before, w.query("select export::text from certctl.export"), "it is left alone")
			assert.Len(t, w.stored(), len(historytest.Facts(60)))
		})
	}
}

// The journal of the same life that retention has made shorter is known again.
func TestAShorterJournalOfTheSameLifeGoesOn(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	facts := []fleet.Fact{routine(10, historytest.Start), routine(20, historytest.Start.Add(time.Minute))}
	w.append(facts...)
	e, stop := w.start(w.config)
	exported(t, e, 20)
	stop()
	j, err := history.Create(history.Config{Path: t.TempDir() + "/journal.db", Log: w.config.Log, MaxAge: time.Hour})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, j.Close()) })
	w.journal, w.config.Journal = j, j
	w.append(facts...)
	_, err = j.Trim(historytest.Start.Add(24 * time.Hour))
	require.NoError(t, err)
	w.append(routine(30, historytest.Start.Add(25*time.Hour)))
	e, _ = w.start(w.config)
	exported(t, e, 30)
	assert.Equal(t, []string{"10.0", "20.0", "30.0"}, w.stored())
	assert.Zero(t, e.Status().Floor, "what retention dropped had been exported")
}

func TestPruneSaysWhatItWouldDropAndKeepsTheAuditTrail(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	at := func(year int, month time.Month, day int) time.Time {
		return time.Date(year, month, day, 12, 0, 0, 0, time.UTC)
	}
	audited := routine(3, at(2024, 1, 20))
	audited.Audit = 1
	w.append(routine(1, at(2024, 1, 5)), routine(2, at(2024, 1, 6)), audited, routine(4, at(2024, 2, 29)), routine(5, at(2024, 3, 1)))
	e, stop := w.start(w.config)
	exported(t, e, 5)
	before := at(2024, 3, 15)
	plan, err := e.Prune(t.Context(), before, true)
	require.NoError(t, err)
	require.Len(t, plan, 2, "March has not ended")
	assert.Equal(t, time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), plan[0].Month.UTC())
	assert.EqualValues(t, 2, plan[0].Facts)
	assert.EqualValues(t, 1, plan[1].Facts)
	assert.Positive(t, plan[0].Bytes)
	assert.Len(t, w.stored(), 5, "nothing is dropped yet")
	none, err := e.Prune(t.Context(), time.Date(2024, 1, 31, 23, 59, 59, 0, time.UTC), true)
	require.NoError(t, err)
	assert.Empty(t, none)

	done, err := e.Prune(t.Context(), before, false)
	require.NoError(t, err)
	assert.Equal(t, plan, done)
	assert.Equal(t, []string{"3.0", "5.0"}, w.stored())
	// A fact of such a month still finds room.
	w.append(routine(6, at(2024, 1, 7)))
	exported(t, e, 6)
	stop()

	// Retention does the same by itself.
	w.config.Now = func() time.Time { return at(2024, 6, 2) }
	w.config.Retention = 90 * 24 * time.Hour
	e, _ = w.start(w.config)
	await(t, "January is dropped", func() bool { return len(w.stored()) == 2 })
	assert.Equal(t, []string{"3.0", "5.0"}, w.stored(), "the fact of March stays: not all of the month is old enough")
	assert.Contains(t, w.log.String(), "month=2024-01")
	exported(t, e, 6)
}

func TestTheSizeOfThePoolIsCheckedAgainstTheServer(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	w.append(historytest.Facts(2)...)
	w.config.MaxConns = 37 // 40 less 3
	e, stop := w.start(w.config)
	exported(t, e, 2)
	assert.Empty(t, e.Status().Warning)
	assert.Equal(t, 37, e.Status().Granted)
	stop()
	w.config.MaxConns = 38
	e, stop = w.start(w.config)
	exported(t, e, 2)
	assert.Contains(t, e.Status().Warning, "the pool may take 38 connections, and the server grants 37 (max_connections 40 less superuser_reserved_connections 3)")
	assert.Contains(t, w.log.String(), "CERTCTL_DATABASE_MAX_CONNS")
	stop()
	w.exec("alter database " + w.name + " connection limit 4")
	w.config.MaxConns = 5
	e, _ = w.start(w.config)
	exported(t, e, 2)
	assert.Contains(t, e.Status().Warning, "the server grants 4 (connection limit 4 of the database)")
}

func TestLimitsOfConnectionsAreSet(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	w.config.StatementTimeout = 7 * time.Second
	w.append(historytest.Facts(2)...)
	e, _ := w.start(w.config)
	exported(t, e, 2)
	w.exec(`create function public.tell() returns trigger language plpgsql as $$ begin
		raise exception 'limits: % % % %', current_setting('statement_timeout'), current_setting('lock_timeout'),
			current_setting('idle_in_transaction_session_timeout'), current_setting('application_name'); end $$;
		create trigger tell before update on certctl.export for each row execute function public.tell()`)
	w.append(routine(3, historytest.Start))
	await(t, "the update fails", func() bool { return e.Status().Err != nil })
	assert.ErrorContains(t, e.Status().Err, "limits: 7s 5s 12s certctl")
}

func TestConfigurationIsChecked(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	for text, change := range map[string]func(*postgres.Config){
		"URL is missing":     func(c *postgres.Config) { c.URL = settings.Secret{} },
		"ClusterID is":       func(c *postgres.Config) { c.ClusterID = nil },
		"MaxConns 2 is not":  func(c *postgres.Config) { c.MaxConns = 2 },
		"StatementTimeout 1": func(c *postgres.Config) { c.StatementTimeout = time.Millisecond },
		"Retention -1":       func(c *postgres.Config) { c.Retention = -1 },
		"cannot be read as":  func(c *postgres.Config) { c.URL = settings.NewSecret("postgres://u:secret@h:notaport/d") },
		"nowhere.pem cannot ": func(c *postgres.Config) {
			c.URL = settings.NewSecret("postgres://u:secret@h/d?sslmode=verify-full&sslrootcert=/nowhere.pem")
		},
	} {
		c := w.config
		change(&c)
		_, err := postgres.New(c)
		require.ErrorContains(t, err, text)
		require.NotContains(t, err.Error(), "secret")
	}
}
