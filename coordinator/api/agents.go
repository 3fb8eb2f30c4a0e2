package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
)

type retiredAgent struct {
	Body resource.RetiredAgent
}

type listAgents struct {
	Labels     []string  `query:"label,explode" maxItems:"32" doc:"label=value; repeat it for several, all of which must match." example:"env=prod"`
	State      string    `query:"state" enum:"active,retired" doc:"Absent: both."`
	Connection string    `query:"connection" enum:"connected,cut_off" doc:"Only agents that are connected, or only those that are active and cut off."`
	Q          string    `query:"q" maxLength:"255" doc:"Part of the host name or id, whatever its case."`
	SafeBefore time.Time `query:"safe_before" doc:"Only agents whose offline horizon ends before this moment; those that are not safe now are among them."`
	Sort       string    `query:"sort" enum:"id,-id,hostname,-hostname,safe_until,-safe_until" default:"id" doc:"By id, by host name whatever its case, or by offline horizon: hosts that are not safe now, then the earliest. The last lists active agents that serve a certificate, or should, and no others. With - in front from the end."`
	Paging
}

// AgentPath is where an agent stands. It is exported for Huma, which reads the
// tags of exported fields alone.
type AgentPath struct {
	ID string `path:"id" maxLength:"128" doc:"Id of the agent."`
}

type agentList struct {
	Body resource.Page[resource.Agent]
}

type agentDetail struct {
	Body resource.AgentDetail
}

type retireAgent struct {
	AgentPath
	DryRun bool `query:"dry_run" doc:"Say what would be revoked, and change nothing."`
	Body   *resource.RetireAgent
}

// becauseOfSigns is why what is shown of one host has no entity tag.
const becauseOfSigns = "it tells the last sign of life of the host, which comes with every sync"

func (s *server) registerAgents(api huma.API) {
	read(s, api, narrows(showsContact(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-agents", Method: http.MethodGet, Path: "/api/v1/agents", Tags: []string{"agents"},
		Summary: "List agents", Description: "In an order that stays the same while paging, by id unless sort says otherwise; retired agents too.",
	}), fleet.TableAgents, fleet.TableCertificates)), s.listAgents)
	huma.Register(api, ofHost(untagged(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "show-agent", Method: http.MethodGet, Path: "/api/v1/agents/{id}", Tags: []string{"agents"},
		Summary: "Show one agent",
	}), becauseOfSigns), "id"), s.showAgent)
	huma.Register(api, ofHost(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "retire-agent", Method: http.MethodPost, Path: "/api/v1/agents/{id}/retire", Tags: []string{"agents"},
		Summary: "Retire an agent",
		Description: "The agent's identity is refused from now on, for good, what the built-in CA has issued to it is revoked, and what is known of its certificates is forgotten. " +
			"The host itself keeps what it has and goes on renewing at its direct issuers. Retiring it again changes nothing.",
	}), "id"), s.retireAgent)
}

func (s *server) listAgents(_ context.Context, p *picture, in *listAgents) (*agentList, error) {
	labels, problem := parseLabels("label", in.Labels)
	if problem != nil {
		return nil, problem
	}
	by, back := strings.CutPrefix(in.Sort, "-")
	filter := fleet.AgentFilter{
		Labels: labels, NameContains: in.Q, State: fleet.AgentState(in.State), SafeBefore: in.SafeBefore,
		BySafeUntil: by == "safe_until", ByHostname: by == "hostname",
	}
	var keep func(*fleet.Agent) bool
	if in.Connection != "" {
		if filter.State == fleet.AgentRetired {
			return nil, invalid("connection", "a retired agent is neither connected nor cut off", "leave out connection or state")
		}
		filter.State = fleet.AgentActive
		keep = func(a *fleet.Agent) bool {
			return p.contact(a).cutOff == (in.Connection == "cut_off")
		}
	}
	found, next, err := gather(in.Paging, func(page fleet.Page) ([]*fleet.Agent, string, error) {
		page.Back = back
		return p.view.Agents(filter, page)
	}, keep)
	if err != nil {
		return nil, s.fail("list", err)
	}
	out := &agentList{}
	out.Body.NextCursor = next
	out.Body.Items = make([]resource.Agent, 0, len(found))
	for _, agent := range found {
		out.Body.Items = append(out.Body.Items, p.agent(agent))
	}
	if len(labels) == 0 && in.State == "" && in.Connection == "" && in.Q == "" && in.SafeBefore.IsZero() && !filter.BySafeUntil {
		total := p.view.Rows(fleet.TableAgents)
		out.Body.Total = &total
	}
	return out, nil
}

