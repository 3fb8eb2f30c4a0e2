package fleet_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// An authorityModel is an authority that keeps our references and searches well, and a
// leader and operators that say what they see there. Leaders die at any moment, and the
// state is set back to backups.
type authorityModel struct {
	*bench
	rt     *rapid.T
	ledger []*modelOrder
	placed map[string]bool // orders that their agent has made, by id
	saved  *savedState
	agents []string
}

type modelOrder struct {
	id, order, reference string
	done                 bool // issued, or taken back: it costs nothing more
}

type savedState struct {
	stream [][]byte
	at     time.Time
}

func newAuthorityModel(rt *rapid.T) *authorityModel {
	m := &authorityModel{bench: newBench(rt), rt: rt, placed: map[string]bool{}, agents: []string{"a1", "a2"}}
	for _, agent := range m.agents {
		m.enroll(agent)
	}
	return m
}

// accept has the authority take an order.
func (m *authorityModel) accept(agent, id string) {
	m.ledger = append(m.ledger, &modelOrder{id: fmt.Sprint(len(m.ledger) + 1), order: agent + "/" + id, reference: m.order(agent, id).Brokering.Reference})
}

// known is what the authority has of an order under the reference that is looked for.
func (m *authorityModel) known(order *fleet.Order) (found []*modelOrder) {
	for _, entry := range m.ledger {
		if order.Brokering.Reference == entry.reference {
			found = append(found, entry)
		}
	}
	return found
}

// has is what the authority has of it under any reference.
func (m *authorityModel) has(agent, id string) (found []*modelOrder) {
	for _, entry := range m.ledger {
		if entry.order == agent+"/"+id {
			found = append(found, entry)
		}
	}
	return found
}

// step is one thing that happens. It reports what it was.
func (m *authorityModel) step() string {
	rt := m.rt
	m.now = m.now.Add(time.Duration(rapid.IntRange(0, 90).Draw(rt, "minutes")) * time.Minute)
	agent, id := pick(rt, "of", m.agents...), pick(rt, "which", "s1", "s2")
	order, ok := m.view().Order(agent, id)
	retired := m.agent(agent).State == fleet.AgentRetired
	what := pick(rt, "what", "agent", "leader", "leader", "leader", "leader", "operator", "junk", "backup", "retire", "again")
	switch {
	case what == "backup":
		return what + m.backup()
	case what == "retire":
		if rapid.IntRange(0, 9).Draw(rt, "really") == 0 && !retired {
			m.ok(fleet.RetireAgent{Actor: "local", AgentID: agent})
		}
		return what
	case what == "agent" || !ok:
		if retired {
			return what
		}
		return "agent" + m.sync(agent, id)
	case what == "operator":
		return what + m.operator(agent, id, order)
	case what == "junk":
		p := aRecord(rt, m.now)
		p.Agent, p.ID, p.Revision = agent, id, order.ModifyIndex
		// What it says is no lie: only its form is as it comes.
		switch maybe := order.State == fleet.OrderPlacing || order.State == fleet.OrderUnknown; {
		case maybe:
			p.State, p.Brokering.Searches, p.Brokering.Handle, p.Brokering.Candidates = fleet.OrderCancelled, 0, fleet.OrderHandle{}, nil
			p.Problem, p.ChainPEM, p.Serial, p.Fingerprint, p.NotAfter = nil, "", "", "", time.Time{}
			if order.State == fleet.OrderUnknown && rapid.Bool().Draw(rt, "hasty") {
				p.State, p.Brokering.Searches = fleet.OrderRequested, order.Brokering.Searches+uint32(5*rapid.IntRange(0, 1).Draw(rt, "many"))
			}
			late := p // by who does not know that it is late
			late.State, late.Revision = fleet.OrderRequested, order.ModifyIndex-1
			m.do(late)
		case p.State == fleet.OrderCancelled || p.State == fleet.OrderRejected || p.State == fleet.OrderIssued:
			p.Revision--
		default:
			p.Brokering.Handle = fleet.OrderHandle{}
			if order.Brokering != nil && rapid.Bool().Draw(rt, "same handle") {
				p.Brokering.Handle = order.Brokering.Handle
			}
		}
		m.do(p)
		if now, ok := m.view().Order(agent, id); ok && rapid.Bool().Draw(rt, "claims") {
			claim := fleet.ClaimOrder{Agent: agent, ID: id, Revision: now.ModifyIndex, Node: "n3", Term: 9, Again: rapid.Bool().Draw(rt, "claims again")}
			if m.do(claim).OK() {
				m.accept(agent, id)
			}
		}
		return what
	}
	return "leader" + m.leader(agent, id, order)
}

