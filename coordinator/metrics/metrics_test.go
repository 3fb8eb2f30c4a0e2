package metrics_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/agentapi"
	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/backup"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/metrics"
	"github.com/certctl/certctl/coordinator/pass"
	"github.com/certctl/certctl/coordinator/peer"
	"github.com/certctl/certctl/shared/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const day = 24 * time.Hour

// scrape is what Prometheus is answered.
func scrape(t *testing.T, c *apitest.Coordinator, token string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.URL+"/metrics", nil)
	require.NoError(t, err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.HTTP().Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(body)
}

func families(t testing.TB, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err, text)
	return parsed
}

// values are the samples by name and labels.
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
			all[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// A fleet, and what is told of it after each thing that happens.
func TestValues(t *testing.T) {
	c := apitest.Start(t)
	token := c.Token(fleet.RoleViewer, 0).Reveal()
	look := func() map[string]float64 {
		t.Helper()
		status, text := scrape(t, c, token)
		require.Equal(t, http.StatusOK, status, text)
		return values(t, text)
	}
	has := func(want map[string]float64) {
		t.Helper()
		got := look()
		for name, value := range want {
			require.Contains(t, got, name)
			assert.Equal(t, value, got[name], name)
		}
	}
	has(map[string]float64{
		"certctl_coordinator_ready": 1, "certctl_raft_leader": 1, "certctl_raft_leader_known": 1,
		"certctl_fleet_agents{state=connected}": 0, "certctl_fleet_hosts_safe_for_less{days=30}": 0, "certctl_table_rows{table=agents}": 0,
		"certctl_journal_dropped_facts_total": 0,
	})
	assert.NotContains(t, look(), "certctl_fleet_safe_until_timestamp_seconds")
	assert.NotContains(t, look(), "certctl_raft_leader_contact_timestamp_seconds")

	now := c.Now().UTC().Truncate(time.Second)
	web := c.Agent("web1", "web1.secret.example", map[string]string{"secretlabel": "prod"})
	web.SafeUntil(now.Add(10*day + time.Hour))
	web.Report("www", apitest.Valid(now, 10*day, "www.secret.example"))
	old := apitest.Valid(now, -time.Hour, "old.secret.example")
	old.NeedsAttention, old.LastError, old.LastErrorAt = "secret text", "secret text", now
	web.Report("old", old)
	web.Report("new", wire.Summary{State: wire.StatePending})
	c.Agent("db1", "db1.secret.example", nil).SafeUntil(now.Add(100 * day))
	c.Agent("idle", "idle.secret.example", nil).Warn("secret text", "secret text")
	has(map[string]float64{
		"certctl_fleet_agents{state=connected}": 3, "certctl_fleet_agents{state=cut_off}": 0, "certctl_fleet_agents{state=retired}": 0,
		"certctl_fleet_safe_until_timestamp_seconds": float64(now.Add(10*day + time.Hour).Unix()),
		"certctl_fleet_hosts_safe_for_less{days=7}":  0, "certctl_fleet_hosts_safe_for_less{days=14}": 1, "certctl_fleet_hosts_safe_for_less{days=30}": 1,
		"certctl_fleet_hosts_serving_nothing": 1, "certctl_fleet_hosts_at_risk": 1, "certctl_fleet_hosts_with_warnings": 1,
		"certctl_fleet_certificates{state=valid}": 2, "certctl_fleet_certificates{state=pending}": 1,
		"certctl_fleet_certificates_needing_attention": 1, "certctl_fleet_certificates_expired": 1,
		"certctl_table_rows{table=certificates}": 3,
	})

	// Of a host that is not safe now no later moment is true, for the fleet neither.
	shaky := c.Agent("shaky", "shaky.secret.example", nil)
	shaky.Report("www", apitest.Valid(now, 90*day, "www.secret.example"))
	shaky.Report("new", wire.Summary{State: wire.StatePending})
	shaky.NotSafe(1)
	c.Agent("bare", "bare.secret.example", nil).NotSafe(2)
	has(map[string]float64{
		"certctl_fleet_hosts_not_safe": 2, "certctl_fleet_certificates_not_safe": 3, "certctl_fleet_hosts_serving_nothing": 2,
		"certctl_fleet_hosts_safe_for_less{days=1}": 2, "certctl_fleet_hosts_safe_for_less{days=14}": 3,
	})
	assert.NotContains(t, look(), "certctl_fleet_safe_until_timestamp_seconds")
	for _, id := range []string{"shaky", "bare"} {
		require.True(t, c.Do(fleet.RetireAgent{AgentID: id}).OK())
	}
	has(map[string]float64{
		"certctl_fleet_hosts_not_safe": 0, "certctl_fleet_certificates_not_safe": 0, "certctl_fleet_hosts_serving_nothing": 1,
		"certctl_fleet_safe_until_timestamp_seconds": float64(now.Add(10*day + time.Hour).Unix()),
	})

	// Time alone changes what is true.
	c.Sleep(11 * day)
	has(map[string]float64{
		"certctl_fleet_agents{state=connected}": 0, "certctl_fleet_agents{state=cut_off}": 3,
		"certctl_fleet_hosts_safe_for_less{days=1}": 1, "certctl_fleet_certificates_expired": 2,
	})
	assert.InDelta(t, float64(c.Now().Unix()), look()["certctl_fleet_counted_timestamp_seconds"], 60)

	// An order comes and goes.
	web.Issued("api", apitest.Valid(c.Now(), 10*day, "api.example.com"))
	has(map[string]float64{"certctl_fleet_orders{state=issued}": 1, "certctl_fleet_orders{state=requested}": 0, "certctl_table_rows{table=issued}": 1})

	before := look()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.URL+"/api/v1/agents/web1/retire", strings.NewReader("{}"))
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+c.Admin.Reveal())
	request.Header.Set("Content-Type", "application/json")
	response, err := c.HTTP().Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
	after := look()
	assert.EqualValues(t, 3, after["certctl_fleet_agents{state=retired}"])
	assert.Zero(t, after["certctl_fleet_certificates{state=valid}"], "a retired host is nobody's worry")
	assert.Zero(t, after["certctl_fleet_hosts_at_risk"])
	assert.Equal(t, before["certctl_coordinator_requests_total{code=200,kind=api}"]+1, after["certctl_coordinator_requests_total{code=200,kind=api}"])
	assert.Equal(t, before["certctl_coordinator_request_duration_seconds{kind=api}"]+1, after["certctl_coordinator_request_duration_seconds{kind=api}"])
	// Raft counts an entry a moment after its change is answered.
	assert.Eventually(t, func() bool { return look()["certctl_raft_applied_index"] > before["certctl_raft_applied_index"] }, time.Minute, 10*time.Millisecond)

	// A sync without an identity is refused, and counted.
	request, err = http.NewRequestWithContext(t.Context(), http.MethodPost, c.URL+wire.SyncPath, strings.NewReader("{}"))
	require.NoError(t, err)
	response, err = c.HTTP().Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	has(map[string]float64{"certctl_coordinator_requests_total{code=401,kind=sync}": 1})

	// Nothing of what hosts and people call things is told.
	_, text := scrape(t, c, token)
	assert.NotContains(t, text, "secret")
	assert.NotContains(t, text, "web1")
	assert.NotContains(t, text, c.Admin.ID)
}

