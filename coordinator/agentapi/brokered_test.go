package agentapi

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// slow is an order at an authority that takes its time.
func (a *agent) slow(names ...string) wire.OrderRequest {
	order := a.order(names...)
	order.Issuer = "slow"
	return order
}

func (w *world) order(a *agent, id string) *fleet.Order {
	w.t.Helper()
	order, ok := w.view().Order(a.id, id)
	require.True(w.t, ok)
	return order
}

// record claims an order, and says what a leader would say of it.
func (w *world) record(a *agent, id string, state fleet.OrderState, change func(*fleet.RecordOrder)) {
	w.t.Helper()
	if w.order(a, id).State == fleet.OrderRequested {
		w.do(fleet.ClaimOrder{Agent: a.id, ID: id, Revision: w.order(a, id).ModifyIndex, Node: "n", Term: 1})
	}
	order := w.order(a, id)
	p := fleet.RecordOrder{Agent: a.id, ID: id, Revision: order.ModifyIndex, State: state, Brokering: *order.Brokering}
	if change != nil {
		change(&p)
	}
	w.do(p)
}

func handle(p *fleet.RecordOrder) { p.Brokering.Handle.Order = "7" }

// An order at another issuer holds up no sync: the agent is told what it waits for.
func TestAnOrderAtAnAuthority(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	order := a.slow("www.example.com")
	order.ValiditySeconds = 1 << 40
	_, results := a.place(order)
	assert.Equal(t, []wire.OrderResult{{ID: order.ID, State: wire.OrderPending, Stage: wire.OrderRequested}}, results)
	assert.EqualValues(t, 1, w.woken.Load(), "who places it is told at once")
	assert.Equal(t, maxValidity, w.order(a, order.ID).Validity)
	w.unchanged(func() { a.place(order) })
	assert.EqualValues(t, 2, w.woken.Load(), "and again, as long as nobody has begun with it")

	told := func() wire.OrderResult {
		t.Helper()
		_, results := a.place(order)
		require.Len(t, results, 1)
		return results[0]
	}
	w.record(a, order.ID, fleet.OrderRequested, func(p *fleet.RecordOrder) { p.Brokering.Failure = "the account is paused" })
	assert.Equal(t, wire.OrderResult{ID: order.ID, State: wire.OrderPending, Stage: wire.OrderRequested, Detail: "the account is paused"}, told())
	w.record(a, order.ID, fleet.OrderNeedsPerson, func(p *fleet.RecordOrder) {
		handle(p)
		p.Brokering.Detail, p.Brokering.Mend, p.Brokering.Failure = "waits for approval", "approve order 7", "the last question was not answered"
	})
	woken := w.woken.Load()
	want := wire.OrderResult{ID: order.ID, State: wire.OrderPending, Stage: wire.OrderNeedsPerson, Detail: "waits for approval", Mend: "approve order 7"}
	assert.Equal(t, want, told())
	assert.Equal(t, wire.OrderProgress{Stage: wire.OrderNeedsPerson, Detail: "waits for approval", Mend: "approve order 7"}, want.Parsed())
	assert.Equal(t, woken, w.woken.Load(), "it is under way")
	assert.Empty(t, a.sync().Orders, "who does not ask is not told of it")

	w.record(a, order.ID, fleet.OrderReady, nil)
	assert.Equal(t, wire.OrderFetching, told().Stage)
	w.record(a, order.ID, fleet.OrderIssued, func(p *fleet.RecordOrder) {
		p.ChainPEM, p.Serial, p.Fingerprint, p.NotAfter = "chain", "0a", "f", time.Now().Add(time.Hour)
	})
	assert.Equal(t, []wire.OrderResult{{ID: order.ID, State: wire.OrderIssued, Chain: "chain"}}, a.sync().Orders, "but of the certificate")
	assert.Empty(t, a.collect(order.ID).Orders)
	assert.Equal(t, fleet.StageDelivered, w.order(a, order.ID).Stage())
	assert.Equal(t, wire.CodeConflict, told().Problem.Code)
}

