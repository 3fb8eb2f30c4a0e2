package orders

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
)

const (
	// defaultPlaceTimeout bounds one placement: gateways that wait for the CA behind
	// them answer within a minute or two.
	defaultPlaceTimeout = 150 * time.Second
	// defaultCallTimeout bounds every other question.
	defaultCallTimeout = time.Minute
)

// Node is the replicated state; *cluster.Node is one, and says what its methods
// promise.
type Node interface {
	State() *fleet.State
	Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error)
	VerifyLeader(ctx context.Context) error
	// Term is the term in which this node leads, 0 if it does not.
	Term() uint64
}

// Leadership is where the leader's work is registered; *cluster.Node is one.
type Leadership interface {
	Lead(name string, work func(ctx context.Context) error)
}

// Config of an Engine. Node, NodeID and Log are required.
type Config struct {
	Node   Node
	NodeID string
	// Issuers are the accounts at authorities, by the names that orders have for
	// them. Orders of others wait.
	Issuers map[string]Issuer
	Log     *slog.Logger

	// PlaceTimeout bounds the time from a claim to the end of its placement; 0 is
	// 150 s. It has to be the same on every node: how long a node may still be
	// sending follows from it.
	PlaceTimeout time.Duration
	// CallTimeout bounds every other question; 0 is a minute.
	CallTimeout time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Steady is how long some moment is past, by a clock that nobody sets; nil is that
	// of this process.
	Steady func() time.Duration
	// Random returns numbers uniform in [0,1); nil is math/rand/v2's.
	Random func() float64
}

// Issuer is one account at one authority. Connector is required; closing it is for its
// owner.
type Issuer struct {
	// Kind is what the authority is, such as "digicert", for people.
	Kind      string
	Connector connector.Connector
	Limits    asyncpoll.Limits
	// MaxWait is the budget of an order's polling; 0 is [asyncpoll.MaxWait]'s.
	MaxWait time.Duration
	// MaxValidity bounds the validity that is asked for; 0 does not.
	MaxValidity time.Duration
	// AgentOrders bounds the orders of one agent that are placed within AgentOrdersSpan;
	// 0 does not. Where an order may be repeated without harm, it is not looked at.
	AgentOrders int
	// Chain are issuing certificates, for authorities that hand out leaves alone.
	Chain []*x509.Certificate
	// FetchIssuers follows the caIssuers URL of a certificate whose issuer is missing.
	FetchIssuers bool
}

// Engine takes orders through authorities while its node leads. Its methods may be
// called from any goroutine.
type Engine struct {
	config   Config
	log      *slog.Logger
	accounts map[string]*account
	wake     chan struct{} // an order is new or has changed; holds one value at most
	current  atomic.Pointer[term]
}

// New checks c.
func New(c Config) (*Engine, error) {
	switch {
	case c.Node == nil:
		return nil, errors.New("orders: Node is missing")
	case c.NodeID == "":
		return nil, errors.New("orders: NodeID is missing")
	case c.Log == nil:
		return nil, errors.New("orders: Log is missing")
	case c.PlaceTimeout < 0 || c.CallTimeout < 0:
		return nil, fmt.Errorf("orders: timeouts %v and %v: expected 0 or more", c.PlaceTimeout, c.CallTimeout)
	}
	c.PlaceTimeout, c.CallTimeout = cmp.Or(c.PlaceTimeout, defaultPlaceTimeout), cmp.Or(c.CallTimeout, defaultCallTimeout)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Steady == nil {
		began := time.Now()
		c.Steady = func() time.Duration { return time.Since(began) }
	}
	if c.Random == nil {
		c.Random = rand.Float64
	}
	e := &Engine{config: c, log: c.Log, accounts: map[string]*account{}, wake: make(chan struct{}, 1)}
	for name, issuer := range c.Issuers {
		if issuer.Connector == nil {
			return nil, fmt.Errorf("orders: issuer %q: Connector is missing", name)
		}
		e.accounts[name] = newAccount(name, issuer, &e.config)
	}
	_, err := e.newQueue(nil) // its limits are checked here
	if err != nil {
		return nil, fmt.Errorf("orders: %w", err)
	}
	return e, nil
}

// Lead registers what the engine does while this node leads. It is called before the
// node runs.
func (e *Engine) Lead(node Leadership) { node.Lead("orders at authorities", e.work) }

// Wake has the engine look at once for orders that are new or have changed. Without,
// it notices them within about a second.
func (e *Engine) Wake() {
	select {
	case e.wake <- struct{}{}:
	default: // it has been told, and has not looked yet
	}
}

// Known reports whether this node's settings have an issuer, and what it is.
func (e *Engine) Known(name string) (kind string, ok bool) {
	a, ok := e.accounts[name]
	if !ok {
		return "", false
	}
	return a.issuer.Kind, true
}
