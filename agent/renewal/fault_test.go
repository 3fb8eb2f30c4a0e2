package renewal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestDiskFullBeforeAKeyIsMade(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.toRenewal()
	w.keys.failure = errNoSpace
	w.tick()
	rec := w.record()
	assert.Contains(t, rec.NeedsAttention, "disk is full")
	assert.Equal(t, 1, w.ca.orders(), "ordered without room for the answer")
	w.keys.failure = nil
	w.requireServed(2)
}

func TestDiskFullIsShownAlthoughItCannotBeStored(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.toRenewal()
	w.store.writes, w.store.failAt, w.store.failure = 0, 1, errNoSpace
	w.tick()
	status, err := w.e.Status()
	require.NoError(t, err)
	require.Len(t, status, 1)
	assert.Contains(t, status[0].Problem, "disk is full")
	w.store.mu.Lock()
	writes := w.store.writes
	w.store.mu.Unlock()
	w.tick()
	assert.Equal(t, writes, w.store.writes, "tried again without a pause")
	w.requireServed(2)
	status, err = w.e.Status()
	require.NoError(t, err)
	assert.Empty(t, status[0].Problem)
}

func TestClockThatWentBack(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.clock.advance(500 * day) // a wrong clock
	w.ca.interfere(func(context.Context, *issuer.Order) error { return errors.New("certificate of the CA has expired") })
	w.tick()
	rec := w.record()
	require.Contains(t, rec.NeedsAttention, "expired on")
	far := rec.NextAction
	w.clock.advance(-500 * day)
	w.ca.interfere(nil)
	w.tick()
	rec = w.record()
	assert.True(t, rec.NextAction.Before(far.Add(-400*day)), "the schedule still follows the wrong clock")
	w.requireServed(2)
}

func TestVerificationAfterTheClockWentBack(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.clock.advance(30 * day)
	w.tick()
	w.places[0].set(func() { w.places[0].served = "another" })
	w.clock.advance(-30 * day)
	w.tick()
	require.Equal(t, w.record().Current.Fingerprint, w.places[0].served, "verification still follows the wrong clock")
	require.Equal(t, 1, w.ca.orders())
}

func TestOrphanedKeysAreSwept(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	orphan, _, err := w.keys.Keys.Create(pki.ECDSAP256)
	require.NoError(t, err)
	w.clock.advance(orphanAge / 2)
	w.e.sweep(w.clock.now())
	_, err = w.keys.Load(orphan)
	require.NoError(t, err, "a key may be between its making and its record")
	w.run(2*day, time.Hour)
	_, err = w.keys.Load(orphan)
	require.Error(t, err)
	w.requireServed(1)
}

// A crash between the making of an account's key, or of the identity's, and its
// record leaves an orphan in another directory.
func TestOrphansOfOtherDirectoriesAreSweptToo(t *testing.T) {
	w := newWorld(t)
	accounts, err := keys.OpenDir(filepath.Join(w.dir, "accounts"))
	require.NoError(t, err)
	orphan, _, err := accounts.Create(pki.ECDSAP256)
	require.NoError(t, err)
	named, _, err := accounts.Create(pki.ECDSAP256)
	require.NoError(t, err)
	w.tune = func(c *Config) { c.Swept = []Sweeper{accounts} }
	w.open()
	require.NoError(t, w.store.Store.(*store.Store).SaveIssuerState("ca", json.RawMessage(`{"key_id":"`+named+`"}`)))
	w.run(2*day, time.Hour)
	_, err = accounts.Load(orphan)
	require.ErrorIs(t, err, keys.ErrNotFound)
	_, err = accounts.Load(named)
	require.NoError(t, err)
}

func TestScratchDirectoryThatCannotBeMade(t *testing.T) {
	w := newWorld(t)
	w.open()
	e, err := New(Config{
		Store: w.store, Keys: w.keys, Log: slog.New(slog.DiscardHandler),
		ScratchDir: filepath.Join(w.dir, "state.db", "scratch"),
	})
	require.NoError(t, err)
	require.ErrorContains(t, e.Run(t.Context()), "scratch directory")
}

// An issuer may go on in the background after its call was given up; what it
// says then must not touch another order.
func TestSaveThatComesTooLateIsRefused(t *testing.T) {
	w := newWorld(t)
	var late func() error
	w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
		if late == nil {
			late = func() error { return order.Save([]byte(`{"number":"0"}`)) }
			return &issuer.Error{Class: issuer.ClassOrderGone, Err: errors.New("expired")}
		}
		return nil
	})
	w.open()
	w.tick()
	require.ErrorIs(t, late(), errSuperseded)
	w.settleDown()
	before := w.record()
	require.ErrorIs(t, late(), errSuperseded)
	require.Equal(t, before, w.record())
	w.requireServed(1)
}

