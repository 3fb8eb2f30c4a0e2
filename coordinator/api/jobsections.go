package api

import (
	"encoding/base64"
	"fmt"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/shared/wire"
)

// renewalSections are the renewals: those that a person has to do something about, then
// those that have failed, that are under way, and that have not begun.
func renewalSections(view *fleet.View, f *jobFilter, hosts *jobHosts) []section {
	certificates := func(filter fleet.CertificateFilter) func(fleet.Page) ([]*fleet.Certificate, string, error) {
		filter.Agent = f.agent
		return func(page fleet.Page) ([]*fleet.Certificate, string, error) { return view.Certificates(filter, page) }
	}
	sections := []section{sectionOf("renewal/attention", resource.JobRenewal, certificates(fleet.CertificateFilter{Attention: true}), func(row *fleet.Certificate) (resource.Job, bool) {
		return renewalJob(view, row, hosts), true
	})}
	for _, state := range []wire.State{wire.StateFailed, wire.StateRenewing, wire.StatePending} {
		sections = append(sections, sectionOf("renewal/"+string(state), resource.JobRenewal, certificates(fleet.CertificateFilter{State: state}), func(row *fleet.Certificate) (resource.Job, bool) {
			if row.Columns.Attention {
				return resource.Job{}, false // listed before
			}
			return renewalJob(view, row, hosts), true
		}))
	}
	return sections
}

func renewalJob(view *fleet.View, row *fleet.Certificate, hosts *jobHosts) resource.Job {
	c, host := health.Known(view, row), hosts.of(row.Agent)
	job := resource.Job{
		ID: row.Name, Object: row.Name, AgentID: row.Agent, Hostname: host.name, Issuer: c.Issuer, Next: c.NextAttempt.UTC(), Mend: c.NeedsAttention,
	}
	if !c.RenewAt.IsZero() && hosts.Reached(c.RenewAt) {
		job.Since = c.RenewAt.UTC()
	}
	failures := ""
	if c.Attempt > 0 {
		failures = fmt.Sprintf("%d attempts have failed", c.Attempt)
		if c.Attempt == 1 {
			failures = "one attempt has failed"
		}
	}
	failed := c.LastError
	if failed == c.NeedsAttention {
		failed = "" // the mend says it
	}
	job.Detail = join(failures, failed, host.cutOff)
	switch {
	case row.Columns.Attention:
		job.State = resource.JobNeedsPerson
	case c.State == wire.StateFailed || c.Attempt > 0:
		job.State = resource.JobRetrying
	case c.State == wire.StateRenewing:
		job.State = resource.JobRunning
	default:
		job.State = resource.JobWaiting
	}
	return job
}

// revocationSection is the certificates that authorities behind the coordinator are to
// revoke.
func revocationSection(view *fleet.View, f *jobFilter, hosts *jobHosts) section {
	return sectionOf("revocation/order", resource.JobRevocation, func(page fleet.Page) ([]*fleet.Order, string, error) {
		return view.OrderRevocations(f.agent, !f.ended, page)
	}, func(o *fleet.Order) (resource.Job, bool) { return revocationJob(o, hosts), true })
}

func revocationJob(o *fleet.Order, hosts *jobHosts) resource.Job {
	r := o.Revocation
	job := resource.Job{
		ID: o.ID, Object: o.Certificate, AgentID: o.Agent, Hostname: hosts.of(o.Agent).name, Issuer: o.Issuer, Since: r.At.UTC(), Detail: "serial number " + o.Serial,
	}
	switch {
	case !r.DoneAt.IsZero():
		job.State, job.Since = resource.JobDone, r.DoneAt.UTC()
	case !o.NotAfter.IsZero() && hosts.Reached(o.NotAfter):
		job.State, job.Since = resource.JobCancelled, o.NotAfter.UTC()
		job.Detail = join(job.Detail, "it has expired before it was revoked", r.Failure)
	case r.Failure != "":
		job.State = resource.JobRetrying
		job.Detail = join(job.Detail, "NOT REVOKED", r.Failure)
		job.Mend = "mend the cause: the authority is asked again by itself; or revoke it in the authority's console"
	case !r.TakenAt.IsZero():
		job.State = resource.JobWaiting
		job.Detail = join(job.Detail, "the authority has taken the request, and decides later")
		job.Since = r.TakenAt.UTC()
	default:
		job.State = resource.JobRunning
	}
	return job
}

