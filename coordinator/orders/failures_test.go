package orders_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/internal/fakeca"
)

// The answer to a placement is lost in every way in which it can be: after the
// authority took the order, and before.
func TestALostAnswerOrdersNothingTwice(t *testing.T) {
	for name, c := range map[string]struct {
		fault    fakeca.Fault
		accepted bool
	}{
		"connection reset":        {fakeca.Fault{Kind: fakeca.Lost}, true},
		"no answer":               {fakeca.Fault{Kind: fakeca.LostSlow}, true},
		"broken off":              {fakeca.Fault{Kind: fakeca.Cut}, true},
		"half a body":             {fakeca.Fault{Kind: fakeca.Half}, true},
		"huge":                    {fakeca.Fault{Kind: fakeca.Huge}, true},
		"a proxy's page after it": {fakeca.Fault{Kind: fakeca.PageAfter}, true},
		"dropped":                 {fakeca.Fault{Kind: fakeca.Dropped}, false},
		"hangs":                   {fakeca.Fault{Kind: fakeca.Hang}, false},
		"status 500":              {fakeca.Fault{Kind: fakeca.Refuse, Status: 500}, false},
		"status 503":              {fakeca.Fault{Kind: fakeca.Refuse, Status: 503}, false},
		"a proxy's page":          {fakeca.Fault{Kind: fakeca.Page}, false},
	} {
		for kind, start := range fakes {
			t.Run(name+"/"+kind, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					v := start(t, fakeca.Config{Hidden: 30 * time.Second})
					v.fake.Core().Script(fakeca.Place, c.fault)
					e := w.engine("n1", issuers(t, v))
					e.lead()
					defer e.lose()
					p := placement(t, "o1", kind, "www.example.com")
					w.sync("a", []fleet.OrderPlacement{p})
					pass(2 * time.Hour)
					w.delivered(p)
					once(t, v, 1)
					// The body of an answer may be worth nothing without the order being in
					// doubt: GlobalSign's has none.
					doubt := 0
					for _, kind := range w.kinds("o1") {
						if kind == fleet.KindOrderUnknown {
							doubt++
						}
					}
					assert.LessOrEqual(t, doubt, 1)
					if !c.accepted {
						assert.Equal(t, 1, doubt)
						assert.Equal(t, 2, w.count(fleet.TypeClaimOrder), "once more, when it was sure that it is not there")
					} else {
						assert.Equal(t, 1, w.count(fleet.TypeClaimOrder))
					}
					assert.Equal(t, w.count(fleet.TypeClaimOrder), v.fake.Core().Count(fakeca.Place), "as many placements as claims")
				})
			})
		}
	}
}

// What an authority refuses in its own words is no order in doubt.
func TestARefusalEndsAnOrder(t *testing.T) {
	for kind, start := range fakes {
		t.Run(kind, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				v := start(t, fakeca.Config{})
				v.fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Refuse, Status: 400})
				e := w.engine("n1", issuers(t, v))
				e.lead()
				defer e.lose()
				w.sync("a", []fleet.OrderPlacement{placement(t, "o1", kind, "www.example.com")})
				pass(time.Minute)
				if w.stage("o1") == fleet.StageNeedsPerson { // somebody has to act first
					assert.NotEmpty(t, w.order("o1").Brokering.Mend)
				} else {
					require.Equal(t, fleet.StageRejected, w.stage("o1"))
					assert.NotEmpty(t, w.order("o1").Problem.Detail)
				}
				once(t, v, 0)
			})
		})
	}
}

