package api_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

const ordersPath = "/api/v1/orders"

func orderID(o resource.Order) string { return o.AgentID + "/" + o.ID }

func orderPath(agent string, stage fleet.Stage) string {
	return ordersPath + "/" + agent + "/" + apitest.OrderID(string(stage))
}

func TestOrdersAtEveryStage(t *testing.T) {
	w := start(t)
	assert.Empty(t, get[resource.Page[resource.Order]](w, ordersPath).Items)
	web := w.Agent("web1", "web1.example.com", map[string]string{"env": "prod"})
	web.AtEveryStage()
	web.Issued("inside", apitest.Valid(w.Now(), day, "inside.example.com"))

	orders := get[resource.Page[resource.Order]](w, ordersPath).Items
	require.Len(t, orders, len(resource.OrderStages), "those at the built-in CA are none of them")
	for _, stage := range resource.OrderStages {
		o := get[resource.Order](w, orderPath("web1", fleet.Stage(stage)))
		assert.Equal(t, stage, o.Stage)
		assert.Equal(t, string(stage), o.Certificate)
		assert.Equal(t, "web1.example.com", o.Hostname)
		assert.Equal(t, map[string]string{"env": "prod"}, o.Labels)
		assert.WithinDuration(t, w.Now(), o.RequestedAt, time.Minute)
		assert.Contains(t, orders, o)
		ended := stage == resource.OrderCollected || stage == resource.OrderDelivered || stage == resource.OrderRejected || stage == resource.OrderCancelled
		assert.Equal(t, !ended, o.Open, stage)
		assert.Equal(t, ended, !o.EndedAt.IsZero(), stage)
		assert.Equal(t, stage == resource.OrderNeedsPerson || stage == resource.OrderUnknown, o.Needs(), stage)
		if stage != resource.OrderRequested {
			assert.Equal(t, uint32(1), o.Attempts, stage)
			assert.Equal(t, fleet.OrderReference("web1", o.ID), o.Reference)
		}
	}
	needs := get[resource.Order](w, orderPath("web1", fleet.StageNeedsPerson))
	assert.Equal(t, &resource.OrderHandle{Order: "1002"}, needs.Handle)
	assert.Equal(t, "needs_approval", needs.AuthorityState)
	assert.Equal(t, "the order waits for an administrator of the account", needs.Detail)
	assert.Contains(t, needs.Mend, "approve request 77")
	assert.False(t, needs.NeedsPersonSince.IsZero())
	assert.False(t, needs.NextAt.IsZero(), "it is asked about meanwhile")
	assert.EqualValues(t, 3, needs.Polls)
	unknown := get[resource.Order](w, orderPath("web1", fleet.StageUnknown))
	assert.Equal(t, "read tcp: connection reset by peer", unknown.LastError)
	assert.Equal(t, apitest.NodeID, unknown.PlacedBy)
	assert.False(t, unknown.PlacingAt.IsZero())
	assert.True(t, unknown.NextAt.IsZero())
	assert.Nil(t, unknown.Handle)
	rejected := get[resource.Order](w, orderPath("web1", fleet.StageRejected))
	assert.Equal(t, &resource.OrderRefusal{Code: "names_refused", Detail: "the authority refuses www.example.com", Mend: "prove the control of the name"}, rejected.Refusal)
	cancelled := get[resource.Order](w, orderPath("web1", fleet.StageCancelled))
	assert.Equal(t, "not wanted any more", cancelled.Cancel.Note)
	delivered := get[resource.Order](w, orderPath("web1", fleet.StageDelivered))
	assert.False(t, delivered.DeliveredAt.IsZero())
	assert.Equal(t, "0a"+delivered.ID[:8], delivered.Serial)

	status := get[resource.Status](w, "/api/v1/status")
	assert.Equal(t, resource.OrderCounts{Open: 6, NeedsPerson: 1, UnknownOutcome: 1}, status.Orders)
	assert.Equal(t, 6, status.OrdersPending)
}