// An order that was taken back is one that will never be issued, whenever it is asked
// for.
func TestAnOrderThatWasTakenBack(t *testing.T) {
	w := stillWorld(t)
	a := w.enrolled()
	order := a.slow("www.example.com")
	a.place(order)
	w.do(fleet.CancelOrder{Actor: "local", Agent: a.id, ID: order.ID, Note: "wrong product"})
	for range 2 {
		_, results := a.place(order)
		require.Len(t, results, 1)
		assert.Equal(t, wire.OrderRejected, results[0].State)
		assert.Equal(t, wire.CodeOrderCancelled, results[0].Problem.Code)
		assert.Contains(t, results[0].Problem.Detail, "wrong product")
		a.collect(order.ID)
	}
}

func TestOrdersAtAuthoritiesAreJudged(t *testing.T) {
	w := stillWorld(t)
	a := w.enrolled()
	elsewhere, own, foreign, short := a.slow("www.example.com"), a.slow("pki.example.com"), a.slow("www.example.org"), a.slow("www.example.com")
	elsewhere.Issuer, short.ValiditySeconds = "other", 1
	_, results := a.place(elsewhere, own, foreign, short)
	for i, want := range []wire.Code{wire.CodeIssuerUnknown, wire.CodeNamesRefused, wire.CodeNamesRefused, wire.CodeInvalid} {
		require.Equal(t, wire.OrderRejected, results[i].State)
		assert.Equal(t, want, results[i].Problem.Code)
		assert.NotEmpty(t, results[i].Problem.Mend)
	}
	assert.Zero(t, w.woken.Load(), "there is nothing to do for them")
	w.service.workOnce(t.Context())
	assert.Zero(t, w.view().OrdersDue(time.Now().Add(time.Hour), 0))
}

// An agent waits for its certificate a while as it does for one of the built-in CA, and
// does not come every few seconds for weeks.
func TestThePaceOfAnAgentWhoseOrderTakesItsTime(t *testing.T) {
	w := stillWorld(t)
	a := w.enrolled()
	order := a.slow("www.example.com")
	a.place(order)
	w.record(a, order.ID, fleet.OrderPending, handle)
	pause := func() time.Duration {
		answer, _ := a.place(order)
		return time.Duration(answer.PauseMillis) * time.Millisecond
	}
	assert.LessOrEqual(t, pause(), pendingPause)
	w.sleep(2 * time.Minute)
	assert.InDelta(t, 15*time.Second, pause(), float64(5*time.Second))
	w.sleep(time.Hour)
	assert.Greater(t, pause(), 25*time.Second, "its usual pace: half a period to one and a half")
	w.record(a, order.ID, fleet.OrderReady, nil)
	assert.LessOrEqual(t, pause(), pendingPause, "it comes any moment")
}

// What is said of orders does not make answers large, however many there are.
func TestProgressIsBounded(t *testing.T) {
	w := stillWorld(t)
	a, other := w.enrolled(), w.enrolled()
	csr := a.order("www.example.com").CSR
	placements := func() (list []fleet.OrderPlacement) {
		for range 300 {
			list = append(list, fleet.OrderPlacement{ID: newAgentID(), Certificate: "web", Issuer: "slow", CSR: csr, Names: pki.MustParseNames("www.example.com")})
		}
		return list
	}
	own := placements()
	w.do(fleet.SyncAgent{AgentID: a.id, BootID: a.boot, Sequence: 1, Orders: own})
	w.do(fleet.SyncAgent{AgentID: other.id, BootID: other.boot, Sequence: 1, Orders: placements()})
	a.sequence = 1
	assert.Empty(t, a.sync().Orders, "nothing is said that was not asked for")
	var asked []wire.OrderRequest
	for _, p := range own[:wire.MaxOrders] {
		w.record(a, p.ID, fleet.OrderNeedsPerson, func(p *fleet.RecordOrder) {
			handle(p)
			p.Brokering.Detail, p.Brokering.Mend = strings.Repeat("d", 9999), strings.Repeat("m", 9999)
		})
		asked = append(asked, wire.OrderRequest{ID: p.ID, Certificate: "web", Issuer: "slow", CSR: csr})
	}
	request := a.request()
	request.Orders = asked
	body, err := json.Marshal(request)
	require.NoError(t, err)
	answer := a.send(request)
	require.Len(t, answer.Orders, wire.MaxOrders)
	reply, err := json.Marshal(answer)
	require.NoError(t, err)
	assert.Less(t, len(reply), wire.MaxOrders*(2*wire.MaxProgressText+200), "of a request of %d octets", len(body))
}

