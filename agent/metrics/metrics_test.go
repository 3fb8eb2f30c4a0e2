package metrics

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	gosync "sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// host is an agent's state, with a reporter on it.
type host struct {
	t        testing.TB
	store    *store.Store
	reporter *Reporter
	outcomes Outcomes
	log      logged

	mu       gosync.Mutex
	link     sync.State
	clock    clock.Reading
	warnings []string
}

// logged is what was logged.
type logged struct {
	mu   gosync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newHost(t testing.TB, change ...func(*Config)) *host {
	t.Helper()
	h := &host{t: t, link: sync.State{Standing: sync.NotEnrolled}, clock: clock.Reading{Now: noon, Wall: noon, Confirmed: true}}
	var err error
	h.store, err = store.Open(filepath.Join(t.TempDir(), "state", "state.db"), store.Options{Now: func() time.Time { return noon }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.store.Close()) })
	cfg := Config{
		Store: h.store, Outcomes: &h.outcomes, Started: noon.Add(-time.Hour), Log: slog.New(slog.NewTextHandler(&h.log, nil)),
		Link: func() sync.State {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.link
		},
		Clock: func() clock.Reading {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.clock
		},
		Warnings: func() ([]string, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.warnings, nil
		},
	}
	for _, fn := range change {
		fn(&cfg)
	}
	h.reporter, err = New(cfg)
	require.NoError(t, err)
	return h
}

// secrets are texts that belong to certificates and must not be told.
var secrets = []string{"www.secret.example", "0badcafe", "f1f2f3f4", "CN=Secret", "no route to secret", "see to secret"}

// put stores a certificate that is in service for a time from noon on.
func (h *host) put(name string, left time.Duration, change ...func(*store.Certificate)) {
	h.t.Helper()
	require.NoError(h.t, h.store.Update(name, func(tx *store.CertificateTx) error {
		*tx.Record = inService(name, left)
		for _, fn := range change {
			fn(tx.Record)
		}
		return nil
	}))
}

func (h *host) remove(name string) {
	h.t.Helper()
	require.NoError(h.t, h.store.Retire([]string{name}, noon, func(*store.Certificate) wire.Event {
		return wire.Event{Kind: wire.EventRemoved, Certificate: name, At: noon}
	}))
}

// putAll stores many in one transaction.
func (h *host) putAll(names []string) {
	h.t.Helper()
	require.NoError(h.t, h.store.UpdateAll(names, func(tx *store.CertificateTx) error {
		*tx.Record = inService(tx.Record.Name, 30*day)
		return nil
	}))
}

func inService(name string, left time.Duration) store.Certificate {
	return store.Certificate{
		Name: name, Names: pki.MustParseNames("www.secret.example"), Issuer: "letsencrypt", IssuerKind: "acme", Phase: store.PhaseIdle,
		Current: &store.Generation{
			Number: 1, KeyID: "k", KeyAlgorithm: pki.ECDSAP256, Serial: "0badcafe", Fingerprint: "f1f2f3f4", IssuerDN: "CN=Secret",
			NotBefore: noon.Add(-day), NotAfter: noon.Add(left), Issuer: "letsencrypt",
		},
		RenewAt: noon.Add(left / 3), NextAction: noon.Add(left / 3), Renewals: 1,
	}
}

func failing(c *store.Certificate) {
	c.Attempt, c.LastError, c.NeedsAttention, c.NextAction = 3, "no route to secret", "see to secret", noon.Add(time.Hour)
}

func (h *host) text() string {
	h.t.Helper()
	var out bytes.Buffer
	require.NoError(h.t, h.reporter.Write(&out))
	return out.String()
}

// families reads a report with the parser of Prometheus' own library.
func families(t testing.TB, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err, text)
	return parsed
}

