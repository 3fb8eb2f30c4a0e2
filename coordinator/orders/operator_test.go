package orders_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/digicert"
	"github.com/certctl/certctl/coordinator/connector/sectigo"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/shared/wire"
)

// takenBack are the states of an order that was: one that waits for approval is refused
// that.
var takenBack = []fakeca.State{fakeca.Cancelled, fakeca.Rejected}

func cancel(id string) fleet.CancelOrder {
	return fleet.CancelOrder{Actor: "api_token:op", Agent: "a", ID: id, Note: "not wanted"}
}

// An order that waits is taken back at its authority, and its agent is told.
func TestAnOrderIsTakenBack(t *testing.T) {
	for _, kind := range []string{"digicert", "sectigo"} {
		t.Run(kind, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				v := fakes[kind](t, fakeca.Config{Approval: true})
				e := w.engine("n1", issuers(t, v))
				e.lead()
				defer e.lose()
				w.sync("a", []fleet.OrderPlacement{placement(t, "o1", kind, "www.example.com")})
				pass(time.Hour)
				require.Equal(t, fleet.StageNeedsPerson, w.stage("o1"))
				w.do(cancel("o1"))
				pass(5 * time.Second)
				o := w.order("o1")
				require.Equal(t, fleet.StageCancelled, o.Stage())
				assert.Equal(t, wire.CodeOrderCancelled, o.Problem.Code)
				assert.Contains(t, takenBack, v.fake.Core().Ledger(nil)[0].State)
				w.sync("a", nil, "o1")
				assert.Equal(t, fleet.StageCancelled, w.stage("o1"))
				pass(day)
				once(t, v, 1)
			})
		})
	}
}

// One that was never placed is not, and needs no authority.
func TestAnOrderIsTakenBackBeforeItIsPlaced(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := digicertOf(t, fakeca.Config{})
		v.fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Refuse, Status: 429, RetryAfter: time.Hour})
		e := w.engine("n1", issuers(t, v))
		e.lead()
		defer e.lose()
		w.sync("a", []fleet.OrderPlacement{placement(t, "o1", "digicert", "www.example.com")})
		pass(time.Minute)
		w.do(cancel("o1"))
		assert.Equal(t, fleet.StageCancelled, w.stage("o1"))
		pass(3 * time.Hour)
		once(t, v, 0)
		assert.Equal(t, 1, w.count(fleet.TypeClaimOrder))
	})
}

// Orders that are taken back while they are placed, or while it is not known whether
// they were.
func TestAnOrderIsTakenBackInDoubt(t *testing.T) {
	for name, c := range map[string]struct {
		fault  fakeca.Kind
		orders int
	}{"it is there": {fakeca.Lost, 1}, "it is not there": {fakeca.Dropped, 0}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				_, v := digicertOf(t, fakeca.Config{Approval: true, Hidden: time.Minute})
				v.fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: c.fault})
				e := w.engine("n1", issuers(t, v))
				e.lead()
				defer e.lose()
				w.sync("a", []fleet.OrderPlacement{placement(t, "o1", "digicert", "www.example.com")})
				pass(5 * time.Second)
				require.Equal(t, fleet.StageUnknown, w.stage("o1"))
				w.do(cancel("o1"))
				pass(time.Hour)
				assert.Equal(t, fleet.StageCancelled, w.stage("o1"))
				once(t, v, c.orders)
				for _, o := range v.fake.Core().Ledger(nil) {
					assert.Contains(t, takenBack, o.State)
				}
				assert.Equal(t, 1, w.count(fleet.TypeClaimOrder))
			})
		})
	}
	t.Run("while it is placed", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			_, v := digicertOf(t, fakeca.Config{Approval: true})
			list := issuers(t, v)
			slow := &slowAnswers{Connector: list["digicert"].Connector.(*digicert.Connector), until: make(chan struct{})}
			e := w.engine("n1", map[string]orders.Issuer{"digicert": {Kind: "digicert", Connector: slow}})
			e.lead()
			defer e.lose()
			w.sync("a", []fleet.OrderPlacement{placement(t, "o1", "digicert", "www.example.com")})
			pass(5 * time.Second)
			require.Equal(t, fleet.StagePlacing, w.stage("o1"))
			w.do(cancel("o1"))
			pass(5 * time.Second)
			close(slow.until)
			pass(time.Minute)
			assert.Equal(t, fleet.StageCancelled, w.stage("o1"))
			assert.Contains(t, takenBack, v.fake.Core().Ledger(nil)[0].State)
		})
	})
}