// An authority that takes no order before somebody has acted has it wait for a person:
// it is an alert of its own. It is tried again, slowly, and placed once.
func TestAnOrderWaitsForAPersonBeforeItIsTaken(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := sectigoOf(t, fakeca.Config{})
		refusal := fakeca.Fault{Kind: fakeca.Refuse, Status: 400, ContentType: "application/json", Body: `{"code":-737,"description":"the domain is not validated"}`}
		v.fake.Core().Script(fakeca.Place, fakeca.Repeat(6, refusal)...)
		e := w.engine("n1", issuers(t, v))
		e.lead()
		defer e.lose()
		p := placement(t, "o1", "sectigo", "www.example.com")
		w.sync("a", []fleet.OrderPlacement{p})
		pass(time.Hour)
		o := w.order("o1")
		require.Equal(t, fleet.StageNeedsPerson, o.Stage())
		assert.Contains(t, o.Brokering.Detail, "not validated")
		assert.NotEmpty(t, o.Brokering.Mend)
		assert.Contains(t, w.state.View().OrderCounts(), fleet.OrderCount{Issuer: "sectigo", Stage: fleet.StageNeedsPerson, Count: 1})
		assert.LessOrEqual(t, v.fake.Core().Count(fakeca.Place), 6, "which is slowly")
		pass(8 * time.Hour)
		w.delivered(p)
		once(t, v, 1)
	})
}

// An authority that limits the account is left alone for as long as it says, and
// nothing of another account waits for that.
func TestTooManyRequestsPauseTheAccount(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, busy := digicertOf(t, fakeca.Config{})
		_, other := sectigoOf(t, fakeca.Config{})
		busy.fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Refuse, Status: 429, RetryAfter: 10 * time.Minute})
		e := w.engine("n1", issuers(t, busy, other))
		e.lead()
		defer e.lose()
		first := placement(t, "o1", "digicert", "www.example.com")
		w.sync("a", []fleet.OrderPlacement{first})
		pass(10 * time.Second)
		second, third := placement(t, "o2", "digicert", "api.example.com"), placement(t, "o3", "sectigo", "www.example.com")
		w.sync("a", []fleet.OrderPlacement{second, third})
		pass(9 * time.Minute)
		assert.Equal(t, fleet.StageRequested, w.stage("o1"))
		assert.Equal(t, fleet.StageRequested, w.stage("o2"))
		assert.Equal(t, 1, w.count(fleet.TypeClaimOrder)-1, "what is paused is not claimed either")
		w.delivered(third)
		s := e.Status()[0]
		assert.Equal(t, "digicert", s.Name)
		assert.NotZero(t, s.PausedUntil)
		assert.NotEmpty(t, s.PausedFor)
		pass(5 * time.Minute)
		w.delivered(first)
		w.delivered(second)
		once(t, busy, 2)
	})
}

// Credentials that are not accepted pause the account, and fail no order, whether it
// is placed already or not.
func TestRefusedCredentialsFailNoOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		fake, v := digicertOf(t, fakeca.Config{Approval: true})
		e := w.engine("n1", issuers(t, v))
		e.lead()
		defer e.lose()
		first := placement(t, "o1", "digicert", "www.example.com")
		w.sync("a", []fleet.OrderPlacement{first})
		pass(time.Minute)
		require.Equal(t, fleet.StageNeedsPerson, w.stage("o1"))
		fake.SetKey("another")
		second := placement(t, "o2", "digicert", "api.example.com")
		w.sync("a", []fleet.OrderPlacement{second})
		before := fake.Core().Count(fakeca.Place) + fake.Core().Count(fakeca.Status)
		pass(24 * time.Hour)
		after := fake.Core().Count(fakeca.Place) + fake.Core().Count(fakeca.Status)
		assert.Equal(t, fleet.StageNeedsPerson, w.stage("o1"))
		assert.Equal(t, fleet.StageRequested, w.stage("o2"))
		assert.LessOrEqual(t, after-before, 50, "an account that knocks too often is locked out")
		assert.NotZero(t, e.Status()[0].PausedUntil)
		assert.Contains(t, e.text(), "an account at an authority is paused")

		fake.SetKey("FAKE1KEY2FOR3TESTS4WORTH5NOTHING6")
		fake.Core().ApproveAll()
		require.NoError(t, e.Resume("digicert"))
		require.ErrorIs(t, e.Resume("nobody"), orders.ErrUnknownIssuer)
		pass(10 * time.Second)
		assert.Zero(t, e.Status()[0].PausedUntil)
		assert.Equal(t, fleet.StageNeedsPerson, w.stage("o2"), "at once")
		pass(2 * time.Hour)
		fake.Core().ApproveAll()
		pass(3 * time.Hour)
		w.delivered(first)
		w.delivered(second)
		once(t, v, 2)
	})
}

