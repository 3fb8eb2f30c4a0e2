package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/selector"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// renewalsInScope is what becomes of mass renewals for a token with a scope: how far they
// are was counted for all of their hosts.
const renewalsInScope = "For a token that has a scope there are those alone whose selector chooses hosts of its scope and no others."

// maxFailures bounds the failures that the answer about a mass renewal names.
const maxFailures = 100

type commandDetail struct {
	Body resource.Command
}

type commandList struct {
	Body resource.Page[resource.Command]
}

type createRenewals struct {
	DryRun bool `query:"dry_run" doc:"Count what would be renewed, and begin nothing."`
	Body   resource.CreateRenewals
}

type renewalsPath struct {
	ID string `path:"id" maxLength:"64" doc:"Id of the mass renewal."`
}

type renewalsDetail struct {
	Body resource.Renewals
}

type renewalsList struct {
	Body resource.Page[resource.Renewals]
}

func (s *server) registerRenewals(api huma.API) {
	const path = "/api/v1/renewals"
	tags := []string{"renewals"}
	huma.Register(api, ofHost(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "renew-certificate", Method: http.MethodPost, Path: "/api/v1/certificates/{agent}/{name}/renew", Tags: tags,
		Summary:       "Renew one certificate",
		Description:   "The host replaces the certificate in service, with a new key, when it syncs next. If another one is in service by then, nothing is done.",
		DefaultStatus: http.StatusAccepted,
	}), "agent"), s.renewCertificate)
	read(s, api, ofHost(shows(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-agent-commands", Method: http.MethodGet, Path: "/api/v1/agents/{id}/commands", Tags: tags,
		Summary: "List what an agent was asked for", Description: "Newest first, what ended within the last 30 days too. It is all on one page.",
	}), fleet.TableAgents, fleet.TableAgentCommands), "id"), s.listCommands)
	huma.Register(api, minds(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "create-renewals", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Renew many certificates, spread over a time",
		Description: "Each certificate that is in service now and matches has a place of its own in the window, and its host renews it then. " +
			"Hosts that are away are asked when they come back, up to 30 days after the window. With dry_run nothing is begun.",
	}), "The selector of a token that has a scope is narrowed to that, and narrowed_to says so."), s.createRenewals)
	read(s, api, minds(showsContact(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-renewals", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "List mass renewals", Description: "Newest first, ended ones too. It is all on one page.",
	}), fleet.TableCampaigns, fleet.TableAgents, fleet.TableCertificates, fleet.TableAgentCommands), renewalsInScope), s.listRenewals)
	read(s, api, minds(showsContact(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "show-renewals", Method: http.MethodGet, Path: path + "/{id}", Tags: tags,
		Summary: "Show a mass renewal, and how far it is",
	}), fleet.TableCampaigns, fleet.TableAgents, fleet.TableCertificates, fleet.TableAgentCommands), renewalsInScope), s.showRenewals)
	huma.Register(api, minds(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "cancel-renewals", Method: http.MethodPost, Path: path + "/{id}/cancel", Tags: tags,
		Summary:     "Cancel a mass renewal",
		Description: "No host is asked for more; those that were told already, a few minutes ahead of their turn, may still renew. Cancelling it again changes nothing.",
	}), renewalsInScope), s.cancelRenewals)
	s.registerRevocations(api)
}

func command(c *fleet.AgentCommand) resource.Command {
	return resource.Command{
		ID: c.ID, AgentID: c.Agent, Kind: string(c.Kind), Certificate: c.Certificate, Serial: c.Serial, State: string(c.State),
		Detail: c.Detail, CreatedAt: c.CreatedAt.UTC(), CreatedBy: c.CreatedBy, DoneAt: c.DoneAt.UTC(),
	}
}

func (s *server) renewCertificate(ctx context.Context, in *certificatePath) (*commandDetail, error) {
	shown, err := s.showCertificate(ctx, in)
	if err != nil {
		return nil, err
	}
	wish := fleet.CommandAgent{
		Actor: actorOf(ctx), Agent: in.Agent, ID: newTokenID(), Kind: wire.CommandRenew, Certificate: in.Name, Serial: shown.Body.Serial,
	}
	if _, err := s.do(ctx, wish); err != nil {
		return nil, err
	}
	stored, ok := s.viewOf(ctx).AgentCommand(wish.Agent, wish.ID)
	if !ok {
		return nil, notFound("the command is gone", "the agent may have been retired")
	}
	return &commandDetail{Body: command(stored)}, nil
}

