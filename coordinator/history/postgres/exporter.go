package postgres

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/jitter"
)

// retry spaces attempts after failures. It is what brings the leader back to a
// database that was away: one node asks, so that the pauses may be short.
var retry = backoff.Policy{Initial: time.Second, Max: 15 * time.Second, Multiplier: 2, Jitter: 0.2}

// choresEvery is how often partitions are made ahead and old ones dropped, and choresAgain
// how soon after a failure.
const (
	choresEvery = time.Hour
	choresAgain = 5 * time.Minute
)

// Exporter takes the facts of a journal to a database while its node leads. Its
// methods may be called by any number of goroutines.
type Exporter struct {
	config  Config
	log     *slog.Logger
	backlog tally

	mu     sync.Mutex
	tenure *tenure // guarded by mu; nil while this node does not lead
	status Status  // guarded by mu
}

// Leadership is where the leader's work is registered; *cluster.Node is one.
type Leadership interface {
	Lead(name string, work func(ctx context.Context) error)
}

// New checks the configuration. It connects to nothing.
func New(c Config) (*Exporter, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	if _, err := c.poolConfig(); err != nil {
		return nil, err
	}
	return &Exporter{config: c, log: c.Log, status: Status{MaxConns: c.MaxConns}}, nil
}

// Lead registers what the exporter does while this node leads. It is called before
// the node runs.
func (e *Exporter) Lead(node Leadership) { node.Lead("export to the database", e.lead) }

// A tenure is one time of leadership: its connections, and what is known of the
// database by them.
type tenure struct {
	ctx  context.Context //nolint:containedctx // it ends what readers do when the leadership ends
	pool *pgxpool.Pool

	// What follows belongs to the goroutine of lead.
	mark     *mark          // nil: to be read, because nothing was yet or something failed
	months   map[month]bool // partitions that are there
	size     int            // facts of one transaction
	failures int            // in a row
	wait     time.Time      // nothing is tried before
	choresAt time.Time      // when the chores are due
	told     string         // the failure that was logged last
	toldAt   time.Time
}

// lead exports until ctx is done. It fails only for what no time mends: everything
// else is tried again.
func (e *Exporter) lead(ctx context.Context) error {
	config, err := e.config.poolConfig()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return plain("open the pool", err)
	}
	t := &tenure{ctx: ctx, pool: pool, months: map[month]bool{}, size: maxFacts}
	e.begin(t)
	defer func() {
		e.end()
		cancel()
		pool.Close() // waits for what readers have borrowed, which cancel has ended
	}()
	now := make(chan struct{}, 1)
	now <- struct{}{}
	jitter.Loop(ctx, e.config.pace, jitter.DefaultSchedulerJitter, now, func(ctx context.Context) { e.look(ctx, t) })
	return nil
}

func (e *Exporter) begin(t *tenure) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tenure = t
	e.status = Status{Leads: true, MaxConns: e.config.MaxConns}
}

func (e *Exporter) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tenure = nil
	e.status = Status{MaxConns: e.config.MaxConns}
}

// look exports what there is. After a failure it does nothing for a while.
func (e *Exporter) look(ctx context.Context, t *tenure) {
	if e.config.Now().Before(t.wait) && t.wait.Sub(e.config.Now()) <= 2*e.config.retry.Max { // or the clock was set back
		return
	}
	err := e.catchUp(ctx, t)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		e.recovered(t)
		return
	}
	e.failed(t, err)
}

// catchUp exports until the database has what the journal has.
func (e *Exporter) catchUp(ctx context.Context, t *tenure) error {
	if t.mark == nil {
		if err := e.attach(ctx, t); err != nil {
			return err
		}
	}
	if t.mark == nil {
		return nil // the cluster is not known yet
	}
	if now := e.config.Now(); !now.Before(t.choresAt) {
		t.choresAt = now.Add(choresEvery)
		if err := e.chores(ctx, t, now); err != nil && ctx.Err() == nil {
			// The export does not depend on it: it makes what it needs itself.
			t.choresAt = now.Add(choresAgain)
			e.log.Warn("months of the database were not made ahead, or old ones not dropped; this is tried again", "err", err)
		}
	}
	for ctx.Err() == nil {
		more, err := e.step(ctx, t)
		if err != nil || !more {
			return err
		}
		e.recovered(t)
	}
	return ctx.Err()
}

