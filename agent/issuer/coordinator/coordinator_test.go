package coordinator

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	agentsync "github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// courier stands for sync: it hands results to the store when told to.
type courier struct {
	mu      sync.Mutex
	state   agentsync.State
	results chan struct{}
	urged   int
}

func newCourier() *courier {
	return &courier{state: agentsync.State{Standing: agentsync.Connected}, results: make(chan struct{})}
}

func (c *courier) Urge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.urged++
}

func (c *courier) Results() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.results
}

func (c *courier) State() agentsync.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func (c *courier) announce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.results)
	c.results = make(chan struct{})
}

type bench struct {
	t       *testing.T
	store   *store.Store
	courier *courier
	issuer  *Issuer
	key     crypto.Signer
	saved   json.RawMessage
	saveErr error
	chain   string
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, courier: newCourier()}
	var err error
	b.store, err = store.Open(filepath.Join(t.TempDir(), "state", "state.db"), store.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.store.Close()) })
	b.issuer, err = New(Config{Orders: b.store, Courier: b.courier})
	require.NoError(t, err)
	b.key, err = pki.GenerateKey(pki.DefaultKeyAlgorithm)
	require.NoError(t, err)
	b.chain = selfSigned(t, b.key)
	return b
}

func (b *bench) order(id string) *issuer.Order {
	return &issuer.Order{
		ID: id, Certificate: "web", Names: pki.MustParseNames("web.example.com"), Key: b.key, Lifetime: time.Hour,
		State: b.saved,
		Save: func(state json.RawMessage) error {
			if b.saveErr == nil {
				b.saved = state
			}
			return b.saveErr
		},
	}
}

func (b *bench) open() store.Order {
	orders, err := b.store.OpenOrders()
	require.NoError(b.t, err)
	require.Len(b.t, orders, 1)
	return orders[0]
}

func (b *bench) finish(result wire.OrderResult) {
	result.ID = b.open().Request.ID
	_, err := b.store.SetOrderResult(result)
	require.NoError(b.t, err)
	b.courier.announce()
}

func class(t *testing.T, err error) *issuer.Error {
	t.Helper()
	var e *issuer.Error
	require.ErrorAs(t, err, &e)
	return e
}

func TestIssueWaitsForTheResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		done := make(chan error, 1)
		var issued *issuer.Issued
		go func() {
			var err error
			issued, err = b.issuer.Issue(t.Context(), b.order("renewal-1"))
			done <- err
		}()
		synctest.Wait()
		order := b.open()
		assert.Equal(t, "web", order.Request.Certificate)
		assert.EqualValues(t, 3600, order.Request.ValiditySeconds)
		csr, err := pki.ParseCSR(order.Request.CSR)
		require.NoError(t, err)
		assert.Equal(t, []string{"web.example.com"}, csr.Names.DNS)
		assert.Equal(t, 1, b.courier.urged)
		request := wire.SyncRequest{Protocol: wire.Protocol, BootID: "boot-0001", Sequence: 1, Orders: []wire.OrderRequest{order.Request}}
		assert.Nil(t, request.Validate(), "the order must be fit for the wire")

		b.courier.announce() // of somebody else's order
		synctest.Wait()
		b.finish(wire.OrderResult{State: wire.OrderIssued, Chain: b.chain})
		require.NoError(t, <-done)
		require.Len(t, issued.Chain, 1)

		// The result outlives the answer until the next renewal begins.
		again, err := b.issuer.Issue(t.Context(), b.order("renewal-1"))
		require.NoError(t, err)
		assert.Equal(t, issued.Chain[0].Raw, again.Chain[0].Raw)
		b.saved = nil
		_, err = b.issuer.Issue(t.Context(), b.order("renewal-2"))
		assert.Equal(t, issuer.ClassPending, class(t, err).Class)
		all, err := b.store.OrdersOf("web")
		require.NoError(t, err)
		require.Len(t, all, 1)
		assert.NotEqual(t, order.Request.ID, all[0].Request.ID)
		require.NoError(t, b.issuer.Forget("web"))
		all, err = b.store.OrdersOf("web")
		require.NoError(t, err)
		assert.Empty(t, all)
	})
}

