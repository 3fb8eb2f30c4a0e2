package cli

import (
	"encoding/csv"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/wire"
)

func TestReportSyncCommand(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	assert.Contains(t, p.does("report", "sync"), `no hosts: "certctl token create" makes a token`)

	web := c.Agent("web1", "web1.example.com", map[string]string{"env": "prod"})
	web.Report("www", apitest.Valid(c.Now(), 60*day, "www.example.com"))
	web.SafeUntil(c.Now().Add(60 * day).UTC().Truncate(time.Second))
	well := p.does("report", "sync")
	assert.Contains(t, well, "1 host: 1 connected, 0 cut off\n")
	assert.Contains(t, well, "no host is at risk; --all lists every host\n")
	assert.NotContains(t, well, "what to do")

	mail := c.Agent("mail1", "mail1\x1b.example.com", map[string]string{"env": "test"})
	over := apitest.Valid(c.Now(), -3*time.Hour, "mail.example.com")
	mail.Report("smtp", over)
	mail.ClockSkew(-5 * time.Minute)
	shop := c.Agent("shop1", "shop1.example.com", nil)
	lost := apitest.Valid(c.Now(), 30*day, "shop.example.com")
	lost.State, lost.Attempt, lost.Deployments[0].State, lost.Deployments[0].Fingerprint = wire.StateFailed, 3, wire.DeploymentBroken, ""
	lost.Issuer = "digicert"
	shop.Report("www", lost)
	shop.NotSafe(1)
	shop.Warn(strings.Repeat("the disk is full ", 10), "other")

	text := p.does("report", "sync")
	for _, want := range []string{
		"hosts at risk:  2: 1 EXPIRED, 1 UNSERVED\n",
		"NOT SAFE NOW (1): 1 certificate on 1 host",
		"certificates:   3: 1 EXPIRED, 1 UNSERVED, 1 ok\n",
		"deployments:    1 BROKEN, 2 verified\n",
		"issuers:        letsencrypt 2 (1 in trouble), digicert 1 (1 in trouble)\n",
		"versions:       1.2.3 on 3\n",
		"also:           1 clock is wrong (the worst 5 min behind); 1 host warns of something\n",
		"expiring by week: 2 within 13 weeks, 0 later\n",
		"EXPIRED   mail1 .example.com  mail1  1 expired, clock 5 min behind\n",
		"UNSERVED  shop1.example.com   shop1  1 not in service, warns: the disk is full the disk is full the disk is full the di... (and 1 more)\n",
		"what to do, with the id of a host for AGENT\n  expired    \"certctl certificates list --agent AGENT\" says which, and why\n  unserved ",
	} {
		assert.Contains(t, text, want)
	}
	assert.NotContains(t, text, "web1", "it is well")
	assert.NotContains(t, text, "cut off   ", "nothing to do about what there is not")
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "warns:") && !strings.Contains(line, "also") {
			assert.LessOrEqual(t, len(strings.TrimSuffix(line, "\n")), 80, line)
		}
	}
	assert.Contains(t, p.does("report", "sync", "--all"), "well      web1.example.com    web1   safe 59 d\n")
	assert.Contains(t, p.does("report", "sync", "--limit", "1"), "and 1 host more at risk; --limit shows more of them\n")
	assert.Contains(t, p.does("report", "sync", "--limit", "1", "--risk", "expired,unserved"), "these are the first; --limit shows more of them\n")
	assert.Contains(t, p.does("report", "sync", "--risk", "cut_off"), "no host is like that\n")
	assert.Contains(t, p.does("report", "sync", "--label", "env=none"), "no host has these labels")

	for line, want := range map[string]string{
		"": "mail1 shop1", "--all": "mail1 shop1 web1", "--label env=prod": "", "--label env=prod --all": "web1", "--risk none": "web1",
		"--connection cut_off": "", "--agent-version 1.2.3": "mail1 shop1", "--agent-version 1": "", "--limit 1": "mail1",
	} {
		document := reads[syncShown](p, append([]string{"report", "sync"}, strings.Fields(line)...)...)
		var ids []string
		for _, h := range document.Items {
			ids = append(ids, h.AgentID)
		}
		assert.Equal(t, strings.Fields(want), append([]string{}, ids...), line)
		assert.Equal(t, line == "--limit 1", document.More, line)
		hosts := 3
		if strings.Contains(line, "label") {
			hosts = 1
		}
		assert.Equal(t, hosts, document.Fleet.Hosts, line)
	}

	whole := p.does("report", "sync", "--all", "--output", "csv")
	rows, err := csv.NewReader(strings.NewReader(whole)).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 4)
	assert.Equal(t, []string{"agent_id", "mail1", "shop1", "web1"}, []string{rows[0][0], rows[1][0], rows[2][0], rows[3][0]})
	_, bare, _ := strings.Cut(whole, "\r\n")
	assert.Equal(t, bare, p.does("report", "sync", "--all", "--output", "csv", "--no-headers"), "from pages and from one answer it is the same")

	assert.Contains(t, p.fails(1, "report", "sync", "--limit", "0"), "flag --limit 0: expected 1 or more, or --all")
	assert.Contains(t, p.fails(1, "report", "sync", "--risk", "bad"), `flag --risk "bad": expected expired, unserved, `)
}

