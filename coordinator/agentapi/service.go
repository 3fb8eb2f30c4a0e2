package agentapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/desired"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/pass"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// requestPatience bounds the work on one request once its body has arrived,
// however long that took.
const requestPatience = 20 * time.Second

// unavailablePause is what agents are told to wait for a leader, or for the CA
// to be unsealed.
const unavailablePause = 2 * time.Second

// Node is the replicated state; *cluster.Node is one, and says what its methods
// promise.
type Node interface {
	State() *fleet.State
	Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error)
	IsLeader() bool
	WaitIndex(ctx context.Context, index uint64) error
}

// Config of a Service. Node, CA, Log, SyncInterval and SyncTargetRate are required.
type Config struct {
	Node Node
	CA   *ca.CA
	Log  *slog.Logger

	// SyncInterval is how long an agent with nothing new pauses between syncs,
	// from wire.MinPause to wire.MaxPause.
	SyncInterval time.Duration
	// SyncTargetRate is how many syncs per second the whole fleet is paced to;
	// above zero. A fleet too large for the interval gets a longer one.
	SyncTargetRate int

	// Leader is the way to the node that leads, for the requests that it alone
	// answers. Nil is a cluster of one: who comes while it does not lead is told to
	// come back. MaxPassed is how many requests may be on that way at a time; 0 is
	// pass.DefaultMaxInFlight.
	Leader    pass.Leader
	MaxPassed int

	// Reserved are the coordinator's own names, for which no agent gets a
	// certificate: with one it could pose as the coordinator to the others.
	Reserved pki.Names
	// Known reports whether the coordinator has an issuer of a name besides the
	// built-in CA; nil is none. Placed is called after an order at one of them was
	// stored; nil is nobody. Both return at once.
	Known  func(issuer string) bool
	Placed func()
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

func (c Config) validate() error {
	switch {
	case c.Node == nil:
		return errors.New("agent interface: Node is missing")
	case c.CA == nil:
		return errors.New("agent interface: CA is missing")
	case c.Log == nil:
		return errors.New("agent interface: Log is missing")
	case c.SyncInterval < wire.MinPause || c.SyncInterval > wire.MaxPause:
		return fmt.Errorf("agent interface: SyncInterval %v is not between %v and %v", c.SyncInterval, wire.MinPause, wire.MaxPause)
	case c.SyncTargetRate <= 0:
		return fmt.Errorf("agent interface: SyncTargetRate %d is not positive", c.SyncTargetRate)
	}
	return nil
}

// Service is the agents' side of the coordinator. It is an http.Handler for the
// paths of package wire and safe for concurrent use.
type Service struct {
	node     Node
	ca       *ca.CA
	log      *slog.Logger
	interval time.Duration
	rate     int
	reserved pki.Names
	now      func() time.Time
	passer   *pass.Passer // nil in a cluster of one

	counters  counters
	sessions  sessions
	presence  presence
	planner   desired.Planner
	campaigns campaigns
	nodes     nodes
	known     func(issuer string) bool
	brokered  func()        // an order at another issuer than the built-in CA was stored
	placed    chan struct{} // one at the built-in CA was; holds one value at most
	patience  time.Duration // of a sync, with the orders that it placed
}

// New checks the configuration.
func New(c Config) (*Service, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Known == nil {
		c.Known = func(string) bool { return false }
	}
	if c.Placed == nil {
		c.Placed = func() {}
	}
	var passer *pass.Passer
	if c.Leader != nil {
		var err error
		passer, err = pass.New(pass.Config{Leader: c.Leader, Leads: c.Node.IsLeader, MaxInFlight: c.MaxPassed, Log: c.Log})
		if err != nil {
			return nil, fmt.Errorf("agent interface: %w", err)
		}
	}
	return &Service{
		node: c.Node, ca: c.CA, log: c.Log, interval: c.SyncInterval, rate: c.SyncTargetRate, passer: passer,
		reserved: c.Reserved, known: c.Known, brokered: c.Placed, now: c.Now, placed: make(chan struct{}, 1), patience: orderPatience,
	}, nil
}

// Leadership is where the leader's work is registered; *cluster.Node is one.
type Leadership interface {
	Lead(name string, work func(ctx context.Context) error)
}

// Lead registers what the service does while this node leads. It is called
// before the node runs.
func (s *Service) Lead(node Leadership) {
	node.Lead("orders at the built-in CA", s.workOrders)
	node.Lead("last signs of life", s.flushPresence)
}

// ServeHTTP implements http.Handler.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var answer func(*http.Request) (any, error)
	switch r.URL.Path {
	case wire.EnrollPath:
		answer = s.enroll
	case wire.SyncPath:
		answer = s.sync
	case wire.IdentityPath:
		answer = s.renewIdentity
	case wire.TrustPath:
		answer = s.trust
	default:
		problem.Write(w, r, problem.New(wire.CodeNotFound, "", "there is nothing at "+r.URL.Path, "check the URL and the version of the agent"))
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		p := problem.New(wire.CodeInvalid, "", r.Method+" is not supported here", "use POST")
		p.Status, p.Title = http.StatusMethodNotAllowed, http.StatusText(http.StatusMethodNotAllowed)
		problem.Write(w, r, p)
		return
	}
	if r = s.toLeader(w, r); r == nil {
		return // answered by the leader
	}
	body, err := answer(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		s.refuse(w, r, fmt.Errorf("encode the answer: %w", err))
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	_, _ = w.Write(encoded) // the agent may be gone, and asks again then
}

func (s *Service) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p, defect := problem.Of(err)
	if r.URL.Path == wire.SyncPath {
		s.counters.refuse(p.Code)
	}
	attrs := []any{
		"path", r.URL.Path, "code", p.Code, "field", p.Field, "remote", r.RemoteAddr,
		"request_id", r.Header.Get(problem.RequestIDHeader), "err", err,
	}
	if shown, ok := errors.AsType[*tokenError](err); ok {
		attrs = append(attrs, "token_id", shown.id)
	}
	switch {
	case defect:
		s.log.Error("request of an agent failed", attrs...)
	case r.URL.Path == wire.EnrollPath && p.Status < http.StatusInternalServerError:
		s.log.Warn("enrolment refused", attrs...)
	default:
		s.log.Debug("request of an agent refused", attrs...)
	}
	problem.Write(w, r, p)
}

// leading refuses requests that only the leader can answer.
func (s *Service) leading() error {
	if !s.node.IsLeader() {
		return problem.Later(wire.CodeUnavailable, "this coordinator does not lead its cluster at the moment", unavailablePause)
	}
	return nil
}

// propose stores one command and reads its outcome, which may be nil if the
// command has none.
func (s *Service) propose(ctx context.Context, payload fleet.Payload, outcome any) error {
	command, err := fleet.NewCommand(s.now(), payload)
	if err != nil {
		return err
	}
	results, err := s.node.Propose(ctx, command)
	if err != nil {
		return err
	}
	return read(results[0], outcome)
}

// preview is propose without the change.
func (s *Service) preview(payload fleet.Payload, outcome any) error {
	command, err := fleet.NewCommand(s.now(), payload)
	if err != nil {
		return err
	}
	result, err := s.node.State().Preview(command)
	if err != nil {
		return err
	}
	return read(result, outcome)
}

func read(result fleet.Result, outcome any) error {
	if outcome == nil {
		return result.Err()
	}
	return result.Decode(outcome)
}
