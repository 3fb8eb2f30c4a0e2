package api

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/report"
	"github.com/certctl/certctl/shared/sheet"
)

type reportSync struct {
	Labels     []string `query:"label,explode" maxItems:"32" doc:"label=value; repeat it for several, all of which must match. The sums are of these hosts too." example:"env=prod"`
	Risks      []string `query:"risk" enum:"expired,unserved,expiring,cut_off,attention,warned,none" doc:"List only hosts with one of these risks, separated by commas." example:"expired,unserved,expiring"`
	Connection string   `query:"connection" enum:"connected,cut_off" doc:"List only hosts that are connected, or only those that are cut off."`
	Version    string   `query:"version" maxLength:"128" doc:"List only hosts with this version of the agent, exactly."`
	Format     string   `query:"format" enum:"json,csv" doc:"csv: the hosts as CSV, all of them whatever the limit, and no sums. Absent: what Accept prefers, text/csv or application/json."`
	Paging
}

// syncReport is one page of the report, or all hosts as CSV.
type syncReport struct {
	Body  resource.SyncReport
	hosts []*report.Host // of all, for CSV
	shown func(*report.Host) resource.HostStanding
}

func (s *server) registerReports(api huma.API) {
	read(s, api, narrows(asCSV(showsContact(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-sync-report", Method: http.MethodGet, Path: "/api/v1/reports/sync", Tags: []string{"reports"},
		Summary: "Report how the fleet stands",
		Description: "Every host, those at risk first: within one risk the earlier moment comes first (since when something expired is served, the offline horizon, or " +
			"the last sign of life). Sums of the whole fleet come with each page. A host that stays as it is while pages are read is on exactly one of them. It tells how " +
			"things stand at the time of the answer, which is in the header Date.",
	}), append([]fleet.Table{fleet.TableDays}, report.Tables...)...))), s.reportSync)
}

func (s *server) reportSync(ctx context.Context, p *picture, in *reportSync) (*syncReport, error) {
	labels, problem := parseLabels("label", in.Labels)
	if problem != nil {
		return nil, problem
	}
	q := report.Question{After: in.Cursor, Limit: in.Limit, Of: withLabels(labels), Listed: in.listed()}
	csv := askedOf(ctx).csv
	if csv {
		if in.Cursor != "" {
			return nil, invalid("cursor", "CSV has all hosts, and no pages", "leave out cursor, or ask for JSON")
		}
		q.Limit = 0
	}
	answer, err := p.report(&s.reports, &q)
	if errors.Is(err, report.ErrCursor) {
		return nil, badCursor()
	}
	if err != nil {
		return nil, s.fail("report", err)
	}
	if csv {
		return &syncReport{hosts: answer.Hosts, shown: p.hostStanding}, nil
	}
	out := &syncReport{Body: resource.SyncReport{Fleet: fleetStanding(answer.Fleet)}}
	if len(labels) == 0 && p.view.Scope().IsZero() {
		out.Body.Activity = p.activity()
	}
	out.Body.NextCursor = answer.Next
	out.Body.Items = make([]resource.HostStanding, 0, len(answer.Hosts))
	for _, host := range answer.Hosts {
		out.Body.Items = append(out.Body.Items, p.hostStanding(host))
	}
	return out, nil
}

// activity is what came in lately, of the days that are kept.
func (p *picture) activity() *resource.FleetActivity {
	today := p.Now.UTC().Truncate(24 * time.Hour)
	p.Note(today.AddDate(0, 0, 1))
	sum := func(first, last int) resource.DayActivity { // days ago
		var days []*fleet.Day
		for ago := first; ago <= last; ago++ {
			if day, ok := p.view.Day(fleet.DateOf(today.AddDate(0, 0, -ago))); ok {
				days = append(days, day)
			}
		}
		activity := report.SumActivity(days)
		return dayActivity(&activity)
	}
	return &resource.FleetActivity{Today: sum(0, 0), Yesterday: sum(1, 1), Week: sum(0, 6)}
}

// withLabels says which agents have labels; nil if there are none to have.
func withLabels(labels map[string]string) func(*fleet.Agent) bool {
	if len(labels) == 0 {
		return nil
	}
	return func(a *fleet.Agent) bool {
		for label, value := range labels {
			if got, ok := a.Labels[label]; !ok || got != value {
				return false
			}
		}
		return true
	}
}

// listed says which hosts are to be listed.
func (in *reportSync) listed() func(*report.Host) bool {
	return func(h *report.Host) bool {
		return (len(in.Risks) == 0 || slices.Contains(in.Risks, string(h.Risk))) &&
			(in.Connection == "" || h.CutOff == (in.Connection == "cut_off")) &&
			(in.Version == "" || h.Agent.Host.Version == in.Version)
	}
}