// Whatever was lost of the saved state, one renewal is one order with one CSR.
func TestOneRenewalIsOneOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.saveErr = errors.New("disk full")
		_, err := b.issuer.Issue(t.Context(), b.order("renewal-1"))
		require.ErrorIs(t, err, b.saveErr)
		open, err := b.store.OpenOrders()
		require.NoError(t, err)
		assert.Empty(t, open, "nothing is placed before it is saved")
		b.saveErr = nil

		_, err = b.issuer.Issue(t.Context(), b.order("renewal-1"))
		pending := class(t, err)
		assert.Equal(t, issuer.ClassPending, pending.Class)
		assert.Equal(t, 30*time.Second, pending.RetryAfter)
		first := b.open()
		for _, state := range []json.RawMessage{b.saved, nil} { // known, and lost after it was placed
			b.saved = state
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err = b.issuer.Issue(ctx, b.order("renewal-1"))
			assert.Equal(t, issuer.ClassPending, class(t, err).Class)
			assert.Equal(t, first.Request, b.open().Request)
		}
		assert.Equal(t, 1, b.courier.urged, "only a new order is urgent")
	})
}

func TestRefusals(t *testing.T) {
	for code, want := range map[wire.Code]issuer.Class{
		wire.CodeNamesRefused:  issuer.ClassRefused,
		wire.CodeKeyRefused:    issuer.ClassRefused,
		wire.CodeCSRInvalid:    issuer.ClassRefused,
		wire.CodeIssuerUnknown: issuer.ClassRefused,
		wire.CodeConflict:      issuer.ClassOrderGone,
		wire.CodeOverloaded:    issuer.ClassOrderGone,
		wire.CodeInternal:      issuer.ClassOrderGone,
	} {
		t.Run(string(code), func(t *testing.T) {
			e := class(t, rejected(&wire.Problem{Code: code, Detail: "because", Mend: "do this", RetryAfterSeconds: 5}))
			assert.Equal(t, want, e.Class)
			assert.Equal(t, "do this", e.Mend)
			assert.ErrorContains(t, e, "because")
			assert.Equal(t, 1, strings.Count(e.Error(), "do this"))
		})
	}
	assert.NotEmpty(t, class(t, rejected(&wire.Problem{Code: wire.CodeNamesRefused})).Mend)

	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		done := make(chan error, 1)
		go func() {
			_, err := b.issuer.Issue(t.Context(), b.order("renewal-1"))
			done <- err
		}()
		synctest.Wait()
		b.finish(wire.OrderResult{State: wire.OrderRejected, Problem: &wire.Problem{Code: wire.CodeNamesRefused, Detail: "web.example.com"}})
		assert.Equal(t, issuer.ClassRefused, class(t, <-done).Class)
	})
}

// What is at another authority takes minutes or weeks: nobody waits for it, and the
// renewal is told what it waits for.
func TestAnOrderAtAnAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var err error
		b.issuer, err = New(Config{Orders: b.store, Courier: b.courier, Issuer: "slow"})
		require.NoError(t, err)
		done := make(chan error, 1)
		began := time.Now()
		go func() {
			_, err := b.issuer.Issue(t.Context(), b.order("renewal-1"))
			done <- err
		}()
		synctest.Wait()
		id := b.open().Request.ID
		says := func(p wire.OrderProgress) {
			t.Helper()
			changed, err := b.store.SetOrderProgress(id, p)
			require.NoError(t, err)
			require.True(t, changed)
			b.courier.announce()
		}
		says(wire.OrderProgress{Stage: wire.OrderRequested})
		assert.Equal(t, "the order waits to be placed at slow", class(t, <-done).Waiting)
		for stage, want := range map[wire.OrderStage]string{
			wire.OrderPlacing: "the order is being placed at slow", wire.OrderAtAuthority: "slow works on the order",
			wire.OrderUnknown: "it is not known yet whether slow has the order", wire.OrderFetching: "slow has issued the certificate, which is being fetched",
			"a_later_word": "the order at slow is a_later_word",
		} {
			says(wire.OrderProgress{Stage: stage, Detail: "details"})
			_, err = b.issuer.Issue(t.Context(), b.order("renewal-1"))
			pending := class(t, err)
			assert.Equal(t, want+": details", pending.Waiting)
			assert.Equal(t, want+": details", pending.Error())
			assert.False(t, pending.Person)
		}
		says(wire.OrderProgress{Stage: wire.OrderNeedsPerson, Detail: "order 7 waits", Mend: "approve it"})
		_, err = b.issuer.Issue(t.Context(), b.order("renewal-1"))
		pending := class(t, err)
		assert.Equal(t, issuer.ClassPending, pending.Class)
		assert.Equal(t, "the order at slow waits for a person: order 7 waits; approve it", pending.Waiting)
		assert.True(t, pending.Person)
		assert.True(t, pending.MayIssue())
		assert.Equal(t, slowRetryAfter, pending.RetryAfter)
		assert.Zero(t, time.Since(began))

		// What is known stays known while the coordinator is away.
		b.courier.state = agentsync.State{Standing: agentsync.CutOff, CutOffSince: time.Now(), LastError: "no route"}
		_, err = b.issuer.Issue(t.Context(), b.order("renewal-1"))
		assert.ErrorContains(t, err, "not reachable")
		assert.Equal(t, pending.Waiting, class(t, err).Waiting)
		assert.Equal(t, 1, b.courier.urged)
		assert.Equal(t, id, b.open().Request.ID, "it is the same order")
	})
}