// An authority that hangs holds up no other one, and each question has its end.
func TestAHangingAuthorityHoldsUpNobody(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, hangs := digicertOf(t, fakeca.Config{Approval: true})
		_, works := sectigoOf(t, fakeca.Config{})
		e := w.engine("n1", issuers(t, hangs, works))
		e.lead()
		defer e.lose()
		var stuck []fleet.OrderPlacement
		for i := range 20 {
			stuck = append(stuck, placement(t, fmt.Sprintf("s%d", i), "digicert", fmt.Sprintf("s%d.example.com", i)))
		}
		w.sync("a", stuck)
		pass(time.Minute)
		hangs.fake.Core().Script(fakeca.Any, fakeca.Repeat(10_000, fakeca.Fault{Kind: fakeca.Hang})...)
		pass(15 * time.Minute)
		p := placement(t, "o1", "sectigo", "www.example.com")
		w.sync("a", []fleet.OrderPlacement{p})
		pass(30 * time.Second)
		w.delivered(p)

		// Its circuit opens, and says so.
		pass(3 * time.Hour)
		for range 5 { // but for the minute in which it is tried
			if pass(30 * time.Second); !e.Status()[0].CircuitUntil.IsZero() {
				break
			}
		}
		assert.NotZero(t, e.Status()[0].CircuitUntil)
		assert.NotEmpty(t, e.Status()[0].CircuitReason)
		assert.Contains(t, e.text(), "an authority fails, and is not asked for a while")
		hangs.fake.Core().Forget()
		hangs.fake.Core().ApproveAll()
		pass(4 * time.Hour)
		for _, p := range stuck {
			w.delivered(p)
		}
		once(t, hangs, len(stuck))
		assert.Zero(t, e.Status()[0].CircuitUntil)
		assert.Contains(t, e.text(), "an authority is asked again")
	})
}

// stuck is an authority that never answers questions about one order, whatever its
// connector would do about that.
type stuck struct{ patient }

func (s *stuck) Status(ctx context.Context, r *connector.Request, h connector.Handle) (*connector.Status, error) {
	if h.Order == "1" {
		<-ctx.Done()
		return nil, &connector.Error{Class: connector.ClassRetry, Err: ctx.Err()}
	}
	return s.patient.Status(ctx, r, h)
}

// Each question has its end, also where a connector knows none: what hangs takes one
// place of its account, and not for ever.
func TestAQuestionThatHangsHasItsEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := &stuck{}
		e := w.engine("n1", map[string]orders.Issuer{"slow": {Connector: s, Limits: asyncpoll.Limits{Rate: 10, Concurrency: 1}}})
		e.lead()
		defer e.lose()
		first, second := placement(t, "o1", "slow", "www.example.com"), placement(t, "o2", "slow", "api.example.com")
		w.sync("a", []fleet.OrderPlacement{first})
		pass(5 * time.Second)
		w.sync("a", []fleet.OrderPlacement{second})
		pass(6 * time.Hour)
		assert.Greater(t, w.order("o1").Brokering.Failures, uint32(3))
		assert.Greater(t, w.order("o2").Brokering.Polls, uint32(3))
	})
}

// A certificate of another key is never delivered. It is fetched again, and then a
// person is told.
func TestAWrongCertificateIsNotDelivered(t *testing.T) {
	for kind, start := range fakes {
		t.Run(kind, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				v := start(t, fakeca.Config{})
				v.fake.Core().Behave(fakeca.Behaviour{WrongKey: -1})
				e := w.engine("n1", issuers(t, v))
				e.lead()
				defer e.lose()
				p := placement(t, "o1", kind, "www.example.com")
				w.sync("a", []fleet.OrderPlacement{p})
				pass(6 * time.Hour)
				o := w.order("o1")
				require.Equal(t, fleet.StageNeedsPerson, o.Stage())
				assert.NotEmpty(t, o.Brokering.Mend)
				assert.GreaterOrEqual(t, o.Brokering.WrongCertificates, uint32(5))
				assert.Empty(t, o.ChainPEM)
				assert.Contains(t, e.text(), "an order waits for a person")
				v.fake.Core().Behave(fakeca.Behaviour{})
				pass(2 * time.Hour)
				w.delivered(p)
				once(t, v, 1)
			})
		})
	}
}

