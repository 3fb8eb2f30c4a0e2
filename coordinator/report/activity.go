package report

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// ActivityKinds are the facts that an Activity counts.
var ActivityKinds = []fleet.Kind{fleet.Kind(wire.EventRenewed), fleet.Kind(wire.EventFailed)}

// Bounds of what is told apart while facts are counted. They come from agents, which
// may make up names without end; what is beyond is not told apart.
const (
	activityIssuers = 1024
	activityReasons = 64
	// mostInOne is how many times one event may count, whatever its host says.
	mostInOne = 1 << 20
)

// An Activity counts what facts say of renewals: how many, at which issuers, what
// failed and why, and which of them were done while nobody heard of the host.
type Activity struct {
	silence  time.Duration
	issuerOf func(agent, certificate string) string
	total    fleet.IssuerActivity
	issuers  map[string]*issuerCount
}

type issuerCount struct {
	fleet.IssuerActivity
	reasons map[string]uint64
}

// NewActivity counts from nothing. A renewal was done offline if it was heard of more
// than silence after it happened. issuerOf tells the issuer of a certificate that an
// agent of before has not named, "" if it is not known; nil is for that.
func NewActivity(silence time.Duration, issuerOf func(agent, certificate string) string) *Activity {
	return &Activity{silence: silence, issuerOf: issuerOf, issuers: map[string]*issuerCount{}}
}

// Add counts one fact; others than those of ActivityKinds say nothing.
func (a *Activity) Add(f *fleet.Fact) {
	kind := wire.EventKind(f.Kind)
	if kind != wire.EventRenewed && kind != wire.EventFailed {
		return
	}
	var event wire.Event
	if json.Unmarshal(f.Detail, &event) != nil {
		event = wire.Event{} // it happened, whatever is said of it
	}
	times := min(max(event.Count, 1), mostInOne) // more, if a full outbox has put several into one
	issuer := a.issuer(a.nameOf(f, &event))
	if kind == wire.EventFailed {
		a.total.Failed += times
		issuer.Failed += times
		issuer.reason(string(event.Reason), times)
		return
	}
	a.total.Renewed += times
	issuer.Renewed += times
	if !event.At.IsZero() && f.Time.Sub(event.At) > a.silence {
		a.total.RenewedOffline += times
		issuer.RenewedOffline += times
	}
}

func (a *Activity) nameOf(f *fleet.Fact, event *wire.Event) string {
	name := event.Issuer
	if name == "" && a.issuerOf != nil {
		name = a.issuerOf(f.Agent, f.Object)
	}
	if !wire.ValidName(name) { // summaries of agents are not bound to that
		return fleet.UnknownName
	}
	return name
}

func (a *Activity) issuer(name string) *issuerCount {
	if known := a.issuers[name]; known != nil {
		return known
	}
	if len(a.issuers) >= activityIssuers && name != fleet.OtherName {
		return a.issuer(fleet.OtherName)
	}
	added := &issuerCount{IssuerActivity: fleet.IssuerActivity{Issuer: name}, reasons: map[string]uint64{}}
	a.issuers[name] = added
	return added
}

func (i *issuerCount) reason(name string, times uint64) {
	name = cmp.Or(name, fleet.UnknownName)
	if _, known := i.reasons[name]; !known && len(i.reasons) >= activityReasons {
		name = fleet.OtherName
	}
	i.reasons[name] += times
}

// Sum is what was counted, within the bounds of what is kept of a day.
func (a *Activity) Sum() fleet.DayActivity {
	sum := fleet.DayActivity{Renewed: a.total.Renewed, Failed: a.total.Failed, RenewedOffline: a.total.RenewedOffline}
	for _, one := range a.issuers {
		issuer := one.IssuerActivity
		issuer.Reasons = Top(one.reasons, fleet.MaxDayReasons)
		sum.Issuers = append(sum.Issuers, issuer)
	}
	sum.Issuers = topIssuers(sum.Issuers)
	return sum
}

// Top is the most frequent of some counts, the most frequent first, and the others in
// one at the end, if there are more than so many.
func Top(counts map[string]uint64, most int) (list []fleet.Count) {
	others, more := counts[fleet.OtherName]
	for name, count := range counts {
		if name != fleet.OtherName {
			list = append(list, fleet.Count{Name: name, Count: count})
		}
	}
	slices.SortFunc(list, func(a, b fleet.Count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
	for _, rest := range list[min(most, len(list)):] {
		others, more = others+rest.Count, true
	}
	list = list[:min(most, len(list))]
	if more {
		list = append(list, fleet.Count{Name: fleet.OtherName, Count: others})
	}
	return list
}

// topIssuers is Top for issuers.
func topIssuers(all []fleet.IssuerActivity) []fleet.IssuerActivity {
	slices.SortFunc(all, func(a, b fleet.IssuerActivity) int {
		return cmp.Or(
			cmp.Compare(last(a.Issuer), last(b.Issuer)),
			cmp.Compare(b.Renewed+b.Failed, a.Renewed+a.Failed), cmp.Compare(a.Issuer, b.Issuer),
		)
	})
	most := fleet.MaxDayIssuers
	if len(all) <= most || len(all) == most+1 && all[most].Issuer == fleet.OtherName {
		return all
	}
	rest, reasons := fleet.IssuerActivity{Issuer: fleet.OtherName}, map[string]uint64{}
	for i := range all[most:] {
		addIssuer(&rest, reasons, &all[most+i])
	}
	rest.Reasons = Top(reasons, fleet.MaxDayReasons)
	return append(all[:most:most], rest)
}

// last puts the sum of the others behind those that have names.
func last(issuer string) int {
	if issuer == fleet.OtherName {
		return 1
	}
	return 0
}

func addIssuer(sum *fleet.IssuerActivity, reasons map[string]uint64, one *fleet.IssuerActivity) {
	sum.Renewed += one.Renewed
	sum.Failed += one.Failed
	sum.RenewedOffline += one.RenewedOffline
	for _, reason := range one.Reasons {
		reasons[reason.Name] += reason.Count
	}
}

// SumActivity is the activity of several days. It is partial if one of them is; what
// hosts dropped is the sum of the days of which it is known.
func SumActivity(days []*fleet.Day) (sum fleet.DayActivity) {
	issuers, reasons := map[string]*fleet.IssuerActivity{}, map[string]map[string]uint64{}
	for _, day := range days {
		a := &day.Activity
		sum.Partial = sum.Partial || a.Partial
		sum.Renewed += a.Renewed
		sum.Failed += a.Failed
		sum.RenewedOffline += a.RenewedOffline
		if a.EventsDropped != nil {
			dropped := *a.EventsDropped
			if sum.EventsDropped != nil {
				dropped += *sum.EventsDropped
			}
			sum.EventsDropped = &dropped
		}
		for i := range a.Issuers {
			name := a.Issuers[i].Issuer
			if issuers[name] == nil {
				issuers[name], reasons[name] = &fleet.IssuerActivity{Issuer: name}, map[string]uint64{}
			}
			addIssuer(issuers[name], reasons[name], &a.Issuers[i])
		}
	}
	for name, issuer := range issuers {
		issuer.Reasons = Top(reasons[name], fleet.MaxDayReasons)
		sum.Issuers = append(sum.Issuers, *issuer)
	}
	sum.Issuers = topIssuers(sum.Issuers)
	return sum
}
