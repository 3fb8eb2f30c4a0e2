package metrics_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/fleet"
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
