package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// world is a node with the state of a CA that has issued to one agent. Its
// service publishes when it is told.
type world struct {
	*Service
	t    *testing.T
	node *clustertest.Node
	ca   *ca.CA
	skew atomic.Int64
	fail atomic.Bool
}

func (w *world) clock() time.Time { return time.Now().Add(time.Duration(w.skew.Load())) }

func (w *world) State() *fleet.State { return w.node.State() }

func (w *world) Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error) {
	if w.fail.Load() {
		return nil, errors.New("no leader")
	}
	return w.node.Propose(ctx, commands...)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	var err error
	w.ca, err = ca.New(ca.Config{
		SealKeyFile: filepath.Join(t.TempDir(), "seal.key"), Name: "Example", LeafLifetime: 30 * 24 * time.Hour,
		IdentityLifetime: 24 * time.Hour, RevocationURL: "http://crl.example.com/ca", Now: w.clock,
	})
	require.NoError(t, err)
	w.node = clustertest.Start(t)
	w.Service, err = New(Config{Node: w, CA: w.ca, Log: quiet, Now: w.clock})
	require.NoError(t, err)
	return w
}

func (w *world) unseal() {
	w.t.Helper()
	authorities, err := w.ca.Create()
	require.NoError(w.t, err)
	w.do(fleet.InitCA{Actor: "local", Authorities: authorities})
	stored, ok := w.view().CA()
	require.True(w.t, ok)
	require.NoError(w.t, w.ca.Unseal(stored))
}

func (w *world) view() *fleet.View { return w.node.State().View() }

func (w *world) do(payload fleet.Payload) {
	w.t.Helper()
	require.NoError(w.t, w.node.Do(payload).Err())
}

// issue makes an agent with a certificate of the built-in CA.
func (w *world) issue(agent string) *x509.Certificate {
	w.t.Helper()
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(w.t, err)
	names := pki.MustParseNames("www.example.com")
	leaf, err := w.ca.IssueLeaf(names, key.Public(), 0)
	require.NoError(w.t, err)
	token := fleet.CreateEnrollmentToken{ID: "token-" + agent, NamePatterns: []string{"**.example.com"}, MaxUses: 1, ExpiresAt: w.clock().Add(time.Hour)}
	w.do(token)
	w.do(fleet.EnrollAgent{
		TokenID: token.ID, AgentID: agent,
		Identity: fleet.Identity{Certificate: []byte(agent), Fingerprint: agent, PublicKeyFingerprint: agent, Serial: agent, NotAfter: w.clock().Add(time.Hour)},
	})
	w.do(fleet.SyncAgent{AgentID: agent, BootID: "boot", Sequence: 1, Orders: []fleet.OrderPlacement{
		{ID: "order-" + agent, Certificate: "www", Issuer: "builtin", CSR: []byte(agent), Names: names},
	}})
	w.do(fleet.CompleteOrder{
		Agent: agent, ID: "order-" + agent, ChainPEM: "chain", Serial: pki.SerialHex(leaf), NotAfter: leaf.NotAfter,
		Signer: w.ca.ListSigners()[0],
	})
	return leaf
}

func (w *world) get(path string, header ...string) *http.Response {
	w.t.Helper()
	r := httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	recorder := httptest.NewRecorder()
	w.ServeHTTP(recorder, r)
	return recorder.Result()
}

func (w *world) path() string { return Prefix + w.ca.ListSigners()[0] + ca.ListSuffix }

// list fetches the list as a relying party does.
func (w *world) fetch() *x509.RevocationList {
	w.t.Helper()
	response := w.get(w.path())
	require.Equal(w.t, http.StatusOK, response.StatusCode)
	body := make([]byte, response.ContentLength)
	_, err := response.Body.Read(body)
	require.NoError(w.t, err)
	crl, err := x509.ParseRevocationList(body)
	require.NoError(w.t, err)
	stored, _ := w.view().CA()
	for _, a := range stored.Authorities {
		if cert, err := x509.ParseCertificate(a.Certificate); err == nil && a.Name == "issuing" && a.State == fleet.AuthorityActive {
			require.NoError(w.t, crl.CheckSignatureFrom(cert))
		}
	}
	return crl
}

