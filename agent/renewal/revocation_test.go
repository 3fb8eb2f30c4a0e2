package renewal

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// revoke reports the certificate in service as revoked an hour ago.
func (w *world) revoke() string {
	w.t.Helper()
	serial := w.record().Current.Serial
	require.NoError(w.t, w.e.Revoked("web", serial, w.clock.now().Add(-time.Minute), pki.ReasonKeyCompromise))
	return serial
}

func TestARevokedCertificateIsReplacedAtOnce(t *testing.T) {
	w := newWorld(t)
	w.open()
	before := w.settleDown()
	w.clock.advance(24 * time.Hour)
	require.ErrorIs(t, w.e.Revoked("unknown", "1", w.clock.now(), 1), ErrUnknown)
	require.ErrorIs(t, w.e.Revoked("web", "ff", w.clock.now(), 1), ErrNotInService)
	require.ErrorIs(t, w.e.Revoked("web", "", w.clock.now(), 1), ErrNotInService)
	require.ErrorContains(t, w.e.Revoked("web", before.Current.Serial, w.clock.now(), 7), "no reason")

	at := w.clock.now().Add(-time.Minute)
	serial := w.revoke()
	rec := w.record()
	assert.Equal(t, &store.Revocation{At: at, Reason: pki.ReasonKeyCompromise}, rec.Current.Revoked)
	assert.Contains(t, rec.NeedsAttention, "revoked")
	assert.Contains(t, rec.NeedsAttention, "keyCompromise")
	row := rec.Summary()
	assert.Equal(t, at, row.RevokedAt)
	assert.Equal(t, pki.ReasonKeyCompromise, row.RevocationReason)
	assert.NotEqual(t, wire.StateValid, row.State)
	assert.Equal(t, at, row.SafeUntil, "not safe now")
	require.Len(t, w.events(wire.EventRevoked), 1)
	assert.Equal(t, serial, w.events(wire.EventRevoked)[0].Serial)
	status, err := w.e.Status()
	require.NoError(t, err)
	assert.NotEmpty(t, status[0].Record.NeedsAttention)

	// The same again changes nothing, whatever is said of it.
	writes := w.store.writes
	revision := rec.NextAction
	require.NoError(t, w.e.Revoked("web", serial, w.clock.now(), 4))
	assert.Len(t, w.events(wire.EventRevoked), 1)
	assert.Equal(t, rec, w.record())
	assert.Equal(t, revision, w.record().NextAction)
	assert.Equal(t, writes+1, w.store.writes)

	w.reopen() // and survives a restart
	assert.Equal(t, rec.Current.Revoked, w.record().Current.Revoked)
	w.requireServed(2)
	rec = w.record()
	assert.NotEqual(t, before.Current.KeyID, rec.Current.KeyID, "a new key")
	assert.Nil(t, rec.Current.Revoked)
	assert.Empty(t, rec.NeedsAttention)
	row = rec.Summary()
	assert.Zero(t, row.RevokedAt)
	assert.Equal(t, wire.StateValid, row.State)
	assert.Equal(t, rec.Current.NotAfter, row.SafeUntil)
	require.ErrorIs(t, w.e.Revoked("web", serial, w.clock.now(), 1), ErrNotInService, "what is replaced is nobody's concern")
}

// What an authority says of the time of a revocation may be odd; it is never
// believed to lie ahead.
func TestOddTimesOfARevocation(t *testing.T) {
	for name, at := range map[string]time.Time{
		"zero": {}, "ahead": noon.Add(1000 * day), "before its life": noon.Add(-1000 * day), "out of range": time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		rec := &store.Certificate{Phase: store.PhaseIdle, Current: &store.Generation{Serial: "1", NotBefore: noon.Add(-day), NotAfter: noon.Add(day)}}
		require.NoError(t, revoked(rec, "1", at, 0, noon), name)
		assert.Equal(t, noon, rec.Current.Revoked.At, name)
		assert.Equal(t, noon, rec.Current.End(), name)
	}
	rec := &store.Certificate{Phase: store.PhaseIdle, Current: &store.Generation{Serial: "1", NotBefore: noon.Add(-2 * day), NotAfter: noon.Add(-day)}}
	require.NoError(t, revoked(rec, "1", noon, 0, noon))
	assert.Equal(t, noon.Add(-day), rec.Current.End(), "it had expired before")
}

