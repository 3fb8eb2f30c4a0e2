package api

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/desired"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/settings"
	"github.com/certctl/certctl/shared/wire"
)

// maxHosts bounds the hosts that one answer names.
const maxHosts = 500

type assignmentPath struct {
	Name string `path:"name" maxLength:"400" doc:"Name of the assignment."`
}

// maxJudged is after how many hosts of assignments a page with their states ends.
const maxJudged = 20_000

type listAssignments struct {
	Paging
	Hosts bool `query:"hosts" doc:"Say of each on how many hosts it is in which state. A page may then have fewer items than its limit."`
}

type assignmentList struct {
	Body resource.Page[resource.ListedAssignment]
}

type assignmentDetail struct {
	Body resource.AssignmentDetail
}

type putAssignment struct {
	AssignmentName string `path:"name" maxLength:"400" doc:"Name of the assignment, and of the certificate on each host."`
	DryRun         bool   `query:"dry_run" doc:"Say what would change, and change nothing."`
	Body           resource.PutAssignment
}

type deleteAssignment struct {
	AssignmentName string `path:"name" maxLength:"400" doc:"Name of the assignment."`
	DryRun         bool   `query:"dry_run" doc:"Say what would change, and change nothing."`
	Revision       uint64 `query:"revision" doc:"The revision that is meant. With another one stored the request is refused. Absent: whatever is stored."`
}

type assignmentResult struct {
	Body resource.AssignmentResult
}

func (s *server) registerAssignments(api huma.API) {
	const path = "/api/v1/assignments"
	tags := []string{"assignments"}
	read(s, api, narrows(shows(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-assignments", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "List assignments", Description: "By name.",
	}), fleet.TableAssignments, fleet.TableAgents, fleet.TableAssignmentReports)), s.listAssignments)
	read(s, api, narrows(shows(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "show-assignment", Method: http.MethodGet, Path: path + "/{name}", Tags: tags,
		Summary: "Show one assignment, and where it stands on its hosts",
	}), fleet.TableAssignments, fleet.TableAgents, fleet.TableAssignmentReports)), s.showAssignment)
	huma.Register(api, minds(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "put-assignment", Method: http.MethodPut, Path: path + "/{name}", Tags: tags,
		Summary: "Create or change an assignment",
		Description: "The hosts that the selector matches get the certificate at their next sync. The names are checked against each host's enrolment, " +
			"whoever issues them; a host that does not allow them does not get it. Asking for what is stored already changes nothing. " +
			"With dry_run the answer says what would change on which host.",
	}), "A token that has a scope may do so if the selector, and that of before, chooses hosts of its scope alone."), s.putAssignment)
	huma.Register(api, minds(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "delete-assignment", Method: http.MethodDelete, Path: path + "/{name}", Tags: tags,
		Summary:     "Delete an assignment",
		Description: "At their next sync the hosts stop managing the certificate. What was deployed stays where it is.",
	}), "A token that has a scope may do so if the selector chooses hosts of its scope alone."), s.deleteAssignment)
}

func (s *server) listAssignments(_ context.Context, p *picture, in *listAssignments) (*assignmentList, error) {
	view := p.view
	all := view.Assignments()
	total := len(all)
	if in.Cursor != "" {
		after, err := base64.RawURLEncoding.Strict().DecodeString(in.Cursor)
		if err != nil {
			return nil, badCursor()
		}
		all = slices.DeleteFunc(all, func(a *fleet.Assignment) bool { return a.Name <= string(after) })
	}
	out := &assignmentList{Body: resource.Page[resource.ListedAssignment]{Items: []resource.ListedAssignment{}, Total: &total}}
	for judged := 0; len(out.Body.Items) < min(in.Limit, len(all)) && judged < maxJudged; {
		stored := all[len(out.Body.Items)]
		item := resource.ListedAssignment{Assignment: assignment(stored)}
		if in.Hosts {
			item.Hosts = &resource.AssignmentCounts{}
			eachHost(view, stored, item.Hosts, func(resource.AssignmentHost) { judged++ })
		}
		out.Body.Items = append(out.Body.Items, item)
	}
	if n := len(out.Body.Items); n < len(all) {
		out.Body.NextCursor = base64.RawURLEncoding.EncodeToString([]byte(all[n-1].Name))
	}
	return out, nil
}

func assignment(a *fleet.Assignment) resource.Assignment {
	return resource.Assignment{
		Name: a.Name, Selector: a.Selector, Certificate: json.RawMessage(a.Template), Revision: a.Revision,
		CreatedAt: a.CreatedAt.UTC(), CreatedBy: a.CreatedBy, UpdatedAt: a.UpdatedAt.UTC(), UpdatedBy: a.UpdatedBy,
	}
}