func TestPublish(t *testing.T) {
	w := newWorld(t)
	assert.Equal(t, http.StatusServiceUnavailable, w.get("/ca/00.crl").StatusCode, "sealed")
	w.unseal()
	response := w.get(w.path())
	assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode, "no list yet")
	assert.NotEmpty(t, response.Header.Get("Retry-After"))

	w.publishOnce(t.Context())
	first := w.fetch()
	assert.EqualValues(t, 1, first.Number.Int64())
	assert.Empty(t, first.RevokedCertificateEntries)
	assert.Equal(t, listLifetime, first.NextUpdate.Sub(first.ThisUpdate))
	assert.WithinRange(t, first.ThisUpdate, w.clock().Add(-time.Hour), w.clock(), "never ahead of a slow clock")
	w.publishOnce(t.Context())
	assert.EqualValues(t, 1, w.fetch().Number.Int64(), "nothing is new")

	// Revocations of one interval share a list.
	one, two := w.issue("agent1"), w.issue("agent2")
	for _, leaf := range []*x509.Certificate{one, two} {
		w.do(fleet.RevokeCertificate{Actor: "test", Serial: pki.SerialHex(leaf), Reason: 1})
	}
	assert.Empty(t, w.fetch().RevokedCertificateEntries, "a list of one number never changes")
	w.publishOnce(t.Context())
	second := w.fetch()
	assert.EqualValues(t, 2, second.Number.Int64())
	require.Len(t, second.RevokedCertificateEntries, 2)
	assert.Equal(t, 1, second.RevokedCertificateEntries[0].ReasonCode)

	// Retiring an agent revokes its certificates.
	w.issue("agent3")
	w.do(fleet.RetireAgent{Actor: "test", AgentID: "agent3"})
	w.publishOnce(t.Context())
	third := w.fetch()
	require.Len(t, third.RevokedCertificateEntries, 3)
	reasons := map[int]int{}
	for _, e := range third.RevokedCertificateEntries {
		reasons[e.ReasonCode]++
	}
	assert.Equal(t, map[int]int{1: 2, 5: 1}, reasons, "cessationOfOperation")

	w.skew.Add(int64(listInterval - time.Hour))
	w.publishOnce(t.Context())
	assert.EqualValues(t, 3, w.fetch().Number.Int64())
	w.skew.Add(int64(time.Hour))
	w.publishOnce(t.Context())
	assert.EqualValues(t, 4, w.fetch().Number.Int64(), "once a day")
	w.skew.Add(-int64(48 * time.Hour))
	w.publishOnce(t.Context())
	assert.EqualValues(t, 5, w.fetch().Number.Int64(), "the clock had been wrong")

	// Entries leave when a list of after their end has carried them.
	w.skew.Add(int64(40 * 24 * time.Hour))
	w.publishOnce(t.Context())
	assert.Len(t, w.fetch().RevokedCertificateEntries, 3)
	w.skew.Add(int64(listInterval))
	w.publishOnce(t.Context())
	assert.Empty(t, w.fetch().RevokedCertificateEntries)
	w.publishOnce(t.Context())
	assert.EqualValues(t, 7, w.fetch().Number.Int64(), "what was dropped is no reason for another list")
}

func TestPublishingFails(t *testing.T) {
	w := newWorld(t)
	w.unseal()
	w.fail.Store(true)
	w.publishOnce(t.Context())
	_, _, ok := w.view().NewestList()
	assert.False(t, ok)
	w.fail.Store(false)
	w.publishOnce(t.Context())
	assert.EqualValues(t, 1, w.fetch().Number.Int64())
}

func TestServe(t *testing.T) {
	w := newWorld(t)
	w.unseal()
	w.publishOnce(t.Context())
	response := w.get(w.path())
	assert.Equal(t, "application/pkix-crl", response.Header.Get("Content-Type"))
	assert.Equal(t, "public, max-age=600", response.Header.Get("Cache-Control"))
	assert.NotEmpty(t, response.Header.Get("Last-Modified"))
	tag := response.Header.Get("ETag")
	require.NotEmpty(t, tag)
	assert.Equal(t, http.StatusNotModified, w.get(w.path(), "If-None-Match", tag).StatusCode)
	for _, path := range []string{"/ca/", "/ca/x", "/ca/.crl", "/ca/00.crl", "/ca/../api/v1/status.crl", w.path() + ".crl"} {
		assert.Equal(t, http.StatusNotFound, w.get(path).StatusCode, path)
	}
	recorder := httptest.NewRecorder()
	w.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, w.path(), nil))
	assert.Equal(t, http.StatusMethodNotAllowed, recorder.Code)
	head := httptest.NewRecorder()
	w.ServeHTTP(head, httptest.NewRequestWithContext(t.Context(), http.MethodHead, w.path(), nil))
	assert.Equal(t, http.StatusOK, head.Code)
	assert.Zero(t, head.Body.Len())

	leaf := w.issue("agent")
	w.do(fleet.RevokeCertificate{Actor: "test", Serial: pki.SerialHex(leaf)})
	w.publishOnce(t.Context())
	assert.Equal(t, http.StatusOK, w.get(w.path(), "If-None-Match", tag).StatusCode, "there is a newer one")
	w.skew.Add(int64(listLifetime + time.Hour))
	assert.Equal(t, "public, max-age=0", w.get(w.path()).Header.Get("Cache-Control"))
	assert.Len(t, w.made, 1)
}

// Leader work by itself: the first list comes at once, and its end is the end of
// the term.
func TestLead(t *testing.T) {
	w := newWorld(t)
	w.unseal()
	var service *Service
	node := clustertest.Restart(t, t.TempDir(), func(node *cluster.Node) {
		var err error
		service, err = New(Config{Node: node, CA: w.ca, Log: quiet})
		require.NoError(t, err)
		service.Lead(node)
	})
	require.Eventually(t, func() bool {
		_, _, ok := node.State().View().NewestList()
		return ok
	}, 60*time.Second, 10*time.Millisecond)

	_, err := New(Config{})
	require.Error(t, err)
}
