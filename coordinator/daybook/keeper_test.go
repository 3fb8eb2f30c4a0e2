package daybook

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/wire"
)

const day = 24 * time.Hour

// until sleeps until so long after the bubble's first midnight.
func until(after time.Duration) { time.Sleep(time.Until(first.Add(after))) }

// first is when the time of a bubble begins.
var first = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func TestADayIsRecordedAfterItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		until(10 * time.Hour)
		s.enrol(time.Now())
		stop := s.lead(s.keeper())
		defer stop()
		until(12 * time.Hour)
		assert.Zero(t, s.state.View().Rows(fleet.TableDays), "nothing has come in")
		s.tell(time.Now(), renewed, wire.Event{Kind: wire.EventFailed, Certificate: "web", Issuer: "corp", Reason: wire.ReasonRefused})
		until(12*time.Hour + 21*time.Minute)
		assert.Equal(t, fleet.DayActivity{Renewed: 1, Failed: 1, Issuers: []fleet.IssuerActivity{
			{Issuer: "corp", Renewed: 1, Failed: 1, Reasons: []fleet.Count{{Name: "refused", Count: 1}}},
		}}, s.day("2000-01-01").Activity)
		assert.False(t, s.day("2000-01-01").Final)
		proposals := s.proposals()
		until(20 * time.Hour)
		assert.Equal(t, proposals, s.proposals(), "what has not changed is not recorded again")

		offline := renewed
		offline.At = time.Now().Add(-silence - time.Second)
		s.tell(time.Now(), offline)
		until(day - time.Second)
		s.tell(time.Now(), renewed)
		until(day + time.Second)
		s.dropped = 5 // which may be before or after the first day is counted
		s.tell(time.Now(), renewed, renewed)
		until(day + settled - time.Second)
		assert.False(t, s.day("2000-01-01").Final)
		until(day + settled + 6*time.Minute)
		one := s.day("2000-01-01")
		assert.True(t, one.Final)
		assert.EqualValues(t, 3, one.Activity.Renewed)
		assert.EqualValues(t, 1, one.Activity.RenewedOffline)
		assert.False(t, one.Activity.Partial)
		assert.Nil(t, one.Activity.EventsDropped, "there is nothing to compare with")
		require.NotNil(t, one.Standing)
		assert.EqualValues(t, 1, one.Standing.Hosts)
		assert.WithinRange(t, one.Standing.CountedAt, first.Add(day+settled), first.Add(day+settled+6*time.Minute))
		until(2*day + settled + 6*time.Minute)
		two := s.day("2000-01-02")
		assert.EqualValues(t, 2, two.Activity.Renewed)
		assert.Zero(t, *two.Activity.EventsDropped)
		s.tell(time.Now())
		until(3*day + settled + 6*time.Minute)
		assert.EqualValues(t, 5, *s.day("2000-01-03").Activity.EventsDropped)
		assert.Equal(t, []string{"2000-01-01", "2000-01-02", "2000-01-03"}, s.dayFacts())
	})
}

// Years of days, with a leader that changes as often as it likes, and at times two that
// believe to lead: each day is recorded once, with all of it, and 400 are kept.
func TestYearsOfDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		s := newStore(t)
		s.enrol(time.Now())
		keepers, leader := []*Keeper{s.keeper(), s.keeper(), s.keeper()}, 0
		stop := s.lead(keepers[leader])
		const years = fleet.MaxDays + 30
		want := make([]uint64, years)
		for d := range years {
			for at := time.Duration(0); at < day; at += time.Duration(1+random.IntN(10)) * time.Hour {
				until(time.Duration(d)*day + at)
				s.tell(time.Now(), renewed)
				want[d]++
			}
			if random.IntN(3) > 0 {
				continue
			}
			// Another one leads, from about midnight on.
			until(time.Duration(d+1)*day - 10*time.Minute + time.Duration(random.IntN(int(25*time.Minute))))
			other := (leader + 1 + random.IntN(len(keepers)-1)) % len(keepers)
			next := s.lead(keepers[other]) // which may have led before
			time.Sleep(time.Duration(random.IntN(int(10 * time.Minute))))
			stop()
			leader, stop = other, next
			if random.IntN(2) == 0 { // it is restarted
				stop()
				keepers[leader] = s.keeper()
				stop = s.lead(keepers[leader])
			}
			if d+1 < years && time.Since(first) > time.Duration(d+1)*day {
				// What is told at the hours of the next day begins later.
				until(time.Duration(d+1)*day + time.Hour)
			}
		}
		until(years*day + time.Hour)
		stop()
		days := s.state.View().Days("")
		require.Len(t, days, fleet.MaxDays)
		for i, got := range days {
			d := years - fleet.MaxDays + i
			require.Equal(t, fleet.DateOf(first.AddDate(0, 0, d)), got.Date)
			require.True(t, got.Final)
			require.NotNil(t, got.Standing, got.Date)
			require.Equal(t, want[d], got.Activity.Renewed, got.Date)
			require.False(t, got.Activity.Partial)
		}
		dates := s.dayFacts()
		require.Len(t, dates, years, "each day is in the journal once")
		require.True(t, slices.IsSorted(dates))
	})
}