func TestATokenIsNeeded(t *testing.T) {
	c := apitest.Start(t)
	viewer := c.Token(fleet.RoleViewer, time.Hour)
	for name, want := range map[string]struct {
		token  string
		status int
	}{
		"none":     {"", http.StatusUnauthorized},
		"unknown":  {apitoken.New().Reveal(), http.StatusUnauthorized},
		"viewer":   {viewer.Reveal(), http.StatusOK},
		"operator": {c.Token(fleet.RoleOperator, 0).Reveal(), http.StatusOK},
	} {
		status, text := scrape(t, c, want.token)
		assert.Equal(t, want.status, status, name)
		if want.status != http.StatusOK {
			assert.Contains(t, text, `"code":"unauthorized"`)
			assert.NotContains(t, text, "certctl_")
		}
	}
	c.Sleep(2 * time.Hour)
	status, _ := scrape(t, c, viewer.Reveal())
	assert.Equal(t, http.StatusUnauthorized, status, "the token has ended")
}

// The names, types, labels and help texts are a promise to those who wrote rules
// with them.
func TestGolden(t *testing.T) {
	c := apitest.Start(t)
	token := c.Token(fleet.RoleViewer, 0).Reveal()
	web := c.Agent("web1", "web1.example.com", nil)
	web.SafeUntil(c.Now().Add(day))
	web.AtEveryStage()
	scrape(t, c, token) // so that one is counted
	_, text := scrape(t, c, token)
	parsed := families(t, text)
	var out strings.Builder
	for _, f := range metrics.Families() {
		if f.Name == "certctl_raft_leader_contact_timestamp_seconds" || // of followers
			strings.HasPrefix(f.Name, "certctl_raft_snapshot_") && parsed[f.Name] == nil { // after some thousand entries
			fmt.Fprintf(&out, "%s %s %s\n\t%s\n", f.Kind, f.Name, strings.Join(f.Labels, ","), f.Help)
			continue
		}
		family := parsed[f.Name]
		require.NotNil(t, family, f.Name)
		assert.Equal(t, strings.ToUpper(f.Kind), family.GetType().String(), f.Name)
		var labels []string
		for _, l := range family.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		assert.ElementsMatch(t, f.Labels, labels, f.Name)
		fmt.Fprintf(&out, "%s %s %s\n\t%s\n", f.Kind, f.Name, strings.Join(f.Labels, ","), family.GetHelp())
	}
	golden := filepath.Join("testdata", "families.txt")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(out.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), out.String())

	// Nothing is told that is not in the list, but for the runtime and process.
	foreign := regexp.MustCompile(`^(go|process)_`)
	for name := range parsed {
		known := slices.ContainsFunc(metrics.Families(), func(f metrics.Family) bool { return f.Name == name })
		assert.True(t, known || foreign.MatchString(name), name)
	}
	var own strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, "certctl_") {
			own.WriteString(line)
		}
	}
	problems, err := promlint.New(strings.NewReader(own.String())).Lint()
	require.NoError(t, err)
	assert.Empty(t, problems)
}

