package agentapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/wire"
)

// syncPiece is the size, in octets, of the commands that a large sync is cut
// into.
const syncPiece = fleet.TargetEntry / 2

// sync answers wire.SyncPath.
func (s *Service) sync(r *http.Request) (any, error) {
	if err := s.leading(); err != nil {
		return nil, err
	}
	who, err := s.authenticate(r)
	if err != nil {
		return nil, err
	}
	if who.expired {
		return nil, problem.New(wire.CodeIdentityExpired, "", "the agent's identity has expired",
			"renew it at "+wire.IdentityPath+", which an expired identity may do")
	}
	if who.lost {
		return nil, lostIdentity()
	}
	s.presence.touch(who.id, s.now())
	visit, err := s.sessions.arrive(who.id)
	if err != nil {
		return nil, err
	}
	defer visit.leave()
	var request wire.SyncRequest
	if p := wire.Decode(r.Body, wire.MaxSyncBody, &request); p != nil {
		return nil, p
	}
	if p := request.Validate(); p != nil {
		return nil, p
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestPatience)
	defer cancel()
	if err := s.begin(ctx, visit, &who); err != nil {
		return nil, err
	}
	if who.lost {
		return nil, lostIdentity()
	}
	s.watchBoots(ctx, visit, who.id, request.BootID, r.RemoteAddr)
	if request.BootID == visit.bootID && request.Sequence < visit.sequence {
		return nil, problem.New(wire.CodeStale, "sequence", "a later sync of this agent was answered already", "send the current state")
	}
	if err := s.promote(ctx, who); err != nil {
		return nil, err
	}
	response, changed, err := s.apply(ctx, who.id, &request)
	if err != nil {
		return nil, err
	}
	if response.Trust, err = s.syncTrust(ctx, who.id, request.Trust); err != nil {
		return nil, err
	}
	visit.answered(request.BootID, request.Sequence)
	s.counters.answer(changed)
	return response, nil
}

// apply stores what is new in a valid request, and answers it. changed says that
// there was anything.
func (s *Service) apply(ctx context.Context, agentID string, request *wire.SyncRequest) (answer *wire.SyncResponse, changed bool, err error) {
	view := s.node.State().View()
	change, err := s.syncChange(view, agentID, request)
	if err != nil {
		return nil, false, err
	}
	if refusal := view.CheckSync(change); !refusal.OK() {
		return nil, false, refusal.Err()
	}
	outcome, settled := view.Settled(change)
	if !settled {
		if outcome, err = s.store(ctx, change); err != nil {
			return nil, false, err
		}
		s.awaitOrders(ctx, view, agentID, outcome.Orders)
	}
	after := s.node.State().View()
	s.wake(after, agentID, outcome.Orders)
	now := s.now()
	results, pending := orderResults(after, agentID, outcome.Orders, now)
	wait := pause(agentID, now, s.Period())
	if pending > 0 {
		wait = min(wait, pending)
	}
	return &wire.SyncResponse{
		ServerTime: now.UTC(), Revision: outcome.Revision, Event: outcome.Event, ResyncID: outcome.ResyncID,
		PauseMillis: wait.Milliseconds(), Orders: results,
		Servers: s.servers(after, request.ServersDigest),
		Desired: s.wanted(after, agentID, request.DesiredDigest), Commands: s.commands(after, agentID),
	}, !settled, nil
}

// syncChange is a request in the form in which it is stored.
func (s *Service) syncChange(view *fleet.View, agentID string, request *wire.SyncRequest) (*fleet.SyncAgent, error) {
	change := &fleet.SyncAgent{
		AgentID: agentID, BootID: request.BootID, Sequence: request.Sequence,
		BaseRevision: request.BaseRevision, Revision: request.Revision, HeadRevision: request.HeadRevision,
		Digest: request.Digest, ResyncID: request.ResyncID, Events: request.Events, Collected: open(view, agentID, request.Collected),
	}
	agent, ok := view.Agent(agentID)
	if !ok || !sameHost(agent.Host, request.Host) {
		change.Host = &request.Host
	}
	if ok {
		assignmentChange(view, agent, request, change)
		change.Commands = commandReports(view, agentID, request.Commands)
	}
	rows, removed := request.Rows, request.Removed
	if ok && repeats(agent, request) {
		change.BaseRevision, rows, removed = request.Revision, nil, nil
	}
	for i, sent := range rows {
		row, err := fleet.NewRow(sent)
		if err != nil {
			return nil, problem.New(wire.CodeInvalid, fmt.Sprintf("rows[%d].data", i), err.Error(), "")
		}
		change.Rows = append(change.Rows, row)
	}
	for _, gone := range removed {
		change.Removed = append(change.Removed, fleet.Removal{Name: gone.Name, Revision: gone.Revision})
	}
	for i := range request.Orders {
		change.Orders = append(change.Orders, s.placement(view, agentID, &request.Orders[i]))
	}
	return change, nil
}

// repeats reports whether the rows of a request are stored already, so that the
// repetition after a lost answer need not enter the log: both sides agree on
// where the inventory stands and on its digest.
func repeats(agent *fleet.Agent, request *wire.SyncRequest) bool {
	stored := &agent.Sync
	return request.ResyncID == "" && stored.ResyncID == "" && request.BootID == stored.BootID &&
		request.Revision == request.HeadRevision && request.Revision == stored.Revision && request.Digest == stored.Digest
}

// sameHost compares moments, not their forms.
func sameHost(a, b wire.HostReport) bool {
	sameSafe := a.SafeUntil == nil && b.SafeUntil == nil ||
		a.SafeUntil != nil && b.SafeUntil != nil && a.SafeUntil.Equal(*b.SafeUntil)
	if !sameSafe || !a.StartedAt.Equal(b.StartedAt) || !slices.Equal(a.Warnings, b.Warnings) {
		return false
	}
	a.SafeUntil, b.SafeUntil, a.StartedAt, b.StartedAt = nil, nil, time.Time{}, time.Time{}
	a.Warnings, b.Warnings = nil, nil
	return reflect.DeepEqual(a, b)
}

// store proposes a sync, in pieces if it is large. What was stored of it before
// a failure is acknowledged when the agent repeats the request.
func (s *Service) store(ctx context.Context, change *fleet.SyncAgent) (fleet.SyncOutcome, error) {
	var last fleet.SyncOutcome
	var orders []fleet.OrderOutcome
	at := s.now()
	for _, piece := range fleet.SplitSync(*change, syncPiece) {
		var outcome fleet.SyncOutcome
		err := s.propose(ctx, piece, &outcome)
		if _, early := errors.AsType[*cluster.LevelError](err); early {
			// A member of the cluster is still to be upgraded. What is said beyond what
			// it understands only serves reports.
			err = s.propose(ctx, piece.OfBefore(), &outcome)
		}
		if err != nil {
			return fleet.SyncOutcome{}, err
		}
		orders = append(orders, outcome.Orders...)
		last = outcome
	}
	s.presence.stored(change.AgentID, at)
	last.Orders = orders
	return last, nil
}
