package renewal

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestFirstCertificateAndARenewal(t *testing.T) {
	w := newWorld(t)
	w.open()
	changes := 0
	w.e.OnChange(func() { changes++ })
	w.tick()
	first := w.record()
	require.Equal(t, store.PhaseIdle, first.Phase)
	assert.Equal(t, w.clock.now(), first.Current.IssuedAt)
	assert.True(t, first.RenewAt.After(w.clock.now().Add(50*day)))
	assert.Positive(t, changes)

	w.clock.set(first.RenewAt.Add(-time.Minute))
	w.tick()
	require.Equal(t, 1, w.ca.orders(), "renewed before its time")
	w.toRenewal()
	w.tick()
	second := w.record()
	assert.Equal(t, uint64(2), second.Current.Number)
	assert.NotEqual(t, first.Current.KeyID, second.Current.KeyID, "a key is never used again")
	w.requireServed(2)
	for _, renewed := range append(w.events(wire.EventRenewed), w.events(wire.EventIssued)...) {
		assert.Equal(t, "ca", renewed.Issuer)
		assert.Empty(t, renewed.Reason)
	}
	for kind, n := range map[wire.EventKind]int{wire.EventIssued: 2, wire.EventDeployed: 4, wire.EventRenewed: 2, wire.EventFailed: 0} {
		assert.Len(t, w.events(kind), n, kind)
	}
}

func TestReplacesIsTheCertificateInService(t *testing.T) {
	w := newWorld(t)
	var replaced []*x509.Certificate
	w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
		replaced = append(replaced, order.Replaces)
		return nil
	})
	w.open()
	first := w.settleDown()
	w.toRenewal()
	w.tick()
	require.Len(t, replaced, 2)
	assert.Nil(t, replaced[0])
	assert.Equal(t, first.Current.Fingerprint, pki.Fingerprint(replaced[1]))
}

// What an authority sends by mistake never reaches a target.
func TestUnusableCertificates(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		spoil func(*x509.Certificate, *crypto.PublicKey)
		want  error
	}{
		"another key":        {func(_ *x509.Certificate, key *crypto.PublicKey) { *key = other.Public() }, pki.ErrKeyMismatch},
		"expired on arrival": {func(c *x509.Certificate, _ *crypto.PublicKey) { c.NotAfter = c.NotBefore.Add(time.Minute) }, pki.ErrExpired},
		"endless serial": {func(c *x509.Certificate, _ *crypto.PublicKey) {
			c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 50_000)
		}, nil},
		"year zero":    {func(c *x509.Certificate, _ *crypto.PublicKey) { c.NotBefore = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC) }, nil},
		"another name": {func(c *x509.Certificate, _ *crypto.PublicKey) { c.DNSNames = []string{"other.example.com"} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.open()
			before := w.settleDown()
			w.ca.spoil = c.spoil
			w.toRenewal()
			w.tick()

			rec := w.record()
			assert.Equal(t, store.PhaseIdle, rec.Phase, "the order must be dropped")
			assert.Equal(t, 1, rec.Attempt)
			assert.Equal(t, wire.StateFailed, rec.Summary().State)
			assert.Contains(t, rec.NeedsAttention, "cannot be used and was not deployed")
			if c.want != nil {
				assert.Contains(t, rec.LastError, c.want.Error())
			}
			assert.Equal(t, before.Current.Fingerprint, w.places[0].served)
			assert.Equal(t, before.Current.Fingerprint, w.places[1].served)
			assert.Len(t, w.events(wire.EventFailed), 1)
			files, err := os.ReadDir(filepath.Join(w.dir, "keys"))
			require.NoError(t, err)
			assert.Len(t, files, 1, "the dropped order's key is removed")

			orders := w.ca.orders()
			w.tick()
			assert.Equal(t, orders, w.ca.orders(), "tried again without a pause")
			w.ca.spoil = nil
			rec = w.settleDown()
			assert.Empty(t, rec.NeedsAttention)
			assert.Empty(t, rec.LastError)
			assert.EqualValues(t, 2, rec.Renewals)
		})
	}
	t.Run("nothing at all", func(t *testing.T) {
		w := newWorld(t)
		w.issuer = emptyIssuer{}
		w.open()
		w.tick()
		assert.Contains(t, w.record().LastError, "no certificate")
	})
}

type emptyIssuer struct{}

func (emptyIssuer) Kind() string { return "empty" }
func (emptyIssuer) Issue(context.Context, *issuer.Order) (*issuer.Issued, error) {
	return nil, nil
}

