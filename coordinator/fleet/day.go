package fleet

import (
	"fmt"
	"time"

	"github.com/certctl/certctl/shared/wire"
)

// Bounds of what is kept of days.
const (
	// MaxDays is how many days are kept: when there is one more, the earliest goes. They
	// are counted rather than compared with a clock, so that one day that a wrong clock
	// has recorded costs one other, and not all of them.
	MaxDays = 400
	// MaxDayIssuers and MaxDayReasons bound the parts of a day's counts: what is not
	// among the most frequent is summed up under OtherName.
	MaxDayIssuers  = 32
	MaxDayReasons  = 16
	MaxDayVersions = 10
	// MaxDayWeeks is for how many weeks the expiring certificates are counted apart.
	MaxDayWeeks = 26

	maxDayCounts = 32 // of risks, states and healths, which are words of this program
)

// Names in a day's counts that are not those of issuers, reasons or versions. Round
// brackets tell them from names.
const (
	OtherName   = "(other)"   // all that are not listed by themselves
	UnknownName = "(unknown)" // not told, by agents of before
)

// DateLayout is how days are written. They are those of UTC.
const DateLayout = time.DateOnly

// Day is what is kept of one day.
type Day struct {
	Date string `cbor:"1,keyasint" json:"date"`
	// Standing is how the fleet stood at the day's end; nil if nobody counted it then.
	Standing *DayStanding `cbor:"2,keyasint,omitempty" json:"standing,omitempty"`
	// Activity is what came in during the day.
	Activity DayActivity `cbor:"3,keyasint" json:"activity"`
	// Final says that the day was over when this was counted: it stays so.
	Final bool `cbor:"4,keyasint,omitempty" json:"final"`
	// ModifyIndex is the log index at which the day was recorded.
	ModifyIndex uint64 `cbor:"5,keyasint,omitempty" json:"-"`
}

// DayStanding is a count of the fleet.
type DayStanding struct {
	CountedAt time.Time `cbor:"1,keyasint" json:"counted_at"`
	// Hosts are those that are not retired: connected or cut off.
	Hosts     uint64 `cbor:"2,keyasint" json:"hosts"`
	Connected uint64 `cbor:"3,keyasint" json:"connected"`
	CutOff    uint64 `cbor:"4,keyasint" json:"cut_off"`
	Retired   uint64 `cbor:"5,keyasint" json:"retired"`
	// AtRisk are those of which anything bad is known, as Risks has it; NotSafe those that
	// said that a certificate is not safe now.
	AtRisk  uint64 `cbor:"6,keyasint" json:"at_risk"`
	NotSafe uint64 `cbor:"7,keyasint" json:"not_safe"`
	// Horizon is the first moment at which one of the hosts would serve an expired
	// certificate if it were left alone; nil if none of them serves any, or one is not safe.
	Horizon *time.Time `cbor:"8,keyasint,omitempty" json:"horizon,omitempty"`
	// ClockSkewed are hosts whose clocks are known to be wrong.
	ClockSkewed uint64 `cbor:"9,keyasint" json:"clock_skewed"`
	// EventsDropped is the sum of what the hosts say to have dropped ever.
	EventsDropped uint64 `cbor:"10,keyasint" json:"events_dropped"`

	Certificates uint64 `cbor:"11,keyasint" json:"certificates"`
	Expired      uint64 `cbor:"12,keyasint" json:"expired"`
	Attention    uint64 `cbor:"13,keyasint" json:"attention"`
	// States and Health count the certificates by either.
	States []Count `cbor:"14,keyasint,omitempty" json:"states,omitempty"`
	Health []Count `cbor:"15,keyasint,omitempty" json:"health,omitempty"`
	// Expiring counts the certificates that expire in each week: the running one, which
	// began on a Monday, and those after it.
	Expiring []uint64 `cbor:"16,keyasint,omitempty" json:"expiring_weeks,omitempty"`
	// Deployments by how the last one to each target ended.
	Verified uint64 `cbor:"17,keyasint" json:"deployments_verified"`
	Failed   uint64 `cbor:"18,keyasint" json:"deployments_failed"`
	// Versions of agents, the most frequent first.
	Versions []Count `cbor:"19,keyasint,omitempty" json:"versions,omitempty"`
	// Risks counts the hosts by the worst that is known of each.
	Risks []Count `cbor:"20,keyasint,omitempty" json:"risks,omitempty"`
}

// Count is how many there are of something.
type Count struct {
	Name  string `cbor:"1,keyasint" json:"name"`
	Count uint64 `cbor:"2,keyasint" json:"count"`
}

// DayActivity is what facts of a day say.
type DayActivity struct {
	// Partial says that facts of the day may be missing where they were counted.
	Partial bool `cbor:"1,keyasint,omitempty" json:"partial"`
	// Renewed counts the certificates that were put into service, Failed the failures
	// that were told of.
	Renewed uint64 `cbor:"2,keyasint" json:"renewed"`
	Failed  uint64 `cbor:"3,keyasint" json:"failed"`
	// RenewedOffline are those of Renewed that were heard of only after the host had
	// been out of reach for longer than a host may be before it counts as cut off.
	RenewedOffline uint64 `cbor:"4,keyasint" json:"renewed_offline"`
	// EventsDropped counts what hosts could not keep until they were heard of again, as
	// far as that is known: since the day before. Nil if it is not.
	EventsDropped *uint64 `cbor:"5,keyasint,omitempty" json:"events_dropped,omitempty"`
	// Issuers has the counts by issuer, the busiest first.
	Issuers []IssuerActivity `cbor:"6,keyasint,omitempty" json:"issuers,omitempty"`
}

