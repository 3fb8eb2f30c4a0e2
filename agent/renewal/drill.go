package renewal

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/agent/issuer"
)

// Scenario is what a drill assumes of the world. Every outage begins at From.
type Scenario struct {
	From time.Time
	// Span is how far the drill looks ahead.
	Span time.Duration
	// HostDown is how long the host itself is off: it neither renews nor serves.
	HostDown time.Duration
	// Issuers by name, one for each that a subject names.
	Issuers map[string]SimulatedIssuer
	// Seed makes the draws; the same seed draws the same.
	Seed uint64

	draw func() float64 // instead of those from Seed, for tests
}

// SimulatedIssuer is an authority that issues whatever it is asked for, with the
// lifetime that its certificates were seen to have, once it can be reached.
type SimulatedIssuer struct {
	// Down is how long it cannot be reached, and Why says so in words.
	Down time.Duration
	Why  string
	// Refuses is what it answers to everything, for good; nil if it issues.
	Refuses *issuer.Error
	// Takes is how long one call of it takes, in which the certificate has one of
	// the host's slots, and Delay how long from an order to its certificate in all.
	Takes time.Duration
	Delay time.Duration
	// Brokered says that orders wait for a coordinator instead of failing.
	Brokered bool
	// Lifetime is that of its certificates; 0 takes what was seen, else 90 days.
	Lifetime time.Duration
}

// Forecast is the outcome of a drill.
type Forecast struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
	// First is the first expired certificate that would be served; nil if none
	// would be within the span.
	First *Expiry `json:"first_expired,omitempty"`
	// Shortages are limits of this host for want of which certificates expire, the
	// worst first, and Raises what would be enough of them; of a limit that is not
	// among these nothing is. With all of them together StillShort certificates
	// expire for want of any.
	Shortages    []Shortage `json:"shortages,omitempty"`
	Raises       []Raise    `json:"raises,omitempty"`
	StillShort   int        `json:"still_short,omitempty"`
	Certificates []Prospect `json:"certificates"` // by name
	Days         []Day      `json:"days"`         // those on which something happens, in order
}

// Well reports whether nothing expires and everything is in service at the end.
func (f *Forecast) Well() bool {
	return f.First == nil && !slices.ContainsFunc(f.Certificates, func(p Prospect) bool { return p.Unserved != "" })
}

// Expiry is one certificate that is served although it has expired.
type Expiry struct {
	Certificate string    `json:"certificate"`
	At          time.Time `json:"at"`
	Why         string    `json:"why"`
}

// Prospect is what would become of one certificate.
type Prospect struct {
	Name   string `json:"name"`
	Issuer string `json:"issuer"`
	// SafeUntil is its offline horizon at the beginning, zero if it is not safe.
	SafeUntil time.Time `json:"safe_until,omitzero"`
	// RenewedAt is when it is renewed first; zero if it never is.
	RenewedAt time.Time `json:"renewed_at,omitzero"`
	Renewals  int       `json:"renewals"`
	// Failures counts failed attempts, deployments included.
	Failures    int       `json:"failures"`
	LastError   string    `json:"last_error,omitempty"`
	AttentionAt time.Time `json:"attention_at,omitzero"` // when a person is asked to look first
	Attention   string    `json:"attention,omitempty"`
	// ExpiredAt is when an expired certificate is served for it first, and
	// ExpiredFor for how long in all, in seconds.
	ExpiredAt  time.Time `json:"expired_at,omitzero"`
	ExpiredFor float64   `json:"expired_for_seconds,omitempty"`
	Why        string    `json:"why,omitempty"`
	// Wants names the limit of this host for want of which it expires.
	Wants string `json:"wants,omitempty"`
	// UnservedNow is Unserved at the beginning.
	UnservedNow string `json:"unserved_now,omitempty"`
	// Unserved names the deployments at which nothing is in service at the end;
	// empty if something is everywhere.
	Unserved string `json:"unserved,omitempty"`
}

// Day counts what happens on one day, in UTC.
type Day struct {
	Date      string `json:"date"`
	Renewed   int    `json:"renewed,omitempty"`
	Failures  int    `json:"failures,omitempty"`
	Attention int    `json:"attention,omitempty"` // certificates for which a person is asked to look
	Expired   int    `json:"expired,omitempty"`   // certificates that begin to be served expired
}

