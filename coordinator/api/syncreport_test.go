package api_test

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

const syncReport = "/api/v1/reports/sync"

// reported is a fleet with a host of each kind.
func reported(t *testing.T) *world {
	w := start(t)
	gone := w.Agent("gone", "db1.example.com", map[string]string{"env": "prod"})
	gone.Report("www", apitest.Valid(w.Now(), 60*day, "db1.example.com"))
	gone.SafeUntil(w.Now().Add(60 * day).UTC().Truncate(time.Second))
	w.Sleep(time.Hour)
	well := w.Agent("well", "web1.example.com", map[string]string{"env": "prod", "role": "web"})
	well.Report("www", apitest.Valid(w.Now(), 30*day, "web1.example.com"))
	well.SafeUntil(w.Now().Add(30 * day).UTC().Truncate(time.Second))
	bad := w.Agent("bad", "web2.example.com", map[string]string{"env": "test", "note": "=1+1"})
	lost := apitest.Valid(w.Now(), 30*day, "web2.example.com")
	lost.State, lost.Attempt, lost.LastError, lost.Deployments[0].State, lost.Deployments[0].Fingerprint = wire.StateFailed, 3, "CAA", wire.DeploymentBroken, ""
	bad.Report("www", lost)
	bad.NotSafe(1)
	bad.Warn("-2+3 disk", "clock")
	return w
}

func hostID(h resource.HostStanding) string { return h.AgentID }

