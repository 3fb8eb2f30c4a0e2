package agentapi

import (
	"context"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
)

const (
	// keptBoots is how many boot ids of an agent are remembered.
	keptBoots = 4
	// sharedWithin is how close together two uses of an earlier boot id are when
	// two hosts are at work. One alone is the late duplicate of a request, or a
	// virtual machine that was set back.
	sharedWithin = time.Hour
)

// answered remembers the sync that was answered last.
func (s *session) answered(bootID string, sequence uint64) {
	if s.bootID != bootID && s.bootID != "" && !slices.Contains(s.earlier, s.bootID) {
		s.earlier = append(s.earlier, s.bootID)
		s.earlier = s.earlier[max(0, len(s.earlier)-keptBoots):]
	}
	s.bootID, s.sequence = bootID, sequence
}

// alternates reports whether a boot id that gave way to another one is used
// again, and was before within the time given: the series of one host follow
// each other, those of two hosts with one identity alternate.
func (s *session) alternates(bootID string, now time.Time, within time.Duration) bool {
	if bootID == s.bootID || !slices.Contains(s.earlier, bootID) {
		return false
	}
	again := !s.sighted.IsZero() && now.Sub(s.sighted) < within
	s.sighted = now
	return again
}

// watchBoots notes it when two hosts use the identity of the agent. It never
// keeps a sync from being answered: which of the two is the copy is not known
// here.
func (s *Service) watchBoots(ctx context.Context, visit *visit, agentID, bootID, remote string) {
	now := s.now()
	if !visit.alternates(bootID, now, max(sharedWithin, 4*s.Period())) {
		return
	}
	agent, ok := s.node.State().View().Agent(agentID)
	if !ok || agent.SharedNoted(now) {
		return
	}
	s.log.Warn("two hosts use the identity of one agent: enrol the copy anew with --replace",
		"agent_id", agentID, "hostname", agent.Host.Hostname, "remote", remote)
	if err := s.propose(ctx, fleet.NoteSharedIdentity{AgentID: agentID, Remote: remote}, nil); err != nil {
		s.log.Warn("that two hosts use one identity was not stored; it is tried again at the next sign of it", "agent_id", agentID, "err", err)
	}
}