// What agents ordered after the backup, and the coordinator has forgotten, may have been
// placed: it is looked for first.
func TestOrdersOfBeforeARestore(t *testing.T) {
	w := stillWorld(t)
	a := w.enrolled()
	restored := time.Now().UTC()
	order := a.slow("www.example.com")
	order.PlacedAt = restored.Add(-48 * time.Hour)
	a.place(order)
	assert.Equal(t, fleet.OrderRequested, w.order(a, order.ID).State, "there was no restore")

	state := w.restoredView(t, restored)
	for name, c := range map[string]struct {
		placedAt, now time.Time
		want          bool
	}{
		"before it":               {restored.Add(-time.Minute), restored.Add(1000 * time.Hour), true},
		"by a clock that is fast": {restored.Add(30 * time.Minute), restored.Add(31 * time.Minute), true},
		"after it":                {restored.Add(2 * time.Hour), restored.Add(3 * time.Hour), false},
		"of an agent of before":   {time.Time{}, restored.Add(doubtFor - time.Hour), true},
		"of such a one, later":    {time.Time{}, restored.Add(doubtFor), false},
	} {
		next := a.slow("www.example.com")
		next.PlacedAt = c.placedAt
		s := &Service{now: func() time.Time { return c.now }, known: func(string) bool { return true }}
		assert.Equal(t, c.want, s.placement(state, a.id, &next).Doubtful, name)
		next.Issuer = ""
		assert.False(t, s.placement(state, a.id, &next).Doubtful, "%s, at the built-in CA", name)
	}
}

// restoredView is of a state that came out of a backup.
func (w *world) restoredView(t *testing.T, at time.Time) *fleet.View {
	t.Helper()
	apply := func(state *fleet.State, payload fleet.Payload) {
		command, err := fleet.NewCommand(at, payload)
		require.NoError(t, err)
		entry, err := fleet.EncodeEntry([]fleet.Command{command})
		require.NoError(t, err)
		results, _, err := state.Apply(state.Index()+1, entry)
		require.NoError(t, err)
		require.NoError(t, results[0].Err())
	}
	backup, err := fleet.New()
	require.NoError(t, err)
	var pieces [][]byte
	packer, err := fleet.NewRestorePacker(func(piece []byte) error {
		pieces = append(pieces, append([]byte(nil), piece...))
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, backup.Snapshot().Persist(packer))
	require.NoError(t, packer.Close())
	state, err := fleet.New()
	require.NoError(t, err)
	for i, piece := range pieces {
		apply(state, fleet.StageRestore{ID: "r", Piece: uint32(i), Data: piece})
	}
	apply(state, fleet.ApplyRestore{ID: "r", Pieces: uint32(len(pieces)), Note: fleet.NoteRestore{Snapshot: fmt.Sprint(len(pieces))}})
	return state.View()
}

// The words are the same on both sides.
func TestStagesInTheWordsOfTheWire(t *testing.T) {
	for stage, want := range map[fleet.Stage]wire.OrderStage{
		fleet.StageRequested: wire.OrderRequested, fleet.StagePlacing: wire.OrderPlacing, fleet.StagePending: wire.OrderAtAuthority,
		fleet.StageNeedsPerson: wire.OrderNeedsPerson, fleet.StageUnknown: wire.OrderUnknown, fleet.StageIssued: wire.OrderFetching,
	} {
		assert.Equal(t, want, wire.OrderStage(stage))
	}
}