// sync is an agent's: it repeats its orders until it has their results.
func (m *authorityModel) sync(agent, id string) string {
	p := fleet.SyncAgent{AgentID: agent, BootID: "boot", Sequence: m.agent(agent).Sync.Sequence + 1}
	placement := slow(id)
	// As the proposer does: it knows when the agent made the order.
	if m.placed[agent+"/"+id] && !m.view().RestoredAt().IsZero() {
		placement.Doubtful = true
	}
	m.placed[agent+"/"+id] = true
	if order, ok := m.view().Order(agent, id); ok && order.Ended() {
		p.Collected = []string{id}
	} else {
		p.Orders = []fleet.OrderPlacement{placement}
	}
	m.ok(p)
	return " " + id
}

// leader does what a leader may do about an order as it stands.
func (m *authorityModel) leader(agent, id string, order *fleet.Order) string {
	b := order.Brokering
	switch order.State {
	case fleet.OrderRequested:
		claim := fleet.ClaimOrder{Agent: agent, ID: id, Revision: order.ModifyIndex, Node: "n1", Term: 1}
		other := claim
		other.Node = "n2"
		results := m.entry(m.command(claim), m.command(other))
		if m.agent(agent).State == fleet.AgentRetired {
			return " claims for an agent that was retired"
		}
		require.True(m.rt, results[0].OK(), "%v", results[0].Err())
		require.Equal(m.rt, wire.CodeConflict, results[1].Code, "one claim for an attempt")
		claimed := m.order(agent, id)
		require.Equal(m.rt, "n1", claimed.Brokering.Claim.Node)
		require.Equal(m.rt, fleet.OrderReference(agent, id), claimed.Brokering.Reference)
		if rapid.Bool().Draw(m.rt, "accepted") { // whether the leader hears of it or not
			m.accept(agent, id)
		}
		return " claims"
	case fleet.OrderPlacing:
		found := m.known(order)
		switch {
		case rapid.Bool().Draw(m.rt, "lost"):
			m.record(agent, id, fleet.OrderUnknown)
			return " loses the answer"
		case len(found) == 0:
			m.record(agent, id, fleet.OrderRequested)
			return " could not place"
		}
		m.record(agent, id, fleet.OrderState(pick(m.rt, "answer", "pending", "needs_person", "ready")), handle(found[0].id))
		return " placed"
	case fleet.OrderUnknown:
		found := m.known(order)
		switch {
		case len(found) > 0:
			m.record(agent, id, fleet.OrderPending, handle(found[0].id))
			return " finds"
		case b.Searches >= fleet.AbsenceSearches:
			m.record(agent, id, fleet.OrderRequested)
			return " knows that it is absent"
		}
		m.record(agent, id, fleet.OrderUnknown, nothingFound)
		return " searches"
	}
	if order.Ended() {
		return " rests"
	}
	next := fleet.OrderState(pick(m.rt, "next", "pending", "needs_person", "ready", "ready", "issued", "issued", "rejected", "cancelled"))
	more := []func(*fleet.RecordOrder){}
	switch {
	case next == fleet.OrderIssued:
		more = append(more, certificate)
	case next == fleet.OrderRejected:
		more = append(more, refusedBy)
	case next == fleet.OrderCancelled && b.Cancel == nil:
		next = fleet.OrderPending
	}
	if next == fleet.OrderIssued || next == fleet.OrderRejected || next == fleet.OrderCancelled {
		for _, entry := range m.has(agent, id) {
			entry.done = entry.done || entry.id == b.Handle.Order
		}
	}
	m.record(agent, id, next, more...)
	return " says " + string(next)
}

// operator does what an operator may, and says of an order only what is true.
func (m *authorityModel) operator(agent, id string, order *fleet.Order) string {
	act := pick(m.rt, "act", "cancel", "retry", "resolve", "resolve")
	switch act {
	case "cancel":
		m.do(fleet.CancelOrder{Actor: "local", Agent: agent, ID: id})
	case "retry":
		m.do(fleet.RetryOrder{Actor: "local", Agent: agent, ID: id})
	case "resolve":
		p := fleet.ResolveOrder{Actor: "local", Agent: agent, ID: id, Action: fleet.ResolvePlaceAgain}
		if found := m.has(agent, id); len(found) > 0 {
			p.Action, p.Handle.Order = fleet.ResolveAdopt, found[len(found)-1].id
		}
		m.do(p)
	}
	return " " + act
}

