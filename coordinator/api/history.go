package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/history/postgres"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/wire"
)

// Database is where the leader exports the history to. *postgres.Exporter is one.
type Database interface {
	history.Reader
	Prune(ctx context.Context, before time.Time, dry bool) ([]postgres.PrunedMonth, error)
	Status() postgres.Status
}

type listHistory struct {
	Scope  string    `query:"scope" enum:"audit,all" default:"all" doc:"all: every fact. audit: acts of people, changes of identity and policy."`
	Order  string    `query:"order" enum:"newest,oldest" default:"newest" doc:"Which facts come first, in the order of the log."`
	Since  time.Time `query:"since" doc:"Only facts of this moment and later, by the clock of the node that stored them."`
	Until  time.Time `query:"until" doc:"Only facts of before this moment."`
	Kinds  []string  `query:"kind" maxItems:"50" doc:"One or more kinds, separated by commas." example:"certificate.renewed,certificate.failed"`
	Agent  string    `query:"agent" maxLength:"128" doc:"Id of the agent that the fact is about."`
	Object string    `query:"object" maxLength:"255" doc:"What it was done to."`
	Actor  string    `query:"actor" maxLength:"255" doc:"Who did it." example:"api_token:4f2m7q"`
	From   uint64    `query:"from" doc:"Only facts of the audit trail with this number and later."`
	Paging
}

type historyPage struct {
	Body resource.Page[resource.Event]
}

type historyStatusDocument struct {
	Body resource.HistoryStatus
}

type pruneHistory struct {
	Body resource.PruneHistory
}

type prunedHistory struct {
	Body resource.PrunedHistory
}

func (s *server) registerHistory(api huma.API) {
	const path = "/api/v1/history"
	tags := []string{"history"}
	huma.Register(api, fleetWide(untagged(leads(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-history", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "List facts of the history",
		Description: "From the database, if one is configured, else from the journal. Cursors are good for both. While the database cannot be " +
			"read the answer is 503; list-audit has what the journal keeps. What has just happened gets into the database within seconds.",
	})), "a database has no edition that could be known without asking it"), ofTheHistory), s.listHistory)
	huma.Register(api, fleetWide(untagged(leads(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "show-history-status", Method: http.MethodGet, Path: path + "/status", Tags: tags,
		Summary: "Say where the history is, and how its export stands",
	})), "it follows the database and the clock"), ofTheHistory), s.showHistoryStatus)
	huma.Register(api, fleetWide(leads(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "prune-history", Method: http.MethodPost, Path: path + "/prune", Tags: tags,
		Summary: "Drop old months of routine facts from the database, or say what would go",
		Description: "This cannot be taken back, and stands in the audit trail. Facts of the audit trail stay. Without a database it is refused: the journal drops what is " +
			"older than its retention by itself.",
	})), ofTheHistory), s.pruneHistory)
}

func (s *server) listHistory(ctx context.Context, in *listHistory) (*historyPage, error) {
	query := history.Query{
		After: in.Cursor, Limit: in.Limit, NewestFirst: in.Order != "oldest", Agent: in.Agent, Object: in.Object, Actor: in.Actor,
		Since: in.Since, Until: in.Until, AuditOnly: in.Scope == "audit", From: in.From,
	}
	for _, kind := range in.Kinds {
		query.Kinds = append(query.Kinds, fleet.Kind(kind))
	}
	reader := history.Reader(s.Journal)
	if s.Database != nil {
		reader = s.Database
	}
	facts, next, err := reader.Facts(ctx, query)
	if err != nil {
		return nil, s.historyProblem("read the history", err)
	}
	out := &historyPage{Body: resource.Page[resource.Event]{Items: events(facts), NextCursor: next}}
	return out, nil
}

func events(facts []fleet.Fact) []resource.Event {
	list := make([]resource.Event, 0, len(facts))
	for _, fact := range facts {
		e := resource.Event{
			Index: fact.Index, Ordinal: fact.Ordinal, Time: fact.Time.UTC(), Kind: string(fact.Kind), Actor: fact.Actor,
			Object: fact.Object, AgentID: fact.Agent, Detail: shownJSON(fact.Detail), Audit: fact.Audit, Before: shownJSON(fact.Before), After: shownJSON(fact.After),
		}
		if !fact.Hash.IsZero() {
			e.Hash = fact.Hash.String()
		}
		if !fact.Prev.IsZero() {
			e.Prev = fact.Prev.String()
		}
		list = append(list, e)
	}
	return list
}

