package syncpair

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	issuer "github.com/certctl/certctl/agent/issuer/coordinator"
	"github.com/certctl/certctl/agent/renewal"
	checks "github.com/certctl/certctl/agent/revocation"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/revocation"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/runner"
	"github.com/certctl/certctl/shared/wire"
)

// work runs a whole agent with one certificate of the built-in CA, which it checks
// for revocation every two seconds.
func (h *host) work() (loop *checks.Loop) {
	h.t.Helper()
	log := slog.New(slog.NewTextHandler(h.t.Output(), nil))
	var engine *renewal.Engine
	client, err := sync.New(sync.Config{
		Store: h.store, Keys: h.keys, Log: log, Host: wire.HostReport{Hostname: "web1", OS: "linux", Arch: "amd64", Version: "1.0.0"},
		OnResult: func(name string) { engine.Wake(name) },
	})
	require.NoError(h.t, err)
	brokered, err := issuer.New(issuer.Config{Orders: h.store, Courier: client})
	require.NoError(h.t, err)
	engine, err = renewal.New(renewal.Config{
		Store: h.store, Keys: h.keys, ScratchDir: filepath.Join(h.t.TempDir(), "scratch"), Pace: renewal.Pace{TickInterval: 100 * time.Millisecond}, Log: log,
		Managed: []renewal.Managed{{
			Name: "www", Names: pki.MustParseNames("www.example.com"), KeyAlgorithm: pki.ECDSAP256,
			Issuers: []renewal.NamedIssuer{{Name: "coordinator", Issuer: brokered}},
		}},
	})
	require.NoError(h.t, err)
	engine.OnChange(client.Kick)
	loop, err = checks.New(checks.Config{
		Names: engine.Names, Certificate: h.store.Certificate, Revoked: engine.Revoked,
		Report: func(e wire.Event) error { return h.store.Append(e) }, Key: h.store.InstanceID(), Interval: 2 * time.Second, Log: log,
	})
	require.NoError(h.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- runner.Run(ctx,
			runner.Task{Name: "sync", Run: client.Run}, runner.Task{Name: "renewal", Run: engine.Run}, runner.Task{Name: "checks", Run: loop.Run})
	}()
	h.t.Cleanup(func() {
		cancel()
		assert.NoError(h.t, <-ended)
	})
	return loop
}

func (h *host) inService() *store.Generation {
	h.t.Helper()
	record, found, err := h.store.Certificate("www")
	require.NoError(h.t, err)
	if !found {
		return nil
	}
	return record.Current
}

// listed are the serial numbers on the revocation list, as anybody reads it.
func (c *coordinator) listed() []string {
	c.t.Helper()
	recorder := httptest.NewRecorder()
	path := revocation.Prefix + c.ca.ListSigners()[0] + ca.ListSuffix
	c.lists.Load().ServeHTTP(recorder, httptest.NewRequestWithContext(c.t.Context(), http.MethodGet, path, nil))
	if recorder.Code != http.StatusOK {
		return nil
	}
	list, err := x509.ParseRevocationList(recorder.Body.Bytes())
	require.NoError(c.t, err)
	var serials []string
	for _, entry := range list.RevokedCertificateEntries {
		serials = append(serials, pki.SerialHex(&x509.Certificate{SerialNumber: entry.SerialNumber}))
	}
	return serials
}

// The built-in CA revokes a certificate, and nobody tells the host: it finds it on
// the list, replaces it at once with a new key, and all is well again.
func TestARevokedCertificateIsSeenAndReplaced(t *testing.T) {
	t.Parallel()
	c := newCoordinator(t)
	h := c.enrolled()
	loop := h.work()
	result := func(g *store.Generation) checks.Result {
		check, _ := loop.Result("www", g.Fingerprint)
		return check.Result
	}
	require.Eventually(t, func() bool {
		g := h.inService()
		return g != nil && result(g) == checks.ResultGood
	}, patience, 20*time.Millisecond)
	lost := h.inService()

	require.NoError(t, c.node.Do(fleet.RevokeCertificate{Actor: "test", Serial: lost.Serial, Reason: pki.ReasonKeyCompromise}).Err())
	require.Eventually(t, func() bool {
		g := h.inService()
		return g.Serial != lost.Serial && result(g) == checks.ResultGood
	}, 2*patience, 20*time.Millisecond)
	now := h.inService()
	assert.NotEqual(t, lost.KeyID, now.KeyID, "a new key")
	assert.Nil(t, now.Revoked)
	assert.Equal(t, []string{lost.Serial}, c.listed())
	require.Eventually(t, func() bool {
		row, ok := c.view().Certificate(h.id, "www")
		return ok && row.Columns.Serial == now.Serial && row.Columns.State == wire.StateValid && !row.Columns.Attention
	}, patience, 20*time.Millisecond, "the coordinator is told")
}