// values are the samples of a report by name and labels.
func values(t testing.TB, text string) map[string]float64 {
	t.Helper()
	all := make(map[string]float64)
	for name, family := range families(t, text) {
		for _, m := range family.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			key := name
			if len(labels) > 0 {
				key += "{" + strings.Join(labels, ",") + "}"
			}
			_, twice := all[key]
			require.False(t, twice, key)
			all[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return all
}

// The whole report of a host with something of everything. Its names and types
// are a promise to those who wrote rules with them.
func TestGolden(t *testing.T) {
	h := newHost(t)
	h.outcomes.Expect("coordinator", "letsencrypt")
	h.outcomes.Count("letsencrypt", renewal.OutcomeRenewed)
	h.put("www", 30*day)
	h.put("mail", 2*day, failing)
	h.put("new", 0, func(c *store.Certificate) { c.Current, c.RenewAt = nil, time.Time{} })
	h.put("old", 0)
	h.link = sync.State{Standing: sync.CutOff, Server: "https://pki.example.com:8443", LastSuccess: noon.Add(-2 * day), CutOffSince: noon.Add(-day).Add(time.Millisecond), IdentityNotAfter: noon.Add(20 * day)}
	h.clock.Skew = -90 * time.Second
	require.NoError(t, h.store.Append(wire.Event{Kind: wire.EventStarted, At: noon}))

	text := h.text()
	build, rest, _ := strings.Cut(text, "# HELP process_start")
	assert.Regexp(t, `^# HELP certctl_agent_build_info .*\n# TYPE certctl_agent_build_info gauge\ncertctl_agent_build_info\{version="[^"]+",commit="[^"]*",go_version="go[^"]+",platform="[^"]+"\} 1\n$`, build)
	golden := filepath.Join("testdata", "report.prom")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte("# HELP process_start"+rest), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), "# HELP process_start"+rest)

	problems, err := promlint.New(strings.NewReader(text)).Lint()
	require.NoError(t, err)
	assert.Empty(t, problems)
	for _, secret := range secrets {
		assert.NotContains(t, text, secret)
	}
	parsed := families(t, text)
	require.Len(t, Families(), len(parsed), "every family has a sample in this report")
	for _, f := range Families() {
		assert.Equal(t, f.Help, parsed[f.Name].GetHelp())
		assert.Equal(t, strings.ToUpper(f.Kind), parsed[f.Name].GetType().String())
		for _, m := range parsed[f.Name].Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName())
			}
			assert.ElementsMatch(t, f.Labels, labels, f.Name)
		}
	}
}

// A host with a certificate that is not safe now is safe until no moment ahead,
// whatever the others are; a moment that is past stays.
func TestHostThatIsNotSafe(t *testing.T) {
	const until, count = "certctl_agent_safe_until_timestamp_seconds", "certctl_agent_certificates_not_safe"
	h := newHost(t)
	h.put("www", 30*day)
	got := values(t, h.text())
	assert.EqualValues(t, noon.Add(30*day).Unix(), got[until])
	require.Contains(t, got, count)
	assert.Zero(t, got[count])

	h.put("never", 0, func(c *store.Certificate) { c.Current = nil })
	got = values(t, h.text())
	assert.NotContains(t, got, until)
	assert.EqualValues(t, 1, got[count])

	// By the time that the agent goes by, without a change of the store.
	h.mu.Lock()
	h.clock.Now = noon.Add(30 * day)
	h.mu.Unlock()
	got = values(t, h.text())
	assert.EqualValues(t, noon.Add(30*day).Unix(), got[until])
	assert.EqualValues(t, 2, got[count])
}

// A report follows what happens, and costs what has changed.
func TestReportFollowsTheStore(t *testing.T) {
	h := newHost(t)
	asked, rows := 0, 0
	inner := h.reporter.cfg.Store
	h.reporter.cfg.Store = spy{Store: inner, ask: func(page store.Changes) { asked, rows = asked+1, rows+len(page.Rows) }}
	empty := values(t, h.text())
	assert.Zero(t, empty["certctl_agent_certificates{state=valid}"])
	assert.NotContains(t, empty, "certctl_agent_safe_until_timestamp_seconds")
	assert.NotContains(t, empty, "certctl_agent_last_sync_timestamp_seconds")
	assert.Zero(t, empty["certctl_agent_enrolled"])

	const many = 2*pageRows + 7
	var names []string
	for i := range many {
		names = append(names, fmt.Sprintf("c%04d", i))
	}
	h.putAll(names)
	asked, rows = 0, 0
	got := values(t, h.text())
	assert.Equal(t, 3, asked, "a page at a time")
	assert.Equal(t, many, rows)
	assert.EqualValues(t, many, got["certctl_agent_certificates{state=valid}"])
	assert.EqualValues(t, noon.Add(30*day).Unix(), got["certctl_certificate_not_after_timestamp_seconds{certificate=c0007}"])
	assert.EqualValues(t, noon.Add(10*day).Unix(), got["certctl_certificate_renew_at_timestamp_seconds{certificate=c0007}"])

	h.put("c0007", 20*day, failing)
	asked, rows = 0, 0
	got = values(t, h.text())
	assert.Equal(t, 1, rows, "only what has changed")
	assert.EqualValues(t, many-1, got["certctl_agent_certificates{state=valid}"])
	assert.EqualValues(t, 1, got["certctl_agent_certificates{state=failed}"])
	assert.EqualValues(t, 1, got["certctl_agent_certificates_needing_attention"])
	assert.EqualValues(t, 1, got["certctl_certificate_state{certificate=c0007,state=failed}"])
	assert.Zero(t, got["certctl_certificate_state{certificate=c0007,state=valid}"])

	h.remove("c0007")
	assert.NotContains(t, values(t, h.text()), "certctl_certificate_served{certificate=c0007}")

	// A removal that the coordinator knew of before a scrape did.
	h.remove("c0008")
	head, err := inner.Changes(0, 1)
	require.NoError(t, err)
	require.NoError(t, h.store.SaveSyncState(store.SyncState{AckedRevision: head.Head}))
	asked, rows = 0, 0
	got = values(t, h.text())
	assert.NotContains(t, got, "certctl_certificate_served{certificate=c0008}")
	assert.EqualValues(t, many-2, got["certctl_agent_certificates{state=valid}"])
	assert.Equal(t, many-2, rows, "read anew")
}

