package resource

import "time"

// OrderStage is where an order stands.
type OrderStage string

// Stages of an order, in the order in which it goes through them. An order that is
// collected waits for its host, one that is delivered is over, as are the last two.
const (
	OrderRequested   OrderStage = "requested"
	OrderPlacing     OrderStage = "placing"
	OrderPending     OrderStage = "pending"
	OrderNeedsPerson OrderStage = "needs_person"
	OrderUnknown     OrderStage = "unknown_outcome"
	OrderIssued      OrderStage = "issued"
	OrderCollected   OrderStage = "collected"
	OrderDelivered   OrderStage = "delivered"
	OrderRejected    OrderStage = "rejected"
	OrderCancelled   OrderStage = "cancelled"
)

// OrderStages lists all.
var OrderStages = []OrderStage{
	OrderRequested, OrderPlacing, OrderPending, OrderNeedsPerson, OrderUnknown,
	OrderIssued, OrderCollected, OrderDelivered, OrderRejected, OrderCancelled,
}

// OrderHandle is how an authority names an order.
type OrderHandle struct {
	Order       string `json:"order,omitempty" maxLength:"256" doc:"The authority's number of the order."`
	Certificate string `json:"certificate,omitempty" maxLength:"256" doc:"Its number of the certificate, where it is another one."`
	Request     string `json:"request,omitempty" maxLength:"256" doc:"Its number of a request for approval within the order."`
}

// Order is a certificate request of a host at an issuer that the coordinator talks to,
// other than the built-in CA.
type Order struct {
	ID           string            `json:"id" doc:"Made by the agent. With agent_id it is unique, and in practice without."`
	AgentID      string            `json:"agent_id"`
	Hostname     string            `json:"hostname,omitempty"`
	Labels       map[string]string `json:"labels,omitempty" doc:"Of the agent."`
	AgentRetired bool              `json:"agent_retired,omitempty" doc:"Nobody comes for the certificate any more."`
	Certificate  string            `json:"certificate" doc:"Its name on the host."`
	Issuer       string            `json:"issuer"`
	Names        []string          `json:"names,omitempty" doc:"That are asked for. They are not kept for long after the end."`
	PublicKey    string            `json:"public_key,omitempty" doc:"SHA-256 of the SubjectPublicKeyInfo in lower-case hex."`

	Stage       OrderStage `json:"stage" enum:"requested,placing,pending,needs_person,unknown_outcome,issued,collected,delivered,rejected,cancelled"`
	Open        bool       `json:"open" doc:"Whether something is still to be done at the authority."`
	RequestedAt time.Time  `json:"requested_at" doc:"When it was committed, before anything was sent."`
	EndedAt     time.Time  `json:"ended_at,omitzero"`
	Revision    uint64     `json:"revision" doc:"Of the record. It grows with every change."`

	// At the authority.
	Attempts       uint32       `json:"attempts" doc:"Placements begun. More than one means that the earlier ones are known not to have been placed, or that somebody said so."`
	Reference      string       `json:"reference,omitempty" doc:"Our name of the order, the same at each attempt, under which the authority has it where it keeps such names."`
	PlacedBy       string       `json:"placed_by,omitempty" doc:"Node that has placed the newest attempt, or is about to."`
	PlacingAt      time.Time    `json:"placing_at,omitzero" doc:"When that node was given the order, right before it sent it."`
	Handle         *OrderHandle `json:"handle,omitempty" doc:"How the authority names the order; absent while that is not known."`
	AuthorityState string       `json:"authority_state,omitempty" doc:"The state in the authority's own word, as it was last heard."`
	Detail         string       `json:"detail,omitempty" doc:"What the authority says."`
	Mend           string       `json:"mend,omitempty" doc:"What a person has to do."`
	LastError      string       `json:"last_error,omitempty" doc:"Why the last question has no answer; absent after an answer."`
	LastErrorAt    time.Time    `json:"last_error_at,omitzero"`
	Failures       uint32       `json:"failures,omitempty" doc:"Questions without an answer in a row."`
	Polls          uint32       `json:"polls" doc:"Questions about the order in all."`
	Slow           bool         `json:"slow,omitempty" doc:"The time for frequent questions is spent: it is asked about at a slow pace."`
	NextAt         time.Time    `json:"next_at,omitzero" doc:"When something is done about it next by itself. Absent for an open order that goes on only when a person has done something."`

	SubmittedAt      time.Time     `json:"submitted_at,omitzero" doc:"When it was known that the authority has the order."`
	NeedsPersonSince time.Time     `json:"needs_person_since,omitzero"`
	UnknownSince     time.Time     `json:"unknown_since,omitzero"`
	Searches         uint32        `json:"searches,omitempty" doc:"Searches at the authority for an order of unknown outcome that found nothing."`
	SearchedAt       time.Time     `json:"searched_at,omitzero" doc:"When the first of them was."`
	Candidates       []OrderHandle `json:"candidates,omitempty" doc:"What a search found that found more than one."`
	RestoredAt       time.Time     `json:"restored_at,omitzero" doc:"When it came out of a backup, and may have been placed since that was made."`
	IssuedAt         time.Time     `json:"issued_at,omitzero" doc:"When it was known that the authority has issued it."`
	CollectedAt      time.Time     `json:"collected_at,omitzero" doc:"When the certificate was fetched and checked."`
	DeliveredAt      time.Time     `json:"delivered_at,omitzero" doc:"When the agent said that it has it."`
	Refused          uint32        `json:"refused_certificates,omitempty" doc:"Certificates that were fetched and not taken: for another key, or without the names."`
	Renews           *OrderHandle  `json:"renews,omitempty" doc:"The order at the same authority that this one renews."`
	Cancel           *OrderCancel  `json:"cancel,omitempty" doc:"Somebody's wish that the order be taken back. It is done once the stage says so."`

	Revocation *OrderRevocation `json:"revocation,omitempty" doc:"What became of the wish that the certificate be revoked at the authority."`

	Serial      string        `json:"serial,omitempty"`
	Fingerprint string        `json:"fingerprint,omitempty"`
	NotAfter    time.Time     `json:"not_after,omitzero"`
	Refusal     *OrderRefusal `json:"refusal,omitempty" doc:"Why it was rejected, or what became of taking it back."`
}