// Chains come turned round, mixed and incomplete.
func TestChainsAreMended(t *testing.T) {
	for name, ways := range map[string]fakeca.Behaviour{
		"turned round":       {Reversed: true},
		"with a stranger":    {Stranger: true, Reversed: true},
		"leaf alone":         {LeafAlone: true},
		"no intermediate":    {NoIntermediate: true},
		"not ready at first": {NotReady: 3},
		"wrong key at first": {WrongKey: 2},
	} {
		for kind, start := range fakes {
			t.Run(name+"/"+kind, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					v := start(t, fakeca.Config{})
					v.fake.Core().Behave(ways)
					list := issuers(t, v)
					if kind == "sectigo" { // which has no way to ask for its issuers
						issuer := list[kind]
						issuer.Chain = v.fake.Core().Issuers()
						list[kind] = issuer
					}
					e := w.engine("n1", list)
					e.lead()
					defer e.lose()
					p := placement(t, "o1", kind, "www.example.com")
					w.sync("a", []fleet.OrderPlacement{p})
					pass(30 * time.Minute)
					w.delivered(p)
					once(t, v, 1)
				})
			})
		}
	}
}

// A certificate without its issuer waits until somebody gives that.
func TestACertificateWithoutItsIssuerWaits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := sectigoOf(t, fakeca.Config{})
		v.fake.Core().Behave(fakeca.Behaviour{LeafAlone: true})
		e := w.engine("n1", issuers(t, v))
		e.lead()
		p := placement(t, "o1", "sectigo", "www.example.com")
		w.sync("a", []fleet.OrderPlacement{p})
		pass(time.Hour)
		require.Equal(t, fleet.StageNeedsPerson, w.stage("o1"))
		assert.Contains(t, w.order("o1").Brokering.Mend, "chain_file")
		e.lose()

		list := issuers(t, v)
		list["sectigo"] = orders.Issuer{Kind: "sectigo", Connector: list["sectigo"].Connector, Chain: v.fake.Core().Issuers()}
		e = w.engine("n1", list)
		e.lead()
		defer e.lose()
		pass(2 * time.Hour)
		w.delivered(p)
		once(t, v, 1)
	})
}

// Orders of an issuer that the settings do not have wait, and it is said.
func TestOrdersOfUnknownIssuersWait(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := digicertOf(t, fakeca.Config{})
		e := w.engine("n1", nil)
		e.lead()
		p := placement(t, "o1", "digicert", "www.example.com")
		w.sync("a", []fleet.OrderPlacement{p})
		pass(time.Hour)
		assert.Equal(t, fleet.StageRequested, w.stage("o1"))
		assert.Equal(t, []orders.IssuerStatus{{Name: "digicert", Leading: true, Orders: 1}}, e.Status())
		assert.Contains(t, e.text(), "orders wait for an issuer that this node does not have")
		_, known := e.Known("digicert")
		assert.False(t, known)
		e.lose()
		assert.Empty(t, e.Status())

		e = w.engine("n2", issuers(t, v))
		e.lead()
		defer e.lose()
		pass(time.Minute)
		w.delivered(p)
		kind, known := e.Known("digicert")
		assert.True(t, known)
		assert.Equal(t, "digicert", kind)
	})
}

// blind is a connector without anything that it may have beside what it must.
type blind struct{ connector.Connector }

