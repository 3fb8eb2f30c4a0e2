package postgres_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/history/historytest"
	"github.com/certctl/certctl/coordinator/history/postgres"
	"github.com/certctl/certctl/internal/testpostgres"
	"github.com/certctl/certctl/shared/settings"
)

// feed makes facts until stop is called, which returns all of them.
func feed(w *world, from uint64) (stop func() []fleet.Fact) {
	ctx, cancel := context.WithCancel(context.Background())
	var facts []fleet.Fact
	var feeding sync.WaitGroup
	feeding.Go(func() {
		for index := from; ctx.Err() == nil; index++ {
			f := routine(index, historytest.Start.Add(time.Duration(index)*time.Second))
			if index%10 == 0 {
				f.Audit = index / 10
			}
			facts = append(facts, f)
			if !assert.NoError(w.t, w.journal.Append(index, []fleet.Fact{f})) {
				return
			}
			w.applied.Store(index)
			time.Sleep(time.Millisecond)
		}
	})
	w.t.Cleanup(cancel)
	return func() []fleet.Fact {
		cancel()
		feeding.Wait()
		return facts
	}
}

// The server is killed, without a word, in the middle of the export, and comes back:
// nothing is lost, nothing is there twice, and nothing but the export waits.
func TestTheServerIsKilledWhileFactsAreExported(t *testing.T) {
	server, err := testpostgres.Start(testpostgres.Options{Durable: true})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, server.Close()) })
	w := newWorld(t, server)
	stop := feed(w, 1)
	e, _ := w.start(w.config)
	for range 4 {
		before := e.Status().Exported
		await(t, "facts are exported", func() bool { return e.Status().Exported > before+5 })
		require.NoError(t, server.Kill())
		await(t, "the export fails", func() bool { return e.Status().Err != nil })
		_, _, err := e.Facts(t.Context(), history.Query{})
		require.ErrorIs(t, err, postgres.ErrAway)
		waiting := e.Status().Waiting.Facts
		await(t, "facts wait", func() bool { return e.Status().Waiting.Facts > waiting+5 })
		require.NoError(t, server.Run())
	}
	all := stop()
	exported(t, e, all[len(all)-1].Index)
	assert.Equal(t, keysOf(all), w.stored())
	assert.Zero(t, e.Status().Waiting.Facts)
	assert.Zero(t, e.Status().Lag(time.Now()))
	assert.Contains(t, w.log.String(), "the export to the database goes on")
	t.Logf("%d facts", len(all))
}

// The database is replaced by an empty one while it is in use, as by a failover to a
// server that has nothing: all that the journal keeps is exported again, and said.
func TestAnEmptyDatabaseGetsAllThatIsKept(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	facts := historytest.Facts(60)
	w.append(facts...)
	e, _ := w.start(w.config)
	exported(t, e, 59)
	require.NoError(t, w.server.Drop(t.Context(), w.name))
	require.NoError(t, w.server.Create(t.Context(), w.name))
	w.append(routine(61, historytest.Start))
	exported(t, e, 61)
	assert.Equal(t, append(keysOf(facts), "61.0"), w.stored())
	assert.Equal(t, 2, strings.Count(w.log.String(), "the database had no facts of this cluster; all that the journal keeps is exported to it"))

	// One that lags behind, as a replica may that has become the primary, gets the rest.
	w.exec(`delete from certctl.facts where log_index > 40`)
	var at *fleet.Fact
	for i := range facts {
		if facts[i].Index <= 40 {
			at = &facts[i]
		}
	}
	require.NotNil(t, at)
	w.exec(`update certctl.export set revision = revision - 1, through = 40, last_index = 0, audit_index = 0`)
	w.append(routine(62, historytest.Start))
	exported(t, e, 62)
	assert.Equal(t, append(keysOf(facts), "61.0", "62.0"), w.stored())
}

