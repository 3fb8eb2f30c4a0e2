package orders

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func middle() float64 { return 0.5 }

func testRules() *rules {
	return &rules{
		issuer: "slow", node: "n1", pace: asyncpoll.Pace{MaxWait: 10 * time.Minute, Random: middle}, random: middle,
		searches: true, visible: 2 * time.Minute, placeLimit: 150 * time.Second,
	}
}

// testOrder is an order in a state, as a leader may find it at noon.
func testOrder(state fleet.OrderState) *fleet.Order {
	o := &fleet.Order{
		Agent: "a", ID: "o1", Certificate: "web", Issuer: "slow", Names: []string{"www.example.com"}, PublicKeyFingerprint: "ab12",
		State: state, PlacedAt: noon.Add(-time.Hour), ModifyIndex: 7,
		Brokering: &fleet.Brokering{Reference: "r1", Attempt: 1, Claim: fleet.OrderClaim{Node: "n1", Term: 3, At: noon.Add(-time.Minute)}},
	}
	b := o.Brokering
	switch state {
	case fleet.OrderRequested:
		o.Brokering = nil
	case fleet.OrderPending, fleet.OrderNeedsPerson, fleet.OrderReady:
		b.Handle, b.SubmittedAt, b.Since, b.Asked = fleet.OrderHandle{Order: "17"}, noon.Add(-time.Minute), noon.Add(-time.Minute), 2
		if state == fleet.OrderNeedsPerson {
			b.NeedsPersonSince, b.Slow = noon.Add(-time.Minute), true
		}
		if state == fleet.OrderReady {
			b.ReadyAt = noon.Add(-30 * time.Second)
		}
	case fleet.OrderUnknown:
		b.UnknownSince, b.Since = noon.Add(-10*time.Second), noon.Add(-10*time.Second)
	}
	return o
}

func toCancel(o *fleet.Order) *fleet.Order {
	o.Brokering.Cancel = &fleet.OrderCancel{By: "api_token:x", Note: "not wanted", At: noon}
	return o
}

func status(state connector.State) *connector.Status {
	s := &connector.Status{State: state, Raw: "word_" + string(state), Detail: "as it is", Handle: connector.Handle{Order: "17"}}
	if state == connector.NeedsPerson || state == connector.Unrecognised {
		s.Mend = "go and look"
	}
	return s
}

func failure(class connector.Class) *connector.Error {
	return &connector.Error{Class: class, Detail: "it failed", Mend: "mend it"}
}

func surely(class connector.Class) *connector.Error {
	e := failure(class)
	e.NotPlaced = true
	return e
}

// When an order is due next.
const (
	never   = time.Duration(-1)
	atOnce  = time.Duration(0)
	quickly = 5 * time.Second // the first of the quick pace, with the middle of its jitter
	slowly  = 5 * time.Minute
)

