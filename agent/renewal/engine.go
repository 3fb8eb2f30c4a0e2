package renewal

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Defaults of Config.
const (
	DefaultConcurrency    = 25
	DefaultTickInterval   = 5 * time.Second
	DefaultTickBudget     = 2 * time.Minute
	DefaultIssueTimeout   = 5 * time.Minute
	DefaultDeployTimeout  = 5 * time.Minute
	DefaultVerifyInterval = 24 * time.Hour
)

// Store is what the engine needs of the agent's store, with the guarantees of
// [store.Store]: Update is one synced transaction, a nil error means that it is
// on disk, an error of its function means that nothing was stored and is
// returned as it is, and any other error means that what is on disk is unknown,
// unless the disk was full.
type Store interface {
	Update(name string, fn func(tx *store.CertificateTx) error) error
	Certificate(name string) (*store.Certificate, bool, error)
	// UpdateAll is Update for several names in one transaction.
	UpdateAll(names []string, fn func(tx *store.CertificateTx) error) error
	// Names lists the certificates that have a record.
	Names() ([]string, error)
	// Retire sets records aside, Restore takes them back, Forget deletes what was
	// set aside of a certificate.
	Retire(names []string, at time.Time, fact func(*store.Certificate) wire.Event) error
	Restore(names []string) error
	Removed() ([]store.Removed, error)
	Forget(name string, facts ...wire.Event) (*store.Removed, error)
	Due(now time.Time, limit int) ([]string, error)
	KeyIDs() (map[string]bool, error)
	// CheckRoom returns nil if the result of an order could be stored just now.
	CheckRoom() error
	// Turns is what SaveTurns was given last, by issuer.
	Turns() (map[string]store.Turns, error)
	SaveTurns(all map[string]store.Turns) error
}

// Keys is the directory of private keys, with the guarantees of [keys.Dir]:
// Create returns only a key whose new file is on disk, no file is ever
// overwritten, and a key that is not there gives keys.ErrNotFound.
type Keys interface {
	Create(alg pki.KeyAlgorithm) (id string, key crypto.Signer, err error)
	Load(id string) (crypto.Signer, error)
	Remove(id string) error
	Sweeper
}

// Sweeper is a directory of private keys as far as its orphans go, with the
// guarantees of [keys.Dir].
type Sweeper interface {
	Sweep(referenced map[string]bool, olderThan time.Duration, now time.Time) (removed []string, err error)
}

// Config is what an Engine is made of. Store, Keys, ScratchDir and Log are
// required; zero values of the rest stand for the defaults.
type Config struct {
	Store Store
	// Keys may hold keys of others too, as long as Store.KeyIDs names them: a
	// file that it does not name is an orphan and is removed once it is an hour
	// old.
	Keys Keys
	// Swept are the other key directories of the agent, of its identity and of
	// accounts at authorities: their orphans are removed with those of Keys.
	Swept []Sweeper
	// Managed is the whole list, until Reconfigure puts another one in its place.
	// Certificates that are not in it are set aside when Run starts.
	Managed []Managed
	// ScratchDir is an absolute path of a directory for the targets' snapshots,
	// which hold keys. The engine creates it and owns everything in it.
	ScratchDir string
	// Pace holds until SetPace gives another one.
	Pace
	// DeployTimeout bounds one call of a target that does not ask for more.
	DeployTimeout time.Duration
	// VerifyInterval is how often what is in service is compared with what
	// should be; it also happens after each start.
	VerifyInterval time.Duration
	Log            *slog.Logger
	// Count, when set, is told how each renewal and each attempt ended, and of
	// which issuer, after that was stored. It returns at once and is called from
	// several goroutines.
	Count func(issuer string, outcome Outcome)
	// Now is the time that everything is decided by; nil is the wall clock.
	Now func() time.Time
	// Wall is the clock that times of files are by; nil is Now.
	Wall func() time.Time
	// Confirm, when set, is asked before a step that costs something and is due
	// by nothing but the time. It may move Now, and returns false when the step
	// is to wait, which has to cost nothing: timeSource is that of the
	// certificate's issuer (issuer.Timekeeper), "" if it has none.
	Confirm func(ctx context.Context, timeSource string) bool
	// Rand returns numbers uniform in [0,1). It is called by one goroutine at a
	// time.
	Rand func() float64
	// Hook is called around each durable step of the engine itself, for tests of
	// crashes and failing disks; nil in production.
	Hook durable.Hook
}