func TestOrdersAreFiltered(t *testing.T) {
	w := start(t)
	for i := range 3 {
		agent := w.Agent(fmt.Sprint("web", i), "host", nil)
		agent.AtEveryStage()
		agent.Order(apitest.OrderID("other"), "www", fmt.Sprint("ev", i%2), "www.example.com")
	}
	everything, _ := all[resource.Order](w, ordersPath, "500")
	require.Len(t, everything, 33)
	for query, is := range map[string]func(o resource.Order) bool{
		"?open=true":                                     func(o resource.Order) bool { return o.Open },
		"?open=true&issuer=ov":                           func(o resource.Order) bool { return o.Open && o.Issuer == "ov" },
		"?stage=needs_person":                            func(o resource.Order) bool { return o.Stage == resource.OrderNeedsPerson },
		"?stage=requested&issuer=ev1":                    func(o resource.Order) bool { return o.Issuer == "ev1" },
		"?stage=delivered&open=true":                     func(resource.Order) bool { return false },
		"?issuer=ev0":                                    func(o resource.Order) bool { return o.Issuer == "ev0" },
		"?issuer=none":                                   func(resource.Order) bool { return false },
		"?agent=web1":                                    func(o resource.Order) bool { return o.AgentID == "web1" },
		"?agent=web1&open=true&certificate=www":          func(o resource.Order) bool { return o.AgentID == "web1" && o.Certificate == "www" },
		"?certificate=pending":                           func(o resource.Order) bool { return o.Certificate == "pending" },
		"?id=" + apitest.OrderID("other"):                func(o resource.Order) bool { return o.Certificate == "www" },
		"?agent=web2&id=" + apitest.OrderID("other")[:6]: func(o resource.Order) bool { return o.AgentID == "web2" && o.Certificate == "www" },
	} {
		var want []string
		for _, o := range everything {
			if is(o) {
				want = append(want, orderID(o))
			}
		}
		for _, limit := range []string{"1", "4", "50"} {
			got, _ := all[resource.Order](w, ordersPath+query, limit)
			assert.ElementsMatch(t, want, idsOf(got, orderID), query)
		}
	}
	w.ask(http.MethodGet, ordersPath+"?agent=none", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)
	for _, stage := range []string{"none", "ready"} {
		assert.Equal(t, "stage", w.ask(http.MethodGet, ordersPath+"?stage="+stage, nil).problem(t, http.StatusBadRequest, wire.CodeInvalid).Field)
	}
	assert.Equal(t, "cursor", w.ask(http.MethodGet, ordersPath+"?cursor=AAAA", nil).problem(t, http.StatusBadRequest, wire.CodeInvalid).Field)
}

// An order that stays where it is is on exactly one page, whatever comes, goes and
// moves meanwhile.
func TestPagesOfOrdersAreStable(t *testing.T) {
	w := start(t)
	web := w.Agent("web1", "host", nil)
	for i := range 7 {
		web.Order(fmt.Sprintf("%032x", i), "www", "ov", "www.example.com")
		w.Sleep(time.Second)
	}
	seen := map[string]int{}
	cursor := ""
	for page := 0; ; page++ {
		p := get[resource.Page[resource.Order]](w, ordersPath+"?open=true&limit=2&cursor="+cursor)
		for _, o := range p.Items {
			seen[o.ID]++
		}
		if cursor = p.NextCursor; cursor == "" {
			break
		}
		// The last one that was shown ends, and others come before and after it.
		last := p.Items[len(p.Items)-1]
		post[resource.Order](w, ordersPath+"/web1/"+last.ID+"/cancel", nil, http.StatusAccepted)
		web.Order(fmt.Sprintf("a%031x", page), "www", "aa", "www.example.com")
		require.Less(t, page, 100, "a list without an end")
	}
	for i := range 7 {
		assert.Equal(t, 1, seen[fmt.Sprintf("%032x", i)], i)
	}
}