// attach makes sure of the database, and reads how far the export has come.
func (e *Exporter) attach(ctx context.Context, t *tenure) error {
	cluster := e.config.ClusterID()
	if cluster == "" {
		return nil
	}
	ctx, cancel := e.bounded(ctx)
	defer cancel()
	about, err := inspect(ctx, t.pool)
	if err != nil {
		return plain("connect to the database", err)
	}
	warning := about.warning(e.config.MaxConns)
	if warning != "" && warning != e.Status().Warning {
		e.log.Warn("the database's limit of connections is too low", "detail", warning,
			"database_max_conns", e.config.MaxConns, "granted", about.granted)
	}
	from, to, err := migrateSchema(ctx, t.pool, cluster)
	if err != nil {
		return plain("set up the database", err)
	}
	if from != to {
		e.log.Info("set up the tables of the database", "from_version", from, "to_version", to)
	}
	m, made, err := e.claim(ctx, t.pool, cluster)
	if err != nil {
		return plain("read how far the export has come", err)
	}
	if err := m.check(cluster, e.config.Applied(), e.config.Journal); err != nil {
		return err
	}
	t.mark = m
	clear(t.months)
	e.attached(about, warning, m)
	backlog, err := e.config.Journal.Backlog(m.through, maxBacklog)
	if err != nil {
		return err
	}
	if made {
		e.log.Warn("the database had no facts of this cluster; all that the journal keeps is exported to it",
			"facts", backlog.Facts, "more", backlog.More, "server_version", about.version)
	} else {
		e.log.Info("the leader exports facts to the database", "exported_through", m.through, "waiting_facts", backlog.Facts, "more", backlog.More,
			"server_version", about.version, "database_max_conns", e.config.MaxConns)
	}
	return nil
}

// claim reads the mark, and makes it in an empty database.
func (e *Exporter) claim(ctx context.Context, pool *pgxpool.Pool, cluster string) (m *mark, made bool, err error) {
	tag, err := pool.Exec(ctx, "insert into certctl.export (cluster_id) values ($1) on conflict do nothing", cluster)
	if err != nil {
		return nil, false, err
	}
	if m, err = readMark(ctx, pool, false); err != nil {
		return nil, false, err
	}
	return m, tag.RowsAffected() > 0, m.readGaps(ctx, pool)
}

// chores makes partitions ahead, and drops those that retention has done with.
func (e *Exporter) chores(ctx context.Context, t *tenure, now time.Time) error {
	bound, cancel := e.bounded(ctx)
	defer cancel()
	if err := e.needMonths(bound, t, monthsFrom(now)); err != nil {
		return err
	}
	if e.config.Retention == 0 {
		return nil
	}
	pruned, err := e.prune(ctx, t, now.Add(-e.config.Retention), false)
	for _, m := range pruned {
		e.log.Info("dropped a month of routine facts from the database", "month", m.Month.Format("2006-01"), "facts", m.Facts, "bytes", m.Bytes)
		delete(t.months, month(m.Month))
	}
	return err
}

func (e *Exporter) needMonths(ctx context.Context, t *tenure, months []month) error {
	var missing []month
	for _, m := range months {
		if !t.months[m] {
			missing = append(missing, m)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := ensureMonths(ctx, t.pool, missing); err != nil {
		return plain("make room for a month", err)
	}
	for _, m := range missing {
		t.months[m] = true
	}
	return nil
}

// Prune drops the months of routine facts that ended before a time, or, if it is dry,
// only says which it would drop. Facts of the audit trail stay. An error that wraps
// ErrAway says that there is no database to ask; what was dropped before an error is
// said.
func (e *Exporter) Prune(ctx context.Context, before time.Time, dry bool) (pruned []PrunedMonth, err error) {
	err = e.use(ctx, func(ctx context.Context, t *tenure) error {
		pruned, err = e.prune(ctx, t, before, dry)
		return err
	})
	return pruned, err
}

func (e *Exporter) prune(ctx context.Context, t *tenure, before time.Time, dry bool) ([]PrunedMonth, error) {
	months, err := outdated(ctx, t.pool, before)
	if err != nil {
		return nil, plain("look for old months", err)
	}
	if dry {
		return months, nil
	}
	for i, m := range months {
		if err := month(m.Month).drop(ctx, t.pool); err != nil {
			return months[:i], plain("drop a month", err)
		}
	}
	return months, nil
}

// use lends the pool to a reader, as long as the leadership lasts.
func (e *Exporter) use(ctx context.Context, fn func(ctx context.Context, t *tenure) error) error {
	e.mu.Lock()
	t, attached, reason := e.tenure, e.status.Attached, e.status.Err
	e.mu.Unlock()
	switch {
	case t == nil:
		return &awayError{errors.New("this node does not lead, and only the leader has the database")}
	case !attached && reason != nil:
		return &awayError{reason}
	case !attached:
		return &awayError{errors.New("this node has just begun to connect to the database")}
	}
	ctx, cancel := e.bounded(ctx)
	defer cancel()
	stop := context.AfterFunc(t.ctx, cancel)
	defer stop()
	if err := fn(ctx, t); err != nil {
		return &awayError{plain("read the history", err)}
	}
	return nil
}

// awayError is ErrAway with its reason.
type awayError struct{ reason error }

func (e *awayError) Error() string   { return ErrAway.Error() + ": " + e.reason.Error() }
func (e *awayError) Unwrap() []error { return []error{ErrAway, e.reason} }

// bounded gives up when the server has not ended a statement by itself.
func (e *Exporter) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, e.config.StatementTimeout+grace)
}
