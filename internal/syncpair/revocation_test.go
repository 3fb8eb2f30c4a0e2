package syncpair

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/command"
	agentissuer "github.com/certctl/certctl/agent/issuer"
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
// for revocation at that interval, and which carries out commands.
func (h *host) work(interval time.Duration) (loop *checks.Loop) {
	h.t.Helper()
	log := slog.New(slog.NewTextHandler(h.t.Output(), nil))
	var engine *renewal.Engine
	client, err := sync.New(sync.Config{
		Store: h.store, Keys: h.keys, Log: log, Host: wire.HostReport{Hostname: "web1", OS: "linux", Arch: "amd64", Version: "1.0.0"},
		OnResult: func(name string) { engine.Wake(name) }, Dial: h.dial,
	})
	require.NoError(h.t, err)
	brokered, err := issuer.New(issuer.Config{Orders: h.store, Courier: client})
	require.NoError(h.t, err)
	engine, err = renewal.New(renewal.Config{
		Store: h.store, Keys: h.keys, ScratchDir: filepath.Join(h.t.TempDir(), "scratch"), Pace: renewal.Pace{TickInterval: cmp.Or(h.tick, 100*time.Millisecond)}, Log: log,
		Managed: []renewal.Managed{{
			Name: "www", Names: pki.MustParseNames("www.example.com"), KeyAlgorithm: pki.ECDSAP256,
			Issuers: []renewal.NamedIssuer{{Name: "coordinator", Issuer: brokered}},
		}},
	})
	require.NoError(h.t, err)
	commands, err := command.New(command.Config{
		Store: h.store, Engine: engine, Key: h.keys.Load, Log: log,
		Revoker: func(string) agentissuer.Revoker { return nil },
	})
	require.NoError(h.t, err)
	engine.OnChange(func() {
		client.Kick()
		commands.Wake()
	})
	loop, err = checks.New(checks.Config{
		Names: engine.Names, Certificate: h.store.Certificate, Revoked: engine.Revoked,
		Report: func(e wire.Event) error { return h.store.Append(e) }, Key: h.store.InstanceID(), Interval: interval, Log: log,
	})
	require.NoError(h.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- runner.Run(ctx,
			runner.Task{Name: "sync", Run: client.Run}, runner.Task{Name: "renewal", Run: engine.Run},
			runner.Task{Name: "commands", Run: commands.Run}, runner.Task{Name: "checks", Run: loop.Run})
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
	loop := h.work(2 * time.Second)
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

// Somebody has the built-in CA revoke a certificate: the host is told by the
// command, long before it looks at the list, and says so although there is nobody
// to replace it.
func TestARevocationIsToldWithTheCommand(t *testing.T) {
	t.Parallel()
	c := newCoordinator(t)
	h := c.enrolled()
	h.work(24 * time.Hour)
	reported := func() (said wire.Summary) {
		if row, ok := c.view().Certificate(h.id, "www"); ok {
			require.NoError(t, json.Unmarshal(row.Data, &said))
		}
		return said
	}
	require.Eventually(t, func() bool { return reported().Serial != "" }, patience, 20*time.Millisecond)
	lost := reported().Serial
	c.restart(false) // it stores orders, and signs none
	require.NoError(t, c.node.Do(fleet.RevokeCertificate{Actor: "test", Serial: lost, Reason: pki.ReasonKeyCompromise}).Err())
	revocation, ok := c.view().Revocation(lost)
	require.True(t, ok)
	require.NoError(t, c.node.Do(fleet.CommandAgent{
		Agent: h.id, ID: "command-1", Kind: wire.CommandRenew, Certificate: "www", Serial: lost,
		Reason: revocation.Reason, RevokedAt: revocation.At,
	}).Err())
	require.Eventually(t, func() bool {
		now := reported()
		return now.Serial == lost && now.RevokedAt.Equal(revocation.At) && now.SafeUntil.Equal(now.RevokedAt)
	}, patience, 20*time.Millisecond, "the host calls it revoked, and not safe")
	assert.Equal(t, pki.ReasonKeyCompromise, reported().RevocationReason)

	c.restart(true)
	require.Eventually(t, func() bool {
		now := reported()
		stored, ok := c.view().AgentCommand(h.id, "command-1")
		return now.Serial != lost && now.RevokedAt.IsZero() && ok && stored.State == fleet.CommandDone
	}, 2*patience, 20*time.Millisecond)
}
