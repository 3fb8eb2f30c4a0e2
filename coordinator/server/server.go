package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/runner"
	"github.com/certctl/certctl/shared/tlsutil"
)

// Time limits of connections. An agent keeps its connection from one sync to the
// next, which is a minute by default.
const (
	headerPatience = 10 * time.Second
	readPatience   = time.Minute
	writePatience  = 2 * time.Minute // counts from the request's header on
	idlePatience   = 3 * time.Minute
	// drainPatience is how long requests under way may take to end when the
	// server stops.
	drainPatience = 10 * time.Second
	maxHeader     = 32 << 10
	// retrySpan is the span within which clients without a pace of their own
	// are told to come back.
	retrySpan = 5 * time.Second
)

// Node is what /readyz reports on, and the replicated state, whose CA the server
// follows; *cluster.Node is one.
type Node interface {
	Ready() cluster.Readiness
	State() *fleet.State
}

// Agents is the handler of /agent/; *agentapi.Service is one. Period is how
// often an agent syncs at present: refused syncs are spread over it.
type Agents interface {
	http.Handler
	Period() time.Duration
}

// Config of a Server. All but Joins, Metrics, Observe, RootFile and Now are required.
type Config struct {
	// Listener is the port, from Listen. The server closes it.
	Listener net.Listener
	Names    Names
	Node     Node
	CA       *ca.CA
	Agents   Agents
	// API is the handler of /api/ and /openapi.json, /openapi.yaml.
	API http.Handler
	// Lists is the handler of the revocation lists, below revocation.Prefix.
	Lists http.Handler
	// Joins is the handler of join.Path, where new nodes ask to be let into the
	// cluster; nil: none are.
	Joins http.Handler
	// Metrics is the handler of /metrics, which judges who may see them; nil: there
	// are none. Observe, when set, is told of each request that was answered; it is
	// called by any number of goroutines.
	Metrics http.Handler
	Observe func(kind Kind, status int, took time.Duration)
	// RootFile is kept equal to the roots that clients have to trust, whenever
	// they change; "" keeps no such file.
	RootFile string
	// MaxInFlight is how many requests of one kind (enrolment, sync, API, revocation
	// lists) are worked on at a time.
	MaxInFlight int
	Log         *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

func (c Config) validate() error {
	switch {
	case c.Listener == nil:
		return errors.New("server: Listener is missing")
	case c.Names.All.IsZero():
		return errors.New("server: Names is empty; make it with NamesOf")
	case c.Node == nil, c.CA == nil, c.Agents == nil, c.API == nil, c.Lists == nil, c.Log == nil:
		return errors.New("server: one of Node, CA, Agents, API, Lists and Log is missing")
	case c.MaxInFlight <= 0:
		return fmt.Errorf("server: MaxInFlight %d is not positive", c.MaxInFlight)
	}
	return nil
}

// Server serves HTTPS, TLS 1.3 only. Its methods are safe for concurrent use.
type Server struct {
	listener    net.Listener
	certificate *certificate
	node        Node
	agents, api http.Handler
	lists       http.Handler
	joins       http.Handler // nil if there are none
	metrics     http.Handler // nil if there are none
	observe     func(kind Kind, status int, took time.Duration)
	log         *slog.Logger

	enrolments, syncs, reads, downloads *limit
}

// New checks the configuration.
func New(c Config) (*Server, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Observe == nil {
		c.Observe = func(Kind, int, time.Duration) {}
	}
	short := func() time.Duration { return retrySpan }
	return &Server{
		listener: c.Listener,
		certificate: &certificate{
			ca: c.CA, names: c.Names.All, now: c.Now, log: c.Log, rootFile: c.RootFile,
			stored: func() (*fleet.CA, bool) { return c.Node.State().View().CA() },
		},
		node: c.Node, agents: c.Agents, api: c.API, lists: c.Lists, log: c.Log,
		joins: c.Joins, metrics: c.Metrics, observe: c.Observe,
		enrolments: newLimit(c.MaxInFlight, short),
		syncs:      newLimit(c.MaxInFlight, c.Agents.Period),
		reads:      newLimit(c.MaxInFlight, short),
		downloads:  newLimit(c.MaxInFlight, short),
	}, nil
}

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx is done, then lets the requests under way end, and
// returns nil when all of them have. The CA must have been unsealed.
func (s *Server) Run(ctx context.Context) error {
	defer s.listener.Close()
	if err := s.certificate.begin(); err != nil {
		return err
	}
	// The certificates of clients are the handlers' to judge: a refusal in the
	// handshake could not say what to do.
	config, err := tlsutil.ServerConfig(tlsutil.ServerOptions{Source: &s.certificate.source})
	if err != nil {
		return err
	}
	config.ClientAuth = tls.RequestClientCert
	config.ClientCAs = s.certificate.ca.Identities() // a hint for browsers, which else ask their users
	return runner.Run(ctx,
		runner.Task{Name: "HTTPS server", Run: func(ctx context.Context) error { return s.serve(ctx, config) }},
		runner.Task{Name: "server certificate", Run: s.certificate.keep},
		runner.Task{Name: "certificate authority", Run: s.certificate.follow},
	)
}

func (s *Server) serve(ctx context.Context, config *tls.Config) error {
	server := &http.Server{
		Handler: s, TLSConfig: config,
		ReadHeaderTimeout: headerPatience, ReadTimeout: readPatience, WriteTimeout: writePatience, IdleTimeout: idlePatience,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // what clients do wrong
		// Requests under way outlive ctx, up to drainPatience.
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(s.listener, "", "") }()
	s.log.Info("listening", "address", s.Addr().String())
	select {
	case err := <-ended:
		return fmt.Errorf("serve HTTPS on %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainPatience)
	defer cancel()
	err := server.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("requests under way were cut off", "after", drainPatience)
		err = server.Close()
	}
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
