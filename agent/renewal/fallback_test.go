package renewal

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

func newWorldOfTwo(t *testing.T) *world {
	w := newWorld(t)
	w.standIn = newAuthority(t, w.clock.now)
	return w
}

// failing is what an authority answers to everything.
func failing(e issuer.Error) func(context.Context, *issuer.Order) error {
	if e.Err == nil {
		e.Err = errors.New("no")
	}
	return func(context.Context, *issuer.Order) error { return &e }
}

// issuedBy requires how many certificates each of the two has issued.
func (w *world) issuedBy(first, second int) {
	w.t.Helper()
	require.Equal(w.t, first, w.ca.issuedCount(), "certificates of the first issuer")
	require.Equal(w.t, second, w.standIn.issuedCount(), "certificates of the stand-in")
}

func TestARefusalGoesOverAtOnceAndTheNextRenewalBeginsWithTheFirst(t *testing.T) {
	w := newWorldOfTwo(t)
	w.tune = func(c *Config) { c.Managed[0].Profile = "short" }
	w.open()
	w.settleDown()
	w.issuedBy(1, 0)

	w.toRenewal()
	w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
		assert.NotNil(t, order.Replaces)
		assert.Equal(t, "short", order.Profile)
		return &issuer.Error{Class: issuer.ClassRefused, Mend: "ask for less", Err: errors.New("no")}
	})
	w.standIn.interfere(func(_ context.Context, order *issuer.Order) error {
		assert.Nil(t, order.Replaces, "it is another authority's")
		assert.Empty(t, order.Profile, "profiles are each authority's own")
		return nil
	})
	w.run(5*time.Minute, 10*time.Second)
	w.issuedBy(1, 1)
	rec := w.settleDown()
	assert.Equal(t, "second", rec.Current.Issuer)
	assert.Equal(t, "ca", rec.Issuer, "what the configuration wants")
	assert.Equal(t, "second", rec.Summary().IssuedBy)
	assert.Empty(t, rec.OrderIssuer)
	told := w.events(wire.EventFailed)[0]
	assert.Contains(t, told.Detail, "second is asked instead of ca")
	assert.Equal(t, "ca", told.Issuer, "whose failure it is")
	assert.Equal(t, wire.ReasonRefused, told.Reason)

	// A stand-in's certificate is as good as any: nothing is renewed for it.
	before := w.ca.calls
	w.ca.interfere(nil)
	for w.clock.now().Before(rec.RenewAt.Add(-time.Hour)) {
		w.clock.advance(day)
		if w.clock.now().Before(rec.RenewAt) {
			w.tick()
		}
	}
	assert.Equal(t, before, w.ca.calls)
	w.issuedBy(1, 1)

	w.toRenewal()
	w.tick()
	rec = w.settleDown()
	w.issuedBy(2, 1)
	assert.Equal(t, "ca", rec.Current.Issuer)
	assert.Empty(t, rec.Summary().IssuedBy)
}

func TestRetryableFailuresGoOverOnlyAtRisk(t *testing.T) {
	w := newWorldOfTwo(t)
	w.open()
	rec := w.settleDown()
	w.toRenewal()
	w.ca.interfere(failing(issuer.Error{Class: issuer.ClassRetry}))
	half := rec.RenewAt.Add(rec.Current.NotAfter.Sub(rec.RenewAt) / 2)
	w.run(half.Sub(w.clock.now())-time.Hour, 30*time.Minute)
	assert.Zero(t, w.standIn.calls, "there is time enough to wait for the first issuer")
	assert.NotEmpty(t, w.record().NeedsAttention)
	w.run(12*time.Hour, 10*time.Minute)
	w.issuedBy(1, 1)
}

// To wait for a turn is no failure of the issuer; but where it comes too late, the
// stand-in is asked all the same.
func TestATurnThatComesTooLateGoesOver(t *testing.T) {
	w := newWorldOfMany(t, 4, Limits{OrdersPerHour: 1, Burst: 1})
	w.standIn = newAuthority(t, w.clock.now)
	w.open()
	w.run(2*time.Minute, 10*time.Second)
	w.issuedBy(1, 3)
	went := w.events(wire.EventFailed)
	require.Len(t, went, 3)
	assert.Equal(t, "ca", went[0].Issuer)
	assert.Equal(t, wire.ReasonNoTurn, went[0].Reason)
	assert.Contains(t, went[0].Detail, "second is asked instead of ca: its turn at issuer ca comes too late")
	for name, rec := range w.records() {
		assert.Empty(t, rec.OrderIssuer, "%s begins with the first issuer again", name)
		assert.Zero(t, rec.Attempt, name)
		assert.Empty(t, rec.NeedsAttention, name)
	}
}

// A turn that comes soon enough is waited for.
func TestATurnThatComesInTimeIsWaitedFor(t *testing.T) {
	w := newWorldOfMany(t, 3, Limits{OrdersPerHour: 12, Burst: 1})
	w.standIn = newAuthority(t, w.clock.now)
	w.open()
	w.run(15*time.Minute, 10*time.Second)
	w.issuedBy(3, 0)
}

func TestOneThatWasNeverServedGoesOverAfterThreeFailures(t *testing.T) {
	w := newWorldOfTwo(t)
	w.ca.interfere(failing(issuer.Error{Class: issuer.ClassConfig}))
	w.open()
	w.run(10*time.Minute, 5*time.Second)
	w.issuedBy(0, 1)
	assert.Equal(t, leaveAttempts, w.ca.calls)
}

