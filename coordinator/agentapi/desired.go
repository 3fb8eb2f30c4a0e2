package agentapi

import (
	"github.com/certctl/certctl/coordinator/desired"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// wanted is what the centre wants of an agent, nil if the agent goes by it
// already. An agent that has never heard of assignments and has none needs not
// be told so.
func (s *Service) wanted(view *fleet.View, agentID, told string) *wire.Desired {
	agent, ok := view.Agent(agentID)
	if !ok {
		return nil
	}
	if told == "" {
		told = desired.EmptyDigest
	}
	if s.planner.Digest(view, agent) == told {
		return nil
	}
	return s.planner.Desired(view, agent)
}

// assignmentChange is what a request says about assignments that the state does
// not know.
func assignmentChange(view *fleet.View, agent *fleet.Agent, request *wire.SyncRequest, change *fleet.SyncAgent) {
	if request.DesiredDigest != agent.DesiredDigest {
		change.DesiredDigest = request.DesiredDigest
	}
	if len(request.Assignments) == 0 && (request.DesiredDigest != desired.EmptyDigest || change.DesiredDigest == "") {
		return // nothing is said of them
	}
	said := make(map[string]bool, len(request.Assignments))
	for _, report := range request.Assignments {
		said[report.Name] = true
		if stored, ok := view.AssignmentReport(agent.ID, report.Name); !ok || !stored.Says(report) {
			change.Reports = append(change.Reports, report)
		}
	}
	for _, stored := range view.AssignmentReportsOf(agent.ID) {
		if !said[stored.Name] {
			change.ReportsGone = append(change.ReportsGone, stored.Name)
		}
	}
}