func TestSyncReport(t *testing.T) {
	w := reported(t)
	seen := w.State().View().LastSeen("gone")
	got := get[resource.SyncReport](w, syncReport)
	require.Equal(t, []string{"bad", "gone", "well"}, idsOf(got.Items, hostID))
	bad, gone, well := got.Items[0], got.Items[1], got.Items[2]
	assert.Equal(t, "unserved", bad.Risk)
	assert.Equal(t, "1 not in service, 2 warnings", bad.Reason)
	assert.Contains(t, bad.Mend, "certctl certificates list --agent bad")
	assert.Equal(t, resource.HealthCounts{Unserved: 1}, bad.Health)
	assert.Equal(t, resource.DeploymentStates{Broken: 1}, bad.Deployments)
	assert.Equal(t, resource.CertificateStates{Failed: 1}, bad.States)
	assert.Equal(t, []string{"-2+3 disk", "clock"}, bad.Warnings)
	assert.True(t, bad.Connected)

	assert.Equal(t, "cut_off", gone.Risk)
	assert.False(t, gone.Connected)
	assert.Equal(t, seen.UTC(), gone.LastSync)
	assert.Equal(t, seen.UTC(), gone.CutOffSince)
	assert.Equal(t, seen.UTC().Add(time.Minute), gone.SyncDue)
	assert.Equal(t, resource.HealthCounts{Unknown: 1}, gone.Health)
	assert.Equal(t, "none", well.Risk)
	assert.Empty(t, well.Reason+well.Mend)
	assert.Zero(t, well.LastSync, "it comes with every sync")
	assert.Equal(t, 1, well.Certificates)

	f := got.Fleet
	assert.Equal(t, []int{3, 2, 1, 2, 1, 1}, []int{f.Hosts, f.Connected, f.CutOff, f.AtRisk, f.NotSafe, f.NotSafeHosts})
	assert.Equal(t, resource.HostRisks{Unserved: 1, CutOff: 1, None: 1}, f.Risks)
	assert.Equal(t, resource.HealthCounts{OK: 1, Unserved: 1, Unknown: 1}, f.Health)
	assert.Equal(t, seen.UTC(), f.CutOffSince)
	assert.Equal(t, []resource.IssuerStanding{{Issuer: "letsencrypt", Certificates: 3, Troubled: 1}}, f.Issuers)
	assert.Equal(t, []resource.VersionHosts{{Version: "1.2.3", Hosts: 3}}, f.Versions)
	require.Len(t, f.Expiring, 13)
	expiring := f.ExpiringLater
	for i, week := range f.Expiring {
		monday, err := time.Parse(time.DateOnly, week.Week)
		require.NoError(t, err)
		assert.Equal(t, time.Monday, monday.Weekday())
		if i == 0 {
			assert.LessOrEqual(t, w.Now().Sub(monday), 7*day)
		}
		expiring += week.Certificates
	}
	assert.Equal(t, 3, expiring)

	// Labels narrow the sums too; other filters the list alone.
	for query, want := range map[string]string{
		"label=env%3Dprod": "gone well", "label=env%3Dprod&label=role%3Dweb": "well", "risk=cut_off,none": "gone well", "risk=expired": "",
		"connection=connected": "bad well", "connection=cut_off": "gone", "version=1.2.3": "bad gone well", "version=1.2": "",
		"label=env%3Dprod&risk=none": "well",
	} {
		one := get[resource.SyncReport](w, syncReport+"?"+query)
		assert.Equal(t, strings.Fields(want), idsOf(one.Items, hostID), query)
		items, _ := all[resource.HostStanding](w, syncReport+"?"+query, "1")
		assert.Equal(t, strings.Fields(want), idsOf(items, hostID), "%s, one at a time", query)
		hosts := 3
		if strings.Contains(query, "env") {
			hosts = 2
		}
		if strings.Contains(query, "role") {
			hosts = 1
		}
		assert.Equal(t, hosts, one.Fleet.Hosts, query)
	}

	p := w.ask(http.MethodGet, syncReport+"?risk=none&cursor=bm9uc2Vuc2U", nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	assert.Equal(t, "cursor", p.Field)
	w.ask(http.MethodGet, syncReport+"?risk=bad", nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	w.ask(http.MethodGet, syncReport+"?label=env", nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
}

// What came in lately is told with the sums of all hosts, and ends with its day.
func TestSyncReportTellsActivity(t *testing.T) {
	w := reported(t)
	today := w.Now().UTC()
	for ago, renewed := range map[int]uint64{0: 3, 1: 40, 6: 500, 7: 6000} {
		command, err := fleet.NewCommand(w.Now(), fleet.RecordDay{Day: fleet.Day{Date: fleet.DateOf(today.AddDate(0, 0, -ago)), Activity: fleet.DayActivity{
			Renewed: renewed, Failed: 1, RenewedOffline: 1, Issuers: []fleet.IssuerActivity{{Issuer: "acme", Renewed: renewed, Failed: 1, Reasons: []fleet.Count{{Name: "limited", Count: 1}}}},
		}}})
		require.NoError(t, err)
		results, err := w.Propose(t.Context(), command)
		require.NoError(t, err)
		require.NoError(t, results[0].Err())
	}
	a := get[resource.SyncReport](w, syncReport).Activity
	require.NotNil(t, a)
	assert.Equal(t, []uint64{3, 40, 543, 3, 3}, []uint64{a.Today.Renewed, a.Yesterday.Renewed, a.Week.Renewed, a.Week.Failed, a.Week.RenewedOffline})
	require.Len(t, a.Week.Issuers, 1)
	assert.Equal(t, []resource.Counted{{Name: "limited", Count: 3}}, a.Week.Issuers[0].Reasons)
	assert.Nil(t, get[resource.SyncReport](w, syncReport+"?label=env%3Dprod").Activity, "it is not kept by host")
	w.Sleep(day)
	assert.Equal(t, uint64(3), get[resource.SyncReport](w, syncReport).Activity.Yesterday.Renewed)
}

// What is told of today ends with the day, though nothing changes but the time.
func TestTheReportsTagEndsWithItsDay(t *testing.T) {
	w := start(t)
	now := w.Now().UTC()
	until := now.Truncate(day).Add(day).Sub(now)
	if until < 5*time.Minute {
		w.Sleep(time.Hour)
		until += day - time.Hour
	}
	tag := w.tag(syncReport)
	w.Sleep(until - 4*time.Minute) // the clock of the test goes on meanwhile
	assert.True(t, w.unchanged(syncReport, tag))
	w.Sleep(4 * time.Minute)
	assert.False(t, w.unchanged(syncReport, tag))
}

// One host by itself has its last sign of life whether it is cut off or not, and what it
// did lately, also while it was cut off.
func TestHostReport(t *testing.T) {
	w := reported(t)
	gone := get[resource.HostReport](w, syncReport+"/gone")
	seen := w.State().View().LastSeen("gone").UTC()
	assert.Equal(t, "cut_off", gone.Risk)
	assert.Equal(t, seen, gone.LastSync)
	assert.InDelta(t, (time.Hour - time.Minute).Seconds(), float64(gone.LagSeconds), 60)
	assert.Zero(t, gone.Activity)

	well := w.Agent("fresh", "fresh.example.com", nil)
	at := w.Now()
	well.Event(wire.EventRenewed, "www", "")
	well.Event(wire.EventRenewed, "api", "")
	well.Event(wire.EventFailed, "api", "")
	w.Sleep(time.Hour)
	well.EventAt(w.Now().Add(-30*time.Minute), wire.EventRenewed, "www")
	var got resource.HostReport
	require.Eventually(t, func() bool { // a fact is in the journal a moment after its change is stored
		got = get[resource.HostReport](w, syncReport+"/fresh")
		return got.Activity == resource.HostActivity{Renewed: 3, RenewedOffline: 1, Failed: 1}
	}, time.Minute, 10*time.Millisecond, "%+v", got)
	assert.True(t, got.Connected)
	assert.False(t, got.LastSync.Before(at.UTC().Add(time.Hour)), "which lists do not tell")
	assert.Equal(t, got.LastSync.Add(time.Minute), got.SyncDue)
	assert.Zero(t, got.LagSeconds)
	w.Sleep(90 * time.Second)
	late := get[resource.HostReport](w, syncReport+"/fresh")
	assert.True(t, late.Connected, "it has missed one sync, and may miss three")
	assert.InDelta(t, 30, late.LagSeconds, 30)
	w.Sleep(7 * day)
	assert.Zero(t, get[resource.HostReport](w, syncReport+"/fresh").Activity, "of the last days alone")

	w.ask(http.MethodGet, syncReport+"/none", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)
	post[resource.AgentDetail](w, "/api/v1/agents/gone/retire", nil, http.StatusOK)
	w.ask(http.MethodGet, syncReport+"/gone", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)
}

// The tag stays while hosts only keep in touch, and not when one is cut off or heard of
// again, or anything of one changes.
func TestTheReportsTag(t *testing.T) {
	w := reported(t)
	for _, path := range []string{syncReport, syncReport + "?format=csv"} {
		tag := w.tag(path)
		w.KeepInTouch("well", "bad")
		assert.True(t, w.unchanged(path, tag), path)
		w.KeepInTouch()
		assert.False(t, w.unchanged(path, tag), "a host is back")
		tag = w.tag(path)
		w.Sleep(3*time.Minute + 11*time.Second)
		assert.False(t, w.unchanged(path, tag), "all are cut off")
		w.Sleep(time.Hour)
		w.KeepInTouch("well", "bad")
	}
}

// csvColumns never change but at the end: people's sheets go by them.
const csvColumns = "agent_id,hostname,labels,risk,reason,mend,connected,last_sync,sync_due,cut_off_since,safe_until,not_safe,certificates,next_expiry,needing_attention," +
	"health.ok,health.renewing,health.unknown,health.at_risk,health.unserved,health.revoked,health.expired," +
	"states.pending,states.renewing,states.valid,states.failed,states.other," +
	"deployments.verified,deployments.unverified,deployments.pending,deployments.failed,deployments.broken," +
	"facts_dropped,clock_skew_seconds,identity_shared,warnings,version,os,arch"

func TestSyncReportAsCSV(t *testing.T) {
	w := reported(t)
	accept := func(value string) []string { return []string{"Accept", value} }
	whole := w.with(http.MethodGet, syncReport+"?limit=1", accept("text/csv"))
	require.Equal(t, http.StatusOK, whole.StatusCode, whole.body)
	assert.Equal(t, "text/csv; charset=utf-8; header=present", whole.Header.Get("Content-Type"))
	assert.Equal(t, `attachment; filename="certctl-list-sync-report.csv"`, whole.Header.Get("Content-Disposition"))
	assert.Equal(t, "Authorization, Accept-Encoding, Accept", whole.Header.Get("Vary"))
	assert.True(t, strings.HasPrefix(whole.body, csvColumns+"\r\n"), whole.body)
	rows, err := csv.NewReader(strings.NewReader(whole.body)).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 4, "all of them, whatever the limit")
	cells := map[string]string{}
	for i, name := range rows[0] {
		cells[name] = rows[1][i]
	}
	assert.Equal(t, "bad", cells["agent_id"])
	assert.Equal(t, "env=test;note='=1+1", cells["labels"])
	assert.Equal(t, "'-2+3 disk;clock", cells["warnings"], "no spreadsheet takes it for a formula")
	assert.Equal(t, "1", cells["deployments.broken"])
	assert.Empty(t, cells["last_sync"])

	for value, want := range map[string]string{"": "json", "*/*": "json", "application/json": "json", "text/csv": "csv", "application/json;q=0.5, text/csv": "csv", "text/csv;q=0.4, application/json": "json", "text/html, */*": "json", "text/csv; header=present": "csv", "text/csv;q=0": "json"} {
		fields := [][]string{}
		if value != "" {
			fields = append(fields, accept(value))
		}
		got := w.with(http.MethodGet, syncReport, fields...)
		assert.Contains(t, got.Header.Get("Content-Type"), want, value)
		assert.Equal(t, "Authorization, Accept-Encoding, Accept", got.Header.Get("Vary"), value)
	}
	assert.Contains(t, w.with(http.MethodGet, syncReport+"?format=json", accept("text/csv")).Header.Get("Content-Type"), "json", "the query decides")
	assert.Equal(t, whole.body, w.with(http.MethodGet, syncReport+"?format=csv").body)

	tag := whole.Header.Get("ETag")
	require.NotEmpty(t, tag)
	assert.NotEqual(t, tag, w.with(http.MethodGet, syncReport+"?limit=1").Header.Get("ETag"), "the tag of JSON")
	assert.Equal(t, http.StatusNotModified, w.with(http.MethodGet, syncReport+"?limit=1", accept("text/csv"), noneMatch(tag)).StatusCode)
	assert.Equal(t, http.StatusNotModified, w.with(http.MethodGet, syncReport+"?limit=1", accept("text/csv"), noneMatch("*")).StatusCode)
	w.with(http.MethodGet, syncReport+"?format=csv", []string{"If-Match", `"other"`}).problem(t, http.StatusPreconditionFailed, wire.CodeConflict)
	head := w.with(http.MethodHead, syncReport+"?limit=1", accept("text/csv"))
	assert.Equal(t, http.StatusOK, head.StatusCode)
	assert.Empty(t, head.body)
	assert.Equal(t, tag, head.Header.Get("ETag"))

	zipped := w.with(http.MethodGet, syncReport+"?limit=1", accept("text/csv"), []string{"Accept-Encoding", "gzip"})
	assert.Equal(t, "gzip", zipped.Header.Get("Content-Encoding"))
	assert.NotEqual(t, tag, zipped.Header.Get("ETag"))
	plain, err := gzip.NewReader(bytes.NewReader([]byte(zipped.body)))
	require.NoError(t, err)
	text, err := io.ReadAll(plain)
	require.NoError(t, err)
	assert.Equal(t, whole.body, string(text))

	p := w.ask(http.MethodGet, syncReport+"?format=csv&cursor=cmlzawE", nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	assert.Equal(t, "cursor", p.Field)
	p = w.ask(http.MethodGet, syncReport+"?format=xml", nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	assert.Equal(t, "format", p.Field)
}

// brokenWriter is a connection that breaks off after so many octets.
type brokenWriter struct {
	header http.Header
	left   int
}

func (b *brokenWriter) Header() http.Header { return b.header }
func (*brokenWriter) WriteHeader(int)       {}

func (b *brokenWriter) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// What ends a table early ends the connection, so that nobody takes it for whole.
func TestATableThatBreaksOffIsSeenTo(t *testing.T) {
	t.Parallel()
	c := newTagCluster(t)
	node := c.nodes[0]
	node.state, c.now = empty(t), time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	var commands []fleet.Command
	for _, payload := range []fleet.Payload{
		fleet.InitClusterCA{Authority: fleet.ClusterAuthority{Certificate: []byte("root"), SealedKey: []byte("key")}},
		fleet.CreateAPIToken{ID: c.token.ID, Name: "all", Hash: c.token.Hash(), Role: fleet.RoleViewer},
	} {
		command, err := fleet.NewCommand(c.now, payload)
		require.NoError(t, err)
		commands = append(commands, command)
	}
	entry, err := fleet.EncodeEntry(commands)
	require.NoError(t, err)
	_, _, err = node.state.Apply(1, entry)
	require.NoError(t, err)
	for _, encoding := range []string{"identity", "gzip"} {
		request := httptest.NewRequest(http.MethodGet, syncReport+"?format=csv", nil)
		request.Header.Set("Authorization", "Bearer "+c.token.Reveal())
		request.Header.Set("Accept-Encoding", encoding)
		node.handler.ServeHTTP(&brokenWriter{header: http.Header{}, left: 1 << 20}, request.Clone(t.Context()))
		assert.PanicsWithValue(t, http.ErrAbortHandler, func() {
			node.handler.ServeHTTP(&brokenWriter{header: http.Header{}, left: 100}, request)
		}, encoding)
	}
}
