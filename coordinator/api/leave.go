package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/wire"
)

// Departing takes the node that answers out of its cluster.
type Departing interface {
	Departure(ctx context.Context) *cluster.Departure
	// Leave returns when the node is no member any more. The program ends after that.
	Leave(ctx context.Context, prevIndex uint64, actor string) error
}

type leaveCluster struct {
	Body resource.LeaveCluster
}

type departureDocument struct {
	Body resource.Departure
}

func (s *server) registerLeave(api huma.API) {
	huma.Register(api, fleetWide(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "leave-cluster", Method: http.MethodPost, Path: "/api/v1/cluster/leave", Tags: []string{"cluster"},
		Summary: "Take the node that gets the request out of the cluster",
		Description: "It hands over if it leads, is removed, and ends; it starts no more until it joins again. It is refused when those " +
			"that remain could store nothing, and without force also when they would bear no failure while the cluster bears one now, or none of them has a part of the history.",
	}), ofTheCluster), s.leaveCluster)
}

func (s *server) leaveCluster(ctx context.Context, in *leaveCluster) (*departureDocument, error) {
	ctx, cancel := context.WithTimeout(ctx, membershipPatience)
	defer cancel()
	d := s.Departing.Departure(ctx)
	out := &departureDocument{Body: resource.Departure{
		Node: s.Node.ID(), Voter: d.Voter, Leader: d.Leader, ConfigurationIndex: d.ConfigurationIndex, Quorum: d.Needed,
		Remaining: append([]string{}, d.Remaining...), Silent: append([]string{}, d.Silent...),
		ToleranceBefore: max(0, d.ToleranceBefore), ToleranceAfter: max(0, d.ToleranceAfter),
	}}
	var loss history.Loss
	if d.Member {
		loss = s.Cluster.HistoryLost(ctx, s.Node.ID())
	}
	why, mend, forcible := refusal(s.Node.ID(), d, loss)
	out.Body.Refusal, out.Body.Forcible = why, forcible
	switch {
	case in.Body.DryRun:
		return out, nil
	case why != "" && (!forcible || !in.Body.Force):
		return nil, newProblem(wire.CodeConflict, "force", why, mend)
	}
	prev := in.Body.PrevIndex
	if prev == 0 {
		prev = d.ConfigurationIndex
	}
	if err := s.Departing.Leave(ctx, prev, actorOf(ctx)); err != nil {
		return nil, s.membershipProblem("leave the cluster", "", err)
	}
	out.Body.Left = true
	return out, nil
}

// removeSelf is the removal of the node that answers. The others talk to it no more when
// it is out, so that it has to leave to know what came of it. The answer is the members
// without it, as they were a moment before.
func (s *server) removeSelf(ctx context.Context, in *removeMember) (*membersDocument, error) {
	d := s.Departing.Departure(ctx)
	// What may be forced is for leave-cluster to ask about, but for the history, which
	// has been.
	if why, mend, forcible := refusal(in.ID, d, history.Loss{}); why != "" && !forcible {
		return nil, newProblem(wire.CodeConflict, "id", why, mend)
	}
	left := s.Cluster.Members(ctx)
	prev := in.PrevIndex
	if prev == 0 {
		prev = d.ConfigurationIndex
	}
	if err := s.Departing.Leave(ctx, prev, actorOf(ctx)); err != nil {
		return nil, s.membershipProblem("remove a member", "id", err)
	}
	left.Items = slices.DeleteFunc(left.Items, func(m resource.Member) bool { return m.ID == in.ID })
	if left.Leader == in.ID {
		left.Leader = ""
	}
	if _, index := s.Node.Members(); index > left.ConfigurationIndex {
		left.ConfigurationIndex = index
	}
	return &membersDocument{Body: left}, nil
}

// refusal is why a node should not leave, what to do about it, and whether it may all
// the same.
func refusal(node string, d *cluster.Departure, loss history.Loss) (why, mend string, forcible bool) {
	switch {
	case !d.Member:
		return fmt.Sprintf("node %s is no member of a cluster any more", node), "stop it", false
	case d.Voter && len(d.Remaining) == 0:
		return fmt.Sprintf("node %s is the only one with a vote: without it there is no cluster", node),
			"let another node join first; to end the whole coordinator, stop it", false
	case !d.Possible():
		return fmt.Sprintf("without node %s nothing could be stored: of the %d voters that remain %d must work, and %s do not answer",
			node, len(d.Remaining), d.Needed, strings.Join(d.Silent, ", ")), "bring them back first; \"certctl cluster health\" says how", false
	}
	var whys, mends []string
	if d.Endangers() {
		whys = append(whys, fmt.Sprintf("without node %s the cluster bears no failure any more: of the %d voters that remain all %d that work are needed, and now %d may fail",
			node, len(d.Remaining), d.Needed, d.ToleranceBefore))
		mends = append(mends, "let the node that takes its place join first, and bring back those that do not answer")
	}
	if loss.Entries > 0 {
		detail, mend := lossOf(node, loss)
		whys, mends = append(whys, detail), append(mends, mend)
	}
	if len(whys) == 0 {
		return "", "", false
	}
	return strings.Join(whys, "; and "), strings.Join(append(mends, "or force it"), "; "), true
}