type spy struct {
	Store
	ask func(store.Changes)
	err error
}

func (s spy) Changes(after uint64, limit int) (store.Changes, error) {
	page, err := s.Store.Changes(after, limit)
	if s.ask != nil {
		s.ask(page)
	}
	return page, errors.Join(err, s.err)
}

func TestLinkAndCounters(t *testing.T) {
	h := newHost(t)
	h.link = sync.State{Standing: sync.Connected, Server: "https://pki.example.com:8443", LastSuccess: noon.Add(-time.Minute), IdentityNotAfter: noon.Add(day)}
	h.outcomes.Expect("le")
	h.outcomes.Count("le", renewal.OutcomeOrderFailed)
	h.outcomes.Count("le", renewal.OutcomeOrderFailed)
	h.clock = clock.Reading{Skew: time.Hour, Confirmed: false}
	h.warnings = []string{"an assignment is refused", "no route to secret"}
	got := values(t, h.text())
	for name, want := range map[string]float64{
		"certctl_agent_enrolled": 1, "certctl_agent_coordinator_connected": 1,
		"certctl_agent_last_sync_timestamp_seconds":                    float64(noon.Unix() - 60),
		"certctl_agent_renewals_total{issuer=le,outcome=order_failed}": 2,
		"certctl_agent_renewals_total{issuer=le,outcome=renewed}":      0,
		"certctl_agent_clock_skew_seconds":                             3600, "certctl_agent_clock_confirmed": 0,
		"certctl_agent_warnings":      2,
		"certctl_agent_outbox_events": 0, "certctl_agent_outbox_dropped_events_total": 0,
		"process_start_time_seconds": float64(noon.Unix() - 3600),
	} {
		require.Contains(t, got, name)
		assert.Equal(t, want, got[name], name)
	}
	assert.NotContains(t, got, "certctl_agent_cut_off_since_timestamp_seconds")

	// However many issuers there are, there are not more series than that.
	for i := range 3 * maxIssuers {
		h.outcomes.Count(fmt.Sprintf("issuer %d", i), renewal.OutcomeRenewed)
	}
	got = values(t, h.text())
	assert.EqualValues(t, 3*maxIssuers-(maxIssuers-1), got["certctl_agent_renewals_total{issuer=other,outcome=renewed}"])
	assert.Len(t, h.outcomes.list(), (maxIssuers+1)*len(renewal.Outcomes))
}

// Whatever certificates and issuers are called, and whatever a date is, the
// library reads what was meant.
func TestExpositionIsReadBack(t *testing.T) {
	family := &Family{Name: "x_y", Kind: gauge, Help: "a \\ b\nc \"d\"", Labels: []string{"first", "second"}}
	rapid.Check(t, func(t *rapid.T) {
		first, second := rapid.String().Draw(t, "first"), rapid.String().Draw(t, "second")
		value := rapid.Float64().Draw(t, "value")
		var out bytes.Buffer
		e := newExposition(&out)
		e.begin(family)
		e.sample(value, first, second)
		require.NoError(t, e.finish())
		parser := expfmt.NewTextParser(model.UTF8Validation)
		parsed, err := parser.TextToMetricFamilies(&out)
		require.NoError(t, err)
		require.Equal(t, family.Help, parsed["x_y"].GetHelp())
		m := parsed["x_y"].Metric[0]
		require.Equal(t, first, m.Label[0].GetValue())
		require.Equal(t, second, m.Label[1].GetValue())
		require.Equal(t, math.Float64bits(value), math.Float64bits(m.GetGauge().GetValue()))
	})
}