// Leaders that change at midnight, that both believe to lead, that do not hear what
// came of it: the day is recorded once.
func TestADayIsRecordedOnceWhoeverLeads(t *testing.T) {
	for minutes := -6; minutes <= 9; minutes++ {
		for _, overlap := range []time.Duration{-4 * time.Minute, 0, 7 * time.Minute} {
			synctest.Test(t, func(t *testing.T) {
				s := newStore(t)
				s.enrol(time.Now())
				stop := s.lead(s.keeper())
				until(12 * time.Hour)
				s.tell(time.Now(), renewed)
				at := day + time.Duration(minutes)*time.Minute
				until(at)
				if overlap <= 0 {
					stop()
					time.Sleep(-overlap)
				}
				next := s.lead(s.keeper())
				if overlap > 0 {
					time.Sleep(overlap)
					stop()
				}
				until(day + time.Hour)
				next()
				assert.Equal(t, []string{"2000-01-01"}, s.dayFacts(), "at %v, overlapping for %v", at, overlap)
				assert.EqualValues(t, 1, s.day("2000-01-01").Activity.Renewed)
			})
		}
	}
}

func TestFailuresToRecordAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		s.enrol(time.Now())
		stop := s.lead(s.keeper())
		defer stop()
		s.set(func() { s.fail = &cluster.LevelError{Required: 4, Nodes: []string{"old"}} })
		until(day + 30*time.Minute)
		assert.Zero(t, s.state.View().Rows(fleet.TableDays))
		s.set(func() { s.fail, s.told = nil, true }) // it is stored, and nobody hears of it
		until(day + 40*time.Minute)
		s.set(func() { s.told = false })
		until(day + time.Hour)
		assert.True(t, s.day("2000-01-01").Final)
		assert.Equal(t, []string{"2000-01-01"}, s.dayFacts())
	})
}

// A book is a keeper whose clock and looks are the test's.
type book struct {
	*store
	keeper *Keeper
	now    time.Time
}

