package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
)

// trended is what people see of days that end on a Wednesday: all but one are known.
func trended(count int, weekly bool) *trends {
	t := &trends{count: count, weekly: weekly, fleet: resource.FleetStanding{Hosts: 12, CutOff: 2, AtRisk: 3, Certificates: 40}}
	for i, day := range []struct {
		date                    string
		cutOff, renewed, failed uint64
	}{
		{"2026-04-26", 1, 7, 0}, {"2026-04-27", 0, 3, 0}, {"2026-04-28", 4, 14, 1}, {"2026-04-30", 0, 0, 0},
		{"2026-05-04", 8, 1, 5}, {"2026-05-05", 1, 2, 0}, {"2026-05-06", 0, 4, 2},
	} {
		one := resource.DayReport{Date: day.date, Final: true, Activity: resource.DayActivity{Renewed: day.renewed, RenewedOffline: day.renewed / 2, Failed: day.failed}}
		if day.renewed+day.failed > 0 {
			one.Activity.Issuers = []resource.IssuerActivity{{Issuer: "corp", Renewed: day.renewed, RenewedOffline: day.renewed / 2, Failed: day.failed,
				Reasons: []resource.Counted{{Name: "refused", Count: day.failed}}}, {Issuer: "le", Renewed: 1}}
		}
		one.Standing = &resource.DayStanding{Hosts: 10, CutOff: day.cutOff, AtRisk: day.cutOff, Certificates: 30 + uint64(i)}
		switch day.date {
		case "2026-05-05":
			one.Standing, one.Activity.Partial = nil, true
		case "2026-05-06":
			one.Standing, one.Final = nil, false
		}
		t.days = append(t.days, one)
	}
	return t
}

var wednesday = time.Date(2026, 5, 6, 15, 0, 0, 0, time.FixedZone("", 3600))

func shown(t *testing.T, of *trends) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, of.write(&out, wednesday))
	return out.String()
}

func TestTrendsByDay(t *testing.T) {
	assert.Equal(t, `9 days by day, 2026-04-28 to 2026-05-06
  cut off  = _   # :|  at most 8, last 2
  at risk  = _   # -|  at most 8, last 3
  renewed  # _   ..:|  at most 14, last 4
  failed   : _   #_-|  at most 5, last 2

DAY         HOSTS  CUT OFF  AT RISK  CERTIFICATES  EXPIRED  RENEWED  OFFLINE  FAILED  NOTE
2026-04-28  10     4        4        32            0        14       7        1       -
2026-04-30  10     0        0        33            0        0        0        0       -
2026-05-04  10     8        8        34            0        1        0        5       -
2026-05-05  -      -        -        -             -        2        1        0       facts missing
2026-05-06  12     2        3        40            0        4        2        2       so far

ISSUER  RENEWED  OFFLINE  FAILED  REASONS
corp    31       14       8       refused 8
le      6        0        0       -
`, strings.ReplaceAll(shown(t, trended(9, false)), " \n", "\n"))
}

func TestTrendsByWeek(t *testing.T) {
	text := shown(t, trended(11, true))
	for _, want := range []string{
		"11 days by week, 2026-04-20 to 2026-05-04\n", "  cut off  .=#|  at most 8, last 8\n", "  renewed  -#-|  at most 17, last 7\n",
		"WEEK OF     HOSTS  CUT OFF  AT RISK  CERTIFICATES  EXPIRED  RENEWED  OFFLINE  FAILED  NOTE\n",
		"2026-04-20  10     1        1        30            0        7        3        0       -\n",
		"2026-04-27  10     4        4        33            0        17       8        1       4 days missing\n",
		"2026-05-04  12     8        8        40            0        7        3        7       so far, facts missing\n",
	} {
		assert.Contains(t, text, want)
	}
}

func TestMarks(t *testing.T) {
	for n, want := range []byte("_.:-=+*#") {
		assert.Equal(t, string(want), string(mark(uint64(n), 7)))
	}
	assert.Equal(t, "#", string(mark(1, 1)))
	assert.Equal(t, ".", string(mark(1, 1_000_000)))
	assert.Equal(t, "#", string(mark(1_000_000, 1_000_000)))
}

func TestReportTrendsCommand(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	empty := p.does("report", "trends", "--days", "3")
	assert.Contains(t, empty, "so far", "there is always a today")
	assert.NotContains(t, empty, "ISSUER")
	web := c.Agent("web1", "web1.example.com", nil)
	web.Report("www", apitest.Valid(c.Now(), 60*day, "www.example.com"))
	date := fleet.DateOf(time.Now().AddDate(0, 0, -2))
	require.NoError(t, c.Do(fleet.RecordDay{Day: fleet.Day{Date: date, Final: true, Activity: fleet.DayActivity{Renewed: 5, Issuers: []fleet.IssuerActivity{
		{Issuer: "corp", Renewed: 5},
	}}}}).Err())
	text := p.does("report", "trends", "--days", "9")
	assert.Contains(t, text, date+"  -      -        -        -             -        5        0        0")
	assert.Contains(t, text, "corp    5        0        0       -\n")
	assert.Regexp(t, `\d  1      0        0        1             0        0        0        0       so far\n`, text, "how it stands now")
	assert.Contains(t, p.does("report", "trends"), "90 days by week")
	assert.Contains(t, p.does("report", "trends", "--by", "day"), "90 days by day")
	assert.Contains(t, p.does("report", "trends", "--days", "7", "--by", "week"), "7 days by week")

	document := reads[listOf[resource.DayReport]](p, "report", "trends", "--days", "9")
	require.Len(t, document.Items, 1)
	assert.Equal(t, date, document.Items[0].Date)
	sheet := p.does("report", "trends", "--output", "csv")
	assert.True(t, strings.HasPrefix(sheet, "date,final,standing.counted_at,"), sheet)
	assert.Contains(t, sheet, "\n"+date+",true,")
	for _, days := range []string{"0", "401", "-3"} {
		assert.Contains(t, p.fails(1, "report", "trends", "--days", days), "flag --days "+days+": expected 1 to 400")
	}
	assert.Contains(t, p.fails(1, "report", "trends", "--by", "year"), "expected day or week")
}