// stand stands for a node with a state and nothing else.
type stand struct {
	state   *fleet.State
	status  cluster.Status
	journal error
}

func (s *stand) State() *fleet.State      { return s.state }
func (s *stand) Ready() cluster.Readiness { return cluster.Readiness{} }
func (s *stand) Status() cluster.Status   { return s.status }
func (s *stand) Members() ([]cluster.Member, uint64) {
	return []cluster.Member{{ID: "a", Voter: true}, {ID: "b", Voter: true}, {ID: "c"}}, 1
}
func (*stand) LastSeen(string) (time.Time, bool) { return time.Time{}, false }

type standJournal struct{ *stand }

func (s standJournal) Status() (history.Status, error) { return history.Status{}, s.journal }

func exporter(t testing.TB, node *stand, now func() time.Time) *metrics.Exporter {
	t.Helper()
	e, err := metrics.New(metrics.Config{
		Node: node, Journal: standJournal{node}, Presence: node, Now: now, Log: slog.New(slog.DiscardHandler),
		CutOff: func(seen, now time.Time) bool { return now.Sub(seen) > time.Hour },
	})
	require.NoError(t, err)
	return e
}

func answer(e *metrics.Exporter, method string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(method, "/metrics", nil))
	return w
}

func TestAFollowerAndAFailure(t *testing.T) {
	state, err := fleet.New()
	require.NoError(t, err)
	heard := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	node := &stand{state: state, status: cluster.Status{Term: 7, CommitIndex: 9, AppliedIndex: 8, LastIndex: 10, SnapshotIndex: 5, LastContact: heard}}
	e := exporter(t, node, nil)
	got := values(t, answer(e, http.MethodGet).Body.String())
	for name, want := range map[string]float64{
		"certctl_raft_leader": 0, "certctl_raft_leader_known": 0, "certctl_coordinator_ready": 0, "certctl_raft_term": 7, "certctl_raft_commit_index": 9,
		"certctl_raft_applied_index": 8, "certctl_raft_last_index": 10, "certctl_raft_snapshot_index": 5,
		"certctl_raft_leader_contact_timestamp_seconds": float64(heard.Unix()),
	} {
		require.Contains(t, got, name)
		assert.Equal(t, want, got[name], name)
	}
	assert.Equal(t, http.StatusMethodNotAllowed, answer(e, http.MethodPost).Code)
	node.journal = errors.New("disk on fire")
	assert.Equal(t, http.StatusInternalServerError, answer(e, http.MethodGet).Code)
	_, err = metrics.New(metrics.Config{Node: node})
	assert.ErrorContains(t, err, "is missing")
}