func TestReportHostCommand(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	web := c.Agent("web1", "web1.example.com", map[string]string{"env": "prod"})
	web.Report("www", apitest.Valid(c.Now(), 60*day, "www.example.com"))
	web.Event(wire.EventRenewed, "www", "")
	web.EventAt(c.Now().Add(-time.Hour), wire.EventRenewed, "www")
	web.Event(wire.EventFailed, "www", "")
	web.Warn("the disk is full")
	var text string
	require.Eventually(t, func() bool { // a fact is in the journal a moment after its change is stored
		text = p.does("report", "host", "web1")
		return strings.Contains(text, "last 7 days:   2 renewed, 1 failed; 1 of those renewed while it was cut off\n")
	}, time.Minute, 10*time.Millisecond)
	for _, want := range []string{
		"host:          web1.example.com (web1), linux/amd64, agent 1.2.3\n", "labels:        env=prod\n", "risk:          warned: 1 warning\n",
		"to do:         \"certctl agents show web1\" has what it warns of\n", "certificates:  1: 1 ok\n", "deployments:   1 verified\n",
		"WARNING:       the disk is full\n",
	} {
		assert.Contains(t, text, want)
	}
	assert.NotContains(t, text, "CUT OFF")
	c.Sleep(time.Hour)
	assert.Contains(t, p.does("report", "host", "web1"), ", CUT OFF: the next one is due for 59 min\n")
	assert.Equal(t, "cut_off", reads[resource.HostReport](p, "report", "host", "web1").Risk)
	assert.Contains(t, p.fails(1, "report", "host", "none"), "there is no active host with the id none")
}

// A watch writes a line whenever the sums are others, where no terminal shows them in place.
func TestTheReportIsWatched(t *testing.T) {
	p := newPerson(t)
	out, _, err := follow(t, p, []string{"report", "sync"}, func(look int, w http.ResponseWriter, _ *http.Request, interrupt func()) {
		v := resource.SyncReport{Fleet: resource.FleetStanding{Hosts: 2, Connected: 2, Health: resource.HealthCounts{OK: 3}}}
		if look == 2 {
			v.Fleet.FactsDropped = 1 // not on the line
		}
		if look >= 3 {
			v.Fleet.Connected, v.Fleet.CutOff, v.Fleet.AtRisk, v.Fleet.Risks.CutOff = 1, 1, 1, 1
		}
		if look == 4 {
			interrupt()
		}
		assert.NoError(t, json.NewEncoder(w).Encode(v))
	})
	require.NoError(t, err)
	text := lines(out)
	require.Len(t, text, 2, out)
	assert.Contains(t, text[0], "  2 hosts: 2 connected, 0 cut off; at risk none; certificates 3: 3 ok")
	assert.Contains(t, text[1], "  2 hosts: 1 connected, 1 cut off; at risk 1: 1 cut off; certificates 3: 3 ok")
}

