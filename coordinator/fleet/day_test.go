package fleet_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// aDay is the day that a moment belongs to, with a little of everything.
func aDay(at time.Time, renewed uint64) fleet.Day {
	horizon, dropped := at.Add(90*time.Hour), uint64(2)
	return fleet.Day{
		Date: fleet.DateOf(at), Final: true,
		Standing: &fleet.DayStanding{
			CountedAt: at, Hosts: 3, Connected: 2, CutOff: 1, Horizon: &horizon, Certificates: 7,
			States: []fleet.Count{{Name: "valid", Count: 7}}, Expiring: []uint64{1, 0, 2}, Versions: []fleet.Count{{Name: "v1", Count: 3}},
		},
		Activity: fleet.DayActivity{Renewed: renewed, Failed: 1, EventsDropped: &dropped, Issuers: []fleet.IssuerActivity{
			{Issuer: "corp", Renewed: renewed, Failed: 1, Reasons: []fleet.Count{{Name: "refused", Count: 1}}},
		}},
	}
}

func largestDay() fleet.Day {
	horizon, dropped := longTime(), uint64(1<<63)
	counts := func(n, length int) (list []fleet.Count) {
		for i := range n {
			list = append(list, fleet.Count{Name: fmt.Sprintf("%02d%s", i, text(length-2)), Count: 1 << 63})
		}
		return list
	}
	day := fleet.Day{Date: "2026-01-01", Final: true, Standing: &fleet.DayStanding{
		CountedAt: longTime(), Horizon: &horizon, States: counts(32, wire.MaxNameLen), Health: counts(32, wire.MaxNameLen), Risks: counts(32, wire.MaxNameLen),
		Versions: counts(fleet.MaxDayVersions+1, wire.MaxNameLen), Expiring: slices.Repeat([]uint64{1 << 63}, fleet.MaxDayWeeks),
	}, Activity: fleet.DayActivity{Partial: true, EventsDropped: &dropped}}
	for i := range fleet.MaxDayIssuers + 1 {
		day.Activity.Issuers = append(day.Activity.Issuers, fleet.IssuerActivity{
			Issuer: fmt.Sprintf("%02d%s", i, text(wire.MaxNameLen-2)), Renewed: 1 << 63, Failed: 1 << 63, RenewedOffline: 1 << 63,
			Reasons: counts(fleet.MaxDayReasons+1, wire.MaxNameLen),
		})
	}
	return day
}

func (b *bench) recordDay(day fleet.Day) (recorded bool) {
	b.t.Helper()
	var outcome fleet.RecordedDay
	require.NoError(b.t, b.do(fleet.RecordDay{Day: day}).Decode(&outcome))
	return outcome.Recorded
}

func TestADayIsRecordedOnce(t *testing.T) {
	b := newBench(t)
	yesterday := b.now.AddDate(0, 0, -1)
	first := aDay(yesterday, 3)
	require.True(t, b.recordDay(first))
	version := b.view().Version(fleet.TableDays)
	assert.Equal(t, b.view().Index(), version)
	assert.False(t, b.recordDay(aDay(yesterday, 4)), "the first word counts")
	assert.Equal(t, version, b.view().Version(fleet.TableDays), "and the list is the same")

	stored, ok := b.view().Day("2026-04-30")
	require.True(t, ok)
	first.ModifyIndex = version
	assert.Equal(t, &first, stored)
	facts := slices.DeleteFunc(b.facts, func(f fleet.Fact) bool { return f.Kind != fleet.KindDayRecorded })
	require.Len(t, facts, 1)
	assert.Zero(t, facts[0].Audit, "nobody's act")
	assert.Equal(t, "2026-04-30", facts[0].Object)
	var told fleet.Day
	require.NoError(t, json.Unmarshal(facts[0].Detail, &told))
	told.ModifyIndex = version
	assert.Equal(t, first, told, "the fact has all of it")
}

