package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/enroll"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

// DefaultTimeout bounds one request.
const DefaultTimeout = 30 * time.Second

// Config of a Client.
type Config struct {
	Store *store.Store
	// Keys holds the identity's keys.
	Keys enroll.Keys
	// Servers are further https URLs by which the coordinator may be reached, beside
	// those of the enrolment.
	Servers []string
	// Host is what the agent says of its host; SafeUntil, NotSafe and
	// EventsDropped are filled in from the store.
	Host wire.HostReport
	// Warnings, when set, are findings about the host that a person has to look
	// at. They are clipped to what a report takes.
	Warnings func() ([]string, error)
	// Timeout bounds one request; 0 is DefaultTimeout.
	Timeout time.Duration
	// OnResult, when set, is called with the name of a certificate when the
	// result of its order has been stored. It must return at once.
	OnResult func(certificate string)
	// OnDesired, when set, is called when another desired state has been stored,
	// and OnCommands when commands have been accepted. They must return at once.
	OnDesired  func()
	OnCommands func()
	// OnEnrolled, when set, is called when the host has been enrolled, or
	// enrolled anew, while the agent ran. It must return at once.
	OnEnrolled func()
	// Clock is the time that the connection and the reports go by, and learns the
	// coordinator's; nil is the wall clock.
	Clock *clock.Clock
	// Dial connects to a server; nil is the network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Log  *slog.Logger
}

// Client is the agent's side of sync. All methods but Run may be called from
// any goroutine, before, during and after Run.
type Client struct {
	cfg        Config
	store      *store.Store
	identities identities
	log        *slog.Logger
	dial       func(ctx context.Context, network, address string) (net.Conn, error) // nil is the network

	kick chan struct{} // something new; holds at most one
	urge chan struct{} // something new that a person waits for; holds at most one

	mu      sync.Mutex // guards state, results and made
	state   State
	made    Made
	results chan struct{} // closed and replaced when a result was stored

	// The rest belongs to the goroutine of Run.

	link *link           // how the coordinator is reached; nil while not enrolled
	ack  store.SyncState // what is true now
	kept store.SyncState // what the store has of it

	bootID     string
	sequence   uint64
	cursor     uint64    // how far the full inventory under way has come
	unanswered *exchange // sent, and its fate unknown
	limits     limits
	placed     map[string]bool // orders that the coordinator has confirmed in this run
	turn       string          // last confirmed order that was repeated
	ackedEvent uint64
	answeredBy string // the server that answered the last sync

	began        time.Time // of the last round
	failures     int       // in a row
	renewAttempt int       // failed renewals of the identity in a row
	renewAfter   time.Time // when the next one may be tried
	trustAfter   time.Time // when the trust chain may be asked for again
	staleAt      time.Time // when a sequence was last stale
	complained   bool      // being cut off has been logged
	reportedSkew int64     // seconds, of the wall clock, as the coordinator knows it
	reported     string    // what the coordinator was last told of assignments
}

// identities is the part of the store that faults are put into in tests.
type identities interface {
	Identity() (*store.Identity, error)
	UpdateIdentity(fn func(current *store.Identity) (*store.Identity, error), events ...wire.Event) error
}

// New checks cfg.
func New(cfg Config) (*Client, error) {
	switch {
	case cfg.Store == nil:
		return nil, errors.New("sync: Store is missing")
	case cfg.Keys == nil:
		return nil, errors.New("sync: Keys is missing")
	case cfg.Log == nil:
		return nil, errors.New("sync: Log is missing")
	case cfg.Timeout < 0:
		return nil, fmt.Errorf("sync: Timeout %v is negative; give a positive one, or 0 for %v", cfg.Timeout, DefaultTimeout)
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	cfg.Servers = slices.Clone(cfg.Servers)
	for i, text := range cfg.Servers {
		server, err := wire.ParseServer(text)
		if err != nil {
			return nil, fmt.Errorf("sync: Servers[%d]: %w", i, err)
		}
		cfg.Servers[i] = server
	}
	return &Client{
		cfg: cfg, store: cfg.Store, identities: cfg.Store, log: cfg.Log, dial: cfg.Dial,
		kick: make(chan struct{}, 1), urge: make(chan struct{}, 1),
		state:   State{Standing: Starting},
		results: make(chan struct{}),
		bootID:  cfg.Store.BootID(),
		limits:  fullLimits,
		placed:  make(map[string]bool),
	}, nil
}

// Kick says that there is something new: facts, a changed certificate, an
// identity. Kicks that come close together make one sync. While the coordinator
// is out of reach a kick does not shorten the pause, unless the host was
// enrolled anew: everything goes with the next attempt anyway.
func (c *Client) Kick() { signal(c.kick) }

// Urge is Kick for an order that somebody waits for: while the coordinator is
// out of reach it is good for one attempt, unless the coordinator has said when
// to come back.
func (c *Client) Urge() { signal(c.urge) }

func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default: // one is waiting already, and will do
	}
}

// Results returns a channel that is closed when the next result of an order has
// been stored. Who waits for one takes the channel first and looks into the
// store then.
func (c *Client) Results() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.results
}

// Run syncs until ctx is done, and then returns nil. While the host is not
// enrolled it waits for a Kick. It returns an error only when the store can no
// longer be trusted to keep what it is given.
func (c *Client) Run(ctx context.Context) error {
	stored, err := c.store.SyncState()
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	c.ack, c.kept = stored, stored
	c.update(func(s *State) { s.remember(stored) })
	defer c.unlink()
	for {
		pause, err := c.round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("sync: %w", err)
		}
		if c.wait(ctx, pause); ctx.Err() != nil {
			return nil
		}
	}
}

// fatal reports whether an error of the store ends the client. Others, such as
// a full disk, may pass.
func fatal(err error) bool {
	return errors.Is(err, store.ErrStateUnknown) || errors.Is(err, store.ErrDamaged)
}