// What a node of a cluster tells about the cluster.
func TestClusterFigures(t *testing.T) {
	state, err := fleet.New()
	require.NoError(t, err)
	taken := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	status := cluster.Status{
		Health: &cluster.Health{FailureTolerance: 1, Members: []cluster.MemberHealth{{Healthy: true}, {}, {Healthy: true}}},
		Voter:  true, Elections: 3, LeaderChanges: 2, Waiting: 4, WaitingMax: 4096, InFlight: 5, ReadQuestions: 6,
		SnapshotIndex: 5, SnapshotTaken: taken, SnapshotSize: 77, Journal: cluster.JournalLag{Entries: 8, Facts: 9, Since: 1500 * time.Millisecond},
		Forwarded: cluster.Forwarded{Stored: 10, Unknown: 11, NotLeader: 12, Overloaded: 13, Refused: 14},
		Apply:     cluster.Histogram{Count: 3, Sum: time.Second, Bounds: []time.Duration{time.Millisecond, time.Second}, Counts: []uint64{1, 3}},
		Store:     cluster.Histogram{Count: 2, Sum: time.Second, Bounds: []time.Duration{time.Millisecond}, Counts: []uint64{1}},
	}
	node := &stand{state: state, status: status}
	backups := backup.Status{Newest: "f", Time: taken, Size: 5, Good: 2, Bad: 1, Failures: 4, Err: errors.New("full")}
	config := metrics.Config{
		Node: node, Journal: standJournal{node}, Presence: node, Log: slog.New(slog.DiscardHandler),
		CutOff: func(time.Time, time.Time) bool { return false }, DataDir: t.TempDir(),
		Certificate: func() time.Time { return taken },
		Peers: func() peer.Stats {
			return peer.Stats{
				Connections: map[peer.ConnectionKind]int{
					{Peer: "b", Protocol: "raft", Incoming: true}: 1, {Peer: "c", Protocol: "raft", Incoming: true}: 2, {Peer: "c", Protocol: "raft"}: 3, {Peer: "d", Protocol: "peer"}: 0,
				},
				Accepted: 20, Dialled: 30, Failed: 10, Closed: 4, Refused: map[peer.Reason]uint64{"expired": 2},
			}
		},
		Agents: func() agentapi.Counts {
			return agentapi.Counts{Accepted: 1, Unchanged: 2, Refused: map[wire.Code]uint64{wire.CodeOverloaded: 3}, Passed: pass.Counts{Answered: 4, Failed: 5, Refused: 6, Again: 7}}
		},
		Backups: func() backup.Status { return backups },
	}
	e, err := metrics.New(config)
	require.NoError(t, err)
	got := values(t, answer(e, http.MethodGet).Body.String())
	for name, want := range map[string]float64{
		"certctl_raft_voter": 1, "certctl_raft_members{role=voter}": 2, "certctl_raft_members{role=joining}": 1,
		"certctl_raft_healthy_members": 2, "certctl_raft_failure_tolerance": 1,
		"certctl_raft_elections_total": 3, "certctl_raft_leader_changes_total": 2, "certctl_raft_waiting_proposals": 4,
		"certctl_raft_waiting_proposals_limit": 4096, "certctl_raft_inflight_entries": 5, "certctl_raft_consistency_checks_total": 6,
		"certctl_raft_snapshot_timestamp_seconds": float64(taken.Unix()), "certctl_raft_snapshot_bytes": 77,
		"certctl_journal_lag_entries": 8, "certctl_journal_lag_seconds": 1.5,
		"certctl_raft_forwarded_proposals_total{outcome=stored}": 10, "certctl_raft_forwarded_proposals_total{outcome=unknown}": 11,
		"certctl_raft_forwarded_proposals_total{outcome=not_leader}": 12, "certctl_raft_forwarded_proposals_total{outcome=overloaded}": 13,
		"certctl_raft_forwarded_proposals_total{outcome=refused}": 14, "certctl_raft_apply_duration_seconds": 3, "certctl_raft_store_duration_seconds": 2,
		"certctl_node_certificate_not_after_timestamp_seconds": float64(taken.Unix()),
		"certctl_peer_connections{direction=in,protocol=raft}": 3, "certctl_peer_connections{direction=out,protocol=raft}": 3, "certctl_peer_nodes": 2,
		"certctl_peer_connection_attempts_total{outcome=connected}": 20, "certctl_peer_connection_attempts_total{outcome=failed}": 10,
		"certctl_peer_connections_accepted_total": 20, "certctl_peer_connections_refused_total{reason=expired}": 2, "certctl_peer_connections_ended_total": 4,
		"certctl_syncs_total{outcome=accepted}": 1, "certctl_syncs_total{outcome=unchanged}": 2, "certctl_syncs_total{outcome=overloaded}": 3,
		"certctl_passed_requests_total{outcome=answered}": 4, "certctl_passed_requests_total{outcome=failed}": 5,
		"certctl_passed_requests_total{outcome=refused}": 6, "certctl_passed_requests_repeated_total": 7,
		"certctl_backup_timestamp_seconds": float64(taken.Unix()), "certctl_backup_bytes": 5, "certctl_backup_files{state=good}": 2,
		"certctl_backup_files{state=bad}": 1, "certctl_backup_failures_total": 4, "certctl_backup_failing": 1,
	} {
		require.Contains(t, got, name)
		assert.InDelta(t, want, got[name], 0.001, name)
	}
	assert.Positive(t, got["certctl_data_dir_free_bytes"])
	assert.Greater(t, got["certctl_data_dir_size_bytes"], got["certctl_data_dir_free_bytes"])
	var text strings.Builder
	require.NoError(t, e.Text(&text))
	assert.Equal(t, got["certctl_raft_voter"], values(t, text.String())["certctl_raft_voter"])

	// What there is none of is not told.
	backups, node.status = backup.Status{}, cluster.Status{}
	config.Peers, config.Agents, config.Certificate, config.DataDir = nil, nil, nil, ""
	e, err = metrics.New(config)
	require.NoError(t, err)
	got = values(t, answer(e, http.MethodGet).Body.String())
	for _, name := range []string{
		"certctl_backup_timestamp_seconds", "certctl_raft_snapshot_timestamp_seconds", "certctl_peer_nodes", "certctl_syncs_total{outcome=accepted}",
		"certctl_node_certificate_not_after_timestamp_seconds", "certctl_data_dir_free_bytes", "certctl_raft_failure_tolerance",
	} {
		assert.NotContains(t, got, name)
	}
	node.journal = errors.New("disk on fire")
	text.Reset()
	require.ErrorContains(t, e.Text(&text), "disk on fire")
	assert.Contains(t, text.String(), "certctl_raft_voter", "what could be had is there")
}