// A record that no step leaves is begun anew instead of being half believed.
func TestRecordThatContradictsItself(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	require.NoError(t, w.store.Store.Update("web", func(tx *store.CertificateTx) error {
		tx.Record.Phase = store.PhaseIssued
		return nil
	}))
	w.reopen()
	w.requireServed(1)
}

// A full disk at start keeps nobody from what can be done without writing, and
// is made up for later.
func TestDiskFullAtStart(t *testing.T) {
	w := newWorld(t)
	w.names = []string{"web", "old"}
	w.open()
	w.settleDown()
	w.names = []string{"web"}
	k, err := New(Config{
		Store: &fullStore{w.store.Store}, Keys: w.keys, Managed: w.managed(), ScratchDir: filepath.Join(w.dir, "scratch"),
		Log: slog.New(slog.DiscardHandler), Now: w.clock.now,
	})
	require.NoError(t, err)
	require.NoError(t, k.start(t.Context()))
	k.tick(t.Context())
	k.jobs.Wait()
	require.NoError(t, k.fatal)
	require.Equal(t, 2, w.ca.issuedCount())
	w.close()
	w.open()
	_, found, err := w.store.Certificate("old")
	require.NoError(t, err)
	require.False(t, found)
}

// fullStore is a store on a disk without room.
type fullStore struct{ Store }

func (*fullStore) Update(string, func(*store.CertificateTx) error) error { return errNoSpace }
func (*fullStore) Retire([]string, time.Time, func(*store.Certificate) wire.Event) error {
	return errNoSpace
}

func TestSchedulesOfAStoreThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	w.open()
	e, err := New(Config{
		Store: &unreadableStore{w.store.Store}, Keys: w.keys, Managed: w.managed(), ScratchDir: filepath.Join(w.dir, "scratch"),
		Log: slog.New(slog.DiscardHandler), Now: w.clock.now,
	})
	require.NoError(t, err)
	require.ErrorIs(t, e.Run(t.Context()), store.ErrDamaged, "Run must end, and say why")
	require.Zero(t, w.ca.orders())
}

type unreadableStore struct{ Store }

func (*unreadableStore) Due(time.Time, int) ([]string, error) {
	return nil, fmt.Errorf("%w: page 7", store.ErrDamaged)
}

// An authority that is at it for ever is no failure, until the certificate in
// service comes to its end.
func TestPendingOrderIsReportedBeforeExpiry(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.ca.interfere(func(context.Context, *issuer.Order) error {
		return &issuer.Error{Class: issuer.ClassPending, Err: errors.New("coordinator not reachable")}
	})
	w.toRenewal()
	w.tick()
	require.Zero(t, w.record().Attempt)
	require.Empty(t, w.record().NeedsAttention)

	w.clock.set(w.record().Current.NotAfter.Add(-8 * day))
	for range 3 {
		w.tick()
		w.clock.advance(time.Hour)
	}
	rec := w.record()
	assert.Contains(t, rec.NeedsAttention, "expires on")
	assert.Contains(t, rec.NeedsAttention, "coordinator not reachable")
	assert.Equal(t, 1, rec.Attempt)
	assert.Len(t, w.events(wire.EventFailed), 1, "said once")
	assert.Equal(t, store.PhaseKeyWritten, rec.Phase, "the order goes on")

	w.ca.interfere(nil)
	w.e.Wake("web")
	w.requireServed(2)
	assert.Empty(t, w.record().NeedsAttention)
}

// However long an authority has been out of reach, one moment in which a key
// cannot be read must not cost its order.
func TestOneUnreadableMomentDoesNotCostAnOrder(t *testing.T) {
	w := newWorld(t)
	w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
		return errors.Join(errors.New("no route to host"), order.Save(json.RawMessage(`{"Number":"1"}`)))
	})
	w.open()
	w.run(2*time.Hour, 5*time.Minute)
	rec := w.record()
	require.Greater(t, rec.Attempt, keyAttempts)
	for range keyAttempts - 1 {
		w.keys.unreadable = errors.New("too many open files")
		w.clock.advance(day)
		w.tick()
		require.Contains(t, w.record().NeedsAttention, "too many open files")
	}
	w.keys.unreadable = nil
	w.clock.advance(day)
	w.tick()
	assert.Equal(t, rec.OrderID, w.record().OrderID)
	assert.Equal(t, rec.Next.KeyID, w.record().Next.KeyID)
}
