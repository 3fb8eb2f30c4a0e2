package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
)

type listEvents struct {
	Scope  string    `query:"scope" enum:"audit,all" default:"audit" doc:"audit: acts of people, changes of identity and policy. all: also what agents report and what orders came to."`
	Order  string    `query:"order" enum:"newest,oldest" default:"newest" doc:"Which facts come first."`
	Kinds  []string  `query:"kind" maxItems:"50" doc:"One or more kinds, separated by commas." example:"agent.enrolled,agent.retired"`
	Agent  string    `query:"agent" maxLength:"128" doc:"Id of the agent that the fact is about."`
	Object string    `query:"object" maxLength:"255" doc:"What it was done to."`
	Actor  string    `query:"actor" maxLength:"255" doc:"Who did it." example:"api_token:4f2m7q"`
	Since  time.Time `query:"since" doc:"Only facts of this moment and later, by the clock of the node that stored them."`
	Until  time.Time `query:"until" doc:"Only facts of before this moment."`
	From   uint64    `query:"from" doc:"Only facts of the audit trail with this number and later."`
	Paging
}

type auditHead struct {
	Body resource.AuditHead
}

type eventList struct {
	Body resource.Events
}

func (s *server) registerAudit(api huma.API) {
	read(s, api, minds(showsJournal(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-audit", Method: http.MethodGet, Path: "/api/v1/audit", Tags: []string{"audit"},
		Summary: "List facts of the journal",
		Description: "Facts have one order, that of the Raft log. Facts of the audit trail are never dropped; routine facts are kept " +
			"for a time and up to a size; list-history has those that are in a database. A node that is new in the cluster gets the facts of before from the others: until it has all, missing " +
			"says of how many log entries they are not in the list.",
	}), func(query func(string) string) bool { return query("scope") != scopeAll }),
		"With a token that has a scope the answer has the facts about hosts in it alone, and none that is of no host."), s.listEvents)
	huma.Register(api, fleetWide(untagged(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "show-audit-head", Method: http.MethodGet, Path: "/api/v1/audit/head", Tags: []string{"audit"},
		Summary: "Show the newest number and hash of the audit trail",
		Description: "As the state of the node that answers has it, which is kept apart from the journal that has the facts. Whoever keeps number and " +
			"hash elsewhere can tell later whether the trail up to there is still the same: \"certctl audit verify --against NUMBER:HASH\".",
	}), "the word that it has not changed would not be smaller"), "the trail is that of all hosts"), s.showAuditHead)
}

func (s *server) showAuditHead(context.Context, *struct{}) (*auditHead, error) {
	view := s.Node.State().View()
	out := &auditHead{Body: resource.AuditHead{Number: view.AuditFacts(), Node: s.Node.ID()}}
	if head, begun := view.AuditHead(); begun {
		out.Body.Number, out.Body.Hash, out.Body.ChainedFrom = head.Number, head.Hash.String(), head.First
		out.Body.Index, out.Body.Time = head.Index, head.Time.UTC()
	}
	return out, nil
}

const scopeAll = "all"

func (s *server) listEvents(_ context.Context, p *picture, in *listEvents) (*eventList, error) {
	query := history.Query{
		After: in.Cursor, Limit: in.Limit, NewestFirst: in.Order != "oldest",
		Agent: in.Agent, Object: in.Object, Actor: in.Actor, Since: in.Since, Until: in.Until, From: in.From, AuditOnly: in.Scope != scopeAll,
	}
	if scope := p.view.Scope(); !scope.IsZero() {
		query.Of = func(agent string) bool {
			_, ok := p.view.Agent(agent)
			return ok
		}
	}
	for _, kind := range in.Kinds {
		query.Kinds = append(query.Kinds, fleet.Kind(kind))
	}
	// Before the facts are read: what comes in between is not missing then.
	status, err := s.Journal.Status()
	if err != nil {
		return nil, s.fail("read the journal", err)
	}
	facts, next, err := s.Journal.Read(query)
	if err != nil {
		return nil, s.fail("read the journal", err)
	}
	out := &eventList{}
	out.Body.NextCursor, out.Body.Missing = next, status.Gaps.Count()
	out.Body.Items = events(facts)
	return out, nil
}
