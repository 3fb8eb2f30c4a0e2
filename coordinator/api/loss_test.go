package api

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/wire"
)

// A removal that would lose a part of the history says what, and how to keep it or
// to lose it.
func TestRemovalsThatLoseHistoryAreRefused(t *testing.T) {
	assert.Nil(t, losesHistory("c1", history.Loss{Answers: true, Silent: []string{"c2"}}))
	p := losesHistory("c1", history.Loss{Answers: true, Entries: 7})
	require.NotNil(t, p)
	assert.Equal(t, http.StatusConflict, p.Status)
	assert.Equal(t, wire.CodeConflict, p.Code)
	assert.Contains(t, p.Detail, "the facts of 7 log entries that c1 has")
	assert.Contains(t, p.Mend, "cluster health")
	assert.Contains(t, p.Mend, "certctl cluster remove c1 --force")
	p = losesHistory("c1", history.Loss{Entries: 7, Silent: []string{"c2", "c3"}})
	require.NotNil(t, p)
	assert.Contains(t, p.Detail, "c1, which does not answer, may")
	assert.Contains(t, p.Detail, "do not answer: c2, c3")
	assert.Contains(t, p.Mend, "start c1")
}

// lossy is a cluster that lacks what a member has of the history.
type lossy struct {
	Cluster
	members resource.Members
}

func (l lossy) Members(context.Context) resource.Members { return l.members }

func (lossy) HistoryLost(context.Context, string) history.Loss {
	return history.Loss{Answers: true, Entries: 7}
}

// removals counts the removals that it refuses.
type removals struct {
	Node
	asked int
	index uint64
}

func (r *removals) Members() ([]cluster.Member, uint64) { return nil, r.index }

func (r *removals) RemoveMember(context.Context, string, uint64, string) error {
	r.asked++
	return &cluster.RefusedError{Reason: "not now"}
}

// The members are asked before a removal, unless it is forced.
func TestARemovalIsMadeOnceTheHistoryIsSafe(t *testing.T) {
	node := &removals{}
	s := &server{Config: Config{Node: node, Cluster: lossy{}, Log: slog.New(slog.DiscardHandler)}}
	ctx := context.WithValue(t.Context(), bearerKey{}, &fleet.APIToken{ID: "admin"})
	_, err := s.removeMember(ctx, &removeMember{ID: "c1"})
	require.ErrorContains(t, err, "would be lost")
	assert.Zero(t, node.asked, "nothing is changed")
	_, err = s.removeMember(ctx, &removeMember{ID: "c1", Force: true})
	require.ErrorContains(t, err, "not now")
	assert.Equal(t, 1, node.asked)
}

type leaving struct {
	Departing
	left int
	prev uint64
}

func (*leaving) Departure(context.Context) *cluster.Departure {
	return &cluster.Departure{Member: true, Voter: true, Remaining: []string{"b", "c", "d"}, Needed: 2, ToleranceBefore: 1, ToleranceAfter: 1}
}

func (l *leaving) Leave(_ context.Context, prev uint64, _ string) error {
	l.left, l.prev = l.left+1, prev
	return nil
}

func (*removals) ID() string { return "a" }

// A node that leaves takes no part of the history with it, unless that is forced; the
// dry run says so too.
func TestALeaveThatLosesHistoryIsRefused(t *testing.T) {
	l := &leaving{}
	s := &server{Config: Config{Node: &removals{}, Departing: l, Cluster: lossy{}, Log: slog.New(slog.DiscardHandler)}}
	ctx := context.WithValue(t.Context(), bearerKey{}, &fleet.APIToken{ID: "admin"})
	in := &leaveCluster{}
	in.Body.DryRun = true
	out, err := s.leaveCluster(ctx, in)
	require.NoError(t, err)
	assert.Contains(t, out.Body.Refusal, "the facts of 7 log entries that a has")
	assert.True(t, out.Body.Forcible)
	in.Body.DryRun = false
	_, err = s.leaveCluster(ctx, in)
	require.ErrorContains(t, err, "would be lost")
	assert.Zero(t, l.left)
	in.Body.Force = true
	out, err = s.leaveCluster(ctx, in)
	require.NoError(t, err)
	assert.True(t, out.Body.Left)

	// So does one that is asked to remove itself: it knows what came of it by leaving.
	_, err = s.removeMember(ctx, &removeMember{ID: "a"})
	require.ErrorContains(t, err, "would be lost")
	assert.Equal(t, 1, l.left)
	s.Node, s.Cluster = &removals{index: 9}, lossy{members: resource.Members{Leader: "a", ConfigurationIndex: 8, Items: []resource.Member{{ID: "a"}, {ID: "b"}, {ID: "c"}}}}
	members, err := s.removeMember(ctx, &removeMember{ID: "a", PrevIndex: 8, Force: true})
	require.NoError(t, err)
	assert.Equal(t, 2, l.left)
	assert.Equal(t, uint64(8), l.prev)
	assert.Equal(t, resource.Members{ConfigurationIndex: 9, Items: []resource.Member{{ID: "b"}, {ID: "c"}}}, members.Body)
	assert.Zero(t, s.Node.(*removals).asked)

	// It is said beside what else stands against it.
	why, mend, forcible := refusal("a", &cluster.Departure{Member: true, Voter: true, Remaining: []string{"b", "c"}, Needed: 2, ToleranceBefore: 1}, history.Loss{Answers: true, Entries: 7})
	assert.Contains(t, why, "bears no failure any more")
	assert.Contains(t, why, "would be lost")
	assert.Contains(t, mend, "; or force it")
	assert.True(t, forcible)
}

// headless removes members, and then there is nobody to store anything.
type headless struct {
	Node
	state   *fleet.State
	removal error
}

func (h *headless) RemoveMember(context.Context, string, uint64, string) error { return h.removal }
func (h *headless) State() *fleet.State                                        { return h.state }
func (*headless) ID() string                                                   { return "a" }
func (*headless) Leader() (id, address string)                                 { return "", "" }
func (*headless) Propose(context.Context, ...fleet.Command) ([]fleet.Result, error) {
	return nil, cluster.ErrNotLeader
}

// A removal of which the half is done is not answered as if nothing was changed, after
// which a client asks another node, with a configuration that is the old one by now.
func TestARemovalOfWhichHalfIsDone(t *testing.T) {
	state, err := fleet.New()
	require.NoError(t, err)
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	command, err := fleet.NewCommand(now, fleet.AnnounceNode{Node: fleet.ClusterNode{
		ID: "c1", Address: "c1:8444", URL: "https://c1:8443", Level: 2, KeyFingerprint: strings.Repeat("0", 64),
	}})
	require.NoError(t, err)
	entry, err := fleet.EncodeEntry([]fleet.Command{command})
	require.NoError(t, err)
	results, _, err := state.Apply(1, entry)
	require.NoError(t, err)
	require.NoError(t, results[0].Err())
	ctx := context.WithValue(t.Context(), bearerKey{}, &fleet.APIToken{ID: "admin"})
	for _, c := range []struct {
		removal error
		code    wire.Code
	}{{nil, wire.CodeUnavailable}, {cluster.ErrNoMember, wire.CodeNoLeader}} {
		s := &server{Config: Config{Node: &headless{state: state, removal: c.removal}, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }}}
		_, err := s.removeMember(ctx, &removeMember{ID: "c1", Force: true})
		var p *Problem
		require.ErrorAs(t, err, &p)
		assert.Equal(t, c.code, p.Code, "%v", c.removal)
	}
}