// While nobody issues, attempts come as close together as without any valid
// certificate, and the attention says what counts most.
func TestReplacingWhileTheIssuerIsDown(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.ca.interfere(func(context.Context, *issuer.Order) error { return errors.New("no route to host") })
	w.revoke()
	w.run(12*time.Hour, time.Minute)
	rec := w.record()
	assert.Contains(t, rec.NeedsAttention, "revoked")
	assert.Contains(t, rec.NeedsAttention, "no route to host")
	assert.Equal(t, wire.StateFailed, rec.Summary().State)
	assert.Greater(t, rec.Attempt, 20)
	assert.LessOrEqual(t, rec.RetryAt.Sub(w.clock.now()), fraction(unservedPause, 1+retryJitter))
	for _, p := range w.places {
		require.NoError(t, p.Verify(t.Context(), leafOf(rec.Current)), "it stays in service until there is another one")
	}
	w.ca.interfere(nil)
	w.run(40*time.Minute, time.Minute)
	w.requireServed(2)
	assert.Empty(t, w.record().NeedsAttention)
}

// The stand-in is asked as when no valid certificate is in service.
func TestAStandInReplacesARevokedCertificate(t *testing.T) {
	w := newWorldOfTwo(t)
	w.open()
	w.settleDown()
	w.ca.interfere(failing(issuer.Error{Class: issuer.ClassRetry}))
	w.revoke()
	w.run(15*time.Minute, 10*time.Second)
	w.issuedBy(1, 1)
	assert.Equal(t, "second", w.settleDown().Current.Issuer)
}

// A renewal that is under way already becomes the replacement.
func TestARevocationHurriesARenewalUnderWay(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.toRenewal()
	w.ca.interfere(func(context.Context, *issuer.Order) error { return errors.New("no route to host") })
	w.run(3*time.Hour, time.Minute)
	rec := w.record()
	require.Equal(t, store.PhaseKeyWritten, rec.Phase)
	require.True(t, rec.RetryAt.After(w.clock.now()))
	w.ca.interfere(nil)
	w.revoke()
	w.tick()
	w.requireServed(2)
	assert.Equal(t, rec.Next.KeyID, w.record().Current.KeyID)
}

// A pair that is revoked before it is in service everywhere is not put anywhere
// else, and what serves it is not safe and gets back the one before.
func TestARevokedPairIsNotDeployed(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.toRenewal()
	w.places[1].failWith(func(context.Context, *deploy.Task) error {
		return &deploy.Error{Stage: deploy.StageReload, RolledBack: true, Err: errors.New("does not reload")}
	})
	w.tick()
	rec := w.record()
	require.Equal(t, store.PhaseIssued, rec.Phase)
	require.Equal(t, rec.Next.Fingerprint, rec.Deployments["front"].Fingerprint)
	require.NoError(t, w.e.Revoked("web", rec.Next.Serial, w.clock.now(), 1))
	assert.Equal(t, w.clock.now(), w.record().Summary().SafeUntil)
	w.ca.interfere(func(context.Context, *issuer.Order) error { return errors.New("no route to host") })
	w.tick()
	got := w.record()
	assert.Equal(t, rec.Current.Fingerprint, got.Deployments["front"].Fingerprint, "back to the one that is good")
	assert.Equal(t, rec.Current.NotAfter, got.Summary().SafeUntil)
	w.ca.interfere(nil)
	w.places[1].failWith(nil)
	got = w.settleDown()
	assert.Equal(t, 3, w.ca.issuedCount())
	for id, d := range got.Deployments {
		assert.Equal(t, got.Current.Fingerprint, d.Fingerprint)
		assert.Zero(t, d.RevokedAt, id)
	}
}

// A renewal that is asked for one certificate is not made for another one.
func TestRenewWhileItIsInService(t *testing.T) {
	w := newWorld(t)
	w.open()
	rec := w.settleDown()
	is := func(serial string) func(*store.Certificate) bool {
		return func(rec *store.Certificate) bool { return rec.Current != nil && rec.Current.Serial == serial }
	}
	require.ErrorIs(t, w.e.RenewWhile(t.Context(), "web", is("beef")), ErrNotInService)
	require.False(t, w.record().Forced)
	require.Equal(t, rec.NextAction, w.record().NextAction)
	require.NoError(t, w.e.RenewWhile(t.Context(), "web", is(rec.Current.Serial)))
	require.True(t, w.record().Forced)
	w.requireServed(2)
	require.ErrorIs(t, w.e.RenewWhile(t.Context(), "web", is(rec.Current.Serial)), ErrNotInService, "it was replaced")
	require.ErrorIs(t, w.e.RenewWhile(t.Context(), "other", is("")), ErrUnknown)
}