// A server that is slow, locked or full of connections is left alone for a while, with
// an error that says what to do; then the export goes on.
func TestTheExportGoesOnAfterTrouble(t *testing.T) {
	cases := map[string]struct {
		begin, end func(w *world)
		want       string
	}{
		"slow": {
			func(w *world) {
				w.exec(`create function public.slow() returns trigger language plpgsql as $$ begin perform pg_sleep(60); return new; end $$;
					create trigger slow before update on certctl.export for each row execute function public.slow()`)
			},
			func(w *world) { w.exec("drop function public.slow() cascade") },
			"canceling statement due to statement timeout (SQLSTATE 57014); the server is slow",
		},
		"no connections": {
			func(w *world) {
				w.exec("alter database " + w.name + " connection limit 0")
				w.exec("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
			},
			func(w *world) { w.exec("alter database " + w.name + " connection limit -1") },
			"(SQLSTATE 53300); let the server grant more (max_connections), or lower CERTCTL_DATABASE_MAX_CONNS",
		},
		"not allowed": {
			func(w *world) {
				w.exec("revoke all on certctl.facts from certctl; alter table certctl.facts owner to postgres")
			},
			func(w *world) {
				w.exec("alter table certctl.facts owner to certctl; grant all on certctl.facts to certctl")
			},
			"(SQLSTATE 42501); let the user of CERTCTL_DATABASE_URL own the database",
		},
		"read-only": {
			func(w *world) {
				w.exec("alter database " + w.name + " set default_transaction_read_only = on")
				w.exec("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
			},
			func(w *world) {
				w.exec("begin read write; alter database " + w.name + " set default_transaction_read_only = off; commit;" +
					"select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
			},
			"(SQLSTATE 25006); name the primary",
		},
	}
	w := newWorld(t, sharedServer(t))
	w.config.StatementTimeout = time.Second
	facts := historytest.Facts(30)
	w.append(facts...)
	e, _ := w.start(w.config)
	exported(t, e, 30)
	want, index := keysOf(facts), uint64(30)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			c.begin(w)
			index++
			more := routine(index, historytest.Start)
			w.append(more)
			await(t, c.want, func() bool {
				err := e.Status().Err
				return err != nil && strings.Contains(err.Error(), c.want)
			})
			assert.Equal(t, 1, e.Status().Waiting.Facts)
			assert.Equal(t, more.Time, e.Status().Waiting.Oldest)
			assert.Positive(t, e.Status().Lag(more.Time.Add(time.Minute)))
			c.end(w)
			exported(t, e, index)
			want = append(want, keysOf([]fleet.Fact{more})...)
			assert.Equal(t, want, w.stored())
		})
	}
}

// A lock on the tables is given up on after a while, so that nobody waits behind the
// exporter for it.
func TestALockIsNotWaitedForLong(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	w.append(historytest.Facts(5)...)
	e, _ := w.start(w.config)
	exported(t, e, 5)
	conn, err := w.server.Connect(t.Context(), w.name)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "begin; lock table certctl.export in access exclusive mode")
	require.NoError(t, err)
	w.append(routine(6, historytest.Start))
	await(t, "the export fails", func() bool { return e.Status().Err != nil })
	require.ErrorContains(t, e.Status().Err, "(SQLSTATE 55P03); something holds a lock")
	require.NoError(t, conn.Close(t.Context()))
	exported(t, e, 6)
}

// Nothing that is said has the password in it, or the rest of the connection string's
// secrets, whatever goes wrong.
func TestSecretsAreNotTold(t *testing.T) {
	const secret = "s3cr3t/word?"
	server, err := testpostgres.Start(testpostgres.Options{Password: secret})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, server.Close()) })
	good := server.URL("postgres")
	cases := map[string]struct{ url, want string }{
		"a wrong password": {strings.Replace(good, "s3cr3t", "s3cr3tX", 1), "28P01"},
		"no such database": {strings.Replace(good, "/postgres?", "/nowhere?", 1), "3D000"},
		"no such user":     {strings.Replace(good, "certctl:", "nobody:", 1), "28P01"},
		"nobody listens":   {"postgres://certctl:s3cr3t%2Fword%3F@127.0.0.1:1/d?sslmode=disable", "connection refused"},
		"no such host":     {"postgres://certctl:s3cr3t%2Fword%3F@nowhere.invalid/d?sslmode=disable", "cannot be looked up"},
		"no TLS":           {strings.Replace("host=/x port=5432 user=certctl password='s3cr3t/word?' dbname=postgres sslmode=disable", "/x", "/nowhere", 1), "connection failed"},
		"an odd parameter": {good + "&search_path_x=s3cr3t", "unrecognized configuration parameter"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := &world{t: t, journal: newJournal(t)}
			e, _ := w.start(postgres.Config{
				URL: settings.NewSecret(c.url), ClusterID: func() string { return clusterID }, Applied: w.applied.Load, Journal: w.journal,
				Log: slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			}.Quick(nil))
			await(t, "it fails", func() bool { return e.Status().Err != nil })
			_, _, err := e.Facts(t.Context(), history.Query{})
			await(t, "it is logged", func() bool { return strings.Contains(w.log.String(), "cannot be exported") })
			for _, said := range []string{e.Status().Err.Error(), err.Error(), w.log.String()} {
				assert.NotContains(t, said, "s3cr3t")
				assert.NotContains(t, said, "postgres://")
			}
			assert.ErrorContains(t, e.Status().Err, c.want)
		})
	}
	for _, bad := range []string{
		"postgres://certctl:s3cr3t@[::1/d", "postgres://certctl:s3cr3t@h:port/d", "s3cr3t", "postgres://certctl:s3cr3t%zz@h/d",
		"host=h password=s3cr3t port=x", "postgres://h/d?sslmode=s3cr3t", "postgres://u:s3cr3t@h/d?sslrootcert=/nowhere&sslmode=verify-full",
		"postgres://u:s3cr3t@h/d?pool_max_conns=s3cr3t", "postgres://u:s3cr3t@h/d?connect_timeout=s3cr3t",
	} {
		err := postgres.CheckURL(settings.NewSecret(bad))
		require.Error(t, err, bad)
		assert.NotContains(t, err.Error(), "s3cr3t")
	}
	require.NoError(t, postgres.CheckURL(settings.NewSecret(good)))
}
