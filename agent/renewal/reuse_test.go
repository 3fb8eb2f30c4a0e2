package renewal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
)

// newWorldOfOneKey is a host that keeps its key, with its first certificate.
func newWorldOfOneKey(t *testing.T, change func(*world)) (w *world, key string) {
	w = newWorld(t)
	w.reuse, w.ca.reuse = true, true
	if change != nil {
		change(w)
	}
	w.open()
	return w, w.settleDown().Current.KeyID
}

// keyFiles are the files in the key directory.
func (w *world) keyFiles() []os.DirEntry {
	w.t.Helper()
	files, err := os.ReadDir(filepath.Join(w.dir, "keys"))
	require.NoError(w.t, err)
	return files
}

func TestAKeyIsKeptFromRenewalToRenewal(t *testing.T) {
	w, key := newWorldOfOneKey(t, nil)
	made := w.record().Current.KeyMadeAt
	require.Equal(t, w.record().Current.IssuedAt, made)
	for n := 2; n <= 4; n++ {
		w.toRenewal()
		w.requireServed(n)
		rec := w.record()
		require.Equal(t, key, rec.Current.KeyID)
		require.Equal(t, made, rec.Current.KeyMadeAt)
		require.EqualValues(t, n, rec.Current.Number, "a pair has its own number, whatever its key is")
		w.reopen()
	}

	// The policy is no reason to renew, and goes for the next renewal.
	w.close()
	w.reuse = false
	w.open()
	w.tick()
	require.Equal(t, 4, w.ca.orders())
	w.toRenewal()
	w.requireServed(5)
	assert.NotEqual(t, key, w.record().Current.KeyID)
	assert.True(t, w.record().Current.KeyMadeAt.After(made))
	_, err := w.keys.Load(key)
	assert.Error(t, err, "the key that is not kept any more stays behind")
}

func TestAKeyIsNotKeptWhereItMayNotBe(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, w *world, key string){
		"an operator asked for the renewal": func(t *testing.T, w *world, _ string) {
			require.NoError(t, w.e.Renew(t.Context(), "web"))
		},
		"another algorithm": func(_ *testing.T, w *world, _ string) {
			w.close()
			w.algorithm = pki.ECDSAP384
			w.open()
			w.clock.advance(changeSpread)
			w.tick()
		},
		"the key was revoked": func(t *testing.T, w *world, _ string) {
			require.NoError(t, w.store.Update("web", func(tx *store.CertificateTx) error {
				tx.Record.Current.KeySpent = true
				return nil
			}))
			w.toRenewal()
		},
		"the key is lost": func(t *testing.T, w *world, key string) {
			require.NoError(t, w.e.cfg.Keys.Remove(key))
			w.toRenewal()
		},
		"others could read the key": func(t *testing.T, w *world, _ string) {
			file := w.keyFiles()[0].Name()
			require.NoError(t, os.Chmod(filepath.Join(w.dir, "keys", file), 0o644))
			w.toRenewal()
		},
		"the key is of another certificate": func(t *testing.T, w *world, key string) {
			id, _, err := w.keys.Create(pki.ECDSAP256)
			require.NoError(t, err)
			name := func(id string) string { return filepath.Join(w.dir, "keys", id+".key.pem") }
			require.NoError(t, os.Rename(name(id), name(key)))
			w.toRenewal()
		},
		"the authority refuses the key": func(_ *testing.T, w *world, _ string) {
			w.toRenewal()
			w.ca.interfere(failing(issuer.Error{Class: issuer.ClassRefused, KeyRefused: true}))
			w.tick()
			w.ca.interfere(nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, key := newWorldOfOneKey(t, nil)
			change(t, w, key)
			w.requireServed(2)
			rec := w.record()
			assert.NotEqual(t, key, rec.Current.KeyID)
			assert.Equal(t, w.algorithm, rec.Current.KeyAlgorithm)
			assert.False(t, rec.Current.KeySpent, "the new one is not")
			assert.False(t, rec.Forced)
			key = rec.Current.KeyID
			w.toRenewal()
			w.requireServed(3)
			assert.Equal(t, key, w.record().Current.KeyID, "and is kept from then on")
		})
	}
}

