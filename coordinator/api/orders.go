package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

type listOrders struct {
	Stage       string `query:"stage" enum:"requested,placing,pending,needs_person,unknown_outcome,issued,collected,delivered,rejected,cancelled" doc:"Only orders at this stage."`
	Open        bool   `query:"open" doc:"Only orders for which something is still to be done at the authority."`
	Issuer      string `query:"issuer" maxLength:"128" doc:"Name of the issuer."`
	Agent       string `query:"agent" maxLength:"128" doc:"Id of the agent."`
	Certificate string `query:"certificate" maxLength:"400" doc:"The certificate's name in the agents' configuration, exactly."`
	ID          string `query:"id" maxLength:"128" doc:"The beginning of the order's id, or all of it."`
	Sort        string `query:"sort" enum:"requested_at,-requested_at" doc:"By the time at which they came in; with - in front newest first. Absent: by issuer and that time; with stage by that first; with agent by id."`
	Paging
}

// OrderPath is which order is meant. It is exported for Huma, which reads the tags of
// exported fields alone.
type OrderPath struct {
	Agent string `path:"agent" maxLength:"128" doc:"Id of the agent."`
	ID    string `path:"id" maxLength:"128" doc:"Id of the order."`
}

type orderList struct {
	Body resource.Page[resource.Order]
}

type orderDetail struct {
	Body resource.Order
}

type cancelOrder struct {
	OrderPath
	Body *resource.CancelOrder
}

type resolveOrder struct {
	OrderPath
	Body resource.ResolveOrder
}

func (s *server) registerOrders(api huma.API) {
	const path = "/api/v1/orders"
	const one = path + "/{agent}/{id}"
	tags := []string{"orders"}
	read(s, api, narrows(shows(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-orders", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "List orders at authorities",
		Description: "Orders at issuers that the coordinator talks to, other than the built-in CA; those that have come to a certificate until that expires, others a week after their end. " +
			"In an order that stays the same while paging; see sort. A page looks at 5000 orders at most: with a filter that few of them pass it may be short, and yet have a next one.",
	}), fleet.TableOrders, fleet.TableAgents)), s.listOrders)
	read(s, api, ofHost(shows(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "show-order", Method: http.MethodGet, Path: one, Tags: tags,
		Summary: "Show one order, and all that is known of it at its authority",
	}), fleet.TableOrders, fleet.TableAgents), "agent"), s.showOrder)
	huma.Register(api, ofHost(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "cancel-order", Method: http.MethodPost, Path: one + "/cancel", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Take an order back",
		Description: "One that was not placed is cancelled at once. For any other the authority is asked as soon as it can be; until the stage says cancelled, the order may " +
			"still be issued. Where the authority takes none back by itself, it needs a person. Asking again changes nothing.",
	}), "agent"), s.cancelOrder)
	huma.Register(api, ofHost(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "retry-order", Method: http.MethodPost, Path: one + "/retry", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary:     "Look after an open order now",
		Description: "The authority is asked about it at once, and often again for a while. Nothing is ordered a second time by this.",
	}), "agent"), s.retryOrder)
	huma.Register(api, ofHost(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "resolve-order", Method: http.MethodPost, Path: one + "/resolve", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Say what became of a placement of unknown outcome",
		Description: "For an order of which nobody knows whether the authority has it. Look there first: place_again while it has the order makes and pays for a second one. " +
			"The note is kept in the audit trail.",
	}), "agent"), s.resolveOrder)
}

func (s *server) listOrders(_ context.Context, p *picture, in *listOrders) (*orderList, error) {
	view := p.view
	if in.Agent != "" {
		if _, ok := view.Agent(in.Agent); !ok {
			return nil, noAgent(in.Agent)
		}
	}
	filter := fleet.OrderFilter{Stage: fleet.Stage(in.Stage), Issuer: in.Issuer, Agent: in.Agent, Certificate: in.Certificate, Open: in.Open, ByAge: in.Sort != ""}
	var keep func(*fleet.Order) bool
	if in.ID != "" {
		keep = func(o *fleet.Order) bool { return strings.HasPrefix(o.ID, in.ID) }
	}
	found, next, err := gather(in.Paging, func(page fleet.Page) ([]*fleet.Order, string, error) {
		page.Back = strings.HasPrefix(in.Sort, "-")
		return view.BrokeredOrders(filter, page)
	}, keep)
	if err != nil {
		return nil, s.fail("list", err)
	}
	out := &orderList{Body: resource.Page[resource.Order]{NextCursor: next, Items: make([]resource.Order, 0, len(found))}}
	for _, o := range found {
		out.Body.Items = append(out.Body.Items, order(view, o))
	}
	return out, nil
}

func (s *server) showOrder(_ context.Context, p *picture, in *OrderPath) (*orderDetail, error) {
	return showOrder(p.view, in)
}

func showOrder(view *fleet.View, in *OrderPath) (*orderDetail, error) {
	stored, ok := view.Order(in.Agent, in.ID)
	if !ok || !stored.Brokered() {
		if _, known := view.Agent(in.Agent); !known {
			return nil, noAgent(in.Agent)
		}
		return nil, notFound("the agent has no order at an authority with the id "+clip(in.ID), "list the agent's orders to see their ids")
	}
	return &orderDetail{Body: order(view, stored)}, nil
}