// large is a state with so many agents, each with two certificates.
func large(t testing.TB, agents int, now time.Time) *fleet.State {
	t.Helper()
	state, err := fleet.New()
	require.NoError(t, err)
	index := uint64(0)
	apply := func(payloads ...fleet.Payload) {
		var commands []fleet.Command
		for _, payload := range payloads {
			command, err := fleet.NewCommand(now, payload)
			require.NoError(t, err)
			commands = append(commands, command)
		}
		entry, err := fleet.EncodeEntry(commands)
		require.NoError(t, err)
		index++
		results, _, err := state.Apply(index, entry)
		require.NoError(t, err)
		for _, result := range results {
			require.NoError(t, result.Err())
		}
	}
	apply(fleet.CreateEnrollmentToken{Actor: "local", ID: "t", NamePatterns: []string{"**.example.com"}, ExpiresAt: now.Add(time.Hour)})
	until := now.Add(5 * day)
	for begin := 0; begin < agents; begin += 250 {
		var enrol, report []fleet.Payload
		for i := begin; i < min(begin+250, agents); i++ {
			id := fmt.Sprintf("agent-%06d", i)
			host := wire.HostReport{Hostname: id, OS: "linux", Arch: "amd64", Version: "1", StartedAt: now}
			enrol = append(enrol, fleet.EnrollAgent{
				TokenID: "t", AgentID: id, Host: host,
				Identity: fleet.Identity{Fingerprint: "f" + id, PublicKeyFingerprint: "k" + id, Serial: "0a", NotAfter: now.Add(day)},
			})
			host.SafeUntil = &until
			sync := fleet.SyncAgent{AgentID: id, BootID: "b", Sequence: 1, Host: &host, Revision: 2, HeadRevision: 2}
			for j, name := range []string{"www", "api"} {
				data, err := json.Marshal(apitest.Valid(now, 10*day, name+".example.com"))
				require.NoError(t, err)
				row := wire.Row{Name: name, Revision: uint64(j) + 1, Data: data}
				stored, err := fleet.NewRow(row)
				require.NoError(t, err)
				sync.Rows = append(sync.Rows, stored)
				sync.Digest.Toggle(row.Hash())
			}
			report = append(report, sync)
		}
		apply(enrol...)
		apply(report...)
	}
	return state
}

func BenchmarkScrape(b *testing.B) {
	now := time.Now().UTC()
	node := &stand{state: large(b, 20_000, now)}
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			require.Equal(b, http.StatusOK, answer(exporter(b, node, nil), http.MethodGet).Code)
		}
	})
	b.Run("again", func(b *testing.B) {
		e := exporter(b, node, nil)
		answer(e, http.MethodGet)
		for b.Loop() {
			require.Equal(b, http.StatusOK, answer(e, http.MethodGet).Code)
		}
	})
}
