package orders

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
)

// Errors of what is asked of an Engine.
var (
	ErrUnknownIssuer = errors.New("this node has no such issuer in its settings")
	ErrUnknownOrder  = errors.New("there is no such order at an authority")
	ErrUnsupported   = errors.New("this authority does not offer that")
	ErrNotLeading    = errors.New("this node does not lead the cluster")
	// ErrNotIssued says that an order has no certificate.
	ErrNotIssued = errors.New("the order has no certificate that could be revoked")
)

// IssuerStatus is how an issuer stands, in the eyes of the node that leads; others
// know Name and Kind alone.
type IssuerStatus struct {
	Name string
	Kind string
	// Configured is false for one that orders name and this node's settings do not
	// have: its orders wait.
	Configured bool
	Leading    bool
	// Orders counts those whose time has come, or comes within seconds; Open the
	// questions that are under way.
	Orders int
	Open   int
	Next   time.Time // when the next one is due; zero for none within seconds
	// PausedUntil is set while nothing is asked because the authority said so (429),
	// or does not accept the credentials.
	PausedUntil time.Time
	PausedFor   string
	// CircuitUntil is set while nothing is asked because the authority fails.
	CircuitUntil  time.Time
	CircuitReason string
	Failures      int // in a row
	// Since this process began.
	LastError    string
	LastErrorAt  time.Time
	LastAnswerAt time.Time
}

// Status lists the issuers by name.
func (e *Engine) Status() []IssuerStatus {
	list := map[string]*IssuerStatus{}
	for name, a := range e.accounts {
		list[name] = a.status()
	}
	if t := e.current.Load(); t != nil {
		t.addTo(list)
	}
	out := make([]IssuerStatus, 0, len(list))
	for _, name := range slices.Sorted(maps.Keys(list)) {
		out = append(out, *list[name])
	}
	return out
}

func (a *account) status() *IssuerStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &IssuerStatus{
		Name: a.name, Kind: a.issuer.Kind, Configured: true,
		LastError: a.failure, LastErrorAt: a.failedAt, LastAnswerAt: a.answeredAt,
	}
}

func (t *term) addTo(list map[string]*IssuerStatus) {
	now := t.e.config.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, q := range t.queue.Status() {
		s := list[q.Name]
		s.Leading, s.Orders, s.Open, s.Failures = true, q.Orders, q.Open, q.Failures
		// What has changed is in the queue, and so are revocations: none is an order.
		if _, asked := t.told[q.Name]; asked {
			s.Orders--
		}
		for _, r := range t.revoking {
			if r.account == q.Name {
				s.Orders--
			}
		}
		s.Orders = max(s.Orders, 0)
		if !q.Next.After(now.Add(ahead)) {
			s.Next = q.Next
		}
		s.PausedUntil, s.PausedFor = q.PausedUntil, q.PausedFor
		if q.OpenUntil.After(now) {
			s.CircuitUntil, s.CircuitReason = q.OpenUntil, q.Reason
		}
	}
	for name, count := range t.strangers {
		if list[name] == nil {
			list[name] = &IssuerStatus{Name: name, Leading: true, Orders: count}
		}
	}
}

// Resume has an issuer be asked again at once, whatever it was not asked for: for new
// credentials, or an operator who knows more. It has to be called on the node that
// leads.
func (e *Engine) Resume(issuer string) error {
	if e.accounts[issuer] == nil {
		return fmt.Errorf("issuer %q: %w", issuer, ErrUnknownIssuer)
	}
	t := e.current.Load()
	if t == nil {
		return ErrNotLeading
	}
	a := e.accounts[issuer]
	a.mu.Lock()
	a.refusals = 0
	a.mu.Unlock()
	t.queue.Resume(issuer)
	return nil
}

// Test finds out whether an issuer's account can be used. It changes nothing there.
func (e *Engine) Test(ctx context.Context, issuer string) (*connector.Account, error) {
	a := e.accounts[issuer]
	if a == nil {
		return nil, fmt.Errorf("issuer %q: %w", issuer, ErrUnknownIssuer)
	}
	ctx, cancel := context.WithTimeout(ctx, a.callTimeout)
	defer cancel()
	account, err := a.issuer.Connector.Test(ctx)
	a.note(CallTest, err, false, e.config.Now())
	return account, err
}

// order looks up an order at an issuer of the settings.
func (e *Engine) order(agent, id string) (*fleet.Order, *account, error) {
	o, ok := e.config.Node.State().View().Order(agent, id)
	if !ok || !o.Brokered() || o.Brokering == nil {
		return nil, nil, fmt.Errorf("order %s of agent %s: %w", id, agent, ErrUnknownOrder)
	}
	a := e.accounts[o.Issuer]
	if a == nil {
		return nil, nil, fmt.Errorf("issuer %q: %w", o.Issuer, ErrUnknownIssuer)
	}
	return o, a, nil
}

// Validations tells how far the proof of control of an order's names is.
func (e *Engine) Validations(ctx context.Context, agent, id string) ([]connector.Validation, error) {
	o, a, err := e.order(agent, id)
	if err != nil {
		return nil, err
	}
	validator, ok := a.issuer.Connector.(connector.Validator)
	if !ok || o.Brokering.Handle.IsZero() || o.Ended() {
		return nil, fmt.Errorf("proofs of control of the names of order %s: %w", id, ErrUnsupported)
	}
	r, problem := newRequest(o, a.issuer.MaxValidity)
	if problem != nil {
		return nil, problem
	}
	ctx, cancel := context.WithTimeout(ctx, a.callTimeout)
	defer cancel()
	proofs, err := validator.Validations(ctx, r, handleOf(o.Brokering.Handle))
	a.note(CallValidations, err, false, e.config.Now())
	return proofs, err
}