// Drill runs the schedule of the engine over virtual time: its own decisions,
// transitions and pauses, its slots and its turns at each issuer, on copies of the
// records, with issuers and programs that do what the scenario says. Nothing
// outside of its arguments is touched. Of all steps only the call of an issuer
// takes time.
//
// A deployment that fails at the beginning goes on failing. What an authority
// suggests about a certificate in service stays as it is, and about later ones it
// suggests nothing.
func Drill(subjects []*Subject, scenario Scenario) (*Forecast, error) {
	if err := scenario.check(subjects); err != nil {
		return nil, err
	}
	scenario.From = scenario.From.Round(0).UTC()
	seen := observe(subjects)
	limits := capacityOf(subjects)
	t, err := newTimeline(subjects, &scenario, seen, limits)
	if err == nil {
		err = t.run()
	}
	if err != nil {
		return nil, fmt.Errorf("drill: %w", err)
	}
	f := summarize(t.all, scenario.From, t.end)
	f.Shortages = shortages(t.all, limits)
	if f.Raises, f.StillShort, err = raises(subjects, &scenario, seen, f.Shortages); err != nil {
		return nil, fmt.Errorf("drill: %w", err)
	}
	return f, nil
}

func (s *Scenario) check(subjects []*Subject) error {
	var problems []error
	if s.Span <= 0 {
		problems = append(problems, fmt.Errorf("span %v: must be above zero", s.Span))
	}
	if s.HostDown < 0 {
		problems = append(problems, fmt.Errorf("host down for %v: must not be negative", s.HostDown))
	}
	for name, iss := range s.Issuers {
		if iss.Down < 0 || iss.Takes < 0 || iss.Delay < 0 || iss.Lifetime < 0 {
			problems = append(problems, fmt.Errorf("issuer %q: times must not be negative", name))
		}
	}
	for _, subject := range subjects {
		if subject.Record == nil || len(subject.Issuers) == 0 {
			problems = append(problems, errors.New("a certificate has no record or no issuer"))
			continue
		}
		for _, i := range subject.Issuers {
			if _, known := s.Issuers[i.Name]; !known {
				problems = append(problems, fmt.Errorf("certificate %q: the scenario says nothing of its issuer %q", subject.Record.Name, i.Name))
			}
		}
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("drill: %w", err)
	}
	return nil
}

// back is when an issuer can be reached.
func (s *Scenario) back(name string) time.Time { return s.From.Add(s.Issuers[name].Down) }

// away reports whether an issuer issues nothing at that time.
func (s *Scenario) away(name string, at time.Time) bool {
	return s.Issuers[name].Refuses != nil || at.Before(s.back(name))
}

// drawsFor gives each certificate draws of its own, so that one more certificate
// changes nothing for the others.
func (s *Scenario) drawsFor(name string) func() float64 {
	if s.draw != nil {
		return s.draw
	}
	h := fnv.New64a()
	h.Write([]byte(name)) // never fails
	return rand.New(rand.NewPCG(s.Seed, h.Sum64())).Float64
}

// validity is what was seen of an issuer's certificates.
type validity struct {
	lifetime time.Duration // from notBefore
	backdate time.Duration // how long before it was obtained notBefore lies
	issuedAt time.Time
}

// defaultLifetime stands in for an issuer of which no certificate was seen.
const defaultLifetime = 90 * 24 * time.Hour

// observe takes the newest certificate of each issuer for typical.
func observe(subjects []*Subject) map[string]validity {
	seen := make(map[string]validity)
	for _, s := range subjects {
		cur := s.Record.Current
		if cur == nil || cur.ConfigDigest != s.ConfigDigest {
			continue // of another issuer, perhaps
		}
		name := cmp.Or(cur.Issuer, s.Issuers[0].Name)
		if before, known := seen[name]; !known || cur.IssuedAt.After(before.issuedAt) {
			seen[name] = validity{
				lifetime: cur.NotAfter.Sub(cur.NotBefore), backdate: max(cur.IssuedAt.Sub(cur.NotBefore), 0), issuedAt: cur.IssuedAt,
			}
		}
	}
	return seen
}

func summarize(rehearsals []*rehearsal, from, end time.Time) *Forecast {
	f := &Forecast{From: from, Until: end, Certificates: make([]Prospect, 0, len(rehearsals))}
	days := make(map[int]*Day)
	for _, r := range rehearsals {
		p := r.prospect
		f.Certificates = append(f.Certificates, p)
		if !p.ExpiredAt.IsZero() && (f.First == nil || p.ExpiredAt.Before(f.First.At)) {
			first := p.expiry()
			f.First = &first
		}
		for number, counted := range r.days {
			day := days[number]
			if day == nil {
				day = &Day{Date: from.AddDate(0, 0, number).Format(time.DateOnly)}
				days[number] = day
			}
			day.Renewed += counted.Renewed
			day.Failures += counted.Failures
			day.Attention += counted.Attention
			day.Expired += counted.Expired
		}
	}
	slices.SortFunc(f.Certificates, func(a, b Prospect) int { return strings.Compare(a.Name, b.Name) })
	f.Days = make([]Day, 0, len(days))
	for _, day := range days {
		f.Days = append(f.Days, *day)
	}
	slices.SortFunc(f.Days, func(a, b Day) int { return strings.Compare(a.Date, b.Date) })
	return f
}