// commandSections are what somebody asked single hosts for: revocations, then renewals.
func commandSections(view *fleet.View, f *jobFilter, hosts *jobHosts) []section {
	var sections []section
	for _, part := range []struct {
		name string
		kind resource.JobKind
		of   wire.CommandKind
	}{{"revocation", resource.JobRevocation, wire.CommandRevoke}, {"command", resource.JobCommand, wire.CommandRenew}} {
		filter := fleet.CommandFilter{Agent: f.agent, Kind: part.of, Open: !f.ended}
		sections = append(sections, sectionOf(part.name, part.kind, func(page fleet.Page) ([]*fleet.AgentCommand, string, error) {
			return view.CommandsOfAgents(filter, page)
		}, func(command *fleet.AgentCommand) (resource.Job, bool) { return commandJob(view, command, hosts), true }))
	}
	return sections
}

func commandJob(view *fleet.View, c *fleet.AgentCommand, hosts *jobHosts) resource.Job {
	host := hosts.of(c.Agent)
	job := resource.Job{ID: c.ID, Object: c.Certificate, AgentID: c.Agent, Hostname: host.name, Since: c.CreatedAt.UTC(), Detail: c.Detail}
	if row, ok := view.Certificate(c.Agent, c.Certificate); ok {
		job.Issuer = row.Columns.Issuer
	}
	if c.State.Final() {
		job.Since = c.DoneAt.UTC()
	} else {
		job.Detail = join(c.Detail, host.cutOff)
	}
	switch c.State {
	case fleet.CommandOpen:
		job.State = resource.JobWaiting
		job.Detail = join("its host has not taken it yet", job.Detail)
	case fleet.CommandAccepted:
		job.State = resource.JobRunning
	case fleet.CommandDone:
		job.State = resource.JobDone
	case fleet.CommandCancelled:
		job.State = resource.JobCancelled
	case fleet.CommandFailed, fleet.CommandRefused:
		job.State = resource.JobFailed
		if c.Kind == wire.CommandRevoke {
			job.Mend = "the certificate is not revoked: mend the cause and ask again (\"certctl revoke\"), or revoke it at its issuer"
		}
	default:
		job.State = resource.JobWaiting // a word of a later version
		job.Detail = join(string(c.State), job.Detail)
	}
	return job
}

// massSection is the mass renewals by id. There are never many.
func (p *picture) massSection(f *jobFilter) section {
	list := func(page fleet.Page) (found []*fleet.Campaign, next string, err error) {
		after, err := base64.RawURLEncoding.Strict().DecodeString(page.Cursor)
		if err != nil {
			return nil, "", fleet.ErrCursor
		}
		for _, campaign := range p.view.Campaigns() {
			// Without the ended ones nobody has to count what has come of those.
			if campaign.ID <= string(after) || !f.ended && !p.running(campaign) {
				continue
			}
			if len(found) == page.Limit {
				return found, base64.RawURLEncoding.EncodeToString([]byte(found[len(found)-1].ID)), nil
			}
			found = append(found, campaign)
		}
		return found, "", nil
	}
	return sectionOf("mass_renewal", resource.JobMassRenewal, list, func(c *fleet.Campaign) (resource.Job, bool) {
		return p.massJob(p.renewals(c, 0)), true
	})
}

func (p *picture) massJob(r resource.Renewals) resource.Job {
	job := resource.Job{ID: r.ID, Object: r.Selector, Issuer: r.Issuer, Since: r.CreatedAt}
	failed := ""
	if r.Failed > 0 {
		failed = fmt.Sprintf("%d failed", r.Failed)
		job.Mend = fmt.Sprintf("\"certctl renewals show %s\" says which; their ordinary renewal goes on", r.ID)
	}
	job.Detail = join(fmt.Sprintf("%d of %d replaced, %d remaining", r.Replaced, r.Targets, r.Remaining), failed, r.Reason)
	switch {
	case !r.CancelledAt.IsZero():
		job.State, job.Since, job.Mend = resource.JobCancelled, r.CancelledAt, ""
	case r.Remaining+r.Failed == 0:
		job.State, job.Since = resource.JobDone, time.Time{}
	case r.State != "running" || r.Remaining == 0:
		job.State, job.Since = resource.JobFailed, time.Time{}
	case r.Overdue == 0:
		job.State = resource.JobWaiting
	default:
		job.State = resource.JobRunning
	}
	if !job.State.Ended() && !p.Reached(r.EndsAt) {
		job.Next = r.EndsAt
	}
	return job
}