// Who has ended an order at the coordinator has had a reason.
func TestAnOrderThatWasEnded(t *testing.T) {
	for _, code := range []wire.Code{wire.CodeOrderCancelled, wire.CodeOrderGivenUp} {
		e := class(t, rejected(&wire.Problem{Code: code, Detail: "not wanted", Mend: "do this"}))
		assert.Equal(t, issuer.ClassRefused, e.Class, "a person is told")
		assert.Equal(t, takenBackAfter, e.RetryAfter, "and no other order begun for long")
		assert.Equal(t, "do this", e.Mend)
		assert.ErrorContains(t, e, "not wanted")
		assert.False(t, e.MayIssue())
	}
}

func TestWithoutACoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for standing, want := range map[agentsync.Standing]issuer.Error{
			agentsync.NotEnrolled: {Class: issuer.ClassConfig, Mend: "certctl-agent enroll"},
			agentsync.Retired:     {Class: issuer.ClassReenrol, Mend: "new token"},
		} {
			b.courier.state.Standing = standing
			_, err := b.issuer.Issue(t.Context(), b.order("renewal-1"))
			e := class(t, err)
			assert.Equal(t, want.Class, e.Class)
			assert.Contains(t, e.Mend, want.Mend)
			assert.False(t, e.MayIssue(), "nothing was ever sent")
		}
		open, err := b.store.OpenOrders()
		require.NoError(t, err)
		assert.Empty(t, open)

		b.courier.state = agentsync.State{Standing: agentsync.CutOff, CutOffSince: time.Now(), LastError: "no route"}
		began := time.Now()
		_, err = b.issuer.Issue(t.Context(), b.order("renewal-1"))
		assert.Zero(t, time.Since(began), "nobody is there to wait for")
		assert.Equal(t, 1, b.courier.urged, "the order waits to be sent")
		assert.Equal(t, issuer.ClassPending, class(t, err).Class)
		assert.True(t, class(t, err).MayIssue())
		assert.ErrorContains(t, err, "coordinator not reachable since 2000-01-01T00:00:00Z: no route; the order waits")
		b.courier.state.Standing = agentsync.Unknown
		_, err = b.issuer.Issue(t.Context(), b.order("renewal-1"))
		assert.Contains(t, class(t, err).Mend, "--replace")
		assert.Equal(t, issuer.ClassReenrol, class(t, err).Class)
		assert.True(t, class(t, err).MayIssue())
	})
}

func TestWhatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for _, state := range []string{`{}`, `[]`, `{"order_id":7}`} {
			b.saved = json.RawMessage(state)
			_, err := b.issuer.Issue(t.Context(), b.order("renewal-1"))
			assert.Equal(t, issuer.ClassOrderGone, class(t, err).Class, state)
		}
		b.saved = nil
		done := make(chan error, 1)
		go func() {
			_, err := b.issuer.Issue(t.Context(), b.order("renewal-1"))
			done <- err
		}()
		synctest.Wait()
		b.finish(wire.OrderResult{State: wire.OrderIssued, Chain: "not PEM"})
		assert.Equal(t, issuer.ClassOrderGone, class(t, <-done).Class)

		b.saved = nil
		go func() {
			_, err := b.issuer.Issue(t.Context(), b.order("renewal-2"))
			done <- err
		}()
		synctest.Wait()
		require.NoError(t, b.store.DeleteOrder(b.open().Request.ID))
		b.courier.announce()
		assert.Equal(t, issuer.ClassOrderGone, class(t, <-done).Class)
	})
}

func TestNewChecksItsConfig(t *testing.T) {
	b := newBench(t)
	for field, cfg := range map[string]Config{
		"Orders":   {Courier: b.courier},
		"Courier":  {Orders: b.store},
		"Patience": {Orders: b.store, Courier: b.courier, Patience: -1},
		"name of":  {Orders: b.store, Courier: b.courier, Issuer: strings.Repeat("x", 200)},
	} {
		_, err := New(cfg)
		assert.ErrorContains(t, err, field)
	}
	assert.Equal(t, "coordinator", b.issuer.Kind())
	var _ issuer.Issuer = b.issuer
	var _ Courier = (*agentsync.Client)(nil)
}
