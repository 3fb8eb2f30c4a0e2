// Package coordinator obtains certificates through the agent's coordinator:
// from its built-in CA, or from an authority that only the coordinator talks
// to.
//
// An order is put into the store and travels with sync; its result comes back
// the same way and is stored before the coordinator forgets it. Issue waits for
// it for a little while and then says that the order is pending: the order goes
// on whether somebody waits or not. The result stays in the store until the
// next order of the same certificate begins, so that no crash on the way to the
// certificate's being in service loses it.
package coordinator

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	agentsync "github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Kind is what Issuer.Kind returns.
const Kind = "coordinator"

const (
	// DefaultPatience is how long Issue waits for a result.
	DefaultPatience = 20 * time.Second
	// retryAfter is when to look for the result again. A result that arrives
	// earlier wakes the renewal.
	retryAfter = 30 * time.Second
	// slowRetryAfter is the same for an order at an authority that takes its time: each
	// look costs a write, and a sync.
	slowRetryAfter = time.Hour
	// takenBackAfter is how long the next order waits when somebody at the coordinator
	// has ended this one: until an operator asks for it, or the one who did has had time
	// to say so in the configuration.
	takenBackAfter = 24 * time.Hour
)

// Orders keeps orders and their results; *store.Store does. What PutOrder was
// given survives a crash once it returns nil.
type Orders interface {
	PutOrder(order store.Order) error
	Order(id string) (*store.Order, bool, error)
	OrdersOf(certificate string) ([]store.Order, error)
	DeleteOrder(id string) error
}

// Courier carries orders to the coordinator; *sync.Client does.
type Courier interface {
	// Urge asks for an exchange soon.
	Urge()
	// Results returns a channel that is closed when the next result is stored.
	Results() <-chan struct{}
	State() agentsync.State
}

// Config of an Issuer.
type Config struct {
	Orders  Orders
	Courier Courier
	// Issuer is the name of the brokered issuer at the coordinator; "" is its
	// built-in CA.
	Issuer string
	// Patience is how long Issue waits for a result; 0 is DefaultPatience.
	Patience time.Duration
}

// Issuer implements issuer.Issuer. It is safe for concurrent use.
type Issuer struct {
	cfg Config
}

// New checks cfg.
func New(cfg Config) (*Issuer, error) {
	switch {
	case cfg.Orders == nil:
		return nil, errors.New("coordinator issuer: Orders is missing")
	case cfg.Courier == nil:
		return nil, errors.New("coordinator issuer: Courier is missing")
	case len(cfg.Issuer) > wire.MaxNameLen:
		return nil, fmt.Errorf("coordinator issuer: the name of the issuer has %d bytes; give at most %d", len(cfg.Issuer), wire.MaxNameLen)
	case cfg.Patience < 0:
		return nil, fmt.Errorf("coordinator issuer: Patience %v is negative", cfg.Patience)
	}
	cfg.Patience = cmp.Or(cfg.Patience, DefaultPatience)
	return &Issuer{cfg: cfg}, nil
}

// At is the issuer of another name at the same coordinator, which the caller has
// checked; see [Config.Issuer].
func (i *Issuer) At(name string) *Issuer {
	cfg := i.cfg
	cfg.Issuer = name
	return &Issuer{cfg: cfg}
}

// Kind implements issuer.Issuer.
func (*Issuer) Kind() string { return Kind }

var (
	_ issuer.Issuer     = (*Issuer)(nil)
	_ issuer.Timekeeper = (*Issuer)(nil)
)

// TimeSource implements issuer.Timekeeper.
func (*Issuer) TimeSource() string { return clock.Coordinator }

// state is what the renewal keeps for an order.
type state struct {
	OrderID string `json:"order_id"`
}