func TestWhatAnAnswerMakesOfAnOrder(t *testing.T) {
	with := func(change func(*rules)) *rules {
		r := testRules()
		change(r)
		return r
	}
	blind := with(func(r *rules) { r.searches = false })
	unsure := with(func(r *rules) { r.visible = -1 })
	free := with(func(r *rules) { r.repeatable = true })
	edit := func(o *fleet.Order, change func(b *fleet.Brokering)) *fleet.Order {
		change(o.Brokering)
		return o
	}
	foreign := func(b *fleet.Brokering) { b.Claim.Node = "n2" }
	place := testRules().placed
	for _, row := range []struct {
		name  string
		order *fleet.Order
		turn  func(o *fleet.Order) turn
		state fleet.OrderState
		next  time.Duration
		check func(t *testing.T, b *fleet.Brokering, p *wire.Problem)
	}{
		// The answer to the placement.
		{"placed, pending", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return place(o, status(connector.Pending), noon) }, fleet.OrderPending, quickly, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Equal(t, "17", b.Handle.Order)
			assert.Equal(t, noon, b.Since, "the budget begins")
			assert.False(t, b.Slow)
		}},
		{"placed, needs a person", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return place(o, status(connector.NeedsPerson), noon) }, fleet.OrderNeedsPerson, slowly, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Equal(t, "go and look", b.Mend)
		}},
		{"placed, issued", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return place(o, status(connector.Issued), noon) }, fleet.OrderReady, atOnce, nil},
		{"placed, rejected", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return place(o, status(connector.Rejected), noon) }, fleet.OrderRejected, never, nil},
		{"placed, cancelled", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return place(o, status(connector.Cancelled), noon) }, fleet.OrderRejected, never, nil},
		{"placed, a word that nobody knows", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return place(o, status(connector.Unrecognised), noon) }, fleet.OrderPending, slowly, nil},
		{"placed, without a name", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn {
			s := status(connector.Pending)
			s.Handle = connector.Handle{}
			return place(o, s, noon)
		}, fleet.OrderUnknown, atOnce, nil},
		{"placed, to be taken back", toCancel(testOrder(fleet.OrderPlacing)), func(o *fleet.Order) turn { return place(o, status(connector.Pending), noon) }, fleet.OrderPending, atOnce, nil},
		{"issued at once, to be taken back", toCancel(testOrder(fleet.OrderPlacing)), func(o *fleet.Order) turn { return place(o, status(connector.Issued), noon) }, fleet.OrderReady, atOnce, nil},
		{"a late answer finds the order in doubt", testOrder(fleet.OrderUnknown), func(o *fleet.Order) turn { return place(o, status(connector.Pending), noon) }, fleet.OrderPending, quickly, nil},

		// No answer to the placement.
		{"lost", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return testRules().notPlaced(o, failure(connector.ClassRetry), noon) }, fleet.OrderUnknown, atOnce, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Contains(t, b.Failure, "it failed")
			assert.EqualValues(t, 1, b.Failures)
			assert.Empty(t, b.Mend, "nobody has to act")
		}},
		{"lost, by status 503", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return testRules().notPlaced(o, failure(connector.ClassBusy), noon) }, fleet.OrderUnknown, atOnce, nil},
		{"lost, an answer of another program", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return testRules().notPlaced(o, failure(connector.ClassAnswer), noon) }, fleet.OrderUnknown, atOnce, nil},
		{"lost where nothing can be looked for", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return blind.notPlaced(o, failure(connector.ClassRetry), noon) }, fleet.OrderUnknown, never, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			for _, fact := range []string{"r1", "www.example.com", "ab12", "2026-05-01T11:59:00Z", "certctl orders resolve a/o1"} {
				assert.Contains(t, b.Mend, fact)
			}
		}},
		{"lost where a search proves nothing", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return unsure.notPlaced(o, failure(connector.ClassRetry), noon) }, fleet.OrderUnknown, atOnce, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Contains(t, b.Mend, "certctl orders resolve")
		}},
		{"lost where an order costs nothing", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return free.notPlaced(o, failure(connector.ClassRetry), noon) }, fleet.OrderRequested, quickly, nil},
		{"never sent", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return testRules().notPlaced(o, surely(connector.ClassRetry), noon) }, fleet.OrderRequested, quickly, nil},
		{"too many requests", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn {
			e := surely(connector.ClassBusy)
			e.RetryAfter = time.Minute
			return testRules().notPlaced(o, e, noon)
		}, fleet.OrderRequested, time.Minute + 2500*time.Millisecond, nil},
		{"the credentials are refused", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return testRules().notPlaced(o, surely(connector.ClassCredentials), noon) }, fleet.OrderRequested, 5500 * time.Millisecond, nil},
		{"refused", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return testRules().notPlaced(o, surely(connector.ClassRefused), noon) }, fleet.OrderRejected, never, func(t *testing.T, _ *fleet.Brokering, p *wire.Problem) {
			assert.Contains(t, p.Detail, "it failed")
			assert.Equal(t, "mend it", p.Mend)
		}},
		{"refused until somebody acts", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return testRules().notPlaced(o, surely(connector.ClassNeedsPerson), noon) }, fleet.OrderRequested, slowly, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Equal(t, "mend it", b.Mend)
		}},
		{"wrong settings", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return testRules().notPlaced(o, surely(connector.ClassConfig), noon) }, fleet.OrderRequested, slowly, nil},
		{"no such product", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return testRules().notPlaced(o, surely(connector.ClassNotFound), noon) }, fleet.OrderRequested, slowly, nil},
		{"the wrong program answers, and no order came of it", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return testRules().notPlaced(o, surely(connector.ClassAnswer), noon) }, fleet.OrderRequested, slowly, nil},
		{"refused, and to be taken back", toCancel(testOrder(fleet.OrderPlacing)), func(o *fleet.Order) turn { return testRules().notPlaced(o, surely(connector.ClassRefused), noon) }, fleet.OrderRequested, never, nil},
		{"claimed, and not sent", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return testRules().unsent(o, noon) }, fleet.OrderRequested, atOnce, nil},
		{"claimed by one who is gone", edit(testOrder(fleet.OrderPlacing), foreign), func(o *fleet.Order) turn { return testRules().orphaned(o, noon) }, fleet.OrderUnknown, atOnce, nil},
		{"claimed by one who is gone, where an order costs nothing", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn { return free.orphaned(o, noon) }, fleet.OrderRequested, quickly, nil},

		// The answer to a question.
		{"still pending", testOrder(fleet.OrderPending), func(o *fleet.Order) turn { return testRules().polled(o, status(connector.Pending), noon) }, fleet.OrderPending, 45 * time.Second, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.EqualValues(t, 1, b.Polls)
			assert.EqualValues(t, 3, b.Asked)
		}},
		{"pending after the budget", edit(testOrder(fleet.OrderPending), func(b *fleet.Brokering) { b.Since = noon.Add(-11 * time.Minute) }), func(o *fleet.Order) turn { return testRules().polled(o, status(connector.Pending), noon) }, fleet.OrderPending, slowly, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.True(t, b.Slow)
		}},
		{"waits for a person now", testOrder(fleet.OrderPending), func(o *fleet.Order) turn { return testRules().polled(o, status(connector.NeedsPerson), noon) }, fleet.OrderNeedsPerson, slowly, nil},
		{"the person has acted", edit(testOrder(fleet.OrderNeedsPerson), func(b *fleet.Brokering) { b.Since = noon.Add(-72 * time.Hour) }), func(o *fleet.Order) turn { return testRules().polled(o, status(connector.Pending), noon) }, fleet.OrderPending, quickly, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Equal(t, noon, b.Since, "with a new budget")
			assert.Empty(t, b.Mend)
		}},
		{"a word that nobody knows", testOrder(fleet.OrderPending), func(o *fleet.Order) turn { return testRules().polled(o, status(connector.Unrecognised), noon) }, fleet.OrderPending, slowly, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Equal(t, "word_unrecognised", b.Raw)
			assert.NotEmpty(t, b.Mend)
		}},
		{"issued", testOrder(fleet.OrderPending), func(o *fleet.Order) turn { return testRules().polled(o, status(connector.Issued), noon) }, fleet.OrderReady, atOnce, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Equal(t, noon, b.Since, "with a new budget")
		}},
		{"issued after a person", testOrder(fleet.OrderNeedsPerson), func(o *fleet.Order) turn { return testRules().polled(o, status(connector.Issued), noon) }, fleet.OrderReady, atOnce, nil},
		{"rejected", testOrder(fleet.OrderNeedsPerson), func(o *fleet.Order) turn { return testRules().polled(o, status(connector.Rejected), noon) }, fleet.OrderRejected, never, func(t *testing.T, _ *fleet.Brokering, p *wire.Problem) {
			assert.Contains(t, p.Detail, "word_rejected")
		}},
		{"ended", testOrder(fleet.OrderPending), func(o *fleet.Order) turn { return testRules().polled(o, status(connector.Ended), noon) }, fleet.OrderRejected, never, nil},
		{"revoked", testOrder(fleet.OrderReady), func(o *fleet.Order) turn { return testRules().polled(o, status(connector.Revoked), noon) }, fleet.OrderRejected, never, nil},
		{"cancelled there", testOrder(fleet.OrderPending), func(o *fleet.Order) turn { return testRules().polled(o, status(connector.Cancelled), noon) }, fleet.OrderCancelled, never, nil},
		{"issued, and to be taken back", toCancel(testOrder(fleet.OrderPending)), func(o *fleet.Order) turn { return testRules().polled(o, status(connector.Issued), noon) }, fleet.OrderCancelled, never, nil},

		// No answer to a question.
		{"the network", testOrder(fleet.OrderPending), func(o *fleet.Order) turn { return testRules().unanswered(o, failure(connector.ClassRetry), noon) }, fleet.OrderPending, quickly, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.EqualValues(t, 1, b.Failures)
		}},
		{"too often", testOrder(fleet.OrderPending), func(o *fleet.Order) turn {
			return testRules().unanswered(o, &connector.Error{Class: connector.ClassBusy, RetryAfter: time.Hour}, noon)
		}, fleet.OrderPending, time.Hour + 2500*time.Millisecond, nil},
		{"credentials", testOrder(fleet.OrderNeedsPerson), func(o *fleet.Order) turn { return testRules().unanswered(o, failure(connector.ClassCredentials), noon) }, fleet.OrderNeedsPerson, 5500 * time.Millisecond, nil},
		{"not found shortly after", testOrder(fleet.OrderPending), func(o *fleet.Order) turn { return testRules().unanswered(o, failure(connector.ClassNotFound), noon) }, fleet.OrderPending, 45 * time.Second, nil},
		{"not found any more", edit(testOrder(fleet.OrderPending), func(b *fleet.Brokering) { b.SubmittedAt = noon.Add(-time.Hour) }), func(o *fleet.Order) turn { return testRules().unanswered(o, failure(connector.ClassNotFound), noon) }, fleet.OrderNeedsPerson, slowly, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Contains(t, b.Mend, "17")
		}},
		{"the answer is refused", testOrder(fleet.OrderPending), func(o *fleet.Order) turn { return testRules().unanswered(o, failure(connector.ClassRefused), noon) }, fleet.OrderNeedsPerson, slowly, nil},
		{"another program answers", testOrder(fleet.OrderPending), func(o *fleet.Order) turn { return testRules().unanswered(o, failure(connector.ClassAnswer), noon) }, fleet.OrderPending, slowly, nil},
		{"wrong settings for questions", testOrder(fleet.OrderPending), func(o *fleet.Order) turn { return testRules().unanswered(o, failure(connector.ClassConfig), noon) }, fleet.OrderPending, slowly, nil},
		{"the certificate is not ready", testOrder(fleet.OrderReady), func(o *fleet.Order) turn { return testRules().unanswered(o, failure(connector.ClassNotReady), noon) }, fleet.OrderReady, 45 * time.Second, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Empty(t, b.Failure, "which is no failure")
		}},
		{"an authority that keeps nothing lost the certificate", testOrder(fleet.OrderReady), func(o *fleet.Order) turn { return free.unanswered(o, failure(connector.ClassNotFound), noon) }, fleet.OrderRejected, never, func(t *testing.T, _ *fleet.Brokering, p *wire.Problem) {
			assert.Equal(t, wire.CodeUnavailable, p.Code, "by which the agent orders again")
		}},

		// Searches.
		{"found", testOrder(fleet.OrderUnknown), func(o *fleet.Order) turn {
			return testRules().found(o, []connector.Status{*status(connector.NeedsPerson)}, noon, noon)
		}, fleet.OrderNeedsPerson, slowly, nil},
		{"found twice the same", testOrder(fleet.OrderUnknown), func(o *fleet.Order) turn {
			return testRules().found(o, []connector.Status{*status(connector.Issued), *status(connector.Issued)}, noon, noon)
		}, fleet.OrderReady, atOnce, nil},
		{"found several", testOrder(fleet.OrderUnknown), func(o *fleet.Order) turn {
			other := *status(connector.Pending)
			other.Handle.Order = "18"
			return testRules().found(o, []connector.Status{*status(connector.Pending), other}, noon, noon)
		}, fleet.OrderUnknown, never, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Equal(t, []fleet.OrderHandle{{Order: "17"}, {Order: "18"}}, b.Candidates)
			assert.Contains(t, b.Mend, "certctl orders resolve a/o1")
		}},
		{"not found at first", testOrder(fleet.OrderUnknown), func(o *fleet.Order) turn { return testRules().found(o, nil, noon, noon) }, fleet.OrderUnknown, quickly, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.EqualValues(t, 1, b.Searches)
		}},
		{"not found again, too early", edit(testOrder(fleet.OrderUnknown), func(b *fleet.Brokering) { b.Searches, b.SearchedAt = 1, noon.Add(-9*time.Second) }), func(o *fleet.Order) turn { return testRules().found(o, nil, noon, noon) }, fleet.OrderUnknown, quickly, nil},
		{"not found, which proves it", edit(testOrder(fleet.OrderUnknown), func(b *fleet.Brokering) {
			b.Searches, b.SearchedAt, b.UnknownSince = 1, noon.Add(-2*time.Minute), noon.Add(-2*time.Minute)
		}), func(o *fleet.Order) turn { return testRules().found(o, nil, noon, noon) }, fleet.OrderRequested, atOnce, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.EqualValues(t, 2, b.Searches, "the state asks for the proof")
		}},
		{"not found, and began too early to prove it", edit(testOrder(fleet.OrderUnknown), func(b *fleet.Brokering) {
			b.Searches, b.SearchedAt, b.UnknownSince = 1, noon.Add(-2*time.Minute), noon.Add(-2*time.Minute)
		}), func(o *fleet.Order) turn { return testRules().found(o, nil, noon.Add(-time.Second), noon) }, fleet.OrderUnknown, quickly, nil},
		{"not found, and another node may be sending", edit(testOrder(fleet.OrderUnknown), func(b *fleet.Brokering) {
			foreign(b)
			b.Searches, b.SearchedAt, b.UnknownSince = 5, noon.Add(-2*time.Minute), noon.Add(-2*time.Minute)
			b.Claim.At = noon.Add(-2*time.Minute - 150*time.Second)
		}), func(o *fleet.Order) turn { return testRules().found(o, nil, noon, noon) }, fleet.OrderUnknown, quickly, nil},
		{"not found, shortly after a restore", edit(testOrder(fleet.OrderUnknown), func(b *fleet.Brokering) {
			b.Claim = fleet.OrderClaim{}
			b.Searches, b.SearchedAt, b.UnknownSince, b.RestoredAt = 5, noon.Add(-150*time.Second), noon.Add(-150*time.Second), noon.Add(-150*time.Second)
		}), func(o *fleet.Order) turn { return testRules().found(o, nil, noon, noon) }, fleet.OrderUnknown, quickly, nil},
		{"not found for a while", edit(testOrder(fleet.OrderUnknown), func(b *fleet.Brokering) { b.Asked, b.Searches = 4, 4 }), func(o *fleet.Order) turn { return testRules().found(o, nil, noon, noon) }, fleet.OrderUnknown, 110*time.Second + 14300*time.Millisecond, nil},
		{"not found, where that proves nothing", testOrder(fleet.OrderUnknown), func(o *fleet.Order) turn { return unsure.found(o, nil, noon, noon) }, fleet.OrderUnknown, 5*time.Minute + 30*time.Second, nil},
		{"not found for the last time, where that proves nothing", edit(testOrder(fleet.OrderUnknown), func(b *fleet.Brokering) { b.Searches = 2 }), func(o *fleet.Order) turn { return unsure.found(o, nil, noon, noon) }, fleet.OrderUnknown, never, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Contains(t, b.Mend, "certctl orders resolve")
		}},
		{"not found, after several were", edit(testOrder(fleet.OrderUnknown), func(b *fleet.Brokering) {
			b.Searches, b.UnknownSince, b.Candidates = 8, noon.Add(-time.Hour), []fleet.OrderHandle{{Order: "17"}, {Order: "18"}}
		}), func(o *fleet.Order) turn { return testRules().found(o, nil, noon, noon) }, fleet.OrderUnknown, never, nil},
		{"a search without an answer", testOrder(fleet.OrderUnknown), func(o *fleet.Order) turn { return testRules().unanswered(o, failure(connector.ClassRetry), noon) }, fleet.OrderUnknown, quickly, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Zero(t, b.Searches, "which proves nothing")
		}},
		{"a search that is refused", testOrder(fleet.OrderUnknown), func(o *fleet.Order) turn { return testRules().unanswered(o, failure(connector.ClassNeedsPerson), noon) }, fleet.OrderUnknown, slowly, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Equal(t, "mend it", b.Mend)
			assert.Zero(t, b.Searches)
		}},
		{"asked to look where nothing can be looked for", testOrder(fleet.OrderUnknown), func(o *fleet.Order) turn { return blind.unsearched(o, noon) }, fleet.OrderUnknown, never, nil},

		// The certificate.
		{"fetched", testOrder(fleet.OrderReady), func(o *fleet.Order) turn { return testRules().collected(o, &certificate{}, noon) }, fleet.OrderIssued, never, nil},
		{"in the answer to the placement", testOrder(fleet.OrderPlacing), func(o *fleet.Order) turn {
			return testRules().placedAndCollected(o, status(connector.Issued), &certificate{}, noon)
		}, fleet.OrderIssued, never, nil},
		{"in the answer, and to be taken back", toCancel(testOrder(fleet.OrderPlacing)), func(o *fleet.Order) turn {
			return testRules().placedAndCollected(o, status(connector.Issued), &certificate{}, noon)
		}, fleet.OrderReady, atOnce, nil},
		{"of another key", testOrder(fleet.OrderReady), func(o *fleet.Order) turn { return testRules().refused(o, pki.ErrKeyMismatch, noon) }, fleet.OrderReady, 45 * time.Second, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.EqualValues(t, 1, b.WrongCertificates)
		}},
		{"of another key again and again", edit(testOrder(fleet.OrderReady), func(b *fleet.Brokering) { b.WrongCertificates = maxWrong - 1 }), func(o *fleet.Order) turn { return testRules().refused(o, pki.ErrKeyMismatch, noon) }, fleet.OrderNeedsPerson, slowly, nil},
		{"without its issuer", testOrder(fleet.OrderReady), func(o *fleet.Order) turn { return testRules().refused(o, &incompleteError{"CN=x"}, noon) }, fleet.OrderNeedsPerson, slowly, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Contains(t, b.Mend, "chain_file")
		}},
		{"whose issuers cannot be asked for", testOrder(fleet.OrderReady), func(o *fleet.Order) turn { return testRules().refused(o, failure(connector.ClassRetry), noon) }, fleet.OrderReady, quickly, nil},

		// Taking back.
		{"taken back", toCancel(testOrder(fleet.OrderPending)), func(o *fleet.Order) turn { return testRules().takenBack(o, "done", noon) }, fleet.OrderCancelled, never, func(t *testing.T, _ *fleet.Brokering, p *wire.Problem) {
			assert.Equal(t, wire.CodeOrderCancelled, p.Code)
		}},
		{"to be taken back, and not known any more", edit(toCancel(testOrder(fleet.OrderPending)), func(b *fleet.Brokering) { b.SubmittedAt = noon.Add(-time.Hour) }), func(o *fleet.Order) turn {
			return testRules().unheardOf(o, failure(connector.ClassNotFound), noon)
		}, fleet.OrderCancelled, never, nil},
		{"to be taken back, and not known yet", toCancel(testOrder(fleet.OrderPending)), func(o *fleet.Order) turn {
			return testRules().unheardOf(o, failure(connector.ClassNotFound), noon)
		}, fleet.OrderPending, 45 * time.Second, nil},
		{"not taken back", toCancel(testOrder(fleet.OrderPending)), func(o *fleet.Order) turn {
			return testRules().kept(o, status(connector.Pending), "no", "do it there", noon)
		}, fleet.OrderNeedsPerson, slowly, func(t *testing.T, b *fleet.Brokering, _ *wire.Problem) {
			assert.Equal(t, "do it there", b.Mend)
		}},
		{"not taken back, and rejected", toCancel(testOrder(fleet.OrderPending)), func(o *fleet.Order) turn {
			return testRules().kept(o, status(connector.Rejected), "no", "do it there", noon)
		}, fleet.OrderRejected, never, nil},
		{"not taken back, and issued", toCancel(testOrder(fleet.OrderPending)), func(o *fleet.Order) turn {
			return testRules().kept(o, status(connector.Issued), "no", "do it there", noon)
		}, fleet.OrderCancelled, never, nil},
		{"a request that cannot be read", testOrder(fleet.OrderRequested), func(o *fleet.Order) turn {
			return testRules().invalid(o, &wire.Problem{Code: wire.CodeCSRInvalid}, noon)
		}, fleet.OrderRejected, never, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := *row.order
			var kept fleet.Brokering
			if row.order.Brokering != nil {
				kept = *row.order.Brokering
			}
			made := row.turn(row.order)
			assert.Equal(t, row.state, made.state)
			if row.next == never && made.state != fleet.OrderRequested {
				assert.Zero(t, made.b.Next)
			} else if row.next != never {
				assert.Equal(t, row.next, made.b.Next.Sub(noon))
			}
			assert.Equal(t, made.state == fleet.OrderRejected || made.state == fleet.OrderCancelled, made.problem != nil, "who is told why")
			if row.check != nil {
				row.check(t, &made.b, made.problem)
			}
			assert.Equal(t, before.State, row.order.State)
			if row.order.Brokering != nil {
				assert.Equal(t, kept, *row.order.Brokering, "the record itself is not changed")
			}
		})
	}
}