func noAssignment(name string) *Problem {
	return notFound("there is no assignment named "+clip(name), "list the assignments to see their names")
}

func (s *server) showAssignment(_ context.Context, p *picture, in *assignmentPath) (*assignmentDetail, error) {
	view := p.view
	stored, ok := view.Assignment(in.Name)
	if !ok {
		return nil, noAssignment(in.Name)
	}
	out := &assignmentDetail{}
	out.Body.Assignment = assignment(stored)
	status := &out.Body.Hosts
	eachHost(view, stored, &status.AssignmentCounts, func(host resource.AssignmentHost) { status.Items = append(status.Items, host) })
	slices.SortStableFunc(status.Items, func(a, b resource.AssignmentHost) int {
		return cmp.Compare(stateRank(a.State), stateRank(b.State))
	})
	status.Omitted = max(0, len(status.Items)-maxHosts)
	status.Items = append([]resource.AssignmentHost{}, status.Items[:len(status.Items)-status.Omitted]...)
	return out, nil
}

// eachHost counts the hosts that an assignment matches, and visits where it
// stands on each.
func eachHost(view *fleet.View, stored *fleet.Assignment, counts *resource.AssignmentCounts, visit func(resource.AssignmentHost)) {
	definition := desired.Stored(stored)
	eachActive(view, func(agent *fleet.Agent) {
		if definition.Selector.Matches(agent.Labels) {
			counts.Matched++
			visit(standing(view, definition, agent, counts))
		}
	})
}

// stateRank puts what needs somebody first.
func stateRank(state string) int {
	return slices.Index([]string{"not_allowed", "refused", "shadowed", "waiting", "active"}, state)
}

// standing is where an assignment stands on a host that it matches.
func standing(view *fleet.View, definition *desired.Definition, agent *fleet.Agent, counts *resource.AssignmentCounts) resource.AssignmentHost {
	host := resource.AssignmentHost{AgentID: agent.ID, Hostname: agent.Host.Hostname, State: "waiting"}
	count := &counts.Waiting
	report, said := view.AssignmentReport(agent.ID, definition.Name)
	switch item := definition.Judge(agent); {
	case item.Refusal != "":
		host.State, host.Detail, count = "not_allowed", item.Refusal, &counts.NotAllowed
	case !said || report.Revision != definition.Revision:
	default:
		host.State, host.Detail, host.At = string(report.State), report.Detail, report.At.UTC()
		switch report.State {
		case wire.AssignmentActive:
			count = &counts.Active
		case wire.AssignmentShadowed:
			count = &counts.Shadowed
		default:
			count = &counts.Refused
		}
	}
	*count++
	return host
}

// eachActive visits all active agents by id.
func eachActive(view *fleet.View, visit func(*fleet.Agent)) {
	each(func(page fleet.Page) ([]*fleet.Agent, string, error) {
		return view.Agents(fleet.AgentFilter{State: fleet.AgentActive}, page)
	}, visit)
}

func (s *server) putAssignment(ctx context.Context, in *putAssignment) (*assignmentResult, error) {
	if !wire.ValidName(in.AssignmentName) {
		return nil, invalid("name", fmt.Sprintf("%q is not a name", clip(in.AssignmentName)), fmt.Sprintf("use 1 to %d characters without control characters", wire.MaxNameLen))
	}
	next, problem := compile(in.AssignmentName, &in.Body)
	if problem != nil {
		return nil, problem
	}
	command := fleet.PutAssignment{
		Actor: actorOf(ctx), Name: next.Name, Selector: next.Selector.String(), Template: next.Template.JSON(), Previous: in.Body.Revision,
	}
	view := s.viewOf(ctx)
	if problem := s.assignable(ctx, next, &command); problem != nil {
		return nil, problem
	}
	before := currently(view, next.Name)
	out := &assignmentResult{}
	out.Body.DryRun = in.DryRun
	result, err := s.doOrPreview(ctx, command, in.DryRun)
	if err != nil {
		return nil, err
	}
	var outcome fleet.PutOutcome
	if err := result.Decode(&outcome); err != nil {
		return nil, s.fail("store an assignment", err)
	}
	out.Body.Assignment, out.Body.Change = assignment(&outcome.Assignment), "unchanged"
	switch {
	case outcome.Created:
		out.Body.Change = "created"
	case outcome.Changed:
		out.Body.Change = "changed"
	}
	out.Body.Hosts = changes(view, before, next)
	return out, nil
}