// shownJSON is a part of a fact as it is sent. One that somebody has damaged where it is
// stored is sent as its text: whoever verifies the audit trail has to see it.
func shownJSON(text json.RawMessage) json.RawMessage {
	if len(text) == 0 || json.Valid(text) {
		return text
	}
	quoted, err := json.Marshal(string(text))
	if err != nil {
		return nil // a string can always be written
	}
	return quoted
}

// historyPause is what clients are told to wait for a database that is away.
const historyPause = 10 * time.Second

// historyProblem is what clients are told of an error of the database.
func (s *server) historyProblem(what string, err error) error {
	if !errors.Is(err, postgres.ErrAway) {
		return s.fail(what, err)
	}
	p := &Problem{*problem.Later(wire.CodeUnavailable, err.Error(), historyPause)}
	p.Mend = "send the request again after the pause; \"certctl history status\" says how the database stands, and \"certctl audit list\" shows what the journal keeps"
	return p
}

func (s *server) showHistoryStatus(_ context.Context, _ *struct{}) (*historyStatusDocument, error) {
	journal, err := s.journalStatus()
	if err != nil {
		return nil, err
	}
	out := &historyStatusDocument{Body: resource.HistoryStatus{Source: resource.HistoryInJournal, Node: s.Node.ID(), Journal: journal}}
	if s.Database == nil {
		return out, nil
	}
	now, status := s.Now(), s.Database.Status()
	if !status.Leads {
		return nil, &Problem{*problem.Later(wire.CodeUnavailable, "this node does not lead any more", time.Second)}
	}
	out.Body.Source = resource.HistoryInDatabase
	out.Body.Database = &resource.HistoryDatabase{
		Usable: status.Attached && status.Err == nil, Refused: status.Refused, ErrorAt: status.ErrAt.UTC(), Warning: status.Warning,
		ServerVersion: status.ServerVersion, Connections: status.Connections, MaxConnections: status.MaxConns, Granted: status.Granted,
		Through: status.Through, Facts: status.Facts, Waiting: status.Waiting.Facts, WaitingMore: status.Waiting.More,
		LagSeconds: status.Lag(now).Seconds(), Missing: status.Missing.Count(), DroppedBefore: status.Floor, ExportedAt: status.ExportedAt.UTC(),
	}
	if status.Err != nil {
		out.Body.Database.Error = status.Err.Error()
	}
	return out, nil
}

func (s *server) pruneHistory(ctx context.Context, in *pruneHistory) (*prunedHistory, error) {
	switch {
	case s.Database == nil:
		return nil, newProblem(wire.CodeConflict, "", "there is no database to prune", "the journal drops what is older than journal.retention by itself")
	case in.Body.Before.IsZero():
		return nil, invalid("before", "no moment is given", "give a date and time such as 2025-01-01T00:00:00Z")
	case in.Body.Before.After(s.Now()):
		return nil, invalid("before", "the moment is in the future", "give one that has passed")
	}
	months, err := s.Database.Prune(ctx, in.Body.Before, true)
	if err == nil && !in.Body.DryRun && len(months) > 0 {
		if err := s.notePrune(ctx, in.Body.Before, months); err != nil {
			return nil, err
		}
		months, err = s.Database.Prune(ctx, in.Body.Before, false)
	}
	if err != nil {
		return nil, s.historyProblem("prune the history", err)
	}
	out := &prunedHistory{Body: resource.PrunedHistory{DryRun: in.Body.DryRun, Months: []resource.PrunedMonth{}}}
	for _, m := range months {
		out.Body.Months = append(out.Body.Months, resource.PrunedMonth{Month: monthName(m.Month), Facts: m.Facts, Bytes: m.Bytes})
		out.Body.Facts += m.Facts
		out.Body.Bytes += m.Bytes
	}
	return out, nil
}

// notePrune puts what is about to be dropped into the audit trail.
func (s *server) notePrune(ctx context.Context, before time.Time, months []postgres.PrunedMonth) error {
	note := fleet.NotePrune{
		Actor: actorOf(ctx), Before: before.UTC(), Months: uint32(len(months)), // of all years since 1678
		First: monthName(months[0].Month), Last: monthName(months[len(months)-1].Month),
	}
	for _, m := range months {
		note.Facts += uint64(m.Facts) // which were counted
	}
	_, err := s.do(ctx, note)
	return err
}

func monthName(at time.Time) string { return at.UTC().Format("2006-01") }
