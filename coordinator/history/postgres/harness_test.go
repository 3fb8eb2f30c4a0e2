package postgres_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/history/historytest"
	"github.com/certctl/certctl/coordinator/history/postgres"
	"github.com/certctl/certctl/internal/testpostgres"
	"github.com/certctl/certctl/shared/settings"
)

// One server is enough for the tests that do not break it.
var shared struct {
	once   sync.Once
	server *testpostgres.Server
	err    error
	made   atomic.Int64
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		if err := shared.server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func sharedServer(t testing.TB) *testpostgres.Server {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = testpostgres.Start(testpostgres.Options{}) })
	require.NoError(t, shared.err)
	return shared.server
}

// A world is a database, a journal, and what exporters of it need to know.
type world struct {
	t       testing.TB
	server  *testpostgres.Server
	name    string // of the database
	journal *history.Journal
	applied atomic.Uint64
	log     lockedBuffer
	config  postgres.Config
}

const clusterID = "0123456789abcdef"

func newWorld(t testing.TB, server *testpostgres.Server) *world {
	t.Helper()
	w := &world{t: t, server: server, name: fmt.Sprintf("test%d", shared.made.Add(1))}
	require.NoError(t, server.Create(t.Context(), w.name))
	w.journal = newJournal(t)
	w.config = postgres.Config{
		URL: settings.NewSecret(server.URL(w.name)), ClusterID: func() string { return clusterID }, Applied: w.applied.Load, Journal: w.journal,
		Log: slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})), MaxConns: 5,
	}.Quick(nil)
	return w
}

func newJournal(t testing.TB) *history.Journal {
	t.Helper()
	j, err := history.Create(history.Config{Path: filepath.Join(t.TempDir(), "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, j.Close()) })
	return j
}

// append adds facts to the journal, as if they had been applied.
func (w *world) append(facts ...fleet.Fact) {
	w.t.Helper()
	last := facts[len(facts)-1].Index
	require.NoError(w.t, w.journal.Append(last, facts))
	w.applied.Store(last)
}

// start makes a node the leader, until stop is called or the test ends.
func (w *world) start(c postgres.Config) (e *postgres.Exporter, stop func()) {
	w.t.Helper()
	e, err := postgres.New(c)
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Work(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		assert.NoError(w.t, <-ended)
	})
	w.t.Cleanup(stop)
	return e, stop
}

// await waits until something is so.
func await(t testing.TB, what string, so func() bool) {
	t.Helper()
	require.Eventually(t, so, time.Minute, 2*time.Millisecond, what)
}

// exported waits until an exporter has nothing left to do.
func exported(t testing.TB, e *postgres.Exporter, through uint64) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for s := e.Status(); s.Through < through || s.Err != nil || len(s.Missing) > 0; s = e.Status() {
		if time.Now().After(deadline) {
			t.Fatalf("not exported up to %d: %+v", through, s)
		}
		time.Sleep(time.Millisecond)
	}
}

// stored is what the database has, read by nobody's code but SQL's.
func (w *world) stored() (keys []string) {
	w.t.Helper()
	conn, err := w.server.Connect(w.t.Context(), w.name)
	require.NoError(w.t, err)
	defer conn.Close(w.t.Context())
	rows, err := conn.Query(w.t.Context(), "select log_index || '.' || ordinal from certctl.facts order by log_index, ordinal")
	require.NoError(w.t, err)
	keys, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(w.t, err)
	return keys
}

func keysOf(facts []fleet.Fact) (keys []string) {
	for _, f := range facts {
		keys = append(keys, fmt.Sprintf("%d.%d", f.Index, f.Ordinal))
	}
	return keys
}

func (w *world) query(sql string) (text string) {
	w.t.Helper()
	conn, err := w.server.Connect(w.t.Context(), w.name)
	require.NoError(w.t, err)
	defer conn.Close(w.t.Context())
	require.NoError(w.t, conn.QueryRow(w.t.Context(), sql).Scan(&text))
	return text
}

func (w *world) exec(sql string) {
	w.t.Helper()
	require.NoError(w.t, w.server.Exec(w.t.Context(), w.name, sql))
}

func routine(index uint64, at time.Time) fleet.Fact {
	return fleet.Fact{Index: index, Time: at, Kind: "certificate.renewed", Actor: "agent:a1", Agent: "a1", Object: "web", Detail: []byte(`{"n":1}`)}
}

// lockedBuffer takes what several goroutines log.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// A breaker makes connections that can be made to fail: after so many reads and
// writes in all, of all connections.
type breaker struct {
	left atomic.Int64 // reads and writes that go well; counts on below zero

}

func (b *breaker) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &brittle{Conn: conn, breaker: b}, nil
}

type brittle struct {
	net.Conn
	breaker *breaker
}

// fails says that this one goes wrong, which cuts the connection.
func (c *brittle) fails() bool {
	if c.breaker.left.Add(-1) != 0 {
		return false
	}
	_ = c.Close()
	return true
}

func (c *brittle) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.fails() { // the server may have got it
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *brittle) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.fails() { // the server has answered, and nobody heard it
		return 0, net.ErrClosed
	}
	return n, err
}

var readAll = historytest.ReadAll
