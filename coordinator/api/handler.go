package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/report"
)

// Node is the node of the cluster that answers. *cluster.Node is one.
type Node interface {
	State() *fleet.State
	Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error)
	WaitIndex(ctx context.Context, index uint64) error
	Restore(ctx context.Context, r cluster.Restoration) error
	Status() cluster.Status
	ID() string
	// ConsistentIndex is the index up to which a state has every change that was
	// acknowledged before the call, by whichever node.
	ConsistentIndex(ctx context.Context) (uint64, error)
	Members() (members []cluster.Member, configurationIndex uint64)
	RemoveMember(ctx context.Context, id string, prevIndex uint64, actor string) error
	Transfer(ctx context.Context, id string) error
	Ready() cluster.Readiness
	Leader() (id, address string)
}

// Journal is where the facts are. *history.Journal is one.
type Journal interface {
	history.Reader
	Read(q history.Query) (facts []fleet.Fact, next string, err error)
	Status() (history.Status, error)
	// Edition names what there is to be read.
	Edition(auditOnly bool) (string, error)
}

// Presence knows when agents were last heard of. It may know more than the
// replicated state, which is asked too: the later time counts.
type Presence interface {
	LastSeen(agentID string) (time.Time, bool)
}

// Config is what the API is made of. Everything but Presence, Database, Issuers, Orders, Gate, Pass,
// Listening, Now, Keep and Pages is required. The fields are used by any number of goroutines at the same time.
type Config struct {
	Node     Node
	Journal  Journal
	Presence Presence // nil: the replicated state is all that is known
	Database Database // nil: none is configured, and the journal is the history
	// Pause is how long agents are told to wait between syncs, at present. An
	// agent that was silent for several of them counts as cut off.
	Pause func() time.Duration
	// Authority is the built-in CA.
	Authority Authority
	// Cluster asks the members of the cluster how they stand.
	Cluster Cluster
	// Departing takes this node out of the cluster.
	Departing Departing
	// Issuers are the accounts at authorities, and Orders is what works on orders there;
	// nil: there are none.
	Issuers Issuers
	Orders  Orders
	// Gate bounds how often tokens are used, and how often strangers come; nil bounds
	// nothing.
	Gate *Gate
	// Pass hands a request on to the node that leads, and to here if that is this one.
	// nil: this node answers all.
	Pass func(here http.Handler) http.Handler
	// EnrollmentURL is the https URL by which new agents reach the coordinator.
	EnrollmentURL string
	// Listening is the address that the coordinator's port is bound to, of which
	// makers of tokens are warned if no other host can reach it. nil: unknown.
	Listening net.Addr
	Log       *slog.Logger
	// Now is the clock that health, expiry and tokens are judged by; nil is
	// time.Now.
	Now func() time.Time
	// Keep is how long a count of the fleet is good that took so long; nil limits
	// what counting costs.
	Keep func(took time.Duration) time.Duration
	// Pages is how many octets of answers are kept ready for those who ask next; 0
	// leaves it to this package, and less keeps none.
	Pages int64
}

func (c Config) validate() error {
	var problems []error
	require := func(ok bool, problem string) {
		if !ok {
			problems = append(problems, errors.New(problem))
		}
	}
	require(c.Node != nil, "Node is missing")
	require(c.Journal != nil, "Journal is missing")
	require(c.Authority != nil, "Authority is missing")
	require(c.Cluster != nil, "Cluster is missing")
	require(c.Departing != nil, "Departing is missing")
	require(c.Pause != nil, "Pause is missing")
	require(c.Log != nil, "Log is missing")
	u, err := url.Parse(c.EnrollmentURL)
	require(err == nil && u.Scheme == "https" && u.Host != "", fmt.Sprintf("EnrollmentURL %q is not an https URL", c.EnrollmentURL))
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("API configuration: %w", err)
	}
	return nil
}

// server is the API's state: none of its own but what was counted and answered last.
type server struct {
	Config
	tallies     tallies
	connections connections
	pages       pages
	items       *items // nil keeps none
	reports     report.Counter
	told        atomic.Pointer[toldNodes]
	saving      sync.Mutex // held while a snapshot is sent
	restoring   sync.Mutex // held while one is restored
	diagnosing  sync.Mutex // held while a diagnosis is made
}

// New returns the handler of /api/v1/, /openapi.json and /openapi.yaml. It
// starts nothing.
//
// The header X-Request-ID of the request is its id; where it has none, the
// handler makes one. What a client sent there is for the caller to check.
func New(config Config) (http.Handler, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Issuers == nil {
		config.Issuers = noIssuers{}
	}
	if config.Orders == nil {
		config.Orders = noOrders{}
	}
	if config.Gate == nil {
		config.Gate = openGate()
	}
	if config.Keep == nil {
		config.Keep = keepFor
	}
	if err := config.validate(); err != nil {
		return nil, err
	}
	if config.Pages == 0 {
		config.Pages = keptPages
	}
	s := &server{Config: config, pages: pages{room: config.Pages}}
	if config.Pages > 0 {
		s.items = new(items)
	}
	mux := http.NewServeMux()
	api := s.register(mux)
	if err := serveDocument(mux, api.OpenAPI()); err != nil {
		return nil, err
	}
	handler := finish(mux)
	if config.Pass != nil {
		// Strangers take no places on the way to the leader.
		passed := config.Gate.guard(config.Node.State, config.Now, fleet.RoleViewer, true, config.Pass(handler))
		handler = passing(mux, api.OpenAPI(), handler, passed)
	}
	return named(handler), nil
}

// register adds every operation to mux.
func (s *server) register(mux *http.ServeMux) huma.API {
	api := humago.New(mux, humaConfig())
	api.UseMiddleware(s.authenticate(api))
	s.registerStatus(api)
	s.registerAgents(api)
	s.registerCertificates(api)
	s.registerAssignments(api)
	s.registerRenewals(api)
	s.registerOrders(api)
	s.registerValidations(api)
	s.registerJobs(api)
	s.registerReports(api)
	s.registerDays(api)
	s.registerHostReport(api)
	s.registerEnrollmentTokens(api)
	s.registerAPITokens(api)
	s.registerCA(api)
	s.registerIssuers(api)
	s.registerAudit(api)
	s.registerHistory(api)
	s.registerSnapshots(api)
	s.registerCluster(api)
	extensible(api.OpenAPI())
	describeScopes(api.OpenAPI())
	describeFields(api.OpenAPI())
	describeIndex(api.OpenAPI())
	describeTags(api.OpenAPI())
	describeCSV(api.OpenAPI())
	return api
}

// lastSeen is the last sign of life of an agent that this node knows of: its enrolment
// is one.
func (s *server) lastSeen(v *fleet.View, agent *fleet.Agent) time.Time {
	seen := replicatedSign(v, agent)
	if s.Presence != nil {
		if at, ok := s.Presence.LastSeen(agent.ID); ok && at.After(seen) {
			seen = at
		}
	}
	return seen
}