func TestADayThatIsNotOverIsRefused(t *testing.T) {
	b := newBench(t)
	b.now = time.Date(2026, 5, 1, 23, 59, 59, 999, time.UTC)
	for _, date := range []string{"2026-05-01", "2026-05-02", "9999-12-31", "", "2026-5-1", "2026-02-30", "yesterday", "0000-01-01"} {
		result := b.do(fleet.RecordDay{Day: fleet.Day{Date: date, Final: true}})
		assert.Equal(t, wire.CodeInvalid, result.Code, date)
		assert.Equal(t, "day.date", result.Field, date)
	}
	assert.Zero(t, b.view().Rows(fleet.TableDays))
	b.now = time.Date(2026, 5, 2, 0, 0, 0, 0, time.UTC)
	assert.True(t, b.recordDay(fleet.Day{Date: "2026-05-01", Final: true}))
	assert.Equal(t, wire.CodeInvalid, b.do(fleet.RecordDay{Day: fleet.Day{Date: "2026-05-03"}}).Code, "it has not begun")
}

// A running day is counted again and again, and said to be so; the journal has the last
// word alone.
func TestARunningDayIsReplacedUntilItIsOver(t *testing.T) {
	b := newBench(t)
	today := aDay(b.now, 1)
	today.Final = false
	require.True(t, b.recordDay(today))
	today.Activity.Renewed = 2
	require.True(t, b.recordDay(today))
	assert.Equal(t, b.view().Index(), b.view().Version(fleet.TableDays))
	assert.Empty(t, b.facts)
	stored, ok := b.view().Day(today.Date)
	require.True(t, ok)
	assert.False(t, stored.Final)
	assert.EqualValues(t, 2, stored.Activity.Renewed)

	last := aDay(b.now, 3)
	b.now = b.now.AddDate(0, 0, 1)
	require.True(t, b.recordDay(last))
	today.Activity.Renewed = 9
	assert.False(t, b.recordDay(today), "a late word of a leader of before")
	stored, _ = b.view().Day(today.Date)
	assert.True(t, stored.Final)
	assert.EqualValues(t, 3, stored.Activity.Renewed)
	assert.Equal(t, 1, b.view().Rows(fleet.TableDays))
	require.Len(t, b.facts, 1)
	assert.Equal(t, fleet.KindDayRecorded, b.facts[0].Kind)
}

func TestADayIsBounded(t *testing.T) {
	b := newBench(t)
	b.now = longTime().AddDate(0, 0, 3)
	for name, spoil := range map[string]func(d *fleet.Day){
		"issuers":     func(d *fleet.Day) { d.Activity.Issuers = append(d.Activity.Issuers, d.Activity.Issuers[0]) },
		"reasons":     func(d *fleet.Day) { r := &d.Activity.Issuers[3].Reasons; *r = append(*r, (*r)[0]) },
		"an issuer":   func(d *fleet.Day) { d.Activity.Issuers[0].Issuer += "x" },
		"no issuer":   func(d *fleet.Day) { d.Activity.Issuers[0].Issuer = "" },
		"a reason":    func(d *fleet.Day) { d.Activity.Issuers[0].Reasons[0].Name += "x" },
		"versions":    func(d *fleet.Day) { d.Standing.Versions = append(d.Standing.Versions, d.Standing.Versions[0]) },
		"a version":   func(d *fleet.Day) { d.Standing.Versions[0].Name = "a\nb" },
		"states":      func(d *fleet.Day) { d.Standing.States = append(d.Standing.States, d.Standing.States[0]) },
		"healths":     func(d *fleet.Day) { d.Standing.Health = append(d.Standing.Health, d.Standing.Health[0]) },
		"risks":       func(d *fleet.Day) { d.Standing.Risks = append(d.Standing.Risks, d.Standing.Risks[0]) },
		"weeks":       func(d *fleet.Day) { d.Standing.Expiring = append(d.Standing.Expiring, 1) },
		"not at all":  func(*fleet.Day) {},
		"not at all ": func(d *fleet.Day) { d.Standing, d.Date = nil, "2026-01-02" },
	} {
		day := largestDay()
		spoil(&day)
		result := b.do(fleet.RecordDay{Day: day})
		assert.Equal(t, name[:3] == "not", result.OK(), "%s: %v", name, result)
	}
	assert.Equal(t, 2, b.view().Rows(fleet.TableDays))
}