func TestFailuresOfTheIssuer(t *testing.T) {
	refuse := func(class issuer.Class, after time.Duration) error {
		return &issuer.Error{Class: class, RetryAfter: after, Mend: "ask the CA's operator", Err: errors.New("no")}
	}
	for name, c := range map[string]struct {
		err       error
		attempts  int
		drops     bool
		attention bool
		pause     time.Duration
		reason    wire.Reason
	}{
		"unclassified": {errors.New("connection refused"), 1, false, false, time.Minute, wire.ReasonUnavailable},
		"retry":        {refuse(issuer.ClassRetry, 0), 1, false, false, time.Minute, wire.ReasonUnavailable},
		"retry after":  {refuse(issuer.ClassRetry, time.Hour), 1, false, false, time.Hour, wire.ReasonUnavailable},
		"pending":      {refuse(issuer.ClassPending, 2*time.Hour), 0, false, false, 2 * time.Hour, ""},
		"order gone":   {refuse(issuer.ClassOrderGone, 0), 1, true, false, time.Minute, wire.ReasonOrderGone},
		"refused":      {refuse(issuer.ClassRefused, 0), 1, true, true, time.Hour, wire.ReasonRefused},
		"config":       {refuse(issuer.ClassConfig, 0), 1, false, true, time.Minute, wire.ReasonHost},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.open()
			w.settleDown()
			w.toRenewal()
			var ids []string
			w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
				ids = append(ids, order.ID)
				return c.err
			})
			w.tick()
			rec := w.record()
			assert.Equal(t, c.attempts, rec.Attempt)
			assert.Equal(t, c.drops, rec.Phase == store.PhaseIdle)
			assert.Equal(t, c.attention, rec.NeedsAttention != "")
			assert.InDelta(t, c.pause.Seconds(), rec.RetryAt.Sub(w.clock.now()).Seconds(), c.pause.Seconds()*0.12)
			assert.False(t, rec.NextAction.After(rec.RetryAt))
			if told := w.events(wire.EventFailed); c.attempts > 0 && assert.Len(t, told, 1) {
				assert.Equal(t, "ca", told[0].Issuer)
				assert.Equal(t, c.reason, told[0].Reason)
			}

			// The pause survives a restart.
			w.reopen()
			w.tick()
			require.Len(t, ids, 1, "a restart must not shorten the pause")
			w.clock.set(rec.RetryAt)
			w.tick()
			require.Len(t, ids, 2)
			assert.Equal(t, c.drops, ids[0] != ids[1], "order ids %v", ids)
			w.ca.interfere(nil)
			w.clock.advance(3 * time.Hour)
			w.requireServed(2)
		})
	}
}

func TestFailuresGoOnForEverAndTighten(t *testing.T) {
	w := newWorld(t)
	w.open()
	first := w.settleDown()
	calls := 0
	w.ca.interfere(func(context.Context, *issuer.Order) error { calls++; return errors.New("no route to host") })
	w.clock.set(first.RenewAt)
	for w.clock.now().Before(first.Current.NotAfter.Add(day)) {
		w.tick()
		rec := w.record()
		if left := first.Current.NotAfter.Sub(w.clock.now()); rec.Attempt >= attentionAttempts || left <= 0 {
			require.NotEmpty(t, rec.NeedsAttention, "after %d attempts, %v left", rec.Attempt, left)
		}
		next := rec.NextAction
		require.True(t, next.After(w.clock.now()))
		require.Less(t, next.Sub(w.clock.now()), 7*time.Hour)
		w.clock.set(next)
	}
	assert.Greater(t, calls, 100)
	assert.Less(t, calls, 500)
	assert.Equal(t, 1, w.ca.orders())
	w.ca.interfere(nil)
	w.requireServed(2)
}

func TestPendingOrderIsWoken(t *testing.T) {
	w := newWorld(t)
	ready := false
	w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
		if ready {
			return nil
		}
		if err := order.Save(order.State); err != nil {
			return err
		}
		return &issuer.Error{Class: issuer.ClassPending, RetryAfter: 20 * time.Hour, Err: errors.New("approval")}
	})
	w.open()
	w.tick()
	rec := w.record()
	assert.Equal(t, store.PhaseOrderPlaced, rec.Phase)
	assert.Equal(t, wire.StateRenewing, rec.Summary().State)
	assert.Empty(t, w.events(wire.EventFailed))

	ready = true
	w.tick()
	require.Zero(t, w.ca.issuedCount(), "continued before its time")
	w.e.Wake("unknown")
	w.e.Wake("web")
	w.tick()
	w.requireServed(1)
}

func TestMinuteCertificatesFromAnAuthorityThatBackdates(t *testing.T) {
	w := newWorld(t)
	w.ca.life, w.ca.backdate = time.Minute, time.Hour
	w.open()
	for range 10 * 60 / 5 {
		w.tick()
		if rec := w.record(); rec.Current != nil {
			require.True(t, rec.Current.NotAfter.After(w.clock.now()), "served an expired certificate")
		}
		w.clock.advance(5 * time.Second)
	}
	// Ten minutes at a renewal each 27 to 38 seconds.
	assert.GreaterOrEqual(t, w.ca.issuedCount(), 15)
	assert.LessOrEqual(t, w.ca.issuedCount(), 24)
	assert.Equal(t, w.ca.issuedCount(), w.ca.orders())
}