// change does something about an order, has the engine look at it, and shows it.
func (s *server) change(ctx context.Context, in *OrderPath, command fleet.Payload) (*orderDetail, error) {
	if _, err := showOrder(s.viewOf(ctx), in); err != nil {
		return nil, err
	}
	if _, err := s.do(ctx, command); err != nil {
		return nil, err
	}
	s.Orders.Wake()
	return showOrder(s.viewOf(ctx), in)
}

func (s *server) cancelOrder(ctx context.Context, in *cancelOrder) (*orderDetail, error) {
	command := fleet.CancelOrder{Actor: actorOf(ctx), Agent: in.Agent, ID: in.ID}
	if in.Body != nil {
		command.Note = in.Body.Note
	}
	return s.change(ctx, &in.OrderPath, command)
}

func (s *server) retryOrder(ctx context.Context, in *OrderPath) (*orderDetail, error) {
	return s.change(ctx, in, fleet.RetryOrder{Actor: actorOf(ctx), Agent: in.Agent, ID: in.ID})
}

func (s *server) resolveOrder(ctx context.Context, in *resolveOrder) (*orderDetail, error) {
	command := fleet.ResolveOrder{Actor: actorOf(ctx), Agent: in.Agent, ID: in.ID, Action: fleet.ResolveAction(in.Body.Action), Note: strings.TrimSpace(in.Body.Note)}
	if h := in.Body.Handle; h != nil {
		command.Handle = fleet.OrderHandle{Order: strings.TrimSpace(h.Order), Certificate: strings.TrimSpace(h.Certificate), Request: strings.TrimSpace(h.Request)}
	}
	adopts := in.Body.Action == resource.OrderAdopt
	switch {
	case command.Note == "":
		return nil, invalid("note", "the note is empty", "say how it is known what became of the order")
	case adopts && command.Handle.IsZero():
		return nil, invalid("handle", "to adopt an order, the authority's number of it is needed", "look the order up at the authority, and give its number as handle.order")
	case !adopts && in.Body.Handle != nil:
		return nil, invalid("handle", "a handle goes with adopt alone", "leave it out, or adopt the order")
	}
	return s.change(ctx, &in.OrderPath, command)
}

func handle(h fleet.OrderHandle) *resource.OrderHandle {
	if h.IsZero() {
		return nil
	}
	return &resource.OrderHandle{Order: h.Order, Certificate: h.Certificate, Request: h.Request}
}

// order is a stored order as it is shown.
func order(view *fleet.View, o *fleet.Order) resource.Order {
	out := resource.Order{
		ID: o.ID, AgentID: o.Agent, Certificate: o.Certificate, Issuer: o.Issuer, Names: o.Names, PublicKey: o.PublicKeyFingerprint,
		Stage: resource.OrderStage(o.Stage()), Open: !o.Ended(), RequestedAt: o.PlacedAt.UTC(), EndedAt: o.DoneAt.UTC(), Revision: o.ModifyIndex,
		Serial: o.Serial, Fingerprint: o.Fingerprint, NotAfter: o.NotAfter.UTC(), Refusal: orderRefusal(o.Problem),
	}
	if agent, ok := view.Agent(o.Agent); ok {
		out.Hostname, out.Labels, out.AgentRetired = agent.Host.Hostname, agent.Labels, agent.State == fleet.AgentRetired
	}
	if r := o.Revocation; r != nil {
		out.Revocation = &resource.OrderRevocation{By: r.By, Reason: r.Reason, At: r.At.UTC(), TakenAt: r.TakenAt.UTC(), DoneAt: r.DoneAt.UTC(), Failure: r.Failure}
	}
	b := o.Brokering
	if b == nil {
		if out.Open {
			out.NextAt = o.PlacedAt.UTC() // it is nobody's yet
		}
		return out
	}
	out.Attempts, out.Reference = b.Attempt, b.Reference
	out.PlacedBy, out.PlacingAt = b.Claim.Node, b.Claim.At.UTC()
	out.Handle, out.Renews = handle(b.Handle), handle(b.Renews)
	out.AuthorityState, out.Detail, out.Mend = b.Raw, b.Detail, b.Mend
	out.LastError, out.LastErrorAt, out.Failures = b.Failure, b.FailedAt.UTC(), b.Failures
	out.Polls, out.Slow = b.Polls, b.Slow
	if out.Open {
		out.NextAt = b.Next.UTC()
	}
	out.SubmittedAt, out.NeedsPersonSince, out.UnknownSince = b.SubmittedAt.UTC(), b.NeedsPersonSince.UTC(), b.UnknownSince.UTC()
	out.Searches, out.SearchedAt, out.RestoredAt = b.Searches, b.SearchedAt.UTC(), b.RestoredAt.UTC()
	out.IssuedAt, out.CollectedAt, out.DeliveredAt, out.Refused = b.ReadyAt.UTC(), b.FetchedAt.UTC(), b.DeliveredAt.UTC(), b.WrongCertificates
	for _, h := range b.Candidates {
		out.Candidates = append(out.Candidates, *handle(h))
	}
	if c := b.Cancel; c != nil {
		out.Cancel = &resource.OrderCancel{By: c.By, Note: c.Note, At: c.At.UTC()}
	}
	return out
}

func orderRefusal(p *wire.Problem) *resource.OrderRefusal {
	if p == nil {
		return nil
	}
	return &resource.OrderRefusal{Code: string(p.Code), Detail: p.Detail, Mend: p.Mend}
}
