package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/report"
)

type hostReport struct {
	Body resource.HostReport
}

// hostDays is for how long back the page of a host tells what it did.
const hostDays = 7

func (s *server) registerHostReport(api huma.API) {
	huma.Register(api, ofHost(untagged(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "show-host-report", Method: http.MethodGet, Path: "/api/v1/reports/sync/{id}", Tags: []string{"reports"},
		Summary:     "Report how one host stands",
		Description: "As in the list, with its last sign of life while it is connected too, and what it did in the last seven days.",
	}), becauseOfSigns), "id"), s.reportHost)
}

func (s *server) reportHost(ctx context.Context, in *AgentPath) (*hostReport, error) {
	p := s.live(scopeOf(ctx))
	agent, ok := p.view.Agent(in.ID)
	if !ok || agent.State != fleet.AgentActive {
		return nil, noHost(in.ID)
	}
	host := report.Of(p.view, agent, p.contact(agent).seen, p.pause, p.Clock)
	out := &hostReport{Body: resource.HostReport{HostStanding: p.hostStanding(host)}}
	if lag := p.Now.Sub(host.Due); lag > 0 {
		out.Body.LagSeconds = int64(lag / time.Second)
	}
	var err error
	out.Body.Activity, err = s.activityOf(ctx, p, agent.ID)
	return out, err
}

func noHost(id string) *Problem {
	return notFound("there is no active host with the id "+clip(id), "list the agents to see their ids; of those that are retired nothing is reported")
}

// activityLooks bounds how many pages of the journal are gone through for one host.
const activityLooks = 8

// activityOf counts what a host did in the last days, as far as this node's journal
// tells without going through too much of it.
func (s *server) activityOf(ctx context.Context, p *picture, agent string) (done resource.HostActivity, err error) {
	since := p.Now.Add(-hostDays * 24 * time.Hour)
	count := report.NewActivity(health.Silence(p.pause), nil)
	query := history.Query{Agent: agent, Kinds: report.ActivityKinds, Since: since, NewestFirst: true, Limit: history.MaxLimit}
	for range activityLooks {
		facts, next, err := s.Journal.Facts(ctx, query)
		if err != nil {
			return done, s.fail("read the journal", err)
		}
		for i := range facts {
			count.Add(&facts[i])
		}
		query.After = next
		if done.Partial = next != ""; !done.Partial {
			break
		}
	}
	sum := count.Sum()
	done.Renewed, done.RenewedOffline, done.Failed = sum.Renewed, sum.RenewedOffline, sum.Failed
	return done, nil
}
