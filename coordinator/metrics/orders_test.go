package metrics_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/metrics"
	"github.com/certctl/certctl/coordinator/orders"
)

// Orders at authorities by issuer and stage, and how long a person is waited for.
func TestOrdersAtAuthorities(t *testing.T) {
	c := apitest.Start(t)
	token := c.Token(fleet.RoleViewer, 0).Reveal()
	look := func() map[string]float64 {
		t.Helper()
		status, text := scrape(t, c, token)
		require.Equal(t, http.StatusOK, status)
		return values(t, text)
	}
	assert.NotContains(t, look(), "certctl_orders{issuer=ov,stage=pending}", "there is no issuer yet")
	web := c.Agent("web1", "web1.secret.example", nil)
	web.AtEveryStage()
	web.Issued("inside", apitest.Valid(c.Now(), 10*day, "inside.example.com"))
	since := func(stage fleet.Stage) float64 {
		b := web.StoredOrder(apitest.OrderID(string(stage))).Brokering
		if stage == fleet.StageUnknown {
			return float64(b.UnknownSince.UnixNano()) / 1e9
		}
		return float64(b.NeedsPersonSince.UnixNano()) / 1e9
	}
	oldest := map[fleet.Stage]float64{fleet.StageNeedsPerson: since(fleet.StageNeedsPerson), fleet.StageUnknown: since(fleet.StageUnknown)}
	c.Sleep(time.Hour)
	// A later one of each, at the same issuer.
	for _, state := range []fleet.OrderState{fleet.OrderNeedsPerson, fleet.OrderUnknown} {
		id := apitest.OrderID("later " + string(state))
		web.Order(id, "later", "ov", "www.example.com")
		web.Claim(id, apitest.NodeID)
		web.Record(id, state, func(r *fleet.RecordOrder) {
			if state == fleet.OrderNeedsPerson {
				r.Brokering.Handle.Order = "1"
			}
		})
	}
	got := look()
	for _, stage := range fleet.Stages() {
		name := fmt.Sprintf("certctl_orders{issuer=ov,stage=%s}", stage)
		switch stage {
		case fleet.StageDelivered:
			assert.NotContains(t, got, name)
		case fleet.StageNeedsPerson, fleet.StageUnknown:
			assert.EqualValues(t, 2, got[name], name)
			assert.InDelta(t, oldest[stage], got[fmt.Sprintf("certctl_orders_waiting_since_timestamp_seconds{issuer=ov,stage=%s}", stage)], 0.001, stage)
		default:
			assert.EqualValues(t, 1, got[name], name)
		}
	}
	assert.EqualValues(t, 1, got["certctl_fleet_orders{state=issued}"], "that at the built-in CA")
	assert.Zero(t, got["certctl_fleet_orders{state=requested}"])

	// What has gone comes down to nothing, and its age with it.
	for _, id := range []string{apitest.OrderID(string(fleet.StageNeedsPerson)), apitest.OrderID("later needs_person")} {
		web.Record(id, fleet.OrderPending, nil)
	}
	got = look()
	assert.Contains(t, got, "certctl_orders{issuer=ov,stage=needs_person}")
	assert.Zero(t, got["certctl_orders{issuer=ov,stage=needs_person}"])
	assert.EqualValues(t, 3, got["certctl_orders{issuer=ov,stage=pending}"])
	assert.NotContains(t, got, "certctl_orders_waiting_since_timestamp_seconds{issuer=ov,stage=needs_person}")
	_, text := scrape(t, c, token)
	assert.NotContains(t, text, "secret")
}

// theEngine is what works on orders, as a test makes it up.
type theEngine struct {
	status []orders.IssuerStatus
	counts []orders.CallCount
}

func (e *theEngine) Status() []orders.IssuerStatus { return e.status }
func (e *theEngine) Counts() []orders.CallCount    { return e.counts }

// How the accounts at authorities stand is told by the leader alone, and what they were
// asked by every node.
func TestAccountsAtAuthorities(t *testing.T) {
	state, err := fleet.New()
	require.NoError(t, err)
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	engine := &theEngine{
		status: []orders.IssuerStatus{
			{Name: "ov", Configured: true, Leading: true, Orders: 3, PausedUntil: now.Add(time.Minute), LastAnswerAt: now},
			{Name: "ev", Configured: true, Leading: true, CircuitUntil: now.Add(time.Minute), PausedUntil: now.Add(-time.Minute)},
			{Name: "old", Leading: true, Orders: 1},
		},
		counts: []orders.CallCount{{Issuer: "ov", Call: orders.CallStatus, Outcome: orders.OutcomeOK, Count: 7}, {Issuer: "ov", Call: orders.CallPlace, Outcome: "retry", Count: 2}},
	}
	node := &stand{state: state}
	e, err := metrics.New(metrics.Config{
		Node: node, Journal: standJournal{node}, Presence: node, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
		CutOff: func(time.Time, time.Time) bool { return false }, Orders: engine,
	})
	require.NoError(t, err)
	got := values(t, answer(e, http.MethodGet).Body.String())
	for name, want := range map[string]float64{
		"certctl_issuer_paused{issuer=ov}": 1, "certctl_issuer_paused{issuer=ev}": 0, "certctl_issuer_circuit_open{issuer=ov}": 0,
		"certctl_issuer_circuit_open{issuer=ev}": 1, "certctl_issuer_due_orders{issuer=ov}": 3, "certctl_issuer_configured{issuer=ov}": 1,
		"certctl_issuer_configured{issuer=old}": 0, "certctl_issuer_last_answer_timestamp_seconds{issuer=ov}": float64(now.Unix()),
		"certctl_issuer_calls_total{call=status,issuer=ov,outcome=ok}": 7, "certctl_issuer_calls_total{call=place,issuer=ov,outcome=retry}": 2,
		"certctl_orders{issuer=ev,stage=needs_person}": 0, "certctl_orders{issuer=old,stage=pending}": 0,
	} {
		require.Contains(t, got, name)
		assert.InDelta(t, want, got[name], 0.001, name)
	}
	assert.NotContains(t, got, "certctl_issuer_last_answer_timestamp_seconds{issuer=ev}")

	for i := range engine.status {
		engine.status[i].Leading = false
	}
	got = values(t, answer(e, http.MethodGet).Body.String())
	for _, name := range []string{"paused", "circuit_open", "due_orders", "configured"} {
		assert.NotContains(t, got, "certctl_issuer_"+name+"{issuer=ov}")
	}
	assert.Contains(t, got, "certctl_issuer_calls_total{call=status,issuer=ov,outcome=ok}")
}