func (m *authorityModel) backup() string {
	if m.saved == nil {
		m.saved = &savedState{stream: packed(m.rt, snapshot(m.rt, m.state)), at: m.now}
		return " taken"
	}
	if rapid.IntRange(0, 2).Draw(m.rt, "restored") > 0 {
		return ""
	}
	saved := m.saved
	m.saved = nil
	m.stage("r", saved.stream)
	m.ok(fleet.ApplyRestore{ID: "r", Pieces: uint32(len(saved.stream)), Note: fleet.NoteRestore{Actor: "local", Snapshot: "s", TakenAt: saved.at}})
	return " restored"
}

// check requires what has to be true of every state.
func (m *authorityModel) check(before *fleet.View, what string) {
	rt, view := m.rt, m.view()
	open := map[string]int{}
	for _, entry := range m.ledger {
		if !entry.done {
			open[entry.order]++
			require.LessOrEqual(rt, open[entry.order], 1, "%s: the order is at the authority twice", what)
		}
	}
	var brokered, undelivered, due []*fleet.Order
	for order := range view.AllOrders() {
		b := order.Brokering
		require.Equal(rt, order.State == fleet.OrderIssued, order.ChainPEM != "", "%s: a chain is stored of what is issued", what)
		if b == nil {
			b = &fleet.Brokering{}
		}
		require.True(rt, b.Attempt == 0 || b.Reference != "", what)
		switch order.State {
		case fleet.OrderRequested, fleet.OrderPlacing, fleet.OrderUnknown:
			require.True(rt, b.Handle.IsZero(), what)
		case fleet.OrderPending, fleet.OrderNeedsPerson, fleet.OrderReady, fleet.OrderIssued:
			require.False(rt, b.Handle.IsZero(), what)
		}
		require.Equal(rt, order.State == fleet.OrderPlacing, !b.Claim.IsZero() && !order.Ended() && b.Handle.IsZero() && order.State != fleet.OrderUnknown, what)
		if order.Ended() && order.Problem != nil {
			require.Zero(rt, open[order.Agent+"/"+order.ID], "%s: an order that the authority has was lost", what)
		}
		require.Equal(rt, order.State == fleet.OrderUnknown, !b.UnknownSince.IsZero(), what)
		require.Equal(rt, order.State == fleet.OrderNeedsPerson, !b.NeedsPersonSince.IsZero(), what)
		if old, ok := before.Order(order.Agent, order.ID); ok && what != "backup restored" {
			if old.Ended() {
				require.Contains(rt, []fleet.OrderState{old.State, fleet.OrderCollected}, order.State, "%s: what has ended stays so", what)
			}
			if old.Brokering != nil && old.Brokering.Cancel != nil {
				require.NotNil(rt, b.Cancel, "%s: a wish to cancel is not forgotten", what)
			}
			if old.State != order.State || old.Brokering != order.Brokering {
				require.Greater(rt, order.ModifyIndex, before.Index(), what)
			}
		}
		brokered = append(brokered, order)
		if order.Stage() != fleet.StageDelivered {
			undelivered = append(undelivered, order)
		}
		if !order.Ended() && (order.Brokering == nil || !b.Next.IsZero()) {
			due = append(due, order)
		}
	}
	// What is listed is what is there.
	require.ElementsMatch(rt, due, view.OrdersDue(m.now.Add(time.Hour*1e4), 0))
	if len(due) > 0 {
		require.Equal(rt, view.OrdersDue(m.now.Add(time.Hour*1e4), 1)[0].PlacedAt.IsZero(), false)
		require.False(rt, view.NextOrderDue().IsZero())
	}
	count := 0
	for _, c := range view.OrderCounts() {
		count += c.Count
	}
	require.Equal(rt, len(undelivered), count)
	var listed []*fleet.Order
	for _, stage := range fleet.Stages() {
		page, next, err := view.BrokeredOrders(fleet.OrderFilter{Stage: stage}, fleet.Page{})
		require.NoError(rt, err)
		require.Empty(rt, next)
		listed = append(listed, page...)
	}
	require.ElementsMatch(rt, brokered, listed)
}

// TestNoOrderIsPlacedTwice: whatever leaders, operators, agents, crashes and backups do
// in any order, an authority never gets a second order while there is one, and the
// state keeps to its rules.
func TestNoOrderIsPlacedTwice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newAuthorityModel(rt)
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			before := m.view()
			m.check(before, m.step())
		}
	})
}
