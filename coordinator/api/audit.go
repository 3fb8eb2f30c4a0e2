package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
)

type listEvents struct {
	Scope  string   `query:"scope" enum:"audit,all" default:"audit" doc:"audit: acts of people, changes of identity and policy. all: also what agents report and what orders came to."`
	Order  string   `query:"order" enum:"newest,oldest" default:"newest" doc:"Which facts come first."`
	Kinds  []string `query:"kind" maxItems:"50" doc:"One or more kinds, separated by commas." example:"agent.enrolled,agent.retired"`
	Agent  string   `query:"agent" maxLength:"128" doc:"Id of the agent that the fact is about."`
	Object string   `query:"object" maxLength:"255" doc:"What it was done to."`
	Paging
}

type eventList struct {
	Body resource.Events
}

func (s *server) registerAudit(api huma.API) {
	read(s, api, showsJournal(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-audit", Method: http.MethodGet, Path: "/api/v1/audit", Tags: []string{"audit"},
		Summary: "List facts of the journal",
		Description: "Facts have one order, that of the Raft log. Facts of the audit trail are never dropped; routine facts are kept " +
			"for a time and up to a size; list-history has those that are in a database. A node that is new in the cluster gets the facts of before from the others: until it has all, missing " +
			"says of how many log entries they are not in the list.",
	}), func(query func(string) string) bool { return query("scope") != scopeAll }), s.listEvents)
}

const scopeAll = "all"

func (s *server) listEvents(_ context.Context, _ *picture, in *listEvents) (*eventList, error) {
	query := history.Query{
		After: in.Cursor, Limit: in.Limit, NewestFirst: in.Order != "oldest",
		Agent: in.Agent, Object: in.Object, AuditOnly: in.Scope != scopeAll,
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
