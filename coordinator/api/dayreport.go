package api

import (
	"context"
	"io"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/sheet"
)

type reportDays struct {
	Days   int    `query:"days" minimum:"1" maximum:"400" default:"90" doc:"How many days, today among them."`
	Format string `query:"format" enum:"json,csv" doc:"csv: the days as CSV. Absent: what Accept prefers, text/csv or application/json."`
}

type dayReports struct {
	Body resource.Page[resource.DayReport]
}

func (s *server) registerDays(api huma.API) {
	read(s, api, asCSV(fleetWide(shows(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-day-report", Method: http.MethodGet, Path: "/api/v1/reports/days", Tags: []string{"reports"},
		Summary: "Report what each day came to",
		Description: "Sums of each of the last days, the earliest first, all on one page: how the fleet stood at the day's end, and what was renewed and what failed on it, by issuer " +
			"and reason. Days of which nothing is known are left out; 400 are kept. The last one may be today, with what came in so far, some 15 minutes old.",
	}), fleet.TableDays), ofTheDays)), s.reportDays)
}

func (s *server) reportDays(_ context.Context, p *picture, in *reportDays) (*dayReports, error) {
	today, err := fleet.DayBegin(fleet.DateOf(p.Now))
	if err != nil {
		return nil, s.fail("report", err)
	}
	p.Note(today.AddDate(0, 0, 1)) // the first of the days is another one then
	out := &dayReports{Body: resource.Page[resource.DayReport]{Items: []resource.DayReport{}}}
	for _, day := range p.view.Days(fleet.DateOf(today.AddDate(0, 0, 1-in.Days))) {
		if day.Date > fleet.DateOf(p.Now) {
			break // of a clock that was wrong
		}
		out.Body.Items = append(out.Body.Items, dayReport(day))
	}
	return out, nil
}

// table writes the days as CSV.
func (r *dayReports) table(out io.Writer) error {
	w := sheet.NewWriter(out, reflect.TypeFor[resource.DayReport]())
	if err := w.Header(); err != nil {
		return err
	}
	for i := range r.Body.Items {
		if err := w.Row(&r.Body.Items[i]); err != nil {
			return err
		}
	}
	return w.Flush()
}

func dayReport(d *fleet.Day) resource.DayReport {
	out := resource.DayReport{Date: d.Date, Final: d.Final, Activity: dayActivity(&d.Activity)}
	if s := d.Standing; s != nil {
		out.Standing = &resource.DayStanding{
			CountedAt: s.CountedAt.UTC(), Hosts: s.Hosts, Connected: s.Connected, CutOff: s.CutOff, Retired: s.Retired, AtRisk: s.AtRisk, Risks: counted(s.Risks),
			NotSafe: s.NotSafe, SafeUntil: moment(s.Horizon), ClockWrong: s.ClockSkewed, FactsDropped: s.EventsDropped,
			Certificates: s.Certificates, Expired: s.Expired, NeedingAttention: s.Attention, States: counted(s.States), Health: counted(s.Health),
			ExpiringWeeks: append([]uint64{}, s.Expiring...), DeploymentsVerified: s.Verified, DeploymentsFailed: s.Failed, Versions: counted(s.Versions),
		}
	}
	return out
}

func moment(at *time.Time) time.Time {
	if at == nil {
		return time.Time{}
	}
	return at.UTC()
}

func dayActivity(a *fleet.DayActivity) resource.DayActivity {
	out := resource.DayActivity{
		Partial: a.Partial, Renewed: a.Renewed, RenewedOffline: a.RenewedOffline, Failed: a.Failed, FactsDropped: a.EventsDropped,
		Issuers: make([]resource.IssuerActivity, 0, len(a.Issuers)),
	}
	for i := range a.Issuers {
		one := &a.Issuers[i]
		out.Issuers = append(out.Issuers, resource.IssuerActivity{
			Issuer: one.Issuer, Renewed: one.Renewed, RenewedOffline: one.RenewedOffline, Failed: one.Failed, Reasons: counted(one.Reasons),
		})
	}
	return out
}

func counted(counts []fleet.Count) []resource.Counted {
	out := make([]resource.Counted, 0, len(counts))
	for _, one := range counts {
		out = append(out, resource.Counted{Name: one.Name, Count: one.Count})
	}
	return out
}
