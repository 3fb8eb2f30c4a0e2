package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/shared/wire"
)

// Orders is what works on orders at authorities. *orders.Engine is one.
type Orders interface {
	// Validations asks the authority how far the proof of control of an order's names
	// is. Its error is one of orders.ErrUnknownOrder, orders.ErrUnknownIssuer and
	// orders.ErrUnsupported, or what has kept the authority from telling.
	Validations(ctx context.Context, agent, id string) ([]connector.Validation, error)
	// Revoke has the authority revoke the certificate of an order; done is false if it
	// decides later. Its error is one of those of Validations, orders.ErrNotIssued, or
	// what has kept the authority from it. Asking again is harmless.
	Revoke(ctx context.Context, v orders.Revocation) (done bool, err error)
	// Wake has orders looked at that were changed.
	Wake()
}

// noOrders is an API without.
type noOrders struct{}

func (noOrders) Validations(context.Context, string, string) ([]connector.Validation, error) {
	return nil, orders.ErrUnknownIssuer
}
func (noOrders) Revoke(context.Context, orders.Revocation) (bool, error) {
	return false, orders.ErrUnknownIssuer
}
func (noOrders) Wake() {}

// validationsTime bounds the questions to the authority: whoever waits for the answer
// has half a minute.
const validationsTime = 20 * time.Second

type orderValidations struct {
	Body resource.Validations
}

func (s *server) registerValidations(api huma.API) {
	huma.Register(api, ofHost(leads(untagged(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-order-validations", Method: http.MethodGet, Path: "/api/v1/orders/{agent}/{id}/validations", Tags: []string{"orders"},
		Summary: "Ask the authority what is left to prove of an order's names",
		Description: "Of an open order that the authority has, at one that tells. The authority is asked for each request, which takes 20 seconds at most and changes nothing there. " +
			"The status is 200 if it does not answer, too; see error.",
	}), "the authority is asked, and not the state")), "agent"), s.listValidations)
}

func (s *server) listValidations(ctx context.Context, in *OrderPath) (*orderValidations, error) {
	shown, err := showOrder(s.viewOf(ctx), in)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, validationsTime)
	defer cancel()
	found, err := s.Orders.Validations(ctx, in.Agent, in.ID)
	out := &orderValidations{Body: resource.Validations{Items: []resource.Validation{}}}
	switch {
	case errors.Is(err, orders.ErrUnknownIssuer):
		return nil, newProblem(wire.CodeConflict, "", "the node that leads has no issuer "+clip(shown.Body.Issuer)+" in its settings",
			"put it there, with the same name; all nodes need the same issuers")
	case errors.Is(err, orders.ErrUnsupported) && (shown.Body.Stage == resource.OrderPending || shown.Body.Stage == resource.OrderNeedsPerson):
		return nil, newProblem(wire.CodeConflict, "", "the authority of "+clip(shown.Body.Issuer)+" does not tell what is left to prove of an order's names",
			"look in the authority's console")
	case errors.Is(err, orders.ErrUnsupported):
		return nil, newProblem(wire.CodeConflict, "", "there is nothing to ask: the order is at the stage "+string(shown.Body.Stage),
			"an open order has them, once the authority has its number; else look in the authority's console")
	case errors.Is(err, orders.ErrUnknownOrder):
		return nil, newProblem(wire.CodeConflict, "", "the authority does not have the order yet", "ask again when it is pending")
	case err != nil:
		e := connector.Classify(err)
		told := *e
		told.Mend = ""
		out.Body.Error, out.Body.Mend = connector.Detail(told.Error()), e.Mend
	}
	for _, v := range found {
		out.Body.Items = append(out.Body.Items, resource.Validation{
			Name: v.Name, Method: v.Method, State: v.State, Done: v.Done, Todo: v.Todo, Checked: v.Checked.UTC(), Next: v.Next.UTC(), Expires: v.Expires.UTC(), Problem: v.Problem,
		})
	}
	return out, nil
}
