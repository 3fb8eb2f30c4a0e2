package daybook

import (
	"context"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/coordinator/report"
	"github.com/certctl/certctl/shared/wire"
)

// standing counts the fleet. It looks at every certificate and keeps nothing: it is
// asked for once a day.
func (k *Keeper) standing(ctx context.Context, view *fleet.View, now time.Time) (*fleet.DayStanding, error) {
	counter := new(report.Counter)
	if err := counter.Prepare(ctx, view, now); err != nil { // the term has ended
		return nil, err
	}
	answer, err := counter.Report(&report.Question{
		View: view, Clock: health.At(now), Pause: k.config.Pause(), Limit: -1,
		Seen: func(agent *fleet.Agent, replicated time.Time) time.Time {
			if k.config.Presence != nil {
				if at, ok := k.config.Presence.LastSeen(agent.ID); ok && at.After(replicated) {
					return at
				}
			}
			return replicated
		},
	})
	if err != nil {
		return nil, err
	}
	return standingOf(answer.Fleet, view, now), nil
}

func standingOf(f *report.Fleet, view *fleet.View, now time.Time) *fleet.DayStanding {
	certs, states, judged := &f.Certificates, &f.Certificates.States, &f.Certificates.Health
	s := &fleet.DayStanding{
		CountedAt: now, Hosts: count(f.Hosts), Connected: count(f.Connected), CutOff: count(f.CutOff),
		Retired: count(view.Rows(fleet.TableAgents) - f.Hosts),
		AtRisk:  count(f.Hosts - f.Risks[report.RiskNone]),
		NotSafe: count(f.NotSafeHosts), ClockSkewed: count(f.ClockWrong), EventsDropped: f.FactsDropped,
		Certificates: count(states.Total()), Expired: count(judged.Expired), Attention: count(certs.NeedingAttention),
		Verified: count(certs.Deployments.Verified), Failed: count(certs.Deployments.Failed + certs.Deployments.Broken),
		States: some([]fleet.Count{
			{Name: string(wire.StatePending), Count: count(states.Pending)}, {Name: string(wire.StateRenewing), Count: count(states.Renewing)},
			{Name: string(wire.StateValid), Count: count(states.Valid)}, {Name: string(wire.StateFailed), Count: count(states.Failed)},
			{Name: fleet.OtherName, Count: count(states.Other)},
		}),
		Health: some([]fleet.Count{
			{Name: string(resource.HealthOK), Count: count(judged.OK)}, {Name: string(resource.HealthRenewing), Count: count(judged.Renewing)},
			{Name: string(resource.HealthUnknown), Count: count(judged.Unknown)}, {Name: string(resource.HealthAtRisk), Count: count(judged.AtRisk)},
			{Name: string(resource.HealthUnserved), Count: count(judged.Unserved)}, {Name: string(resource.HealthRevoked), Count: count(judged.Revoked)},
			{Name: string(resource.HealthExpired), Count: count(judged.Expired)},
		}),
	}
	if !f.SafeUntil.IsZero() {
		horizon := f.SafeUntil.UTC()
		s.Horizon = &horizon
	}
	for _, week := range certs.Expiring.Weeks {
		s.Expiring = append(s.Expiring, count(week))
	}
	versions := map[string]uint64{}
	for _, version := range f.Versions {
		versions[named(version.Version)] += count(version.Hosts)
	}
	s.Versions = report.Top(versions, fleet.MaxDayVersions)
	for _, risk := range report.Risks {
		s.Risks = append(s.Risks, fleet.Count{Name: string(risk), Count: count(f.Risks[risk])})
	}
	s.Risks = some(s.Risks)
	return s
}

// named is what a host says to be, as far as it can be kept.
func named(text string) string {
	switch {
	case text == "":
		return fleet.UnknownName
	case !wire.ValidName(text):
		return fleet.OtherName
	}
	return text
}

// some leaves out what there is none of.
func some(counts []fleet.Count) []fleet.Count {
	kept := counts[:0]
	for _, one := range counts {
		if one.Count > 0 {
			kept = append(kept, one)
		}
	}
	return kept
}

// count is a number of things, of which there are not fewer than none.
func count(n int) uint64 { return uint64(max(n, 0)) } //nolint:gosec // not negative
