package api

import (
	"fmt"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
)

// orderSections are the orders stage by stage: those that a person has to do something
// about, then those that are under way, then those that have ended.
func orderSections(view *fleet.View, f *jobFilter, hosts *jobHosts) []section {
	stages := []fleet.Stage{
		fleet.StageUnknown, fleet.StageNeedsPerson, fleet.StageRequested, fleet.StagePlacing, fleet.StagePending, fleet.StageIssued, fleet.StageCollected,
	}
	if f.ended {
		stages = append(stages, fleet.StageRejected, fleet.StageCancelled, fleet.StageDelivered)
	}
	sections := make([]section, 0, len(stages))
	for _, stage := range stages {
		filter := fleet.OrderFilter{Stage: stage, Agent: f.agent}
		sections = append(sections, sectionOf("order/"+string(stage), resource.JobOrder, func(page fleet.Page) ([]*fleet.Order, string, error) {
			return view.BrokeredOrders(filter, page)
		}, func(o *fleet.Order) (resource.Job, bool) { return orderJob(order(view, o), hosts), true }))
	}
	return sections
}

// orderJob is an order as a job.
func orderJob(o resource.Order, hosts *jobHosts) resource.Job {
	job := resource.Job{
		ID: o.ID, Object: o.Certificate, AgentID: o.AgentID, Hostname: o.Hostname, Issuer: o.Issuer,
		Since: latest(o.RequestedAt, o.SubmittedAt, o.NeedsPersonSince, o.UnknownSince, o.IssuedAt), Next: o.NextAt, Mend: o.Mend,
	}
	asked := ""
	if o.Cancel != nil && o.Open {
		asked = "to be taken back"
	}
	job.Detail = join(asked, o.Detail, o.LastError)
	switch o.Stage {
	case resource.OrderNeedsPerson:
		job.State, job.Since = resource.JobNeedsPerson, o.NeedsPersonSince
	case resource.OrderUnknown:
		job.Detail = join("nobody knows whether the authority has it", job.Detail)
		job.State = resource.JobRunning // it is searched for
		if job.Since = o.UnknownSince; o.Needs() {
			job.State = resource.JobNeedsPerson
			job.Mend = fmt.Sprintf("\"certctl orders show %s\" says what to look up at the authority, and what to type then", o.ID)
		}
	case resource.OrderRequested, resource.OrderPending, resource.OrderIssued:
		job.State = resource.JobWaiting
		if o.Failures > 0 {
			job.State = resource.JobRetrying
		}
	case resource.OrderPlacing:
		job.State = resource.JobRunning
	case resource.OrderCollected:
		job.State, job.Since = resource.JobWaiting, o.CollectedAt
		job.Detail = join("its host has to fetch the certificate", hosts.of(o.AgentID).cutOff)
		if o.AgentRetired {
			job.State, job.Detail = resource.JobCancelled, "its agent was retired before it came for the certificate"
		}
	case resource.OrderDelivered:
		job.State, job.Since = resource.JobDone, o.DeliveredAt
	case resource.OrderRejected, resource.OrderCancelled:
		job.State, job.Since = resource.JobFailed, o.EndedAt
		if o.Stage == resource.OrderCancelled {
			job.State = resource.JobCancelled
		}
		if o.Refusal != nil {
			job.Detail, job.Mend = o.Refusal.Detail, o.Refusal.Mend
		}
	default:
		job.State = resource.JobWaiting // a stage of a later version
		job.Detail = join(string(o.Stage), job.Detail)
	}
	return job
}

func latest(times ...time.Time) (last time.Time) {
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}