// What came in lately stands with the sums, and why most of what failed did.
func TestReportShowsActivity(t *testing.T) {
	day := resource.DayActivity{Renewed: 40, Failed: 3, RenewedOffline: 2, Issuers: []resource.IssuerActivity{
		{Issuer: "acme", Failed: 3, Reasons: []resource.Counted{{Name: "limited", Count: 2}, {Name: "refused", Count: 1}}}, {Issuer: "coordinator", Renewed: 1},
	}}
	v := &syncShown{Fleet: resource.FleetStanding{Hosts: 1}, Activity: &resource.FleetActivity{Yesterday: resource.DayActivity{Renewed: 7}, Week: day}}
	var out strings.Builder
	require.NoError(t, (&syncFlags{}).write(&out, v, time.Now()))
	assert.Contains(t, out.String(), "renewals:       today 0; yesterday 7; in 7 days 40, 3 FAILED, 2 while cut off\n")
	assert.Contains(t, out.String(), "failures:       acme 3 (limited), in 7 days\n")
}

// The chart of the weeks fits eighty columns, however much there is in them, and shows the least.
func TestExpiringChart(t *testing.T) {
	f := &resource.FleetStanding{ExpiringLater: 7}
	monday := time.Date(2031, 5, 5, 0, 0, 0, 0, time.UTC)
	for i := range 13 {
		f.Expiring = append(f.Expiring, resource.ExpiringWeek{Week: monday.AddDate(0, 0, 7*i).Format(time.DateOnly)})
	}
	assert.Equal(t, "expiring within 13 weeks: none; later: 7\n", expiringChart(f))
	f.Expiring[0].Certificates, f.Expiring[1].Certificates, f.Expiring[12].Certificates = 12_345_678, 1, 99_999
	chart := lines(expiringChart(f))
	assert.Equal(t, "expiring by week: 12445678 within 13 weeks, 7 later", chart[0])
	assert.Equal(t, []string{"12M", "1", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "99999"}, strings.Fields(chart[1]))
	assert.Equal(t, "   ###", chart[2])
	assert.Equal(t, "   ###   ###"+strings.Repeat(" ", 63)+"###", chart[4])
	assert.Equal(t, []string{"05-05", "05-12"}, strings.Fields(chart[5])[:2])
	for _, line := range chart {
		assert.LessOrEqual(t, len(line), 80)
	}
	assert.Equal(t, []string{"99999", "100k", "9999k", "10M"}, []string{short(99_999), short(100_000), short(9_999_999), short(10_000_000)})
}

// On a terminal what is the matter with a host stays in its column, and elsewhere on its
// line.
func TestHostsFitTheTerminal(t *testing.T) {
	now := time.Now()
	h := resource.HostStanding{Risk: "cut_off", Hostname: "db1.example.com", AgentID: "u53n5nbgbmcuo7ob", CutOffSince: now.Add(-5 * day), SafeUntil: now.Add(29*day + time.Hour), Warnings: []string{"the disk is nearly full"}}
	const what = "cut off 5 d, safe 29 d, warns: the disk is nearly full"
	for width, want := range map[int][]string{0: {what}, 80: {"cut off 5 d, safe 29 d, warns: the", "disk is nearly full"}} {
		var out strings.Builder
		require.NoError(t, (&syncFlags{width: width}).hosts(&out, []resource.HostStanding{h}, now))
		text := lines(out.String())[1:]
		require.Len(t, text, len(want))
		for i, line := range text {
			cells := columns(line)
			assert.Equal(t, want[i], cells[len(cells)-1])
			if width > 0 {
				assert.LessOrEqual(t, len(line), width)
			}
		}
	}
}