// What its authority takes back no more, is watched until it ends there; a certificate
// that nobody wants is not delivered.
func TestAnOrderThatCannotBeTakenBack(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := sectigoOf(t, fakeca.Config{Delay: 6 * time.Hour})
		e := w.engine("n1", issuers(t, v))
		e.lead()
		defer e.lose()
		w.sync("a", []fleet.OrderPlacement{placement(t, "o1", "sectigo", "www.example.com")})
		pass(time.Minute)
		w.do(cancel("o1"))
		pass(time.Minute)
		o := w.order("o1")
		require.Equal(t, fleet.StageNeedsPerson, o.Stage())
		assert.NotEmpty(t, o.Brokering.Mend)
		pass(8 * time.Hour)
		assert.Equal(t, fleet.StageCancelled, w.stage("o1"))
		assert.Empty(t, w.order("o1").ChainPEM)
	})
	t.Run("nothing is taken back there", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			fake, v := digicertOf(t, fakeca.Config{Approval: true})
			list := issuers(t, v)
			e := w.engine("n1", map[string]orders.Issuer{"digicert": {Kind: "digicert", Connector: blind{list["digicert"].Connector}}})
			e.lead()
			defer e.lose()
			w.sync("a", []fleet.OrderPlacement{placement(t, "o1", "digicert", "www.example.com")})
			pass(time.Minute)
			w.do(cancel("o1"))
			pass(time.Hour)
			o := w.order("o1")
			require.Equal(t, fleet.StageNeedsPerson, o.Stage())
			assert.Contains(t, o.Brokering.Mend, o.Brokering.Handle.Order)
			require.NoError(t, fake.Core().Cancel(fake.Core().Ledger(nil)[0].ID, "by hand"))
			pass(2 * time.Hour)
			assert.Equal(t, fleet.StageCancelled, w.stage("o1"))
		})
	})
}

// The orders of an agent that is retired are taken back, and gone then.
func TestARetiredAgentsOrdersAreTakenBack(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := digicertOf(t, fakeca.Config{Approval: true})
		e := w.engine("n1", issuers(t, v))
		e.lead()
		defer e.lose()
		w.sync("a", []fleet.OrderPlacement{placement(t, "o1", "digicert", "www.example.com")})
		pass(time.Minute)
		w.do(fleet.RetireAgent{Actor: "local", AgentID: "a"})
		pass(time.Minute)
		assert.Contains(t, takenBack, v.fake.Core().Ledger(nil)[0].State)
		_, ok := w.state.View().Order("a", "o1")
		assert.False(t, ok)
	})
}

// An operator who knows that something has changed has the order looked after at once.
func TestAnOrderIsAskedAboutAgainOnAWord(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := digicertOf(t, fakeca.Config{Approval: true})
		e := w.engine("n1", issuers(t, v))
		e.lead()
		defer e.lose()
		p := placement(t, "o1", "digicert", "www.example.com")
		w.sync("a", []fleet.OrderPlacement{p})
		pass(2 * day)
		v.fake.Core().ApproveAll()
		w.do(fleet.RetryOrder{Actor: "local", Agent: "a", ID: "o1"})
		e.Wake()
		pass(2 * time.Second)
		w.delivered(p)
	})
}

