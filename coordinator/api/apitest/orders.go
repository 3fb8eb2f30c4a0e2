package apitest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// seamOrders is what works on orders, as the API sees it.
type seamOrders struct{ c *Coordinator }

// Validations implements api.Orders.
func (s seamOrders) Validations(ctx context.Context, agent, id string) ([]connector.Validation, error) {
	if set := s.c.orders.Load(); set != nil {
		return (*set).Validations(ctx, agent, id)
	}
	return nil, orders.ErrUnknownIssuer
}

// Revoke implements api.Orders.
func (s seamOrders) Revoke(ctx context.Context, v orders.Revocation) (bool, error) {
	if set := s.c.orders.Load(); set != nil {
		return (*set).Revoke(ctx, v)
	}
	return false, orders.ErrUnknownIssuer
}

// Wake implements api.Orders.
func (s seamOrders) Wake() {
	if set := s.c.orders.Load(); set != nil {
		(*set).Wake()
	}
}

// UseOrders sets what works on orders at authorities. Before, nothing does.
func (c *Coordinator) UseOrders(engine api.Orders) { c.orders.Store(&engine) }

// figuredOrders is what works on orders, as the metrics see it: one issuer, which was
// asked once.
type figuredOrders struct{ c *Coordinator }

// Status implements metrics.Orders.
func (f figuredOrders) Status() []orders.IssuerStatus {
	return []orders.IssuerStatus{{Name: "ev", Kind: "sectigo", Configured: true, Leading: true, LastAnswerAt: f.c.Now()}}
}

// Counts implements metrics.Orders.
func (figuredOrders) Counts() []orders.CallCount {
	return []orders.CallCount{{Issuer: "ev", Call: orders.CallTest, Outcome: orders.OutcomeOK, Count: 1}}
}

// OrderID is the id of an order of which a test knows by what it is.
func OrderID(of string) string {
	sum := sha256.Sum256([]byte(of))
	return hex.EncodeToString(sum[:16])
}

// Order has the agent ask for a certificate at an issuer.
func (a *Agent) Order(id, certificate, issuer string, names ...string) {
	a.c.t.Helper()
	a.OrderWithKey(id, certificate, issuer, "key of "+certificate, names...)
}

// OrderWithKey is Order with the fingerprint of a public key.
func (a *Agent) OrderWithKey(id, certificate, issuer, key string, names ...string) {
	a.c.t.Helper()
	a.orders([]fleet.OrderPlacement{{
		ID: id, Certificate: certificate, Issuer: issuer, CSR: []byte(id), Names: pki.MustParseNames(names...), PublicKeyFingerprint: key,
	}}, nil)
}

// Collected has the agent say that it has what came of an order.
func (a *Agent) Collected(id string) {
	a.c.t.Helper()
	a.orders(nil, []string{id})
}

func (a *Agent) orders(placed []fleet.OrderPlacement, collected []string) {
	a.c.t.Helper()
	a.sequence++
	a.c.do(fleet.SyncAgent{
		AgentID: a.id, BootID: "boot-of-" + a.id, Sequence: a.sequence, BaseRevision: a.revision, Revision: a.revision,
		HeadRevision: a.revision, Digest: a.digest, Orders: placed, Collected: collected,
	})
}

// Claim does what a leader does before it places an order.
func (a *Agent) Claim(id, node string) {
	a.c.t.Helper()
	a.c.do(fleet.ClaimOrder{Agent: a.id, ID: id, Revision: a.stored(id).ModifyIndex, Node: node, Term: 1})
}

// Record does what a leader does when it has learnt something of an order.
func (a *Agent) Record(id string, state fleet.OrderState, learnt func(r *fleet.RecordOrder)) {
	a.c.t.Helper()
	stored := a.stored(id)
	record := fleet.RecordOrder{Agent: a.id, ID: id, Revision: stored.ModifyIndex, State: state}
	if stored.Brokering != nil {
		record.Brokering = *stored.Brokering
	}
	if learnt != nil {
		learnt(&record)
	}
	a.c.do(record)
}

// StoredOrder is an order as it is stored.
func (a *Agent) StoredOrder(id string) *fleet.Order { return a.stored(id) }

func (a *Agent) stored(id string) *fleet.Order {
	a.c.t.Helper()
	stored, ok := a.c.State().View().Order(a.id, id)
	require.True(a.c.t, ok, id)
	return stored
}

// AtEveryStage makes orders of an agent at the issuer "ov", one at each stage; the id
// of each is the OrderID of its stage, and its certificate has the stage's name.
func (a *Agent) AtEveryStage() {
	a.c.t.Helper()
	now := a.c.Now().UTC().Truncate(time.Second)
	handle := func(number string) func(*fleet.RecordOrder) {
		return func(r *fleet.RecordOrder) {
			r.Brokering.Handle = fleet.OrderHandle{Order: number}
			r.Brokering.Raw, r.Brokering.Polls, r.Brokering.Next = "pending", 3, now.Add(5*time.Minute)
		}
	}
	for _, stage := range fleet.Stages() {
		id := OrderID(string(stage))
		a.Order(id, string(stage), "ov", "www.example.com", "api.example.com")
		if stage == fleet.StageRequested {
			continue
		}
		a.Claim(id, NodeID)
		switch stage {
		case fleet.StagePending:
			a.Record(id, fleet.OrderPending, handle("1001"))
		case fleet.StageNeedsPerson:
			a.Record(id, fleet.OrderNeedsPerson, func(r *fleet.RecordOrder) {
				handle("1002")(r)
				r.Brokering.Raw, r.Brokering.Detail, r.Brokering.Mend = "needs_approval", "the order waits for an administrator of the account", "approve request 77 of order 1002 in the authority's console"
			})
		case fleet.StageUnknown:
			a.Record(id, fleet.OrderUnknown, func(r *fleet.RecordOrder) {
				r.Brokering.Failure, r.Brokering.FailedAt, r.Brokering.Failures = "read tcp: connection reset by peer", now, 1
				r.Brokering.Mend = "look at the authority for an order for www.example.com that was placed at about this time"
				r.Brokering.Next = time.Time{}
			})
		case fleet.StageIssued:
			a.Record(id, fleet.OrderReady, handle("1003"))
		case fleet.StageCollected, fleet.StageDelivered:
			a.Record(id, fleet.OrderIssued, func(r *fleet.RecordOrder) {
				handle("1004")(r)
				r.Brokering.Raw, r.ChainPEM, r.Serial, r.Fingerprint, r.NotAfter = "issued", "chain", "0a"+id[:8], id, now.Add(90*24*time.Hour)
			})
			if stage == fleet.StageDelivered {
				a.Collected(id)
			}
		case fleet.StageRejected:
			a.Record(id, fleet.OrderRejected, func(r *fleet.RecordOrder) {
				r.Brokering.Raw = "rejected"
				r.Problem = &wire.Problem{Code: wire.CodeNamesRefused, Status: 403, Detail: "the authority refuses www.example.com", Mend: "prove the control of the name"}
			})
		case fleet.StageCancelled:
			a.Record(id, fleet.OrderPending, handle("1005"))
			a.c.do(fleet.CancelOrder{Actor: "api_token:somebody", Agent: a.id, ID: id, Note: "not wanted any more"})
			a.Record(id, fleet.OrderCancelled, nil)
		case fleet.StageRequested, fleet.StagePlacing:
		}
	}
}
