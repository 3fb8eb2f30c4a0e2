package report_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/report"
	"github.com/certctl/certctl/shared/wire"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// told is the fact that an event makes, so long after it happened.
func told(event wire.Event, after time.Duration) *fleet.Fact {
	event.At = noon.Add(-after)
	detail, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	return &fleet.Fact{Time: noon, Kind: fleet.Kind(event.Kind), Agent: "a1", Object: event.Certificate, Detail: detail}
}

func TestActivityByIssuerAndReason(t *testing.T) {
	a := report.NewActivity(10*time.Minute, func(agent, certificate string) string {
		assert.Equal(t, "a1", agent)
		return map[string]string{"old": "corp", "odd": "a\nb"}[certificate]
	})
	a.Add(told(wire.Event{Kind: wire.EventRenewed, Issuer: "le"}, 0))
	a.Add(told(wire.Event{Kind: wire.EventRenewed, Issuer: "le"}, 10*time.Minute))
	a.Add(told(wire.Event{Kind: wire.EventRenewed, Issuer: "le"}, 10*time.Minute+1))
	a.Add(told(wire.Event{Kind: wire.EventRenewed, Certificate: "old", Count: 3}, time.Hour))
	a.Add(told(wire.Event{Kind: wire.EventRenewed, Certificate: "gone"}, 0))
	a.Add(told(wire.Event{Kind: wire.EventRenewed, Certificate: "odd"}, 0))
	a.Add(told(wire.Event{Kind: wire.EventFailed, Issuer: "corp", Reason: wire.ReasonRefused}, time.Hour))
	a.Add(told(wire.Event{Kind: wire.EventFailed, Issuer: "corp", Reason: wire.ReasonLimited, Count: 2}, 0))
	a.Add(told(wire.Event{Kind: wire.EventFailed, Certificate: "old"}, 0))
	a.Add(told(wire.Event{Kind: wire.EventIssued, Issuer: "corp"}, 0))
	a.Add(&fleet.Fact{Time: noon, Kind: fleet.KindOrderIssued})
	broken := told(wire.Event{Kind: wire.EventFailed}, 0)
	broken.Detail = json.RawMessage(`"cut`)
	a.Add(broken)
	assert.Equal(t, fleet.DayActivity{Renewed: 8, Failed: 5, RenewedOffline: 4, Issuers: []fleet.IssuerActivity{
		{Issuer: "corp", Renewed: 3, Failed: 4, RenewedOffline: 3, Reasons: []fleet.Count{{Name: "limited", Count: 2}, {Name: fleet.UnknownName, Count: 1}, {Name: "refused", Count: 1}}},
		{Issuer: fleet.UnknownName, Renewed: 2, Failed: 1, Reasons: []fleet.Count{{Name: fleet.UnknownName, Count: 1}}},
		{Issuer: "le", Renewed: 3, RenewedOffline: 1},
	}}, a.Sum())
	assert.Zero(t, report.NewActivity(0, nil).Sum())
}

func TestOneEventDoesNotDrownTheOthers(t *testing.T) {
	a := report.NewActivity(time.Minute, nil)
	for range 3 {
		a.Add(told(wire.Event{Kind: wire.EventFailed, Issuer: "corp", Count: 1 << 63}, 0))
	}
	assert.EqualValues(t, 3<<20, a.Sum().Failed)
}

// Whatever agents make up, the sums stay within their bounds and lose nothing, by
// themselves and of several days.
func TestActivityIsBounded(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		issuers := rapid.SampledFrom([]int{3, 40, 1100}).Draw(rt, "issuers")
		reasons := rapid.SampledFrom([]int{2, 20, 80}).Draw(rt, "reasons")
		var days []*fleet.Day
		var renewed, failed uint64
		for range rapid.IntRange(1, 3).Draw(rt, "days") {
			a := report.NewActivity(time.Minute, nil)
			shift := rapid.IntRange(0, 9).Draw(rt, "shift")
			for i := range issuers {
				name := fmt.Sprint("issuer", (i+shift)%(issuers+7))
				a.Add(told(wire.Event{Kind: wire.EventRenewed, Issuer: name}, time.Hour))
				renewed++
				if i > 2 {
					continue
				}
				for r := range reasons {
					a.Add(told(wire.Event{Kind: wire.EventFailed, Issuer: name, Reason: wire.Reason(fmt.Sprint("reason", r+shift))}, 0))
					failed++
				}
			}
			days = append(days, &fleet.Day{Date: "2026-05-01", Activity: a.Sum()})
		}
		sums := []fleet.DayActivity{report.SumActivity(days)}
		var dayRenewed, dayFailed uint64
		for _, day := range days {
			dayRenewed += day.Activity.Renewed
			dayFailed += day.Activity.Failed
			sums = append(sums, day.Activity)
		}
		require.Equal(rt, []uint64{renewed, failed}, []uint64{dayRenewed, dayFailed})
		for i, sum := range sums {
			require.LessOrEqual(rt, len(sum.Issuers), fleet.MaxDayIssuers+1)
			var all fleet.IssuerActivity
			names := map[string]bool{}
			for at, issuer := range sum.Issuers {
				require.False(rt, names[issuer.Issuer], "%s twice", issuer.Issuer)
				names[issuer.Issuer] = true
				if issuer.Issuer == fleet.OtherName {
					require.Equal(rt, len(sum.Issuers)-1, at, "the others come last")
				}
				all.Renewed += issuer.Renewed
				all.Failed += issuer.Failed
				all.RenewedOffline += issuer.RenewedOffline
				require.LessOrEqual(rt, len(issuer.Reasons), fleet.MaxDayReasons+1)
				var told uint64
				for _, reason := range issuer.Reasons {
					told += reason.Count
				}
				require.Equal(rt, issuer.Failed, told)
			}
			require.Equal(rt, fleet.IssuerActivity{Renewed: sum.Renewed, Failed: sum.Failed, RenewedOffline: sum.RenewedOffline}, all)
			if i == 0 {
				require.Equal(rt, []uint64{renewed, failed, renewed}, []uint64{sum.Renewed, sum.Failed, sum.RenewedOffline})
			}
		}
	})
}

func TestWhatSeveralDaysDropped(t *testing.T) {
	one, two := uint64(1), uint64(2)
	days := []*fleet.Day{{Activity: fleet.DayActivity{EventsDropped: &one}}, {}, {Activity: fleet.DayActivity{EventsDropped: &two, Partial: true}}}
	sum := report.SumActivity(days)
	assert.EqualValues(t, 3, *sum.EventsDropped)
	assert.True(t, sum.Partial)
	assert.EqualValues(t, 1, one, "days are shared")
	sum = report.SumActivity(days[1:2])
	assert.Nil(t, sum.EventsDropped, "nobody knows")
	assert.False(t, sum.Partial)
}