// What an authority and an operator do to an order while it is asked about is not
// overwritten.
func TestARecordOverwritesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := digicertOf(t, fakeca.Config{Approval: true})
		e := w.engine("n1", issuers(t, v))
		e.lead()
		defer e.lose()
		w.sync("a", []fleet.OrderPlacement{placement(t, "o1", "digicert", "www.example.com")})
		pass(time.Minute)
		require.Equal(t, fleet.StageNeedsPerson, w.stage("o1"))
		var asked atomic.Bool
		w.hooks(func(_ string, c fleet.Command) error {
			if c.Type == fleet.TypeRecordOrder && !asked.Swap(true) {
				w.do(cancel("o1")) // between the question and its record
			}
			return nil
		}, nil)
		pass(10 * time.Minute)
		assert.True(t, asked.Load())
		assert.Equal(t, fleet.StageCancelled, w.stage("o1"))
	})
}

// A renewal names the order that it renews, where the authority wants to know.
func TestARenewalNamesTheEarlierOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := digicertOf(t, fakeca.Config{}, func(c *digicert.Config) { c.LinkRenewals = true })
		e := w.engine("n1", issuers(t, v))
		e.lead()
		defer e.lose()
		first := placement(t, "o1", "digicert", "www.example.com")
		w.sync("a", []fleet.OrderPlacement{first})
		pass(time.Minute)
		w.delivered(first)
		second := placement(t, "o2", "digicert", "www.example.com")
		other := placement(t, "o3", "digicert", "www.example.com")
		other.Certificate = "another"
		w.sync("a", []fleet.OrderPlacement{second, other})
		pass(time.Minute)
		w.delivered(second)
		assert.Equal(t, w.order("o1").Brokering.Handle, w.order("o2").Brokering.Renews)
		assert.Zero(t, w.order("o3").Brokering.Renews)
	})
}

// The certificate of a delivered order is revoked at its authority.
func TestACertificateIsRevokedAtItsAuthority(t *testing.T) {
	for kind, start := range fakes {
		t.Run(kind, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				v := start(t, fakeca.Config{})
				e := w.engine("n1", issuers(t, v))
				e.lead()
				defer e.lose()
				p := placement(t, "o1", kind, "www.example.com")
				w.sync("a", []fleet.OrderPlacement{p})
				pass(time.Second)
				_, err := e.Revoke(t.Context(), orders.Revocation{Agent: "a", Order: "nobody"})
				require.ErrorIs(t, err, orders.ErrUnknownOrder)
				pass(time.Minute)
				w.delivered(p)
				for range 2 { // it may be asked again
					done, err := e.Revoke(t.Context(), orders.Revocation{Agent: "a", Order: "o1", Reason: 1})
					require.NoError(t, err)
					assert.True(t, done)
				}
				assert.False(t, v.fake.Core().Ledger(nil)[0].Newest().RevokedAt.IsZero())
				account, err := e.Test(t.Context(), kind)
				require.NoError(t, err)
				assert.NotEmpty(t, account.Name)
				_, err = e.Test(t.Context(), "nobody")
				require.ErrorIs(t, err, orders.ErrUnknownIssuer)
			})
		})
	}
}

// How far the proof of control of an order's names is, is asked for by operators.
func TestTheProofsOfAnOrderAreShown(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := sectigoOf(t, fakeca.Config{Approval: true})
		list := issuers(t, v)
		e := w.engine("n1", list)
		e.lead()
		defer e.lose()
		w.sync("a", []fleet.OrderPlacement{placement(t, "o1", "sectigo", "www.example.com")})
		pass(time.Minute)
		proofs, err := e.Validations(t.Context(), "a", "o1")
		require.NoError(t, err)
		assert.NotEmpty(t, proofs)
		plain := w.engine("n2", map[string]orders.Issuer{"sectigo": {Connector: blind{list["sectigo"].Connector}}})
		_, err = plain.Validations(t.Context(), "a", "o1")
		require.ErrorIs(t, err, orders.ErrUnsupported)
	})
}