// report answers a question about the hosts of the picture.
func (p *picture) report(counter *report.Counter, q *report.Question) (*report.Answer, error) {
	p.askedContact = true
	q.View, q.Clock, q.Pause = p.whole, p.Clock, p.pause
	// What was counted for one is used for all: the scope only says whose counts are told.
	if scope, of := p.view.Scope(), q.Of; !scope.IsZero() {
		q.Of = func(a *fleet.Agent) bool { return scope.Allows(a.Labels) && (of == nil || of(a)) }
	}
	if !p.discreet {
		q.Seen = func(agent *fleet.Agent, _ time.Time) time.Time { return p.seen(agent) }
	}
	return counter.Report(q)
}

// table writes all hosts as CSV.
func (r *syncReport) table(out io.Writer) error {
	w := sheet.NewWriter(out, reflect.TypeFor[resource.HostStanding]())
	if err := w.Header(); err != nil {
		return err
	}
	for _, host := range r.hosts {
		if err := w.Row(r.shown(host)); err != nil {
			return err
		}
	}
	return w.Flush()
}

func (p *picture) hostStanding(h *report.Host) resource.HostStanding {
	a, c := h.Agent, h.Known()
	out := resource.HostStanding{
		AgentID: a.ID, Hostname: a.Host.Hostname, Labels: maps.Clone(a.Labels), Risk: string(h.Risk), Reason: h.Reason(), Mend: h.Mend(),
		Connected: !h.CutOff, NotSafe: a.Host.NotSafe,
		Certificates: c.States.Total(), NextExpiry: c.NextExpiry.UTC(), NeedingAttention: c.NeedingAttention, Health: c.Health,
		States: certificateStates(&c.States), Deployments: deploymentStates(&c.Deployments),
		FactsDropped: a.Host.EventsDropped, ClockSkewSeconds: a.Host.ClockSkewSeconds, IdentityShared: h.Shared, Warnings: slices.Clone(a.Host.Warnings),
		Version: a.Host.Version, OS: a.Host.OS, Arch: a.Host.Arch,
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	if out.Warnings == nil {
		out.Warnings = []string{}
	}
	if h.CutOff || !p.discreet {
		out.LastSync, out.SyncDue = h.Seen.UTC(), h.Due.UTC()
	}
	if h.CutOff {
		out.CutOffSince = out.LastSync
	}
	if a.Host.SafeUntil != nil {
		out.SafeUntil = a.Host.SafeUntil.UTC()
	}
	return out
}

func certificateStates(s *report.States) resource.CertificateStates {
	return resource.CertificateStates{Pending: s.Pending, Renewing: s.Renewing, Valid: s.Valid, Failed: s.Failed, Other: s.Other}
}

func deploymentStates(d *report.Deployments) resource.DeploymentStates {
	return resource.DeploymentStates{Verified: d.Verified, Unverified: d.Unverified, Pending: d.Pending, Failed: d.Failed, Broken: d.Broken}
}

func fleetStanding(f *report.Fleet) resource.FleetStanding {
	c := &f.Certificates
	out := resource.FleetStanding{
		Hosts: f.Hosts, Connected: f.Connected, CutOff: f.CutOff, CutOffSince: f.CutOffSince.UTC(), AtRisk: f.Hosts - f.Risks[report.RiskNone],
		Risks: resource.HostRisks{
			Expired: f.Risks[report.RiskExpired], Unserved: f.Risks[report.RiskUnserved], Expiring: f.Risks[report.RiskExpiring], CutOff: f.Risks[report.RiskCutOff],
			Attention: f.Risks[report.RiskAttention], Warned: f.Risks[report.RiskWarned], None: f.Risks[report.RiskNone],
		},
		SafeUntil: f.SafeUntil.UTC(), NotSafe: f.NotSafe, NotSafeHosts: f.NotSafeHosts,
		Certificates: c.States.Total(), NextExpiry: c.NextExpiry.UTC(), NeedingAttention: c.NeedingAttention, Health: c.Health,
		States: certificateStates(&c.States), Deployments: deploymentStates(&c.Deployments),
		Expiring: make([]resource.ExpiringWeek, 0, report.Weeks), ExpiringLater: c.Expiring.Later, Issuers: make([]resource.IssuerStanding, 0, len(f.Issuers)),
		FactsDropped: f.FactsDropped, FactsDroppedHosts: f.FactsDroppedHosts, ClockWrong: f.ClockWrong, WorstClockSkewSeconds: f.WorstSkew,
		Warned: f.Warned, IdentityShared: f.Shared, Versions: make([]resource.VersionHosts, 0, len(f.Versions)),
	}
	for i, n := range c.Expiring.Weeks {
		out.Expiring = append(out.Expiring, resource.ExpiringWeek{Week: f.Week.AddDate(0, 0, 7*i).Format(time.DateOnly), Certificates: n})
	}
	for _, issued := range f.Issuers {
		out.Issuers = append(out.Issuers, resource.IssuerStanding{Issuer: issued.Issuer, Certificates: issued.Total, Troubled: issued.Troubled})
	}
	for _, v := range f.Versions {
		out.Versions = append(out.Versions, resource.VersionHosts{Version: v.Version, Hosts: v.Hosts})
	}
	return out
}