// Where nothing can be looked for, an order in doubt waits for the operator, however
// often leaders change, and is placed again only on that one's word.
func TestAnOrderInDoubtWaitsForTheOperator(t *testing.T) {
	for _, action := range []fleet.ResolveAction{fleet.ResolveAdopt, fleet.ResolvePlaceAgain, fleet.ResolveGiveUp} {
		t.Run(string(action), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				_, v := digicertOf(t, fakeca.Config{})
				fault := fakeca.Fault{Kind: fakeca.Lost}
				if action == fleet.ResolvePlaceAgain {
					fault.Kind = fakeca.Dropped
				}
				v.fake.Core().Script(fakeca.Place, fault)
				list := issuers(t, v)
				list["digicert"] = orders.Issuer{Kind: "digicert", Connector: blind{list["digicert"].Connector}, Limits: asyncpoll.Limits{Rate: 100, Concurrency: 4}}
				e := w.engine("n1", list)
				e.lead()
				p := placement(t, "o1", "digicert", "www.example.com")
				w.sync("a", []fleet.OrderPlacement{p})
				pass(24 * time.Hour)
				e.lose()
				e = w.engine("n2", list)
				e.lead()
				defer e.lose()
				pass(24 * time.Hour)
				o := w.order("o1")
				require.Equal(t, fleet.StageUnknown, o.Stage())
				assert.Zero(t, o.Brokering.Next)
				for _, fact := range []string{o.Brokering.Reference, o.PublicKeyFingerprint, "www.example.com", "certctl orders resolve a/o1"} {
					assert.Contains(t, o.Brokering.Mend, fact)
				}
				resolve := fleet.ResolveOrder{Actor: "local", Agent: "a", ID: "o1", Action: action, Note: "looked it up"}
				if action == fleet.ResolveAdopt {
					resolve.Handle = fleet.OrderHandle{Order: v.fake.Core().Ledger(nil)[0].ID}
				}
				w.do(resolve)
				pass(10 * time.Minute)
				if action == fleet.ResolveGiveUp {
					assert.Equal(t, fleet.StageRejected, w.stage("o1"))
				} else {
					w.delivered(p)
				}
				once(t, v, 1)
			})
		})
	}
}

// Several orders that may be the one are never chosen from by a machine.
func TestSeveralCandidatesAreForTheOperator(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		fake, v := digicertOf(t, fakeca.Config{})
		fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Lost})
		e := w.engine("n1", issuers(t, v))
		p := placement(t, "o1", "digicert", "www.example.com")
		w.sync("a", []fleet.OrderPlacement{p})
		// A person has ordered by hand under the same reference.
		w.hooks(func(_ string, c fleet.Command) error {
			if c.Type == fleet.TypeRecordOrder && len(fake.Core().Ledger(nil)) == 1 {
				first := fake.Core().Ledger(nil)[0]
				_, err := fake.Core().Accept(fakeca.Placement{Reference: first.Reference, PublicKey: publicKey(t, p), Names: first.Names, CommonName: first.CommonName, Extra: first.Extra})
				require.NoError(t, err)
			}
			return nil
		}, nil)
		e.lead()
		defer e.lose()
		pass(time.Hour)
		o := w.order("o1")
		require.Equal(t, fleet.StageUnknown, o.Stage())
		assert.Len(t, o.Brokering.Candidates, 2)
		assert.Zero(t, o.Brokering.Next)
		w.do(fleet.ResolveOrder{Actor: "local", Agent: "a", ID: "o1", Action: fleet.ResolveAdopt, Handle: o.Brokering.Candidates[0]})
		pass(time.Minute)
		w.delivered(p)
	})
}

// A record that the state does not take must not have the authority asked again and
// again.
func TestAnOrderRestsWhoseRecordIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := digicertOf(t, fakeca.Config{Delay: time.Minute})
		e := w.engine("n1", issuers(t, v))
		e.lead()
		defer e.lose()
		p := placement(t, "o1", "digicert", "www.example.com")
		w.sync("a", []fleet.OrderPlacement{p})
		pass(3 * time.Second)
		require.Equal(t, fleet.StagePending, w.stage("o1"))
		w.mu.Lock()
		w.refuse = isResult
		w.mu.Unlock()
		before := v.fake.Core().Count(fakeca.Status)
		pass(2 * time.Hour)
		assert.LessOrEqual(t, v.fake.Core().Count(fakeca.Status)-before, 40) // a few of them what has changed
		assert.Contains(t, e.text(), "what became of an order cannot be stored")
		w.mu.Lock()
		w.refuse = nil
		w.mu.Unlock()
		pass(20 * time.Minute)
		w.delivered(p)
	})
}