// The engine's own durable steps; all others are its store's, its keys' and its
// targets'.
const (
	stepScratch       durable.Step = "renewal: create scratch directory"
	stepRemoveScratch durable.Step = "renewal: remove unused scratch directory"
)

var (
	_ Store = (*store.Store)(nil)
	_ Keys  = (*keys.Dir)(nil)
)

// Engine keeps the managed certificates valid. Its methods may be called from
// several goroutines.
type Engine struct {
	cfg   Config
	log   *slog.Logger
	slots *slots        // one for each certificate that is worked on
	turns *turns        // who may begin an order at which issuer
	wake  chan struct{} // holds at most one; asks for a look at the schedule
	jobs  sync.WaitGroup

	randMu sync.Mutex // guards calls of cfg.Rand

	mu     sync.Mutex // guards what follows
	pace   Pace
	recast context.CancelFunc // ends the present loop, for one of another pace; nil without one
	roster *roster            // what is configured now
	// applied is, by name, the configuration that a record was brought in line
	// with in this run. pending names those whose record is not in line with the
	// roster: nothing is begun for them before it is.
	applied map[string]*managed
	pending map[string]bool
	// followed is closed, and another one made, when records were brought in line.
	followed chan struct{}

	working  map[string]step
	looks    map[string]bool      // to be looked at; true if also woken
	verifyAt map[string]time.Time // when to verify again
	blocked  map[string]block
	// unusable counts, by id, how often in a row a new key could not be used.
	unusable map[string]int
	lastTick time.Time
	sweepAt  time.Time
	// forgetAt is when to look at what was set aside; forgetting says that this
	// is being done, and forgetAgain that it is to be done again after that.
	forgetAt    time.Time
	forgetting  bool
	forgetAgain bool

	onChange []func()
	stop     context.CancelCauseFunc // of Run; nil when it is not running
	fatal    error                   // what is on disk is unknown
}

// New checks the configuration and returns an engine that does nothing yet.
func New(cfg Config) (*Engine, error) {
	var problems []error
	if cfg.Store == nil || cfg.Keys == nil || cfg.Log == nil {
		problems = append(problems, errors.New("store, keys and log are all required"))
	}
	if !filepath.IsAbs(cfg.ScratchDir) {
		problems = append(problems, fmt.Errorf("scratch directory %q: must be an absolute path", cfg.ScratchDir))
	}
	pace, err := cfg.Pace.checked()
	if err != nil {
		problems = append(problems, err)
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		usual time.Duration
	}{
		{"deploy timeout", &cfg.DeployTimeout, DefaultDeployTimeout},
		{"verify interval", &cfg.VerifyInterval, DefaultVerifyInterval},
	} {
		problems = append(problems, orUsual(d.name, d.value, d.usual))
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Wall == nil {
		cfg.Wall = cfg.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	configured, err := newRoster(cfg.Managed)
	if err != nil {
		problems = append(problems, err)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("renewal: %w", err)
	}
	return &Engine{
		cfg: cfg, log: cfg.Log,
		slots:    newSlots(pace.Concurrency, issuerNames(configured.managed)),
		turns:    newTurns(cfg.Store),
		wake:     make(chan struct{}, 1),
		pace:     pace,
		roster:   configured,
		applied:  make(map[string]*managed),
		pending:  make(map[string]bool),
		followed: make(chan struct{}),
		working:  make(map[string]step),
		looks:    make(map[string]bool),
		verifyAt: make(map[string]time.Time),
		blocked:  make(map[string]block),
		unusable: make(map[string]int),
	}, nil
}

// Run renews until ctx is done, and returns nil after everything that it
// started has ended. It returns an error when what is on disk is unknown, and
// then must not be called again: a new process has to open the store afresh.
func (e *Engine) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	e.mu.Lock()
	e.stop = cancel
	fatal := e.fatal
	e.mu.Unlock()
	if fatal != nil {
		return fatal
	}
	if err := e.start(ctx); err != nil {
		return err
	}
	e.nudge()
	e.loop(ctx)
	e.jobs.Wait()

	e.mu.Lock()
	defer e.mu.Unlock()
	e.stop = nil
	return e.fatal
}

// now is in UTC, because it is stored. Monotonic time is left out: it stands
// still while a machine sleeps.
func (e *Engine) now() time.Time { return e.cfg.Now().Round(0).UTC() }

func (e *Engine) draw() float64 {
	e.randMu.Lock()
	defer e.randMu.Unlock()
	return e.cfg.Rand()
}

// nudge asks for a look at the schedule soon.
func (e *Engine) nudge() {
	select {
	case e.wake <- struct{}{}:
	default: // one is on its way
	}
}