// An order that a backup knows less of than its authority is looked for, under each
// name that it may have there, and not placed again.
func TestOrdersOfABackupAreLookedForFirst(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		fake, v := digicertOf(t, fakeca.Config{Delay: time.Minute})
		// It was placed, which the state of the backup never saw.
		p := placement(t, "o1", "digicert", "www.example.com")
		_, err := fake.Core().Accept(fakeca.Placement{
			Reference: fleet.OrderReference("a", "o1"), PublicKey: publicKey(t, p), Names: p.Names.Strings(), CommonName: "www.example.com",
		})
		require.NoError(t, err)
		p.Doubtful = true
		w.sync("a", []fleet.OrderPlacement{p})
		require.Equal(t, fleet.StageUnknown, w.stage("o1"))
		e := w.engine("n1", issuers(t, v))
		e.lead()
		defer e.lose()
		pass(time.Hour)
		w.delivered(p)
		once(t, v, 1)
		assert.Zero(t, w.count(fleet.TypeClaimOrder))
	})
}

// Where orders cost nothing, one that may be there is placed again without a search.
func TestWhereOrdersCostNothingTheyAreRepeated(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := vaultOf(t, fakeca.Config{}, true)
		v.fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Lost}, fakeca.Fault{Kind: fakeca.Dropped})
		e := w.engine("n1", issuers(t, v))
		e.lead()
		defer e.lose()
		p := placement(t, "o1", "vault", "www.example.com")
		w.sync("a", []fleet.OrderPlacement{p})
		pass(time.Minute)
		w.delivered(p)
		assert.NotContains(t, w.kinds("o1"), fleet.KindOrderUnknown)
		assert.Equal(t, 3, w.count(fleet.TypeClaimOrder))
		for _, count := range e.Counts() {
			assert.Equal(t, orders.CallPlace, count.Call, "the answer had the certificate")
		}
		// And out of a backup.
		p = placement(t, "o2", "vault", "api.example.com")
		p.Doubtful = true
		w.sync("a", []fleet.OrderPlacement{p})
		pass(time.Minute)
		w.delivered(p)
	})
}

// The issuer of a certificate is fetched from where the certificate says, if the
// settings allow that. A real server and clock: the engine has its own client for it.
func TestTheIssuerIsFetchedFromWhereTheCertificateSays(t *testing.T) {
	made := newIssuedBy(t)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(made.issuer.Raw) }))
	defer server.Close()
	for _, allowed := range []bool{true, false} {
		w := newWorld(t)
		w.enroll("a")
		p := placement(t, "o1", "slow", "www.example.com")
		bundle := made.sign(t, p, server.URL+"/issuer.der")
		list := map[string]orders.Issuer{"slow": {Connector: atOnce{bundle: bundle}, FetchIssuers: allowed, Limits: asyncpoll.Limits{Rate: 1000, Concurrency: 1}}}
		w.sync("a", []fleet.OrderPlacement{p})
		e := w.engine("n1", list)
		e.lead()
		expected := fleet.StageNeedsPerson
		if allowed {
			expected = fleet.StageCollected
		}
		require.Eventually(t, func() bool { return w.stage("o1") == expected }, time.Minute, 5*time.Millisecond)
		e.lose()
		if allowed {
			w.delivered(p)
		}
	}
}

// atOnce is an authority that issues at once, a leaf alone.
type atOnce struct{ bundle *connector.Bundle }

func (a atOnce) Place(context.Context, *connector.Request) (*connector.Status, error) {
	return &connector.Status{State: connector.Issued, Handle: connector.Handle{Order: "1"}, Bundle: a.bundle}, nil
}

func (a atOnce) Status(context.Context, *connector.Request, connector.Handle) (*connector.Status, error) {
	return a.Place(context.Background(), nil)
}

func (a atOnce) Collect(context.Context, *connector.Request, connector.Handle) (*connector.Bundle, error) {
	return a.bundle, nil
}

func (atOnce) Test(context.Context) (*connector.Account, error) { return nil, errors.New("no") }

var _ connector.Canceller = (*sectigo.Connector)(nil)