// Issue implements issuer.Issuer.
func (i *Issuer) Issue(ctx context.Context, order *issuer.Order) (*issuer.Issued, error) {
	if err := Refusal(i.cfg.Courier.State().Standing); err != nil {
		err.Committed = order.State != nil // it may have been sent before
		return nil, err
	}
	id, err := orderID(order)
	if err != nil {
		return nil, err
	}
	placed, err := i.place(order, id)
	if err != nil {
		return nil, err
	}
	if placed {
		i.cfg.Courier.Urge()
	}
	result, err := i.await(ctx, id)
	if err != nil {
		return nil, err
	}
	if result.State == wire.OrderRejected {
		return nil, rejected(result.Problem)
	}
	chain, err := pki.ParseChainPEM([]byte(result.Chain))
	if err != nil {
		return nil, &issuer.Error{
			Class: issuer.ClassOrderGone, Err: fmt.Errorf("the coordinator sent a chain that cannot be read: %w", err),
			Mend: "look at the coordinator's log",
		}
	}
	return &issuer.Issued{Chain: chain}, nil
}

// Forget drops what the store holds of the orders of a certificate that is no
// longer managed. An order that is still open is not taken back: its result is
// ignored when it comes.
func (i *Issuer) Forget(certificate string) error {
	orders, err := i.cfg.Orders.OrdersOf(certificate)
	if err != nil {
		return err
	}
	for _, o := range orders {
		if err := i.cfg.Orders.DeleteOrder(o.Request.ID); err != nil {
			return err
		}
	}
	return nil
}

// Refusal is what every order gets while there is no coordinator that could ever
// answer, by how the agent stands with it; nil if there is one.
func Refusal(standing agentsync.Standing) *issuer.Error {
	switch standing {
	case agentsync.NotEnrolled:
		return &issuer.Error{
			Class: issuer.ClassConfig, Err: errors.New("this host is not enrolled at a coordinator"),
			Mend: "enrol it with \"certctl-agent enroll\", or use another issuer",
		}
	case agentsync.Retired:
		return &issuer.Error{
			Class: issuer.ClassReenrol, Err: errors.New("the coordinator has retired this agent"),
			Mend: "if the host is wanted again, enrol it with a new token: \"certctl-agent enroll\"",
		}
	}
	return nil
}

// orderID is the id at the coordinator. It follows from the renewal's own, so
// that a saved state which was lost costs nothing.
func orderID(order *issuer.Order) (string, error) {
	if order.State != nil {
		var saved state
		if err := json.Unmarshal(order.State, &saved); err != nil || saved.OrderID == "" {
			return "", &issuer.Error{Class: issuer.ClassOrderGone, Err: errors.Join(errors.New("the saved state of the order cannot be read"), err)}
		}
		return saved.OrderID, nil
	}
	sum := sha256.Sum256([]byte("certctl coordinator order\x00" + order.Certificate + "\x00" + order.ID))
	id := hex.EncodeToString(sum[:16])
	saved, err := json.Marshal(state{OrderID: id})
	if err != nil {
		return "", fmt.Errorf("state of the order: %w", err)
	}
	if err := order.Save(saved); err != nil {
		return "", fmt.Errorf("save the order: %w", err)
	}
	return id, nil
}

// place puts the order into the store, unless it is there, and drops what
// earlier orders of the certificate have left: the renewal that they belonged
// to is over.
func (i *Issuer) place(order *issuer.Order, id string) (placed bool, err error) {
	_, known, err := i.cfg.Orders.Order(id)
	if known || err != nil {
		return false, err
	}
	if err := i.Forget(order.Certificate); err != nil {
		return false, err
	}
	// Made once and stored: a signature differs each time, and the coordinator
	// takes another request under the same id for a mistake.
	csr, err := pki.CreateCSR(order.Key, order.Names)
	if err != nil {
		return false, &issuer.Error{Class: issuer.ClassConfig, Err: err, Mend: "check names and key of the certificate"}
	}
	return true, i.cfg.Orders.PutOrder(store.Order{Request: wire.OrderRequest{
		ID: id, Certificate: order.Certificate, Issuer: i.cfg.Issuer, CSR: csr,
		ValiditySeconds: int64(order.Lifetime / time.Second),
	}})
}

// await waits for the result of an order, but not for a coordinator that cannot
// be reached: the slot is of more use to another certificate, and a result wakes
// the renewal whenever it comes.
func (i *Issuer) await(ctx context.Context, id string) (*wire.OrderResult, error) {
	timer := time.NewTimer(i.cfg.Patience)
	defer timer.Stop()
	for {
		// In this order: a result between the two is seen by one of them.
		arrived := i.cfg.Courier.Results()
		order, err := i.stored(id)
		if err != nil || order.Result != nil {
			return order.Result, err
		}
		// What is at another authority takes minutes or weeks.
		if !i.cfg.Courier.State().CutOffSince.IsZero() || order.Progress.Stage != "" {
			return nil, i.pending(order.Progress)
		}
		select {
		case <-arrived:
		case <-timer.C:
			return nil, i.pending(order.Progress)
		case <-ctx.Done():
			return nil, i.pending(order.Progress)
		}
	}
}

