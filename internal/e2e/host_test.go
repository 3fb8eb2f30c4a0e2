//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// host syncs as an agent does, without being one: it has something new to say
// each time, and goes on with the next node as soon as one does not answer.
type host struct {
	cluster *cluster
	id      string
	http    *http.Client
	next    int           // node to ask
	roams   bool          // asks another node each time
	turns   *sync.RWMutex // held while it syncs

	request wire.SyncRequest
	row     wire.Row

	failed atomic.Int64 // syncs that were to be repeated

	mu    sync.Mutex
	acked []synced
	event uint64 // newest that is acknowledged
}

// synced is one sync that was answered.
type synced struct{ sent, answered time.Time }

// newHost enrols one.
func newHost(t testing.TB, c *cluster, name string) *host {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	require.NoError(t, err)
	report := wire.HostReport{Hostname: name, OS: "linux", Arch: "amd64", Version: "test", StartedAt: time.Now().UTC()}
	var enrolled wire.EnrollResponse
	require.NoError(t, c.nodes[0].try(http.MethodPost, wire.EnrollPath, wire.EnrollRequest{
		Protocol: wire.Protocol, Token: c.nodes[0].newToken("*.example.com").Token, CSR: csr, Host: report,
	}, &enrolled))
	certificate := tls.Certificate{PrivateKey: key}
	for rest := []byte(enrolled.Chain); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		certificate.Certificate = append(certificate.Certificate, block.Bytes)
	}
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(enrolled.Roots)))
	transport := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{
		RootCAs: roots, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate},
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &host{
		cluster: c, id: enrolled.AgentID, turns: new(sync.RWMutex), http: &http.Client{Transport: transport},
		request: wire.SyncRequest{Protocol: wire.Protocol, BootID: "boot-of-" + name, Host: report},
	}
}

// work syncs until ctx is done, and then until the last sync is answered.
func (h *host) work(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := h.turn(); err != nil {
			return err
		}
		pause(ctx, 10*time.Millisecond)
	}
	return nil
}

// turn has something new to say, and says it until it is answered.
func (h *host) turn() error {
	h.turns.RLock()
	defer h.turns.RUnlock()
	if err := h.news(); err != nil {
		return err
	}
	if h.roams {
		h.next++
	}
	for {
		sent := time.Now()
		answer, err := h.sync()
		if err == nil {
			return h.answered(sent, answer)
		}
		if fatal, ok := errors.AsType[*wire.Problem](err); ok && fatal.Status < 500 && fatal.Status != http.StatusTooManyRequests {
			return fmt.Errorf("sync %d of %s is refused: %w", h.request.Sequence, h.id, fatal)
		}
		h.failed.Add(1)
		h.next++
		pause(context.Background(), 10*time.Millisecond)
	}
}

// news makes a new request: the one row has changed, and an event says so.
func (h *host) news() error {
	r := &h.request
	r.Sequence++
	r.SentAt = time.Now().UTC()
	r.BaseRevision, r.Revision, r.HeadRevision = r.Revision, r.Revision+1, r.Revision+1
	data, err := json.Marshal(wire.Summary{
		Names: pki.MustParseNames("www.example.com"), State: wire.StateValid, Issuer: "builtin", IssuerKind: "coordinator",
		Serial: fmt.Sprintf("%016x", r.Revision), Fingerprint: fmt.Sprintf("%064x", r.Revision), NotAfter: time.Now().Add(time.Hour).UTC(), Renewals: r.Revision,
	})
	if err != nil {
		return err
	}
	if h.row.Name != "" {
		r.Digest.Toggle(h.row.Hash())
	}
	h.row = wire.Row{Name: "web", Revision: r.Revision, Data: data}
	r.Digest.Toggle(h.row.Hash())
	r.Rows = []wire.Row{h.row}
	r.Events = []wire.Event{{Sequence: r.Revision, At: r.SentAt, Kind: wire.EventRenewed, Certificate: "web", Serial: fmt.Sprintf("%016x", r.Revision)}}
	return nil
}

// sync sends the request to one node. A node that does not answer soon is left:
// agents wait longer, and what is measured here is the cluster.
func (h *host) sync() (*wire.SyncResponse, error) {
	text, err := json.Marshal(h.request)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	node := h.cluster.nodes[h.next%len(h.cluster.nodes)]
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, node.url()+wire.SyncPath, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := h.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		problem := new(wire.Problem)
		if json.Unmarshal(body, problem) != nil || problem.Code == "" {
			return nil, fmt.Errorf("%s: %s", response.Status, body)
		}
		return nil, problem
	}
	answer := new(wire.SyncResponse)
	return answer, json.Unmarshal(body, answer)
}

func (h *host) answered(sent time.Time, answer *wire.SyncResponse) error {
	if answer.Revision != h.request.Revision || answer.Event != h.request.Revision || answer.ResyncID != "" {
		return fmt.Errorf("sync %d of %s: the answer is revision %d, event %d, resync %q", h.request.Revision, h.id, answer.Revision, answer.Event, answer.ResyncID)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked = append(h.acked, synced{sent: sent, answered: time.Now()})
	h.event = answer.Event
	return nil
}

// countAfter is how many syncs were answered that were sent after a moment.
func (h *host) countAfter(moment time.Time) (count int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.acked) - 1; i >= 0 && h.acked[i].sent.After(moment); i-- {
		count++
	}
	return count
}

// firstAfter is when the first sync was answered that was sent after a moment.
func (h *host) firstAfter(moment time.Time) (time.Time, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var first time.Time
	for i := len(h.acked) - 1; i >= 0 && h.acked[i].sent.After(moment); i-- {
		first = h.acked[i].answered
	}
	return first, !first.IsZero()
}