func TestOrdersAreCancelledRetriedAndResolved(t *testing.T) {
	w := start(t)
	web := w.Agent("web1", "web1.example.com", nil)
	web.AtEveryStage()
	at := func(stage fleet.Stage, what string) string { return orderPath("web1", stage) + "/" + what }
	operator := w.as(w.Token(fleet.RoleOperator, 0).Reveal())

	gone := post[resource.Order](operator, at(fleet.StageRequested, "cancel"), map[string]string{"note": "a mistake"}, http.StatusAccepted)
	assert.Equal(t, resource.OrderCancelled, gone.Stage, "it was nowhere yet")
	asked := post[resource.Order](operator, at(fleet.StagePending, "cancel"), nil, http.StatusAccepted)
	assert.Equal(t, resource.OrderPending, asked.Stage)
	require.NotNil(t, asked.Cancel)
	assert.Contains(t, asked.Cancel.By, "api_token:")
	again := post[resource.Order](operator, at(fleet.StagePending, "cancel"), nil, http.StatusAccepted)
	assert.Equal(t, asked.Revision, again.Revision, "asking again changes nothing")

	w.Sleep(time.Minute)
	before := get[resource.Order](w, orderPath("web1", fleet.StageNeedsPerson))
	retried := post[resource.Order](operator, at(fleet.StageNeedsPerson, "retry"), nil, http.StatusAccepted)
	assert.True(t, before.NextAt.After(w.Now()))
	assert.False(t, retried.NextAt.After(w.Now()), "now")

	// What it takes to resolve.
	resolve := at(fleet.StageUnknown, "resolve")
	for field, body := range map[string]any{
		"note":         map[string]any{"action": "give_up"},
		"action":       map[string]any{"action": "forget", "note": "x"},
		"handle.order": map[string]any{"action": "adopt", "note": "x", "handle": map[string]string{"order": fmt.Sprintf("%0257d", 1)}},
		"handle":       map[string]any{"action": "adopt", "note": "x", "handle": map[string]string{"elsewhere": "1"}},
	} {
		assert.Equal(t, field, operator.ask(http.MethodPost, resolve, body).problem(t, http.StatusBadRequest, wire.CodeInvalid).Field)
	}
	for _, body := range []map[string]any{
		{"action": "adopt", "note": "x"},
		{"action": "adopt", "note": "x", "handle": map[string]string{"order": "  "}},
		{"action": "place_again", "note": "x", "handle": map[string]string{"order": "1"}},
	} {
		assert.Equal(t, "handle", operator.ask(http.MethodPost, resolve, body).problem(t, http.StatusBadRequest, wire.CodeInvalid).Field)
	}
	assert.Equal(t, "note", operator.ask(http.MethodPost, resolve, map[string]any{"action": "give_up", "note": " "}).problem(t, http.StatusBadRequest, wire.CodeInvalid).Field)
	adopted := post[resource.Order](operator, resolve, map[string]any{"action": "adopt", "note": "seen in the console", "handle": map[string]string{"order": " 4711 "}}, http.StatusAccepted)
	assert.Equal(t, resource.OrderPending, adopted.Stage)
	assert.Equal(t, &resource.OrderHandle{Order: "4711"}, adopted.Handle)
	operator.ask(http.MethodPost, resolve, map[string]any{"action": "give_up", "note": "x"}).problem(t, http.StatusConflict, wire.CodeConflict)

	for _, done := range []fleet.Stage{fleet.StageDelivered, fleet.StageRejected, fleet.StageCancelled} {
		for _, what := range []string{"cancel", "retry"} {
			operator.ask(http.MethodPost, at(done, what), nil).problem(t, http.StatusConflict, wire.CodeConflict)
		}
	}
	for _, what := range []string{"", "/cancel", "/retry", "/resolve"} {
		method := http.MethodPost
		var body any
		switch what {
		case "":
			method = http.MethodGet
		case "/resolve":
			body = map[string]any{"action": "give_up", "note": "x"}
		}
		assert.Contains(t, operator.ask(method, ordersPath+"/web1/none"+what, body).problem(t, http.StatusNotFound, wire.CodeNotFound).Detail, "has no order at an authority with the id none")
		assert.Contains(t, operator.ask(method, ordersPath+"/none/none"+what, body).problem(t, http.StatusNotFound, wire.CodeNotFound).Detail, "there is no agent")
	}
}