// Needs reports whether the order goes on only when a person has done something.
func (o *Order) Needs() bool {
	return o.Stage == OrderNeedsPerson || o.Stage == OrderUnknown && o.NextAt.IsZero()
}

// OrderCancel is a wish that an order be taken back.
type OrderCancel struct {
	By   string    `json:"by"`
	Note string    `json:"note,omitempty"`
	At   time.Time `json:"at"`
}

// OrderRevocation is a wish that the certificate of an order be revoked.
type OrderRevocation struct {
	By      string    `json:"by"`
	Reason  int       `json:"reason" doc:"CRLReason of RFC 5280, section 5.3.1."`
	At      time.Time `json:"at" doc:"When it was asked for last."`
	TakenAt time.Time `json:"taken_at,omitzero" doc:"When the authority took the request, to decide on it later."`
	DoneAt  time.Time `json:"done_at,omitzero" doc:"When the authority said that it is revoked."`
	Failure string    `json:"failure,omitempty" doc:"What has kept the authority from it last."`
}

// OrderRefusal is why an order came to nothing.
type OrderRefusal struct {
	Code   string `json:"code"`
	Detail string `json:"detail,omitempty"`
	Mend   string `json:"mend,omitempty"`
}

// CancelOrder asks for an order to be taken back.
type CancelOrder struct {
	Note string `json:"note,omitempty" maxLength:"500" doc:"Why, for the audit trail; authorities that take a note get it."`
}

// OrderAction is what somebody says of an order of unknown outcome.
type OrderAction string

// Actions.
const (
	OrderAdopt      OrderAction = "adopt"
	OrderPlaceAgain OrderAction = "place_again"
	OrderGiveUp     OrderAction = "give_up"
)

// ResolveOrder says what became of a placement of unknown outcome.
type ResolveOrder struct {
	Action OrderAction  `json:"action" enum:"adopt,place_again,give_up" doc:"adopt: the authority has the order, under handle. place_again: somebody has looked, and it does not have it. give_up: it is not wanted any more; nothing is done at the authority."`
	Handle *OrderHandle `json:"handle,omitempty" doc:"Of adopt: how the authority names the order."`
	Note   string       `json:"note" minLength:"1" maxLength:"500" doc:"How that is known, for the audit trail."`
}

// Validation is how far the proof of control of one name is.
type Validation struct {
	Name    string    `json:"name"`
	Method  string    `json:"method,omitempty" doc:"In the authority's word."`
	State   string    `json:"state,omitempty" doc:"In the authority's word."`
	Done    bool      `json:"done" doc:"Nothing is left to prove."`
	Todo    string    `json:"todo,omitempty" doc:"What to publish or to do, and where."`
	Checked time.Time `json:"checked_at,omitzero" doc:"When the authority looked last."`
	Next    time.Time `json:"next_at,omitzero" doc:"When it will look again."`
	Expires time.Time `json:"expires_at,omitzero" doc:"Until when the proof holds."`
	Problem string    `json:"problem,omitempty" doc:"Why it is not done."`
}

// Validations are those of the names of one order, as the authority tells them now.
type Validations struct {
	Items []Validation `json:"items" nullable:"false"`
	Error string       `json:"error,omitempty" doc:"Why the authority did not tell."`
	Mend  string       `json:"mend,omitempty" doc:"What to do about that."`
}