// compile reads the texts of a request. What is wrong with the definition is
// said with its field.
func compile(name string, body *resource.PutAssignment) (*desired.Definition, *Problem) {
	next, err := desired.Compile(name, body.Selector, body.Certificate)
	if err == nil {
		return next, nil
	}
	if problems, ok := errors.AsType[*settings.Error](err); ok {
		field := strings.TrimSuffix("certificate."+problems.Problems[0].Path, ".")
		texts := make([]string, 0, len(problems.Problems))
		for _, p := range problems.Problems {
			texts = append(texts, strings.TrimPrefix(p.Path+": ", ": ")+p.Err.Error())
		}
		return nil, invalid(field, strings.Join(texts, "; "), "use the keys of an entry of the agent configuration's certificates, without the name")
	}
	return nil, invalid("selector", err.Error(), "see the documentation of selectors")
}

func currently(view *fleet.View, name string) *desired.Definition {
	if stored, ok := view.Assignment(name); ok {
		return desired.Stored(stored)
	}
	return nil
}

// doOrPreview stores a command, or says what it would come to.
func (s *server) doOrPreview(ctx context.Context, payload fleet.Payload, dry bool) (fleet.Result, error) {
	if !dry {
		return s.do(ctx, payload)
	}
	command, err := fleet.NewCommand(s.Now(), payload)
	if err != nil {
		return fleet.Result{}, s.fail("make a command", err)
	}
	result, err := s.Node.State().Preview(command)
	if err != nil {
		return fleet.Result{}, s.fail("preview a change", err)
	}
	return result, s.refusal(result.Err())
}

func (s *server) deleteAssignment(ctx context.Context, in *deleteAssignment) (*assignmentResult, error) {
	view := s.viewOf(ctx)
	stored, ok := view.Assignment(in.AssignmentName)
	if !ok {
		// This node may not have heard of it yet.
		if p := s.await(ctx, freshness{consistent: true}); p != nil {
			return nil, p
		}
		view = s.viewOf(ctx)
		if stored, ok = view.Assignment(in.AssignmentName); !ok {
			return nil, noAssignment(in.AssignmentName)
		}
	}
	command := fleet.DeleteAssignment{Actor: actorOf(ctx), Name: in.AssignmentName}
	if in.Revision != 0 {
		command.Previous = &in.Revision
	}
	if scope := scopeOf(ctx); !scope.IsZero() {
		if !scope.Covers(stored.Selector) {
			return nil, notAlone(scope, stored.Name)
		}
		if problem := s.lookedAt(ctx, stored.Revision, &command.Previous); problem != nil {
			return nil, problem
		}
	}
	if _, err := s.doOrPreview(ctx, command, in.DryRun); err != nil {
		return nil, err
	}
	out := &assignmentResult{}
	out.Body.Assignment, out.Body.Change, out.Body.DryRun = assignment(stored), "deleted", in.DryRun
	out.Body.Hosts = changes(view, desired.Stored(stored), nil)
	return out, nil
}

// changes are what hosts see of a change from one definition to another; nil is
// none.
func changes(view *fleet.View, before, after *desired.Definition) resource.AssignmentChanges {
	out := resource.AssignmentChanges{HostRules: "unknown", Items: []resource.AssignmentChange{}}
	eachActive(view, func(agent *fleet.Agent) {
		was, is := onHost(before, agent), onHost(after, agent)
		change := resource.AssignmentChange{AgentID: agent.ID, Hostname: agent.Host.Hostname}
		had, has := was != nil && was.Refusal == "", is != nil && is.Refusal == ""
		if report, ok := view.AssignmentReport(agent.ID, cmp.Or(before, after).Name); ok {
			change.Shadowed = report.State == wire.AssignmentShadowed
			if had && has && report.State == wire.AssignmentRefused && report.Revision == was.Revision {
				change.Refused = cmp.Or(report.Detail, "it did not say why")
				out.Refused++
			}
		}
		switch {
		case is != nil && is.Refusal != "":
			change.Change, change.Detail = "not_allowed", is.Refusal
			out.NotAllowed++
			if had {
				out.Removed++
			}
		case has && !had:
			change.Change = "added"
			out.Added++
		case had && !has:
			change.Change = "removed"
			out.Removed++
		case has && string(was.Certificate) != string(is.Certificate):
			change.Change = "changed"
			out.Changed++
		case has:
			change.Change = "unchanged"
			out.Unchanged++
			if change.Refused == "" {
				return
			}
		default:
			return
		}
		if has {
			change.Detail = strings.Join(is.Names.Strings(), ", ")
		}
		if len(out.Items) == maxHosts {
			out.Omitted++
			return
		}
		out.Items = append(out.Items, change)
	})
	return out
}

// onHost is what a definition is on a host, nil if it is none of it.
func onHost(definition *desired.Definition, agent *fleet.Agent) *desired.Item {
	if definition == nil || !definition.Selector.Matches(agent.Labels) {
		return nil
	}
	item := definition.Judge(agent)
	return &item
}