func newBook(t *testing.T) *book {
	t.Helper()
	b := &book{store: newStore(t), now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	b.enrol(b.now)
	b.restart()
	return b
}

// restart makes a leader that has counted nothing yet.
func (b *book) restart() { b.keeper = b.keeperAt(func() time.Time { return b.now }) }

func (b *book) at(date string, after time.Duration) {
	b.t.Helper()
	begin, err := fleet.DayBegin(date)
	require.NoError(b.t, err)
	b.now = begin.Add(after)
}

func (b *book) look() {
	b.t.Helper()
	require.NoError(b.t, b.keeper.record(b.t.Context()))
}

func (b *book) dates() (dates []string) {
	for _, day := range b.state.View().Days("") {
		if day.Final {
			dates = append(dates, day.Date)
		}
	}
	return dates
}

// Facts of the last moments are on their way for a little, and clocks differ.
func TestADaySettlesFirst(t *testing.T) {
	b := newBook(t)
	b.tell(b.now, renewed)
	b.at("2026-05-02", settled-time.Second)
	b.look()
	assert.Empty(t, b.dates())
	b.at("2026-05-02", settled)
	b.look()
	assert.Equal(t, []string{"2026-05-01"}, b.dates())
}

// What nobody has seen is not made up: days without a cluster are left out, those that
// the journal knows have what came in, and how the fleet stood is only told by who has
// looked then.
func TestMissedDays(t *testing.T) {
	b := newBook(t)
	b.tell(b.now, renewed)
	b.at("2026-05-02", 7*time.Hour)
	b.tell(b.now, renewed, renewed)
	b.at("2026-05-07", 8*time.Hour)
	b.tell(b.now, renewed)
	b.restart()
	b.look()
	assert.Equal(t, []string{"2026-05-01", "2026-05-02"}, b.dates())
	assert.EqualValues(t, 1, b.day("2026-05-01").Activity.Renewed)
	assert.EqualValues(t, 2, b.day("2026-05-02").Activity.Renewed)
	assert.Nil(t, b.day("2026-05-02").Standing)
	assert.False(t, b.day("2026-05-02").Activity.Partial)
	assert.EqualValues(t, 1, b.day("2026-05-07").Activity.Renewed, "today, so far")

	// One that begins early in the day looks for the day before, even if that had nothing.
	b.at("2026-05-09", 5*time.Hour)
	b.restart()
	b.look()
	assert.Equal(t, []string{"2026-05-01", "2026-05-02", "2026-05-07", "2026-05-08"}, b.dates())
	assert.Nil(t, b.day("2026-05-07").Standing)
	assert.EqualValues(t, 1, b.day("2026-05-08").Standing.Hosts)
	b.at("2026-05-12", 7*time.Hour)
	b.restart()
	b.look()
	assert.Equal(t, []string{"2026-05-07", "2026-05-08", "2026-05-09"}, b.dates()[2:], "too late to look for the 11th, and nothing came in")
	assert.Zero(t, b.day("2026-05-09").Activity, "there was a leader, and nothing to tell")
}

// The first leader of this version counts what the journal has.
func TestDaysFromBeforeAreCounted(t *testing.T) {
	b := newBook(t)
	began := b.now
	for d := range 120 {
		b.now = began.AddDate(0, 0, d)
		b.tell(b.now, slices.Repeat([]wire.Event{renewed}, 1+d%7)...)
	}
	b.look()
	dates := b.dates()
	require.Len(t, dates, reach)
	for i, date := range dates {
		d := 119 - reach + i
		require.Equal(t, fleet.DateOf(began.AddDate(0, 0, d)), date)
		require.EqualValues(t, 1+d%7, b.day(date).Activity.Renewed)
	}
	assert.EqualValues(t, 1+119%7, b.day(fleet.DateOf(b.now)).Activity.Renewed)
}

// Days of which facts are gone say so; those of which all are gone are left out.
func TestFactsThatAreGone(t *testing.T) {
	b := newBook(t)
	for d := range 3 {
		b.at(fmt.Sprintf("2026-05-%02d", 2+d), 8*time.Hour)
		b.tell(b.now, renewed)
		b.at(fmt.Sprintf("2026-05-%02d", 2+d), 16*time.Hour)
		b.tell(b.now, renewed)
	}
	index := b.state.Index()
	b.journal.(*memory).drop(index - 3) // all of the 2nd, and one of the 3rd
	b.at("2026-05-05", 7*time.Hour)
	b.restart()
	b.look()
	assert.Equal(t, []string{"2026-05-03", "2026-05-04"}, b.dates())
	assert.True(t, b.day("2026-05-03").Activity.Partial)
	assert.EqualValues(t, 1, b.day("2026-05-03").Activity.Renewed)
	assert.False(t, b.day("2026-05-04").Activity.Partial)
	assert.EqualValues(t, 2, b.day("2026-05-04").Activity.Renewed)

	// What retention takes after it was counted is in the count.
	b.tell(b.now, renewed)
	told := b.state.Index()
	b.look()
	b.journal.(*memory).drop(told)
	b.tell(b.now, renewed)
	b.look()
	b.at("2026-05-06", time.Hour)
	b.look()
	assert.False(t, b.day("2026-05-05").Activity.Partial)
	assert.EqualValues(t, 2, b.day("2026-05-05").Activity.Renewed)
	// What was dropped before is missing.
	b.tell(b.now, renewed)
	b.journal.(*memory).drop(b.state.Index())
	b.look()
	b.at("2026-05-07", time.Hour)
	b.look()
	assert.True(t, b.day("2026-05-06").Activity.Partial)
}

// A day waits for what the node is to get of the others, for a while.
func TestGapsOfTheJournal(t *testing.T) {
	for name, filled := range map[string]bool{"filled": true, "never filled": false} {
		t.Run(name, func(t *testing.T) {
			b := newBook(t)
			journal := b.journal.(*memory)
			b.tell(b.now, renewed)
			missing := journal.facts[len(journal.facts)-1]
			b.tell(b.now.Add(time.Hour), renewed)
			journal.facts = slices.DeleteFunc(journal.facts, func(f fleet.Fact) bool { return f.Index == missing.Index })
			journal.gaps = history.Gaps{{From: missing.Index, To: missing.Index}}
			b.look()
			assert.True(t, b.day("2026-05-01").Activity.Partial)
			b.at("2026-05-02", 50*time.Minute)
			b.look()
			assert.False(t, b.day("2026-05-01").Final)
			if filled {
				journal.facts = slices.Insert(journal.facts, len(journal.facts)-1, missing)
				journal.gaps = nil
			} else {
				b.at("2026-05-02", 61*time.Minute)
			}
			b.look()
			assert.True(t, b.day("2026-05-01").Final)
			assert.Equal(t, !filled, b.day("2026-05-01").Activity.Partial)
			assert.EqualValues(t, map[bool]int{true: 2, false: 1}[filled], b.day("2026-05-01").Activity.Renewed)
		})
	}
}

// A state that was replaced by that of an older backup gets its days back as they were
// recorded, out of the journal.
func TestDaysComeBackAfterARestore(t *testing.T) {
	b := newBook(t)
	before := b.state.Snapshot()
	b.tell(b.now, renewed)
	b.at("2026-05-02", time.Hour)
	b.look()
	want := *b.day("2026-05-01")
	require.NotNil(t, want.Standing)
	b.at("2026-05-02", 12*time.Hour)

	var pieces [][]byte
	packer, err := fleet.NewRestorePacker(func(piece []byte) error { pieces = append(pieces, slices.Clone(piece)); return nil })
	require.NoError(t, err)
	require.NoError(t, before.Persist(packer))
	require.NoError(t, packer.Close())
	for i, piece := range pieces {
		require.NoError(t, b.do(b.now, fleet.StageRestore{ID: "r", Piece: uint32(i), Data: piece}).Err())
	}
	require.NoError(t, b.do(b.now, fleet.ApplyRestore{ID: "r", Pieces: uint32(len(pieces)), Note: fleet.NoteRestore{Actor: "local", Snapshot: "s", TakenAt: b.now}}).Err())
	require.Zero(t, b.state.View().Rows(fleet.TableDays))
	b.look()
	got := *b.day("2026-05-01")
	want.ModifyIndex = got.ModifyIndex
	assert.Equal(t, want, got)
}

func TestAClockThatWasWrong(t *testing.T) {
	b := newBook(t)
	right := b.now
	b.tell(b.now, renewed)
	b.look()
	b.now = right.AddDate(3, 0, 0).Add(-9 * time.Hour)
	b.look()
	b.now = right.Add(time.Hour)
	b.tell(b.now, renewed)
	b.look()
	assert.Equal(t, []string{"2029-04-30"}, b.dates(), "the wrong clock costs one day")
	assert.EqualValues(t, 2, b.day("2026-05-01").Activity.Renewed)
}

func TestTheEndOfATermEndsTheCounting(t *testing.T) {
	b := newBook(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.at("2026-05-02", time.Hour)
	require.ErrorIs(t, b.keeper.record(ctx), context.Canceled)
	_, err := b.keeper.standing(ctx, b.state.View(), b.now)
	require.ErrorIs(t, err, context.Canceled)
	assert.Zero(t, b.state.View().Rows(fleet.TableDays))
}

func TestConfig(t *testing.T) {
	_, err := New(Config{})
	require.Error(t, err)
}