func TestAfterTheLastIssuerComesTheFirstAgain(t *testing.T) {
	w := newWorldOfTwo(t)
	w.ca.interfere(failing(issuer.Error{Class: issuer.ClassRefused}))
	w.standIn.interfere(failing(issuer.Error{Class: issuer.ClassRefused}))
	w.open()
	w.run(10*time.Minute, 5*time.Second)
	assert.Equal(t, 1, w.ca.calls)
	assert.Equal(t, 1, w.standIn.calls)
	w.run(day, 10*time.Minute)
	assert.Greater(t, w.ca.calls, 3, "nothing is given up")
	assert.Less(t, w.ca.calls, 40, "and nobody is pestered with what was refused")
	assert.InDelta(t, w.ca.calls, w.standIn.calls, 1)
	w.ca.interfere(nil)
	w.run(day, 10*time.Minute)
	w.issuedBy(1, 0)
}

// An order of which a certificate may come is continued however often it fails;
// only in the last twentieth, with its key destroyed, may another one be placed.
func TestAnOrderWithoutAKnownOutcomeIsNotLeft(t *testing.T) {
	for _, class := range []issuer.Class{issuer.ClassUnknown, issuer.ClassPending} {
		t.Run(class.String(), func(t *testing.T) {
			w := newWorldOfTwo(t)
			w.open()
			rec := w.settleDown()
			w.toRenewal()
			w.ca.interfere(failing(issuer.Error{Class: class, Committed: true}))
			w.tick()
			begun := w.record()
			require.Equal(t, store.PhaseKeyWritten, begun.Phase)
			life := rec.Current.NotAfter.Sub(rec.Current.IssuedAt)
			w.run(rec.Current.NotAfter.Add(-life/20).Sub(w.clock.now())-time.Hour, 3*time.Hour)
			assert.Zero(t, w.standIn.calls)
			assert.Equal(t, begun.OrderID, w.record().OrderID, "the same order")
			w.run(12*time.Hour, 15*time.Minute)
			w.issuedBy(1, 1)
			_, err := w.keys.Load(begun.Next.KeyID)
			assert.Error(t, err, "the key of the order that was left")

			// Had it come in time, it would have been the one.
			w = newWorldOfTwo(t)
			w.open()
			w.settleDown()
			w.toRenewal()
			w.ca.interfere(failing(issuer.Error{Class: class, Committed: true}))
			w.run(10*day, 3*time.Hour)
			w.ca.interfere(nil)
			w.run(day, 10*time.Minute)
			w.issuedBy(2, 0)
		})
	}
}

func TestAnUnclassifiedFailureOfAPlacedOrderIsOfUnknownOutcome(t *testing.T) {
	w := newWorldOfTwo(t)
	w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
		if order.State == nil {
			if err := order.Save([]byte(`{"Number":"x"}`)); err != nil {
				return err
			}
		}
		return errors.New("connection reset")
	})
	w.open()
	w.run(12*time.Hour, 10*time.Minute)
	assert.Zero(t, w.standIn.calls)
}

// withOrders is an authority that keeps orders on the host, as the coordinator's
// issuer does.
type withOrders struct {
	*authority
	forgotten []string
}

func (o *withOrders) Forget(certificate string) error {
	o.forgotten = append(o.forgotten, certificate)
	return nil
}

func TestWhatWasKeptForALeftOrderIsWithdrawn(t *testing.T) {
	w := newWorldOfTwo(t)
	keeper := &withOrders{authority: w.ca}
	w.issuer = keeper
	w.ca.interfere(failing(issuer.Error{Class: issuer.ClassReenrol}))
	w.open()
	w.run(time.Minute, 5*time.Second)
	w.issuedBy(0, 1)
	assert.Equal(t, []string{"web"}, keeper.forgotten)
}

// A stand-in that is taken out of the configuration leaves its order behind.
func TestAStandInThatIsNotConfiguredAnyMore(t *testing.T) {
	w := newWorldOfTwo(t)
	w.ca.interfere(failing(issuer.Error{Class: issuer.ClassRefused}))
	w.standIn.interfere(failing(issuer.Error{Class: issuer.ClassRetry}))
	w.open()
	w.run(2*time.Minute, 5*time.Second)
	require.Equal(t, "second", w.record().Next.Issuer)
	gone := w.standIn
	w.standIn = nil
	w.ca.interfere(nil)
	w.reopen()
	rec := w.settleDown()
	assert.Equal(t, "ca", rec.Current.Issuer)
	assert.Zero(t, gone.issuedCount())
}

// A crash at every step of a renewal that goes over: one certificate comes of
// it, from one of the two.
func TestCrashAtEveryStepOfGoingOver(t *testing.T) {
	w := newWorldOfTwo(t)
	w.open()
	w.settleDown()
	w.toRenewal()
	refuse := failing(issuer.Error{Class: issuer.ClassRefused})
	w.ca.interfere(refuse)
	points := recordCrashes(w, func() { w.run(2*time.Minute, 5*time.Second) })
	w.issuedBy(1, 1)
	standIn := 0
	for _, p := range points {
		t.Run(p.label, func(t *testing.T) {
			p.w.t, p.w.ca.t, p.w.standIn.t = t, t, t
			for _, place := range p.w.places {
				place.t = t
			}
			p.w.ca.interfere(refuse)
			p.w.open()
			rec := p.w.settleDown()
			p.w.issuedBy(1, 1)
			assert.EqualValues(t, 2, rec.Renewals)
			assert.Equal(t, "second", rec.Current.Issuer)
			for _, place := range p.w.places {
				assert.NoError(t, place.Verify(t.Context(), leafOf(rec.Current)))
			}
		})
		if len(p.label) > 12 && p.label[3:12] == "stand-in:" {
			standIn++
		}
	}
	assert.GreaterOrEqual(t, standIn, 4, fmt.Sprint("crash points at the stand-in of ", len(points)))
}