func TestServeHTTP(t *testing.T) {
	h := newHost(t)
	h.put("www", day)
	ask := func(method, path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.reporter.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w
	}
	w := ask(http.MethodGet, "/metrics")
	assert.Equal(t, http.StatusOK, w.Code)
	assert.Equal(t, ContentType, w.Header().Get("Content-Type"))
	assert.Contains(t, w.Body.String(), `certctl_certificate_served{certificate="www"} 1`)
	assert.Equal(t, http.StatusNotFound, ask(http.MethodGet, "/").Code)
	assert.Equal(t, http.StatusMethodNotAllowed, ask(http.MethodPost, "/metrics").Code)
	for range maxRequests {
		h.reporter.busy <- struct{}{}
	}
	assert.Equal(t, http.StatusServiceUnavailable, ask(http.MethodGet, "/metrics").Code)
	for range maxRequests {
		<-h.reporter.busy
	}
	h.reporter.cfg.Store = spy{Store: h.reporter.cfg.Store, err: errors.New("disk on fire")}
	w = ask(http.MethodGet, "/metrics")
	assert.Equal(t, http.StatusInternalServerError, w.Code)
	assert.NotContains(t, w.Body.String(), "fire")
	assert.Contains(t, h.log.String(), "disk on fire")
}

// run runs the reporter until the test's end.
func (h *host) run() (stop func()) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.reporter.Run(ctx) }()
	return func() {
		cancel()
		select {
		case err := <-ended:
			require.NoError(h.t, err)
		case <-time.After(time.Minute):
			h.t.Fatal("the reporter does not end")
		}
	}
}

func TestListen(t *testing.T) {
	h := newHost(t, func(c *Config) { c.Listen = "127.0.0.1:0" })
	stop := h.run()
	var address net.Addr
	select {
	case address = <-h.reporter.listening:
	case <-time.After(time.Minute):
		t.Fatal("nothing listens")
	}
	client := &http.Client{Transport: &http.Transport{}}
	response, err := client.Get("http://" + address.String() + "/metrics")
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	assert.Contains(t, string(body), "certctl_agent_build_info{")
	client.CloseIdleConnections()
	stop()

	// An address that is taken stops nothing.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	h = newHost(t, func(c *Config) { c.Listen = taken.Addr().String() })
	stop = h.run()
	require.Eventually(t, func() bool { return strings.Contains(h.log.String(), "choose an address that is free") }, time.Minute, 5*time.Millisecond)
	stop()
}

func TestTextFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "later", "certctl.prom")
	h := newHost(t, func(c *Config) { c.TextFile, c.TextFileInterval = path, 10*time.Millisecond })
	defer h.run()()
	require.Eventually(t, func() bool { return strings.Contains(h.log.String(), "could not be written") }, time.Minute, 5*time.Millisecond)
	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o755))
	holds := func(text string) func() bool {
		return func() bool {
			written, err := os.ReadFile(path)
			if err == nil {
				families(t, string(written)) // whole at any time
			}
			return err == nil && strings.Contains(string(written), text)
		}
	}
	require.Eventually(t, holds("certctl_agent_build_info{"), time.Minute, 5*time.Millisecond)
	h.put("www", day)
	require.Eventually(t, holds(`certctl_certificate_served{certificate="www"} 1`), time.Minute, 5*time.Millisecond)
	assert.Equal(t, 1, strings.Count(h.log.String(), "could not be written"), "said once")
}

func TestConfig(t *testing.T) {
	for _, bad := range []func(*Config){
		func(c *Config) { c.Store = nil },
		func(c *Config) { c.Listen = "nowhere" },
		func(c *Config) { c.TextFile = "/x.prom" },
	} {
		cfg := newHost(t).reporter.cfg
		bad(&cfg)
		_, err := New(cfg)
		assert.Error(t, err)
	}
}

func BenchmarkScrape(b *testing.B) {
	const many = 10_000
	h := newHost(b)
	var names []string
	for i := range many {
		names = append(names, fmt.Sprintf("certificate-%05d.example.com", i))
	}
	for begin := 0; begin < many; begin += 500 {
		h.putAll(names[begin : begin+500])
	}
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h.reporter.inventory = inventory{}
			require.NoError(b, h.reporter.Write(io.Discard))
		}
	})
	b.Run("again", func(b *testing.B) {
		var size bytes.Buffer
		require.NoError(b, h.reporter.Write(&size))
		b.ReportMetric(float64(size.Len()), "B/scrape")
		b.ReportAllocs()
		for b.Loop() {
			require.NoError(b, h.reporter.Write(io.Discard))
		}
	})
}