// maxLooked bounds the records that one answer looks at for a filter that the
// state has no index for.
const maxLooked = 5000

// gather fills a page with the records of a list that keep lets pass, nil being
// all. The page may be short when few do; next continues where it ended.
func gather[T any](in Paging, list func(fleet.Page) ([]T, string, error), keep func(T) bool) (found []T, next string, err error) {
	next = in.Cursor
	for looked := 0; looked < maxLooked; {
		want := in.Limit - len(found)
		records, after, err := list(fleet.Page{Cursor: next, Limit: want})
		if err != nil {
			return nil, "", err
		}
		for _, record := range records {
			if keep == nil || keep(record) {
				found = append(found, record)
			}
		}
		looked += len(records)
		// A short page that has a next one says that the state looked at enough.
		if next = after; next == "" || len(found) >= in.Limit || len(records) < want {
			break
		}
	}
	return found, next, nil
}

func (s *server) showAgent(ctx context.Context, in *AgentPath) (*agentDetail, error) {
	return s.live(scopeOf(ctx)).agentDetail(in.ID)
}

func (p *picture) agentDetail(id string) (*agentDetail, error) {
	agent, ok := p.view.Agent(id)
	if !ok {
		return nil, noAgent(id)
	}
	out := &agentDetail{}
	out.Body.Agent = p.agent(agent)
	touch := p.contact(agent)
	each(func(page fleet.Page) ([]*fleet.Certificate, string, error) {
		return p.view.Certificates(fleet.CertificateFilter{Agent: id}, page)
	}, func(row *fleet.Certificate) {
		health, _ := p.health(row, touch)
		out.Body.CertificateHealth.Add(health)
	})
	return out, nil
}

func noAgent(id string) *Problem {
	return notFound("there is no agent with the id "+clip(id), "list the agents to see their ids")
}

func (s *server) retireAgent(ctx context.Context, in *retireAgent) (*retiredAgent, error) {
	command := fleet.RetireAgent{Actor: actorOf(ctx), AgentID: in.ID}
	if in.Body != nil {
		command.Reason = in.Body.Reason
	}
	result, err := s.doOrPreview(ctx, command, in.DryRun)
	if err != nil {
		return nil, err
	}
	var outcome fleet.Retirement
	if err := result.Decode(&outcome); err != nil {
		return nil, s.fail("retire an agent", err)
	}
	shown, err := s.live(scopeOf(ctx)).agentDetail(in.ID)
	if err != nil {
		return nil, err
	}
	return &retiredAgent{Body: resource.RetiredAgent{
		AgentDetail: shown.Body, DryRun: in.DryRun, Revoked: outcome.Revoked, NotRevoked: outcome.NotRevoked,
	}}, nil
}

func (p *picture) agent(a *fleet.Agent) resource.Agent {
	touch := p.contact(a)
	out := resource.Agent{
		ID: a.ID, State: string(a.State), Hostname: a.Host.Hostname, OS: a.Host.OS, Arch: a.Host.Arch,
		Version: a.Host.Version, Labels: maps.Clone(a.Labels), NamePatterns: slices.Clone(a.NamePatterns),
		EnrolledAt: a.EnrolledAt.UTC(), EnrollmentTokenID: a.TokenID, RetiredAt: a.RetiredAt.UTC(), StartedAt: a.Host.StartedAt.UTC(),
		LastSeen: touch.seen.UTC(), Certificates: a.Certificates, EventsDropped: a.Host.EventsDropped,
		ClockSkewSeconds: a.Host.ClockSkewSeconds, Warnings: []string{},
		Identity:        resource.Identity{Serial: a.Current.Serial, Fingerprint: a.Current.Fingerprint, NotAfter: a.Current.NotAfter.UTC()},
		IdentityPending: a.Pending != nil,
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	if out.NamePatterns == nil {
		out.NamePatterns = []string{}
	}
	if a.State != fleet.AgentActive {
		return out
	}
	out.IdentityShared = !a.SharedAt.IsZero() && !p.Reached(a.SharedUntil())
	out.Connected = !touch.cutOff
	if !out.Connected {
		out.CutOffSince = out.LastSeen
	}
	if len(a.Host.Warnings) > 0 {
		out.Warnings = slices.Clone(a.Host.Warnings)
	}
	out.NotSafe, out.NeedingAttention = a.Host.NotSafe, p.view.NeedingAttention(a.ID)
	if a.Host.SafeUntil != nil {
		out.SafeUntil = a.Host.SafeUntil.UTC()
	}
	return out
}
