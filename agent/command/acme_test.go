package command

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/issuer/acme"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/internal/testca/pebble"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// At a real ACME authority: the certificate is revoked for the reason that the
// centre gave, whichever comes first, and another one with another key is in
// service.
func TestRevocationAtAnACMEAuthority(t *testing.T) {
	ca := pebble.Run(t, pebble.Options{})
	w := &world{t: t, dir: t.TempDir()}
	dir, err := keys.OpenDir(filepath.Join(w.dir, "keys"))
	require.NoError(t, err)
	accounts, err := keys.OpenDir(filepath.Join(w.dir, "accounts"))
	require.NoError(t, err)
	w.store, err = store.Open(filepath.Join(w.dir, "state", "state.db"), store.Options{})
	require.NoError(t, err)
	t.Cleanup(w.close)
	authority, err := acme.New(acme.Config{
		Name: "pebble", DirectoryURL: ca.DirectoryURL, RootCAs: ca.ServerRoots, TermsAgreed: true,
		Solver: acme.HTTP01{Listen: fmt.Sprintf("127.0.0.1:%d", ca.HTTPPort)}, Keys: accounts, State: w.store, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(authority.Close)
	w.engine, err = renewal.New(renewal.Config{
		Store: w.store, Keys: dir, ScratchDir: filepath.Join(w.dir, "scratch"), Log: slog.New(slog.DiscardHandler), Pace: renewal.Pace{TickInterval: 200 * time.Millisecond},
		Managed: []renewal.Managed{{
			Name: "www", Names: pki.MustParseNames("www.example.com"), KeyAlgorithm: pki.ECDSAP256,
			Issuers: []renewal.NamedIssuer{{Name: "pebble", Issuer: authority}},
		}},
	})
	require.NoError(t, err)
	w.runner, err = New(Config{
		Store: w.store, Engine: w.engine, Key: dir.Load, Log: slog.New(slog.DiscardHandler),
		Revoker: func(string) issuer.Revoker { return authority },
	})
	require.NoError(t, err)
	w.engine.OnChange(w.runner.Wake)
	stopEngine := w.start(w.engine.Run)
	stopRunner := w.start(w.runner.Run)
	w.stop = func() { stopRunner(); stopEngine() }

	leaf, keyID := w.inService(nil)
	for i, reason := range []int{pki.ReasonKeyCompromise, 4} {
		command := wire.Command{ID: fmt.Sprintf("command-%d", i), Kind: wire.CommandRevoke, Certificate: "www", Serial: pki.SerialHex(leaf), Reason: reason}
		w.command(command)
		fresh, freshKey := w.inService(leaf)
		require.Eventually(t, func() bool { return w.withID(command.ID) == wire.CommandDone }, 3*time.Minute, 10*time.Millisecond)
		assert.NotEqual(t, keyID, freshKey)
		status, why, err := ca.Status(t.Context(), leaf)
		require.NoError(t, err)
		assert.Equal(t, "Revoked", status)
		assert.Equal(t, reason, why)
		status, _, err = ca.Status(t.Context(), fresh)
		require.NoError(t, err)
		assert.Equal(t, "Valid", status)
		leaf, keyID = fresh, freshKey
	}
}

// inService waits for another certificate than before, and returns it with the id
// of its key.
func (w *world) inService(before *x509.Certificate) (leaf *x509.Certificate, keyID string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		rec, found, err := w.store.Certificate("www")
		require.NoError(w.t, err)
		if !found || rec.Current == nil || rec.Phase != store.PhaseIdle {
			return false
		}
		leaf, err = leafOf(rec.Current)
		require.NoError(w.t, err)
		keyID = rec.Current.KeyID
		return before == nil || !leaf.Equal(before)
	}, 2*time.Minute, 20*time.Millisecond)
	return leaf, keyID
}