func (i *Issuer) stored(id string) (order store.Order, err error) {
	found, known, err := i.cfg.Orders.Order(id)
	if err != nil {
		return order, err
	}
	if !known {
		return order, &issuer.Error{Class: issuer.ClassOrderGone, Err: errors.New("the order was deleted while it was under way")}
	}
	return *found, nil
}

// pending says that the order goes on, and what it waits for.
func (i *Issuer) pending(p wire.OrderProgress) error {
	err := errors.New("the coordinator has not issued the certificate yet")
	s := i.cfg.Courier.State()
	switch {
	case s.Standing == agentsync.Unknown:
		return &issuer.Error{
			Class: issuer.ClassReenrol, RetryAfter: retryAfter, Committed: true, Err: errors.New("the coordinator does not know this agent"),
			Mend: "enrol the host with a new token: \"certctl-agent enroll --replace\"",
		}
	case !s.CutOffSince.IsZero():
		err = fmt.Errorf("coordinator not reachable since %s: %s; the order waits", s.CutOffSince.UTC().Format(time.RFC3339), s.LastError)
	case p.Stage != "":
		err = errors.New(waitsFor(i.cfg.Issuer, p))
	}
	pending := &issuer.Error{Class: issuer.ClassPending, RetryAfter: retryAfter, Committed: true, Err: err}
	if p.Stage != "" {
		pending.RetryAfter, pending.Person, pending.Waiting = slowRetryAfter, p.Person(), waitsFor(i.cfg.Issuer, p)
		if p.Mend != "" {
			pending.Waiting += "; " + p.Mend
		}
	}
	return pending
}

// waitsFor says where an order at another authority stands.
func waitsFor(name string, p wire.OrderProgress) string {
	at := cmp.Or(name, "the coordinator's CA")
	text := fmt.Sprintf("the order at %s is %s", at, p.Stage)
	switch p.Stage {
	case wire.OrderRequested:
		text = "the order waits to be placed at " + at
	case wire.OrderPlacing:
		text = "the order is being placed at " + at
	case wire.OrderAtAuthority:
		text = at + " works on the order"
	case wire.OrderNeedsPerson:
		text = "the order at " + at + " waits for a person"
	case wire.OrderUnknown:
		text = "it is not known yet whether " + at + " has the order"
	case wire.OrderFetching:
		text = at + " has issued the certificate, which is being fetched"
	}
	if p.Detail != "" {
		text += ": " + p.Detail
	}
	return text
}

// rejected turns a final refusal into what the renewal does about it.
func rejected(problem *wire.Problem) error {
	told := *problem
	told.Mend = ""
	e := &issuer.Error{Class: issuer.ClassRefused, Mend: problem.Mend, Err: fmt.Errorf("the coordinator refuses the order: %w", &told)}
	switch problem.Code {
	case wire.CodeNamesRefused:
		e.Mend = cmp.Or(e.Mend, "ask only for names of this enrolment, or enrol with a token that allows these")
	case wire.CodeKeyRefused:
		e.KeyRefused = true
		e.Mend = cmp.Or(e.Mend, "choose another key algorithm for the certificate")
	case wire.CodeIssuerUnknown:
		e.Mend = cmp.Or(e.Mend, "choose an issuer that the coordinator has")
	case wire.CodeOrderCancelled, wire.CodeOrderGivenUp:
		e.Err, e.RetryAfter = fmt.Errorf("the order was ended at the coordinator: %w", &told), takenBackAfter
	case wire.CodeConflict, wire.CodeOverloaded, wire.CodeUnavailable, wire.CodeInternal:
		// Nothing is wrong with the request; a new order may do.
		e.Class, e.RetryAfter = issuer.ClassOrderGone, problem.RetryAfter()
	}
	return e
}