// Years of days: the newest stay, whatever the order and the clock.
func TestFourHundredDaysAreKept(t *testing.T) {
	b := newBench(t)
	start := b.now
	for i := range 3 * fleet.MaxDays {
		b.now = start.AddDate(0, 0, i+1)
		require.True(t, b.recordDay(aDay(start.AddDate(0, 0, i), uint64(i))))
	}
	days := b.view().Days("")
	require.Len(t, days, fleet.MaxDays)
	assert.Equal(t, fleet.MaxDays, b.view().Rows(fleet.TableDays))
	for i, day := range days {
		want := 2*fleet.MaxDays + i
		require.Equal(t, fleet.DateOf(start.AddDate(0, 0, want)), day.Date)
		require.EqualValues(t, want, day.Activity.Renewed)
	}
	assert.Len(t, b.view().Days(days[390].Date), 10)
	assert.False(t, b.recordDay(aDay(start, 1)), "it would be the next to go")

	// A clock that is years ahead costs one day.
	b.now = start.AddDate(30, 0, 0)
	require.True(t, b.recordDay(aDay(b.now.AddDate(0, 0, -1), 7)))
	after := b.view().Days("")
	require.Len(t, after, fleet.MaxDays)
	assert.Equal(t, days[1:], after[:fleet.MaxDays-1])
}

// The table of days is what the last so many of the accepted ones make, in whichever
// order they come, and a node that restored a snapshot in between has the same.
func TestDaysAreThoseOfAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(rt)
		model := map[string]uint64{}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			at := testTime.AddDate(0, 0, -1-rapid.IntRange(0, 20).Draw(rt, "ago"))
			renewed := rapid.Uint64Range(0, 9).Draw(rt, "renewed")
			_, known := model[fleet.DateOf(at)]
			require.Equal(rt, !known, b.recordDay(aDay(at, renewed)))
			if !known {
				model[fleet.DateOf(at)] = renewed
			}
			if rapid.Bool().Draw(rt, "restart") {
				data := snapshot(rt, b.state)
				restore(rt, b.state, data)
			}
		}
		got, dates := map[string]uint64{}, []string{}
		for _, day := range b.view().Days("") {
			got[day.Date] = day.Activity.Renewed
			dates = append(dates, day.Date)
		}
		require.Equal(rt, model, got)
		require.True(rt, slices.IsSorted(dates))
	})
}

// A node of the level before knows no such table. What it makes of a restore that such
// a node proposed has nothing of it.
func TestARestoreOfBeforeKnowsNoDays(t *testing.T) {
	for level, knows := range map[uint32]bool{3: false, 4: true} {
		b := newBench(t)
		b.enroll("a1")
		pieces := packed(t, snapshot(t, b.state))
		b.stage("r", pieces)
		command := b.command(fleet.ApplyRestore{ID: "r", Pieces: uint32(len(pieces)), Note: fleet.NoteRestore{Actor: "local", Snapshot: "s", TakenAt: b.now, SnapshotIndex: 1}})
		var payload fleet.ApplyRestore
		require.NoError(t, cbor.Unmarshal(command.Payload, &payload))
		payload.Level = level
		var err error
		command.Payload, err = cbor.Marshal(payload)
		require.NoError(t, err)
		require.NoError(t, b.entry(command)[0].Err())
		assert.Equal(t, knows, bytes.Contains(snapshot(t, b.state), []byte(fleet.TableDays)), "level %d", level)
		if knows {
			assert.Equal(t, b.view().Index(), b.view().Version(fleet.TableDays))
		}
	}
}
