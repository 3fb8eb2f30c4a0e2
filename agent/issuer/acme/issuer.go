package acme

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/issuer"
)

// Identifier types (RFC 8555 section 9.7.7, RFC 8738 section 3).
const (
	identifierDNS = "dns"
	identifierIP  = "ip"
)

var (
	_ issuer.Issuer          = (*Issuer)(nil)
	_ issuer.RenewalInformer = (*Issuer)(nil)
	_ issuer.Revoker         = (*Issuer)(nil)
	_ issuer.Timekeeper      = (*Issuer)(nil)
)

// Issuer obtains certificates from one ACME server for one account. Safe for
// concurrent use. It has no goroutines but those of a running call.
type Issuer struct {
	config    Config
	presenter *counted
	base      *http.Transport
	http      http.RoundTripper // base, or what a test put around it
	log       *slog.Logger

	sessionTurn chan struct{} // capacity 1, guards current
	current     *session
	accounts    *accounts
	newOrders   *window
	challenges  chan struct{} // one slot for each authorization in work
}

// New checks the configuration. It neither reads the disk nor the network.
func New(config Config) (*Issuer, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	config.OrdersPer10s = cmp.Or(config.OrdersPer10s, DefaultOrdersPer10s)
	config.Challenges = cmp.Or(config.Challenges, DefaultChallenges)
	config.ValidationTimeout = cmp.Or(config.ValidationTimeout, DefaultValidationTimeout)
	log := config.Log.With("issuer", config.Name)
	if config.Listeners == nil {
		config.Listeners = NewListeners(log)
	}
	base := newTransport(config.RootCAs)
	i := &Issuer{
		config:      config,
		presenter:   newCounted(config.Solver.presenter(config.Listeners)),
		base:        base,
		http:        base,
		log:         log,
		sessionTurn: make(chan struct{}, 1),
		accounts:    newAccounts(&config, log),
		newOrders:   newWindow(config.OrdersPer10s, 10*time.Second),
		challenges:  make(chan struct{}, config.Challenges),
	}
	if config.Clock != nil {
		base.TLSClientConfig.Time = config.Clock.Now
		i.http = config.Clock.Transport(i.TimeSource(), clock.VerifyRoots(config.RootCAs), nil, base)
	}
	return i, nil
}

// Kind is "acme".
func (i *Issuer) Kind() string { return "acme" }

// Close drops idle connections to the CA. No call may be running.
func (i *Issuer) Close() { i.base.CloseIdleConnections() }

// Issue implements issuer.Issuer. Its state is saved after the order is placed,
// before it is finalized, and before the certificate is downloaded.
func (i *Issuer) Issue(ctx context.Context, order *issuer.Order) (*issuer.Issued, error) {
	if err := CheckNames(i.config.Solver, order.Names); err != nil {
		return nil, &issuer.Error{Class: issuer.ClassConfig, Err: err}
	}
	state, err := parseState(order.State)
	if err != nil {
		return nil, err
	}
	if state.Directory != "" && state.Directory != i.config.DirectoryURL {
		return nil, &issuer.Error{
			Class: issuer.ClassOrderGone,
			Err:   fmt.Errorf("the order is at %s and the issuer is now at %s", state.Directory, i.config.DirectoryURL),
		}
	}
	s, err := i.session(ctx)
	if err != nil {
		return nil, err
	}
	r := &issuance{
		Issuer: i, session: s, order: order, state: state,
		log: i.log.With("certificate", order.Certificate, "order_id", order.ID),
	}
	issued, err := r.withAccount(ctx)
	if err != nil {
		return nil, r.outcome(err)
	}
	return issued, nil
}

// outcome adds to a failure what is known about the certificate: once the CSR
// may have been sent, only the order's own status can say that none was issued.
func (r *issuance) outcome(err error) error {
	failure := issuer.Classify(err)
	if !r.state.Finalizing || failure.Class == issuer.ClassOrderGone || failure.Class == issuer.ClassRefused {
		return err
	}
	told := *failure
	told.Committed = true
	if told.Class == issuer.ClassRetry && r.state.Certificate == "" {
		told.Class = issuer.ClassUnknown
	}
	return &told
}

// withAccount runs the order with the account; when the CA does not know the
// account (any more), once more with the one that it then has.
func (r *issuance) withAccount(ctx context.Context) (*issuer.Issued, error) {
	for again := false; ; again = true {
		var err error
		if r.account, err = r.accounts.get(ctx, r.session); err != nil {
			return nil, err
		}
		issued, err := r.run(ctx)
		if err == nil {
			return issued, nil
		}
		var problem acme.Problem
		if again || !errors.As(err, &problem) || problem.Type != acme.ProblemTypeAccountDoesNotExist {
			return nil, err
		}
		r.log.Warn("the authority does not know the account; registering its key again", "account", r.account.Location)
		if err := r.accounts.forget(ctx, r.account.Location); err != nil {
			return nil, err
		}
	}
}