func TestAYearOfRenewals(t *testing.T) {
	w := newWorld(t)
	w.issuer = informed{authority: w.ca, info: func(leaf *x509.Certificate) (*issuer.RenewalInfo, error) {
		third := leaf.NotAfter.Sub(leaf.NotBefore) / 3
		return &issuer.RenewalInfo{WindowStart: leaf.NotAfter.Add(-third), WindowEnd: leaf.NotAfter.Add(-third + day), RetryAfter: day}, nil
	}}
	w.open()
	visits := 0
	for end := w.clock.now().Add(365 * day); w.clock.now().Before(end); visits++ {
		w.tick()
		next, ok, err := w.store.Store.(*store.Store).NextDue()
		require.NoError(t, err)
		require.True(t, ok)
		require.True(t, next.After(w.clock.now()), "the schedule does not move on")
		w.clock.set(next)
		require.True(t, w.record().Current.NotAfter.After(w.clock.now()))
	}
	// Renewed at two thirds of 90 days.
	assert.InDelta(t, 7, w.ca.issuedCount(), 1)
	assert.Equal(t, w.ca.issuedCount(), w.ca.orders())
	// A verification and a question for renewal information a day, and hardly
	// anything else.
	assert.Less(t, visits, 365*3)
}

func TestRenewalInformation(t *testing.T) {
	w := newWorld(t)
	start := w.clock.now()
	answer := func(*x509.Certificate) (*issuer.RenewalInfo, error) { return nil, errors.New("no route to host") }
	w.issuer = informed{authority: w.ca, info: func(leaf *x509.Certificate) (*issuer.RenewalInfo, error) { return answer(leaf) }}
	w.open()
	w.settleDown()
	w.clock.advance(2 * time.Hour)
	w.tick()
	rec := w.record()
	require.Zero(t, rec.RenewalInfo.SelectedAt)
	require.Zero(t, rec.Attempt, "an error here is no failed renewal")

	answer = func(*x509.Certificate) (*issuer.RenewalInfo, error) {
		return &issuer.RenewalInfo{WindowStart: start.Add(5 * day), WindowEnd: start.Add(6 * day)}, nil
	}
	w.clock.set(rec.RenewalInfo.CheckAgainAt)
	w.tick()
	rec = w.record()
	selected := rec.RenewalInfo.SelectedAt
	require.WithinDuration(t, start.Add(5*day+12*time.Hour), selected, 12*time.Hour)
	require.Equal(t, selected, rec.Summary().RenewAt, "what is reported is what will happen")
	w.clock.set(rec.RenewalInfo.CheckAgainAt)
	w.tick()
	require.Equal(t, selected, w.record().RenewalInfo.SelectedAt, "drawn again")

	w.clock.set(selected.Add(time.Second))
	answer = func(*x509.Certificate) (*issuer.RenewalInfo, error) { panic("of an issuer") }
	w.run(time.Hour, time.Minute)
	require.Equal(t, 2, w.ca.issuedCount(), "renewed when the authority said")
	require.EqualValues(t, 2, w.record().Renewals)
}

func TestIssuerThatPanicsHurtsItsCertificateAlone(t *testing.T) {
	w := newWorld(t)
	w.names = []string{"bad", "good"}
	w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
		if order.Certificate == "bad" {
			panic("of an issuer")
		}
		return nil
	})
	w.open()
	w.tick()
	bad, _, err := w.store.Certificate("bad")
	require.NoError(t, err)
	assert.Contains(t, bad.NeedsAttention, "panicked: of an issuer")
	assert.Contains(t, bad.NeedsAttention, "report it")
	good, _, err := w.store.Certificate("good")
	require.NoError(t, err)
	assert.EqualValues(t, 1, good.Renewals)
	require.NoError(t, w.e.fatal)
}

func TestKeyFileIsLostWhileItsOrderIsUnderWay(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"gone":    os.Remove,
		"damaged": func(path string) error { return os.WriteFile(path, []byte("not a key"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ca.interfere(func(context.Context, *issuer.Order) error { return errors.New("no route to host") })
			w.open()
			w.tick()
			lost := w.record().Next.KeyID
			paths, err := filepath.Glob(filepath.Join(w.dir, "keys", lost+"*"))
			require.NoError(t, err)
			require.Len(t, paths, 1)
			require.NoError(t, spoil(paths[0]))
			w.ca.interfere(nil)
			rec := w.settleDown()
			assert.NotEqual(t, lost, rec.Current.KeyID)
			w.requireServed(1)
		})
	}
}