func (s *server) listCommands(_ context.Context, p *picture, in *AgentPath) (*commandList, error) {
	view := p.view
	if _, ok := view.Agent(in.ID); !ok {
		return nil, noAgent(in.ID)
	}
	out := &commandList{Body: resource.Page[resource.Command]{Items: []resource.Command{}}}
	for _, c := range view.AgentCommands(in.ID) {
		out.Body.Items = append(out.Body.Items, command(c))
	}
	slices.SortStableFunc(out.Body.Items, func(a, b resource.Command) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return out, nil
}

func (s *server) createRenewals(ctx context.Context, in *createRenewals) (*renewalsDetail, error) {
	chosen, err := selector.Parse(in.Body.Selector)
	if err != nil {
		return nil, invalid("selector", err.Error(), "see the documentation of selectors")
	}
	scope, narrowedTo := scopeOf(ctx), ""
	if !chosen.Within(scope) {
		if chosen, err = chosen.And(scope.Selector()); err != nil {
			return nil, invalid("selector", "narrowed to the token's scope, "+err.Error(), "give a shorter selector")
		}
		narrowedTo = scope.String()
	}
	if in.Body.NamePattern != "" {
		patterns, err := pki.ParseNamePatterns([]string{in.Body.NamePattern})
		if err != nil {
			return nil, invalid("name_pattern", err.Error(), "give such as **.example.com, or leave it out")
		}
		in.Body.NamePattern = patterns.Strings()[0]
	}
	p := s.live(scope)
	view, now := p.view, p.Now.UTC()
	planned := &fleet.Campaign{
		NamePattern: in.Body.NamePattern,
		Selector:    chosen.String(), Issuer: in.Body.Issuer, Over: time.Duration(in.Body.OverSeconds) * time.Second,
		Reason: in.Body.Reason, CreatedAt: now, CreatedBy: actorOf(ctx), Index: view.Index(),
	}
	if in.Body.ExpiringWithinSeconds > 0 {
		planned.ExpiringBefore = now.Add(time.Duration(in.Body.ExpiringWithinSeconds) * time.Second)
	}
	counted := p.renewals(planned, maxHosts)
	counted.Targets, counted.NarrowedTo = counted.Remaining, narrowedTo
	if in.DryRun {
		counted.State, counted.Replaced, counted.Overdue = "planned", 0, 0
		for i := range counted.Hosts {
			counted.Hosts[i].Overdue = 0
		}
		return &renewalsDetail{Body: counted}, nil
	}
	if counted.Remaining == 0 {
		return nil, invalid("selector", "no certificate in service matches", "look which certificates there are, and widen the selector, the issuer or the time")
	}
	id := newTokenID()
	if _, err := s.do(ctx, fleet.BeginCampaign{
		Actor: planned.CreatedBy, ID: id, Selector: planned.Selector, Issuer: planned.Issuer, ExpiringBefore: planned.ExpiringBefore,
		Over: planned.Over, Targets: counted.Targets, Reason: planned.Reason, NamePattern: planned.NamePattern,
	}); err != nil {
		return nil, err
	}
	shown, err := s.live(scope).renewalsDetail(id)
	if err == nil {
		shown.Body.NarrowedTo = counted.NarrowedTo
	}
	return shown, err
}

func (p *picture) renewalsDetail(id string) (*renewalsDetail, error) {
	stored, ok := p.view.Campaign(id)
	if !ok {
		return nil, notFound("there is no mass renewal with the id "+clip(id), "list the renewals to see their ids")
	}
	return &renewalsDetail{Body: p.renewals(stored, maxHosts)}, nil
}

// renewals counts how far a campaign is, and names up to so many hosts with
// something left. It looks at every certificate of the hosts that the campaign
// is for.
func (p *picture) renewals(c *fleet.Campaign, hosts int) resource.Renewals {
	view := p.view
	out := resource.Renewals{
		ID: c.ID, Selector: c.Selector, Issuer: c.Issuer, NamePattern: c.NamePattern, ExpiringBefore: c.ExpiringBefore.UTC(), OverSeconds: int64(c.Over / time.Second),
		Reason: c.Reason, CreatedAt: c.CreatedAt.UTC(), CreatedBy: c.CreatedBy, EndsAt: c.CreatedAt.Add(c.Over).UTC(),
		CancelledAt: c.CancelledAt.UTC(), CancelledBy: c.CancelledBy, Targets: c.Targets, Failures: []resource.Command{},
	}
	chosen, err := selector.Parse(c.Selector)
	if err == nil {
		eachActive(view, func(agent *fleet.Agent) {
			if !chosen.Matches(agent.Labels) {
				return
			}
			host := p.countRenewals(c, agent)
			out.Remaining, out.Overdue, out.Failed = out.Remaining+host.Remaining, out.Overdue+host.Overdue, out.Failed+host.Failed
			if host.CutOff {
				out.CutOff += host.Remaining
			}
			switch {
			case host.Remaining+host.Failed == 0 || hosts == 0:
			case len(out.Hosts) == hosts:
				out.HostsOmitted++
			default:
				out.Hosts = append(out.Hosts, host)
			}
		})
	}
	for _, failed := range view.CampaignCommands(c.ID, maxFailures) {
		if row, ok := view.Certificate(failed.Agent, failed.Certificate); ok && c.Wants(row) {
			out.Failures = append(out.Failures, command(failed))
		}
	}
	out.Replaced = max(0, c.Targets-out.Remaining-out.Failed)
	switch {
	case !c.CancelledAt.IsZero():
		out.State = "cancelled"
	case out.Remaining+out.Failed == 0:
		out.State = "done"
	case p.running(c):
		out.State = "running"
	default:
		out.State = "ended"
	}
	return out
}

// running reports whether a campaign asks for renewals.
func (p *picture) running(c *fleet.Campaign) bool {
	return c.CancelledAt.IsZero() && !p.Reached(c.Ends())
}

// countRenewals counts what is left of a campaign on one of its hosts.
func (p *picture) countRenewals(c *fleet.Campaign, agent *fleet.Agent) resource.RenewalsHost {
	host := resource.RenewalsHost{AgentID: agent.ID, Hostname: agent.Host.Hostname, CutOff: p.contact(agent).cutOff}
	for _, row := range p.view.CertificatesOf(agent.ID) {
		if !c.Wants(row) {
			continue
		}
		if _, ended := p.view.AgentCommand(agent.ID, c.CommandID(agent.ID, row.Name)); ended {
			host.Failed++
			continue
		}
		host.Remaining++
		if p.Reached(c.Due(agent.ID, row.Name)) {
			host.Overdue++
		}
	}
	return host
}

func (s *server) listRenewals(_ context.Context, p *picture, _ *struct{}) (*renewalsList, error) {
	out := &renewalsList{Body: resource.Page[resource.Renewals]{Items: []resource.Renewals{}}}
	for _, stored := range p.view.Campaigns() {
		out.Body.Items = append(out.Body.Items, p.renewals(stored, 0))
	}
	slices.SortStableFunc(out.Body.Items, func(a, b resource.Renewals) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return out, nil
}

func (s *server) showRenewals(_ context.Context, p *picture, in *renewalsPath) (*renewalsDetail, error) {
	return p.renewalsDetail(in.ID)
}

func (s *server) cancelRenewals(ctx context.Context, in *renewalsPath) (*renewalsDetail, error) {
	if !scopeOf(ctx).IsZero() {
		if _, err := s.live(scopeOf(ctx)).renewalsDetail(in.ID); err != nil {
			return nil, err
		}
	}
	if _, err := s.do(ctx, fleet.CancelCampaign{Actor: actorOf(ctx), ID: in.ID}); err != nil {
		return nil, err
	}
	return s.live(scopeOf(ctx)).renewalsDetail(in.ID)
}
