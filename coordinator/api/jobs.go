package api

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
)

type listJobs struct {
	Kinds  []string `query:"kind" enum:"order,renewal,revocation,command,mass_renewal" doc:"One or more kinds, separated by commas." example:"order,renewal"`
	States []string `query:"state" enum:"waiting,running,retrying,needs_person,done,failed,cancelled" doc:"One or more states, separated by commas. Absent: all that have not ended." example:"needs_person"`
	Agent  string   `query:"agent" maxLength:"128" doc:"Id of the agent. Mass renewals are of no agent."`
	Ended  bool     `query:"ended" doc:"Those that have ended too, as long as something of them is kept: orders, commands and mass renewals."`
	Paging
}

type jobList struct {
	Body resource.Page[resource.Job]
}

func (s *server) registerJobs(api huma.API) {
	read(s, api, narrows(showsContact(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-jobs", Method: http.MethodGet, Path: "/api/v1/jobs", Tags: []string{"jobs"},
		Summary: "List what is under way",
		Description: "Orders, renewals, revocations, commands to hosts and mass renewals, in one vocabulary. A job is no record of its own: it is how one of these stands " +
			"at the moment, and is changed by changing that. They come kind by kind in this order; among orders and renewals those that need a person come first. A job that " +
			"stays as it is while pages are read is on exactly one of them; one that moves from state to state meanwhile may be on two, or on none.",
	}), fleet.TableOrders, fleet.TableAgents, fleet.TableCertificates, fleet.TableRevocations, fleet.TableAgentCommands, fleet.TableCampaigns)), s.listJobs)
}

// A section is a part of the list of jobs with an order of its own, that of one index.
type section struct {
	name string // in cursors: never changed
	kind resource.JobKind
	// list returns a part of the section; looked is how many records that were.
	list func(page fleet.Page) (jobs []resource.Job, looked int, next string, err error)
}

// sectionOf makes a section of a list of records. Those that job refuses are none of its.
func sectionOf[T any](name string, kind resource.JobKind, list func(fleet.Page) ([]T, string, error), job func(T) (resource.Job, bool)) section {
	return section{name: name, kind: kind, list: func(page fleet.Page) ([]resource.Job, int, string, error) {
		records, next, err := list(page)
		if err != nil {
			return nil, 0, "", err
		}
		jobs := make([]resource.Job, 0, len(records))
		for _, record := range records {
			if one, ok := job(record); ok {
				one.Kind = kind
				jobs = append(jobs, one)
			}
		}
		return jobs, len(records), next, nil
	}}
}

// jobCursor is the place in a section after which a page goes on.
func jobCursor(section, place string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(section + "\x00" + place))
}

func parseJobCursor(cursor string) (section, place string, ok bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(raw), "\x00")
}

func (s *server) listJobs(_ context.Context, p *picture, in *listJobs) (*jobList, error) {
	if in.Agent != "" {
		if _, ok := p.view.Agent(in.Agent); !ok {
			return nil, noAgent(in.Agent)
		}
	}
	wanted := jobFilter{agent: in.Agent, ended: in.Ended}
	for _, state := range in.States {
		wanted.states = append(wanted.states, resource.JobState(state))
		wanted.ended = wanted.ended || resource.JobState(state).Ended()
	}
	sections := p.jobSections(&wanted)
	if len(in.Kinds) > 0 {
		sections = slices.DeleteFunc(sections, func(part section) bool { return !slices.Contains(in.Kinds, string(part.kind)) })
	}
	place := ""
	if in.Cursor != "" {
		name, after, ok := parseJobCursor(in.Cursor)
		at := slices.IndexFunc(sections, func(part section) bool { return part.name == name })
		if !ok || at < 0 {
			return nil, badCursor()
		}
		sections, place = sections[at:], after
	}
	out := &jobList{Body: resource.Page[resource.Job]{Items: []resource.Job{}}}
	jobs, next, err := gatherJobs(sections, place, in.Limit, wanted.takes)
	if err != nil {
		return nil, s.fail("list", err)
	}
	out.Body.Items, out.Body.NextCursor = append(out.Body.Items, jobs...), next
	return out, nil
}

// gatherJobs fills a page from the sections, from a place in the first of them on. The
// page may be short when few are taken. A full one has no next one if the sections that
// are left are seen to have nothing.
func gatherJobs(sections []section, place string, limit int, takes func(*resource.Job) bool) (found []resource.Job, next string, err error) {
	for looked := 0; len(sections) > 0; {
		full := len(found) >= limit
		if full && place != "" || looked >= maxLooked {
			return found, jobCursor(sections[0].name, place), nil
		}
		want := max(limit-len(found), 1)
		jobs, records, after, err := sections[0].list(fleet.Page{Cursor: place, Limit: want})
		if err != nil {
			return nil, "", err
		}
		jobs = slices.DeleteFunc(jobs, func(job resource.Job) bool { return !takes(&job) })
		if full && (len(jobs) > 0 || after != "") {
			return found, jobCursor(sections[0].name, ""), nil
		}
		found = append(found, jobs...)
		looked += records
		if records < want && after != "" {
			looked = maxLooked // the state has looked at enough
		}
		if place = after; place == "" {
			sections = sections[1:]
		}
	}
	return found, "", nil
}

// jobFilter is which jobs are wanted.
type jobFilter struct {
	agent  string
	states []resource.JobState
	ended  bool // those that have ended are looked at
}

func (f *jobFilter) takes(j *resource.Job) bool {
	if len(f.states) > 0 {
		return slices.Contains(f.states, j.State)
	}
	return f.ended || !j.State.Ended()
}

// jobSections are the parts of the list in their order.
func (p *picture) jobSections(f *jobFilter) []section {
	hosts := &jobHosts{picture: p, known: map[string]jobHost{}}
	sections := orderSections(p.view, f, hosts)
	sections = append(sections, renewalSections(p.view, f, hosts)...)
	sections = append(sections, revocationSection(p.view, f, hosts))
	sections = append(sections, commandSections(p.view, f, hosts)...)
	if f.agent == "" {
		sections = append(sections, p.massSection(f))
	}
	return sections
}

// jobHosts are the hosts that jobs are of.
type jobHosts struct {
	*picture
	known map[string]jobHost
}

type jobHost struct {
	name   string
	cutOff string // since when its agent is, in words; "" if it is not
}

func (h *jobHosts) of(id string) jobHost {
	if host, ok := h.known[id]; ok {
		return host
	}
	var host jobHost
	if agent, ok := h.view.Agent(id); ok {
		host.name = agent.Host.Hostname
		if touch := h.contact(agent); agent.State == fleet.AgentActive && touch.cutOff {
			host.cutOff = fmt.Sprintf("its agent is cut off since %s", touch.seen.UTC().Format(time.RFC3339))
		}
	}
	h.known[id] = host
	return host
}

// join joins what there is to say.
func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), "; ")
}