// An order that is over does not take the key in service with it.
func TestAnOrderThatIsOverLeavesTheKeyInService(t *testing.T) {
	w, key := newWorldOfOneKey(t, nil)
	w.toRenewal()
	w.ca.interfere(failing(issuer.Error{Class: issuer.ClassOrderGone}))
	w.tick()
	rec := w.record()
	require.Equal(t, store.PhaseIdle, rec.Phase)
	require.Equal(t, 1, rec.Attempt)
	_, err := w.keys.Load(key)
	require.NoError(t, err)
	w.ca.interfere(nil)
	w.requireServed(2)
	assert.Equal(t, key, w.record().Current.KeyID)

	// Nor does one that is given up for another configuration.
	w.toRenewal()
	w.ca.interfere(failing(issuer.Error{Class: issuer.ClassRetry}))
	w.tick()
	require.Equal(t, store.PhaseKeyWritten, w.record().Phase)
	require.True(t, reuses(w.record()))
	w.close()
	w.dns = []string{"www.example.com"}
	w.ca.interfere(nil)
	w.open()
	w.clock.advance(changeSpread)
	w.tick()
	w.requireServed(3)
	assert.Equal(t, key, w.record().Current.KeyID, "other names are no reason for another key")
}

// A key that cannot be read for a moment is waited for, and not for ever.
func TestAKeyInServiceThatCannotBeReadIsTriedAgain(t *testing.T) {
	w, key := newWorldOfOneKey(t, nil)
	w.toRenewal()
	w.keys.unreadable = errors.New("too many open files")
	w.tick()
	rec := w.record()
	require.Equal(t, store.PhaseIdle, rec.Phase)
	require.Contains(t, rec.LastError, "too many open files")
	require.Equal(t, 1, w.ca.orders())
	w.keys.unreadable = nil
	w.requireServed(2)
	require.Equal(t, key, w.record().Current.KeyID)

	w.toRenewal()
	w.keys.unreadable = errors.New("input/output error")
	for range keyAttempts {
		w.tick()
		w.clock.set(w.record().NextAction)
	}
	require.NotEqual(t, key, w.record().Next.KeyID)
	w.keys.unreadable = nil
	w.requireServed(3)
}

// Whoever asks for a renewal by hand gets a new key, also when one for the key in
// service is under way, at whatever step.
func TestARenewalByHandGivesUpOneForTheKeyInService(t *testing.T) {
	for name, c := range map[string]struct {
		stop   func(w *world)
		issued int
	}{
		"while the authority is asked": {func(w *world) {
			w.ca.interfere(failing(issuer.Error{Class: issuer.ClassRetry}))
			w.tick()
			w.ca.interfere(nil)
		}, 2},
		"while it is deployed": {func(w *world) {
			unmend := w.places[1].breakDown()
			w.tick()
			unmend()
		}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			w, key := newWorldOfOneKey(t, nil)
			w.toRenewal()
			c.stop(w)
			require.True(t, reuses(w.record()))
			require.NoError(t, w.e.Renew(t.Context(), "web"), "it is not the one under way")
			w.reopen()
			rec := w.settleDown()
			assert.NotEqual(t, key, rec.Current.KeyID)
			assert.False(t, rec.Forced)
			assert.Equal(t, c.issued, w.ca.issuedCount())
			_, err := w.keys.Load(key)
			assert.Error(t, err)
			require.Len(t, w.keyFiles(), 1)
		})
	}
}

// An order of which a certificate may come is left only with its key destroyed. A
// key in service cannot be, so that the stand-in gets another one, and the old one
// goes with its certificate.
func TestALeftOrderSpendsTheKeyInService(t *testing.T) {
	w, key := newWorldOfOneKey(t, func(w *world) {
		w.standIn = newAuthority(t, w.clock.now)
		w.standIn.reuse = true
	})
	current := w.record().Current
	w.toRenewal()
	w.ca.interfere(failing(issuer.Error{Class: issuer.ClassUnknown, Committed: true}))
	w.standIn.interfere(func(context.Context, *issuer.Order) error {
		loaded, err := w.keys.Load(key)
		require.NoError(t, err, "the key in service is removed before it is replaced")
		require.NoError(t, pki.MatchKey(leafOf(current), loaded))
		return nil
	})
	for w.standIn.issuedCount() == 0 && w.clock.now().Before(current.NotAfter) {
		w.tick()
		w.clock.set(w.record().NextAction)
	}
	rec := w.settleDown()
	require.Equal(t, "second", rec.Current.Issuer)
	assert.NotEqual(t, key, rec.Current.KeyID)
	_, err := w.keys.Load(key)
	assert.Error(t, err)
	assert.Len(t, w.keyFiles(), 1)
}