// Every way out of an unknown outcome.
func TestAnUnknownOutcomeIsResolved(t *testing.T) {
	w := start(t)
	for action, want := range map[string]resource.OrderStage{"place_again": resource.OrderRequested, "give_up": resource.OrderRejected} {
		agent := w.Agent(action, "host", nil)
		id := apitest.OrderID(action)
		agent.Order(id, "www", "ov", "www.example.com")
		agent.Claim(id, apitest.NodeID)
		agent.Record(id, fleet.OrderUnknown, nil)
		o := post[resource.Order](w, ordersPath+"/"+action+"/"+id+"/resolve", map[string]any{"action": action, "note": "looked it up: ticket 4711"}, http.StatusAccepted)
		assert.Equal(t, want, o.Stage)
		require.Eventually(t, func() bool {
			events := get[resource.Events](w, "/api/v1/audit?kind=order.resolved&agent="+action).Items
			return len(events) == 1 && strings.Contains(string(events[0].Detail), "ticket 4711") && strings.HasPrefix(events[0].Actor, "api_token:")
		}, time.Minute, 10*time.Millisecond, "the note is in the audit trail")
	}
}

func TestOrdersByAge(t *testing.T) {
	w := start(t)
	var want []string
	for i, issuer := range []string{"ov", "dv", "ov", "ev"} {
		agent := w.Agent(fmt.Sprint("z", 9-i), "host", nil)
		want = append(want, apitest.OrderID(issuer+strconv.Itoa(i)))
		agent.Order(want[i], "www", issuer, "www.example.com")
		w.Sleep(time.Minute)
	}
	ids := func(query, limit string) (list []string) {
		orders, _ := all[resource.Order](w, ordersPath+query, limit)
		for _, o := range orders {
			list = append(list, o.ID)
		}
		return list
	}
	for _, limit := range []string{"1", "500"} {
		assert.Equal(t, want, ids("?sort=requested_at", limit))
		assert.Equal(t, []string{want[0], want[2]}, ids("?sort=requested_at&issuer=ov&open=true", limit))
		assert.Equal(t, []string{want[3], want[2], want[1], want[0]}, ids("?sort=-requested_at", limit))
		assert.Equal(t, []string{want[1], want[3], want[0], want[2]}, ids("", limit), "by issuer")
	}
	cursor := get[resource.Page[resource.Order]](w, ordersPath+"?limit=1&sort=requested_at").NextCursor
	p := w.ask(http.MethodGet, ordersPath+"?sort=-requested_at&cursor="+cursor, nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	assert.Equal(t, "cursor", p.Field)
}

func TestOrdersAreJobs(t *testing.T) {
	w := start(t)
	web := w.Agent("web1", "web1.example.com", nil)
	web.AtEveryStage()
	jobs, _ := all[resource.Job](w, jobsPath+"?kind=order&ended=true", "3")
	require.Len(t, jobs, len(fleet.Stages()))
	states := map[string]resource.JobState{}
	for i, job := range jobs {
		states[job.Object] = job.State
		assert.Equal(t, "ov", job.Issuer)
		assert.Equal(t, i < 2, job.State == resource.JobNeedsPerson, "those come first")
		assert.False(t, job.Since.IsZero(), job.Object)
	}
	assert.Equal(t, map[string]resource.JobState{
		"requested": resource.JobWaiting, "placing": resource.JobRunning, "pending": resource.JobWaiting, "needs_person": resource.JobNeedsPerson,
		"unknown_outcome": resource.JobNeedsPerson, "issued": resource.JobWaiting, "collected": resource.JobWaiting, "delivered": resource.JobDone,
		"rejected": resource.JobFailed, "cancelled": resource.JobCancelled,
	}, states)
	open, _ := all[resource.Job](w, jobsPath+"?kind=order", "50")
	assert.Len(t, open, 7)
	by := jobsBy(jobs)
	needs := by["order web1/"+apitest.OrderID("needs_person")]
	assert.Contains(t, needs.Mend, "approve request 77")
	rejected := by["order web1/"+apitest.OrderID("rejected")]
	assert.Equal(t, []string{"the authority refuses www.example.com", "prove the control of the name"}, []string{rejected.Detail, rejected.Mend})
}