// Whatever is answered: an order that may be there is not placed again, one that goes
// on is asked about again or waits for somebody who is told what to do, and what is
// unclear ends nothing.
func TestNoAnswerLosesAnOrder(t *testing.T) {
	classes := []connector.Class{
		connector.ClassRetry, connector.ClassBusy, connector.ClassNotReady, connector.ClassCredentials, connector.ClassRefused,
		connector.ClassNeedsPerson, connector.ClassNotFound, connector.ClassConfig, connector.ClassAnswer, "another",
	}
	states := []connector.State{
		connector.Pending, connector.NeedsPerson, connector.Issued, connector.Ended, connector.Rejected, connector.Cancelled, connector.Revoked, connector.Unrecognised, "another",
	}
	rapid.Check(t, func(t *rapid.T) {
		r := testRules()
		r.searches = rapid.Bool().Draw(t, "searches")
		r.visible = rapid.SampledFrom([]time.Duration{-1, 0, time.Second, time.Hour}).Draw(t, "visible")
		o := testOrder(rapid.SampledFrom([]fleet.OrderState{fleet.OrderPlacing, fleet.OrderPending, fleet.OrderNeedsPerson, fleet.OrderReady, fleet.OrderUnknown}).Draw(t, "state"))
		b := o.Brokering
		b.Slow, b.Asked = rapid.Bool().Draw(t, "slow"), rapid.Uint32Range(0, 1<<31).Draw(t, "asked")
		b.Since = noon.Add(-time.Duration(rapid.Int64Range(-int64(time.Hour), int64(100*24*time.Hour)).Draw(t, "since")))
		b.WrongCertificates = rapid.Uint32Range(0, 10).Draw(t, "wrong")
		b.Searches = rapid.Uint32Range(0, 4).Draw(t, "searches so far")
		b.UnknownSince = noon.Add(-time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, "unknown since")))
		b.SearchedAt = b.UnknownSince
		if rapid.Bool().Draw(t, "claimed by another") {
			b.Claim.Node = "n2"
		}
		if rapid.Bool().Draw(t, "to be taken back") {
			toCancel(o)
		}
		e := failure(rapid.SampledFrom(classes).Draw(t, "class"))
		e.RetryAfter = time.Duration(rapid.Int64Range(0, int64(100*time.Hour)).Draw(t, "retry after"))
		s := status(rapid.SampledFrom(states).Draw(t, "authority's state"))
		final := s.State.Final()

		var made turn
		ends := false // it may
		switch what := rapid.SampledFrom([]string{"answer", "failure", "orphan", "search", "wrong"}).Draw(t, "what"); {
		case what == "orphan" && o.State == fleet.OrderPlacing:
			made = r.orphaned(o, noon)
		case what == "search" && o.State == fleet.OrderUnknown:
			n := rapid.IntRange(0, 2).Draw(t, "found")
			var list []connector.Status
			for i := range n {
				one := *s
				one.Handle.Order = []string{"17", "18"}[i]
				list = append(list, one)
			}
			made = r.found(o, list, noon, noon)
			ends = n == 1 && (final || s.State == connector.Issued && b.Cancel != nil)
			if made.state == fleet.OrderRequested {
				require.Zero(t, n)
				require.GreaterOrEqual(t, r.visible, time.Duration(0), "where not to be found proves nothing")
				require.False(t, b.UnknownSince.Add(r.visible).After(noon), "before it would be visible")
				if b.Claim.Node != r.node {
					require.False(t, b.Claim.At.Add(r.placeLimit+r.visible).After(noon), "while another may be sending")
				}
				return
			}
		case what == "wrong" && o.State == fleet.OrderReady:
			made = r.wrong(o, errors.New("another key"), noon)
		case o.State == fleet.OrderPlacing && what == "answer":
			made = r.placed(o, s, noon)
			ends = final
		case o.State == fleet.OrderPlacing:
			made = r.notPlaced(o, e, noon)
		case o.State == fleet.OrderUnknown:
			made = r.unanswered(o, e, noon)
		case what == "answer":
			made = r.polled(o, s, noon)
			ends = final || s.State == connector.Issued && b.Cancel != nil
		default:
			made = r.unanswered(o, e, noon)
		}
		ended := made.state == fleet.OrderRejected || made.state == fleet.OrderCancelled
		require.Equal(t, ends, ended, "%s", made.state)
		require.NotEqual(t, fleet.OrderRequested, made.state, "it may be there, and would be placed again")
		require.NotEqual(t, fleet.OrderIssued, made.state)
		hasHandle := slices.Contains([]fleet.OrderState{fleet.OrderPending, fleet.OrderNeedsPerson, fleet.OrderReady}, made.state)
		require.Equal(t, hasHandle || ended, !made.b.Handle.IsZero())
		if ended {
			return
		}
		if made.b.Next.IsZero() {
			require.Equal(t, fleet.OrderUnknown, made.state)
			require.NotEmpty(t, made.b.Mend, "nobody knows what to do")
			return
		}
		require.False(t, made.b.Next.Before(noon))
		require.LessOrEqual(t, made.b.Next.Sub(noon), asyncpoll.MaxPause+time.Hour+time.Hour/5)
	})
}