// IssuerActivity is the part of one issuer in a day's activity.
type IssuerActivity struct {
	Issuer         string  `cbor:"1,keyasint" json:"issuer"`
	Renewed        uint64  `cbor:"2,keyasint" json:"renewed"`
	Failed         uint64  `cbor:"3,keyasint" json:"failed"`
	RenewedOffline uint64  `cbor:"4,keyasint" json:"renewed_offline"`
	Reasons        []Count `cbor:"5,keyasint,omitempty" json:"reasons,omitempty"` // of failures
}

// RecordDay keeps the sums of a day. Those of a running day are replaced by later ones.
// Those of a day that is over are final: the first word counts, whichever leader had it,
// and the journal has it as a fact. The outcome is a RecordedDay.
//
// Codes: CodeInvalid.
type RecordDay struct {
	Day Day `cbor:"1,keyasint"`
}

// RecordedDay says what came of a RecordDay.
type RecordedDay struct {
	Recorded bool `cbor:"1,keyasint"` // by this command
}

func (RecordDay) commandType() Type { return TypeRecordDay }

// DayBegin is the moment at which a day of that name begins.
func DayBegin(date string) (time.Time, error) {
	begin, err := time.ParseInLocation(DateLayout, date, time.UTC)
	if err != nil || begin.Year() < 1 || begin.Format(DateLayout) != date {
		return time.Time{}, fmt.Errorf("%.40q is not a day like 2026-01-31", date)
	}
	return begin, nil
}

// DateOf is the day that a moment belongs to.
func DateOf(at time.Time) string { return at.UTC().Format(DateLayout) }

func recordDay(c *change, p *RecordDay) Result {
	begin, err := DayBegin(p.Day.Date)
	if err != nil {
		return refuse(wire.CodeInvalid, "day.date", err.Error(), "")
	}
	if c.at.Before(begin) || p.Day.Final && c.at.Before(begin.AddDate(0, 0, 1)) {
		return refuse(wire.CodeInvalid, "day.date", fmt.Sprintf("the day %s is not over, or has not begun", p.Day.Date), "check the clocks of the coordinators")
	}
	if refusal := p.Day.check(); !refusal.OK() {
		return refusal
	}
	stored := find[Day](c, TableDays, indexID, key(p.Day.Date))
	if stored != nil && stored.Final {
		return c.success(RecordedDay{})
	}
	if stored == nil && c.info(TableDays).Rows >= MaxDays {
		earliest := findPrefix[Day](c, TableDays, indexID, nil)
		if p.Day.Date < earliest.Date {
			return c.success(RecordedDay{}) // it would be the one to go
		}
		c.delete(TableDays, earliest)
	}
	day := p.Day
	day.ModifyIndex = c.index
	if stored == nil {
		c.insert(TableDays, &day)
	} else {
		c.put(TableDays, &day)
	}
	if day.Final {
		c.event(Fact{Kind: KindDayRecorded, Actor: "system", Object: day.Date}, &day)
	}
	return c.success(RecordedDay{Recorded: true})
}

// check bounds what a leader may have recorded.
func (d *Day) check() Result {
	if s := d.Standing; s != nil {
		if len(s.Expiring) > MaxDayWeeks {
			return refuse(wire.CodeInvalid, "day.standing.expiring", fmt.Sprintf("%d weeks; expected at most %d", len(s.Expiring), MaxDayWeeks), "")
		}
		for _, list := range []struct {
			name   string
			counts []Count
			most   int
		}{
			{"states", s.States, maxDayCounts}, {"health", s.Health, maxDayCounts}, {"risks", s.Risks, maxDayCounts}, {"versions", s.Versions, MaxDayVersions + 1},
		} {
			if refusal := checkCounts("day.standing."+list.name, list.counts, list.most); !refusal.OK() {
				return refusal
			}
		}
	}
	issuers := d.Activity.Issuers
	if len(issuers) > MaxDayIssuers+1 {
		return refuse(wire.CodeInvalid, "day.activity.issuers", fmt.Sprintf("%d issuers; expected at most %d", len(issuers), MaxDayIssuers+1), "")
	}
	for i := range issuers {
		field := fmt.Sprintf("day.activity.issuers[%d]", i)
		if !wire.ValidName(issuers[i].Issuer) {
			return refuse(wire.CodeInvalid, field+".issuer", "it is no name", "")
		}
		if refusal := checkCounts(field+".reasons", issuers[i].Reasons, MaxDayReasons+1); !refusal.OK() {
			return refusal
		}
	}
	return Result{}
}

func checkCounts(field string, counts []Count, most int) Result {
	if len(counts) > most {
		return refuse(wire.CodeInvalid, field, fmt.Sprintf("%d counts; expected at most %d", len(counts), most), "")
	}
	for i := range counts {
		if !wire.ValidName(counts[i].Name) {
			return refuse(wire.CodeInvalid, fmt.Sprintf("%s[%d].name", field, i), "it is no name", "")
		}
	}
	return Result{}
}

// Day looks up what is kept of a day.
func (v *View) Day(date string) (*Day, bool) { return get[Day](v, TableDays, indexID, key(date)) }

// Days lists what is kept of the days from one on, the earliest first; "" is all.
func (v *View) Days(from string) []*Day {
	return collect[Day](v.scanFrom(TableDays, indexID, key(from)))
}
