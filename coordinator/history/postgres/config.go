package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/settings"
)

// Journal is where the facts come from. *history.Journal is one.
type Journal interface {
	Through() uint64
	Batch(asked history.Gap, limit, size int) (*history.Batch, error)
	Backlog(after uint64, bound int) (history.Backlog, error)
}

var _ Journal = (*history.Journal)(nil)

// Config of an Exporter. URL, ClusterID, Applied, Journal and Log are required.
type Config struct {
	// URL names the database. It is a secret: it may have a password in it.
	URL settings.Secret
	// MaxConns bounds the connections; 0 is DefaultMaxConns.
	MaxConns int
	// StatementTimeout bounds each statement, on the server too; 0 is
	// DefaultStatementTimeout.
	StatementTimeout time.Duration
	// Retention is how long routine facts stay, by their own time and in whole
	// months; 0 is for ever. Facts of the audit trail stay.
	Retention time.Duration

	// ClusterID names the cluster; it is "" while that is not known yet.
	ClusterID func() string
	// Applied is the newest log index that is applied on this node. While it leads,
	// nothing can have been exported beyond.
	Applied func() uint64
	Journal Journal
	Log     *slog.Logger
	Now     func() time.Time // nil is time.Now

	// In tests, dial replaces the way to the server, pace the pause between two looks
	// at the journal, and retry that after failures.
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	pace  time.Duration
	retry backoff.Policy
}

// Defaults of a Config.
const (
	DefaultMaxConns         = 50
	DefaultStatementTimeout = 30 * time.Second
)

const (
	connectTimeout = 10 * time.Second
	// lockTimeout bounds waiting for a lock: whoever waits for one keeps others from
	// it.
	lockTimeout = 5 * time.Second
	// idleTime and lifetime bound connections, so that a pool gives back what a peak
	// took, and so that connections follow a server that has moved.
	idleTime       = 5 * time.Minute
	lifetime       = time.Hour
	lifetimeJitter = 10 * time.Minute
	healthCheck    = time.Minute
	// grace is what a statement has beyond the server's own timeout before the
	// connection is given up.
	grace = 5 * time.Second

	defaultPace = time.Second
)

// CheckURL refuses a connection string that cannot be used. Its error does not hold
// the string.
func CheckURL(url settings.Secret) error {
	if _, err := pgxpool.ParseConfig(url.Reveal()); err != nil {
		return urlError(err)
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.MaxConns == 0 {
		c.MaxConns = DefaultMaxConns
	}
	if c.StatementTimeout == 0 {
		c.StatementTimeout = DefaultStatementTimeout
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.pace == 0 {
		c.pace = defaultPace
	}
	if c.retry == (backoff.Policy{}) {
		c.retry = retry
	}
	return c
}

func (c Config) validate() error {
	var problems []error
	require := func(ok bool, problem string) {
		if !ok {
			problems = append(problems, errors.New(problem))
		}
	}
	require(c.URL.IsSet(), "URL is missing")
	require(c.ClusterID != nil, "ClusterID is missing")
	require(c.Applied != nil, "Applied is missing")
	require(c.Journal != nil, "Journal is missing")
	require(c.Log != nil, "Log is missing")
	require(c.MaxConns >= minConns && c.MaxConns <= maxConns, fmt.Sprintf("MaxConns %d is not %d to %d", c.MaxConns, minConns, maxConns))
	require(c.StatementTimeout >= time.Second, fmt.Sprintf("StatementTimeout %v is below 1 s", c.StatementTimeout))
	require(c.Retention >= 0, fmt.Sprintf("Retention %v is negative", c.Retention))
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("database configuration: %w", err)
	}
	return nil
}

// An export needs a connection, and so do a reader and the migrations beside it.
const (
	minConns = 3
	maxConns = 10_000
)

// poolConfig is what connections are made with.
func (c Config) poolConfig() (*pgxpool.Config, error) {
	pool, err := pgxpool.ParseConfig(c.URL.Reveal())
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", urlError(err))
	}
	pool.MaxConns = int32(c.MaxConns) // bounded by validate
	pool.MinConns, pool.MinIdleConns = 0, 0
	pool.MaxConnIdleTime, pool.MaxConnLifetime, pool.MaxConnLifetimeJitter = idleTime, lifetime, lifetimeJitter
	pool.HealthCheckPeriod, pool.PingTimeout = healthCheck, connectTimeout
	conn := pool.ConnConfig
	conn.ConnectTimeout = connectTimeout
	// The server ends what this side has lost sight of.
	for name, value := range map[string]string{
		"application_name":                    "certctl",
		"statement_timeout":                   milliseconds(c.StatementTimeout),
		"lock_timeout":                        milliseconds(lockTimeout),
		"idle_in_transaction_session_timeout": milliseconds(c.StatementTimeout + grace),
		"TimeZone":                            "UTC",
	} {
		conn.RuntimeParams[name] = value
	}
	if c.dial != nil {
		conn.DialFunc = c.dial
	}
	return pool, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
