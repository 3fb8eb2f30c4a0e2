package api_test

import (
	"encoding/csv"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

const dayReport = "/api/v1/reports/days"

// record has a day recorded that is so many days ago, with everything in it.
func (w *world) record(ago int, renewed uint64) fleet.Day {
	w.t.Helper()
	date := fleet.DateOf(w.Now().AddDate(0, 0, -ago))
	day := fleet.Day{Date: date, Activity: fleet.DayActivity{Renewed: renewed}}
	if ago > 0 {
		begin, err := fleet.DayBegin(date)
		require.NoError(w.t, err)
		horizon, dropped := begin.AddDate(0, 0, 30), uint64(20)
		day.Final = true
		day.Standing = &fleet.DayStanding{
			CountedAt: begin.Add(24*time.Hour + 4*time.Minute), Hosts: 1, Connected: 2, CutOff: 3, Retired: 4, AtRisk: 5, NotSafe: 6, Horizon: &horizon,
			ClockSkewed: 7, EventsDropped: 8, Certificates: 9, Expired: 10, Attention: 11, Verified: 12, Failed: 13, Expiring: []uint64{14, 15},
			States: []fleet.Count{{Name: "valid", Count: 16}}, Health: []fleet.Count{{Name: "ok", Count: 17}}, Versions: []fleet.Count{{Name: "1.2.3", Count: 18}},
			Risks: []fleet.Count{{Name: "none", Count: 19}},
		}
		day.Activity = fleet.DayActivity{Partial: true, Renewed: renewed, Failed: 21, RenewedOffline: 22, EventsDropped: &dropped, Issuers: []fleet.IssuerActivity{
			{Issuer: "=corp", Renewed: renewed, Failed: 21, RenewedOffline: 22, Reasons: []fleet.Count{{Name: "refused", Count: 21}}},
		}}
	}
	require.Equal(w.t, 1, w.keep(day))
	return day
}

// keep has a day recorded at the world's time, and says how many were.
func (w *world) keep(day fleet.Day) (recorded int) {
	w.t.Helper()
	command, err := fleet.NewCommand(w.Now(), fleet.RecordDay{Day: day})
	require.NoError(w.t, err)
	results, err := w.Propose(w.t.Context(), command)
	require.NoError(w.t, err)
	var outcome fleet.RecordedDay
	require.NoError(w.t, results[0].Decode(&outcome))
	if outcome.Recorded {
		recorded = 1
	}
	return recorded
}

// atNoon is a world in the middle of a day.
func atNoon(t *testing.T) *world {
	w := start(t)
	w.Sleep(w.Now().Truncate(24 * time.Hour).Add(36 * time.Hour).Sub(w.Now()))
	return w
}

func dates(days []resource.DayReport) (list []string) {
	for i := range days {
		list = append(list, days[i].Date)
	}
	return list
}

func TestDayReport(t *testing.T) {
	w := atNoon(t)
	assert.Empty(t, get[resource.Page[resource.DayReport]](w, dayReport).Items)
	one, two, today := w.record(100, 1), w.record(3, 2), w.record(0, 3)
	got := get[resource.Page[resource.DayReport]](w, dayReport).Items
	require.Equal(t, []string{two.Date, today.Date}, dates(got), "90 days, the earliest first")
	assert.Equal(t, []string{one.Date, two.Date, today.Date}, dates(get[resource.Page[resource.DayReport]](w, dayReport+"?days=400").Items))
	assert.Equal(t, []string{today.Date}, dates(get[resource.Page[resource.DayReport]](w, dayReport+"?days=3").Items))
	assert.Equal(t, []string{two.Date, today.Date}, dates(get[resource.Page[resource.DayReport]](w, dayReport+"?days=4").Items), "today is one of them")
	for _, days := range []string{"0", "401", "-1", "x"} {
		p := w.ask(http.MethodGet, dayReport+"?days="+days, nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
		assert.Equal(t, "days", p.Field)
	}

	dropped := uint64(20)
	s := two.Standing
	assert.Equal(t, resource.DayReport{
		Date: two.Date, Final: true,
		Standing: &resource.DayStanding{
			CountedAt: s.CountedAt, Hosts: 1, Connected: 2, CutOff: 3, Retired: 4, AtRisk: 5, NotSafe: 6, SafeUntil: *s.Horizon, ClockWrong: 7, FactsDropped: 8,
			Certificates: 9, Expired: 10, NeedingAttention: 11, DeploymentsVerified: 12, DeploymentsFailed: 13, ExpiringWeeks: []uint64{14, 15},
			States: []resource.Counted{{Name: "valid", Count: 16}}, Health: []resource.Counted{{Name: "ok", Count: 17}},
			Versions: []resource.Counted{{Name: "1.2.3", Count: 18}}, Risks: []resource.Counted{{Name: "none", Count: 19}},
		},
		Activity: resource.DayActivity{Partial: true, Renewed: 2, Failed: 21, RenewedOffline: 22, FactsDropped: &dropped, Issuers: []resource.IssuerActivity{
			{Issuer: "=corp", Renewed: 2, Failed: 21, RenewedOffline: 22, Reasons: []resource.Counted{{Name: "refused", Count: 21}}},
		}},
	}, got[0])
	assert.Equal(t, resource.DayReport{Date: today.Date, Activity: resource.DayActivity{Renewed: 3, Issuers: []resource.IssuerActivity{}}}, got[1])
}

// The tag is that of the table, and of the day that it is.
func TestTheDayReportsTag(t *testing.T) {
	for _, path := range []string{dayReport, dayReport + "?format=csv"} {
		t.Run(path, func(t *testing.T) {
			w := atNoon(t)
			day := w.record(1, 1)
			tag := w.tag(path)
			w.Agent("any", "web1.example.com", nil)
			assert.True(t, w.unchanged(path, tag), "hosts come and go")
			assert.Zero(t, w.keep(day))
			assert.True(t, w.unchanged(path, tag), "it was recorded already")
			w.record(0, 2)
			assert.False(t, w.unchanged(path, tag))
			tag = w.tag(path)
			w.Sleep(12*time.Hour - time.Minute)
			assert.True(t, w.unchanged(path, tag))
			w.Sleep(time.Minute)
			assert.False(t, w.unchanged(path, tag), "another day is the first of them")
		})
	}
}

// dayColumns never change but at the end: people's sheets go by them.
const dayColumns = "date,final,standing.counted_at,standing.hosts,standing.connected,standing.cut_off,standing.retired,standing.at_risk,standing.risks,standing.not_safe," +
	"standing.safe_until,standing.clock_wrong,standing.facts_dropped,standing.certificates,standing.expired,standing.needing_attention,standing.states,standing.health," +
	"standing.expiring_weeks,standing.deployments_verified,standing.deployments_failed,standing.versions," +
	"activity.partial,activity.renewed,activity.renewed_offline,activity.failed,activity.facts_dropped,activity.issuers"

func TestDayReportAsCSV(t *testing.T) {
	w := atNoon(t)
	two, today := w.record(2, 4), w.record(0, 5)
	whole := w.with(http.MethodGet, dayReport, []string{"Accept", "text/csv"})
	require.Equal(t, http.StatusOK, whole.StatusCode, whole.body)
	assert.True(t, strings.HasPrefix(whole.body, dayColumns+"\r\n"), whole.body)
	assert.Equal(t, whole.body, w.with(http.MethodGet, dayReport+"?format=csv").body)
	rows, err := csv.NewReader(strings.NewReader(whole.body)).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 3)
	cells := func(row []string) map[string]string {
		list := map[string]string{}
		for i, name := range rows[0] {
			list[name] = row[i]
		}
		return list
	}
	first, last := cells(rows[1]), cells(rows[2])
	assert.Equal(t, []string{two.Date, "true", "3", "4", "21", "20"}, []string{first["date"], first["final"], first["standing.cut_off"], first["activity.renewed"], first["activity.failed"], first["activity.facts_dropped"]})
	assert.Contains(t, first["activity.issuers"], "corp")
	assert.Equal(t, []string{today.Date, "false", "", "5", ""}, []string{last["date"], last["final"], last["standing.cut_off"], last["activity.renewed"], last["activity.facts_dropped"]})
}
