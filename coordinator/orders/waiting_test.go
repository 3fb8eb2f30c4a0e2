package orders_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/digicert"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/internal/fakeca"
)

const day = 24 * time.Hour

// An order that needs a person for three days is delivered after a restart, a change
// of leaders and the end of its budget.
func TestAnOrderWaitsThreeDaysForAPerson(t *testing.T) {
	for _, kind := range []string{"digicert", "sectigo"} { // at the others no order waits for one
		t.Run(kind, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				v := fakes[kind](t, fakeca.Config{Approval: true})
				list := issuers(t, v)
				first := w.engine("n1", list)
				first.lead()
				p := placement(t, "o1", kind, "www.example.com")
				w.sync("a", []fleet.OrderPlacement{p})
				pass(time.Minute)
				require.Equal(t, fleet.StageNeedsPerson, w.stage("o1"))
				since := w.order("o1").Brokering.NeedsPersonSince
				pass(day)
				asked := w.order("o1").Brokering.Polls
				first.lose() // a restart
				pass(time.Hour)
				first = w.engine("n1", list)
				first.lead()
				pass(day)
				assert.Greater(t, w.order("o1").Brokering.Polls, asked, "it goes on where it was")
				first.lose()
				second := w.engine("n2", list)
				second.lead()
				defer second.lose()
				pass(day)
				o := w.order("o1")
				assert.Equal(t, fleet.StageNeedsPerson, o.Stage())
				assert.Equal(t, since, o.Brokering.NeedsPersonSince)
				assert.NotEmpty(t, o.Brokering.Mend)
				// At the slow pace: 5 minutes to an hour; less where the authority tells of
				// changes.
				assert.Less(t, o.Brokering.Polls, uint32(110))
				if kind != "digicert" {
					assert.Greater(t, o.Brokering.Polls, uint32(50))
				}
				v.fake.Core().ApproveAll()
				pass(2 * time.Hour)
				w.delivered(p)
				once(t, v, 1)
				assert.Equal(t, []fleet.Kind{
					fleet.KindOrderRequested, fleet.KindOrderClaimed, fleet.KindOrderSubmitted, fleet.KindOrderNeedsPerson, fleet.KindOrderSlow,
					fleet.KindOrderReady, fleet.KindOrderIssued, fleet.KindOrderDelivered,
				}, distinctKinds(w.kinds("o1")))
			})
		})
	}
}

// What has changed is asked for beside the orders, and counts as none of them.
func TestTheQuestionWhatHasChangedIsNoOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := digicertOf(t, fakeca.Config{Approval: true})
		e := w.engine("n1", issuers(t, v))
		e.lead()
		defer e.lose()
		w.sync("a", []fleet.OrderPlacement{placement(t, "o1", "digicert", "www.example.com")})
		pass(time.Minute)
		assert.Equal(t, fleet.StageNeedsPerson, w.stage("o1"))
		s := e.Status()[0]
		assert.Zero(t, s.Orders, "its time comes in minutes")
		assert.Zero(t, s.Next)
	})
}

func distinctKinds(kinds []fleet.Kind) []fleet.Kind {
	var out []fleet.Kind
	seen := map[fleet.Kind]bool{}
	for _, kind := range kinds {
		if !seen[kind] && kind != fleet.KindOrderPending {
			out = append(out, kind)
		}
		seen[kind] = true
	}
	return out
}

// A budget that is spent is no failure: the order is still pending, and is asked about
// slowly until its authority decides.
func TestASpentBudgetIsStillPending(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := digicertOf(t, fakeca.Config{Delay: 5 * time.Hour})
		list := issuers(t, v)
		issuer := list["digicert"]
		issuer.MaxWait = 3 * time.Minute
		list["digicert"] = issuer
		e := w.engine("n1", list)
		e.lead()
		defer e.lose()
		p := placement(t, "o1", "digicert", "www.example.com")
		w.sync("a", []fleet.OrderPlacement{p})
		pass(2 * time.Minute)
		assert.False(t, w.order("o1").Brokering.Slow)
		pass(8 * time.Minute)
		assert.True(t, w.order("o1").Brokering.Slow)
		assert.Equal(t, fleet.StagePending, w.stage("o1"))
		assert.Contains(t, w.kinds("o1"), fleet.KindOrderSlow)
		assert.Contains(t, e.text(), "an order is still under way after its time")
		pass(7 * time.Hour)
		w.delivered(p)
		once(t, v, 1)
	})
}

// slowAnswers has the answers to placements come when the test says.
type slowAnswers struct {
	*digicert.Connector
	mu    sync.Mutex
	until chan struct{} // closed when they may
}

func (s *slowAnswers) Place(ctx context.Context, r *connector.Request) (*connector.Status, error) {
	s.mu.Lock()
	until := s.until
	s.mu.Unlock()
	status, err := s.Connector.Place(ctx, r)
	if until != nil {
		select {
		case <-until:
		case <-ctx.Done():
			return nil, &connector.Error{Class: connector.ClassRetry, Err: ctx.Err()}
		}
	}
	return status, err
}

// A leader that is cut off while it places an order, and another one that is elected
// meanwhile, do not place it twice; and what the first was told is not lost.
func TestTwoLeadersPlaceAnOrderOnce(t *testing.T) {
	for name, c := range map[string]struct {
		answer time.Duration // after the order was placed
		hidden time.Duration
		doubt  bool
	}{
		"the answer comes before the other acts":   {5 * time.Second, 0, false},
		"the answer comes while the other looks":   {40 * time.Second, time.Hour, true},
		"the answer comes when the other has it":   {40 * time.Second, 0, true},
		"the answer never comes to be stored":      {time.Hour, 0, true},
		"the answer never comes, and it is hidden": {time.Hour, time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				fake, v := digicertOf(t, fakeca.Config{Delay: time.Minute, Hidden: c.hidden})
				list := issuers(t, v)
				slow := &slowAnswers{Connector: list["digicert"].Connector.(*digicert.Connector), until: make(chan struct{})}
				stuck := map[string]orders.Issuer{"digicert": {Kind: "digicert", Connector: slow, Limits: list["digicert"].Limits}}
				first := w.engine("n1", stuck)
				first.lead()
				p := placement(t, "o1", "digicert", "www.example.com")
				w.sync("a", []fleet.OrderPlacement{p})
				pass(2 * time.Second)
				require.Equal(t, fleet.StagePlacing, w.stage("o1"))
				require.Len(t, fake.Core().Ledger(nil), 1)

				// It knows nothing of the other one, and what it stores arrives.
				second := w.engine("n2", list)
				second.lead()
				pass(c.answer)
				close(slow.until)
				pass(30 * time.Minute)
				first.lose()
				defer second.lose()
				w.delivered(p)
				once(t, v, 1)
				assert.Equal(t, 1, w.count(fleet.TypeClaimOrder))
				assert.Equal(t, 1, fake.Core().Count(fakeca.Place))
				assert.Equal(t, c.doubt, slices.Contains(w.kinds("o1"), fleet.KindOrderUnknown))
			})
		})
	}
}

// A leader that was cut off has claimed nothing that it then places.
func TestALeaderThatIsCutOffPlacesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, v := digicertOf(t, fakeca.Config{})
		list := issuers(t, v)
		first := w.engine("n1", list)
		// The claim is stored, and the next moment it is another one that leads.
		w.hooks(nil, func(node string, c fleet.Command) error {
			if node == "n1" && c.Type == fleet.TypeClaimOrder {
				w.mu.Lock()
				w.leader = "n2"
				w.term++
				w.mu.Unlock()
			}
			return nil
		})
		first.lead()
		p := placement(t, "o1", "digicert", "www.example.com")
		w.sync("a", []fleet.OrderPlacement{p})
		pass(10 * time.Second)
		assert.Zero(t, v.fake.Core().Count(fakeca.Place))
		assert.Equal(t, fleet.StageRequested, w.stage("o1"), "which is what it says itself")
		first.lose()
		w.hooks(nil, nil)
		second := w.engine("n2", list)
		second.lead()
		defer second.lose()
		pass(time.Minute)
		w.delivered(p)
		once(t, v, 1)
	})
}

// Orders by the hundred, with answers that are lost, failures, limits, and a leader that
// ends every few seconds: each is delivered, none is there twice.
func TestAStormOverAllVendors(t *testing.T) {
	each := 25
	if os.Getenv("CERTCTL_SOAK") != "" {
		each = 250
	}
	bubble(t, func(t *testing.T, w *world) {
		var vendors []vendor
		for i, kind := range []string{"digicert", "sectigo", "entrust", "globalsign"} {
			vendors = append(vendors, fakes[kind](t, fakeca.Config{
				Seed: uint64(i + 1), Delay: 20 * time.Second, Spread: time.Minute,
				Rates: fakeca.Rates{Lost: 0.2, Errors: 0.1, Busy: 0.05, RetryAfter: 5 * time.Second},
			}))
		}
		list := issuers(t, vendors...)
		var placed []fleet.OrderPlacement
		for _, v := range vendors {
			for i := range each {
				id := fmt.Sprintf("%s-%d", v.kind, i)
				placed = append(placed, placement(t, id, v.kind, id+".example.com"))
			}
		}
		for i := 0; i < len(placed); i += 100 {
			w.sync("a", placed[i:min(i+100, len(placed))])
		}
		terms := 0
		for ; terms < 60; terms++ {
			e := w.engine(fmt.Sprintf("n%d", terms%3), list)
			e.lead()
			pass(time.Duration(2+terms%4) * time.Second)
			e.lose()
		}
		e := w.engine("n0", list)
		e.lead()
		defer e.lose()
		pass(day)
		for _, p := range placed {
			w.delivered(p)
		}
		calls := 0
		waited := map[string][]time.Duration{}
		for _, v := range vendors {
			once(t, v, each)
			calls += v.fake.Core().Count(fakeca.Place)
			for _, there := range v.fake.Core().Ledger(nil) {
				for _, o := range w.state.View().OrdersByKey(v.kind, there.PublicKey) {
					waited[v.kind] = append(waited[v.kind], max(0, o.Brokering.FetchedAt.Sub(there.Newest().IssuedAt)).Round(time.Second))
				}
			}
			times := waited[v.kind]
			require.Len(t, times, each)
			slices.Sort(times)
			t.Logf("%s: from the authority's certificate to ours: p50 %v, p99 %v, longest %v", v.kind, times[each/2], times[each*99/100], times[each-1])
		}
		claims := w.count(fleet.TypeClaimOrder)
		t.Logf("%d orders, %d terms, %d claims, %d placements that reached an authority, %d log entries for %d records",
			len(placed), terms+1, claims, calls, w.stored(), w.count(fleet.TypeRecordOrder))
		assert.LessOrEqual(t, calls, claims, "no more placements than claims")
	})
}

// Ten thousand orders that wait for a person: one goroutine, and the questions spread
// within what the account allows.
func TestTenThousandOrdersWait(t *testing.T) {
	count, hours := 600, 3
	if os.Getenv("CERTCTL_SOAK") != "" {
		count, hours = 10_000, 12
	}
	bubble(t, func(t *testing.T, w *world) {
		limits := asyncpoll.Limits{Rate: 5, Burst: 5, Concurrency: 4}
		many := &patient{began: time.Now()}
		list := map[string]orders.Issuer{"slow": {Kind: "slow", Connector: many, Limits: limits}}
		for agent := range (count + fleet.MaxOpenOrders - 1) / fleet.MaxOpenOrders {
			name := fmt.Sprintf("agent-%d", agent)
			w.enroll(name)
			var placed []fleet.OrderPlacement
			p := placement(t, "x", "slow", "www.example.com")
			for i := range min(fleet.MaxOpenOrders, count-agent*fleet.MaxOpenOrders) {
				p.ID = fmt.Sprintf("o%d", i)
				placed = append(placed, p)
			}
			for i := 0; i < len(placed); i += 100 {
				w.sync(name, placed[i:min(i+100, len(placed))])
			}
		}
		before := runtime.NumGoroutine()
		e := w.engine("n1", list)
		e.lead()
		defer e.lose()
		pass(time.Duration(count) * time.Second / 2) // until all are placed
		heap := heapInUse()
		entries := w.stored()
		for hour := range hours {
			pass(time.Hour)
			if goroutines := runtime.NumGoroutine() - before; goroutines > 12 {
				assert.LessOrEqual(t, goroutines, 12, "in hour %d", hour)
			}
		}
		after := heapInUse()
		asked := many.asked()
		perMinute, most := spread(asked, time.Duration(hours)*time.Hour)
		t.Logf("%d orders, %d hours: %d questions, at most %d within a second; heap %d KiB before and %d KiB after; %d log entries",
			count, hours, len(asked), most, heap>>10, after>>10, w.stored()-entries)
		t.Logf("questions in each five minutes: %v", perMinute)
		assert.LessOrEqual(t, most, 5+5, "more than a burst and a second's rate")
		assert.Less(t, after, heap+heap/2+8<<20, "the heap grows")
		assert.Equal(t, count, len(w.state.View().OpenOrders("slow", 0)))
		// Each is asked about every hour and a half at the latest, or as fast as the
		// account allows.
		slowest := float64(count) / 1.5
		assert.Greater(t, float64(len(asked)), 0.8*min(slowest, 5*3600)*float64(hours))
		for i, n := range perMinute[12:] { // the first hour is at the quick end of the pace
			mean := len(asked) / len(perMinute)
			assert.Less(t, n, 2*mean+20, "a crowd, in five minutes number %d: %v", 12+i, perMinute)
		}
	})
}

// What is learnt at about the same time is stored together: the log, and every node's
// disk, must not suffer from orders that wait.
func TestQuestionsThatChangeNothingAreStoredTogether(t *testing.T) {
	const count = 200
	bubble(t, func(t *testing.T, w *world) {
		many := &patient{began: time.Now()}
		e := w.engine("n1", map[string]orders.Issuer{"slow": {Connector: many, Limits: asyncpoll.Limits{Rate: 1000, Burst: 100, Concurrency: 20}}})
		e.lead()
		defer e.lose()
		var placed []fleet.OrderPlacement
		p := placement(t, "x", "slow", "www.example.com")
		for i := range count {
			p.ID = fmt.Sprintf("o%d", i)
			placed = append(placed, p)
		}
		w.sync("a", placed[:count/2])
		w.sync("a", placed[count/2:])
		pass(6 * time.Second) // before any of them is asked about
		for _, p := range placed {
			w.do(fleet.RetryOrder{Actor: "local", Agent: "a", ID: p.ID})
		}
		asked, entries := len(many.asked()), w.stored()
		pass(10 * time.Second)
		assert.Equal(t, count, len(many.asked())-asked)
		assert.LessOrEqual(t, w.stored()-entries, 10, "an entry for each")
		for _, p := range placed {
			assert.EqualValues(t, 1, w.order(p.ID).Brokering.Polls)
		}
	})
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// spread counts questions in each five minutes before now, and the most within a
// second.
func spread(asked []time.Time, last time.Duration) (each []int, most int) {
	from := time.Now().Add(-last)
	each = make([]int, int(last/(5*time.Minute)))
	first := 0
	for i, at := range asked {
		for asked[first].Before(at.Add(-time.Second)) {
			first++
		}
		most = max(most, i-first+1)
		if slot := int(at.Sub(from) / (5 * time.Minute)); at.After(from) && slot < len(each) {
			each[slot]++
		}
	}
	return each, most
}

// patient is an authority at which every order waits for a person for ever. It has no
// server: this is about what the engine does.
type patient struct {
	began time.Time
	mu    sync.Mutex
	times []time.Time
	next  int
}

func (p *patient) asked() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.times
}

func (p *patient) note() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.times = append(p.times, time.Now())
	p.next++
	return p.next
}

func (p *patient) waits(h connector.Handle) *connector.Status {
	return &connector.Status{State: connector.NeedsPerson, Raw: "waits", Mend: "approve it", Handle: h}
}

func (p *patient) Place(context.Context, *connector.Request) (*connector.Status, error) {
	return p.waits(connector.Handle{Order: fmt.Sprint(p.note())}), nil
}

func (p *patient) Status(_ context.Context, _ *connector.Request, h connector.Handle) (*connector.Status, error) {
	p.note()
	return p.waits(h), nil
}

func (p *patient) Collect(context.Context, *connector.Request, connector.Handle) (*connector.Bundle, error) {
	return nil, &connector.Error{Class: connector.ClassNotReady}
}

func (p *patient) Test(context.Context) (*connector.Account, error) {
	return &connector.Account{}, nil
}

// An authority that tells what has changed is asked about each order less often, and
// an order that has changed is noticed at once all the same.
func TestChangesAreToldOfAllOrdersTogether(t *testing.T) {
	const count = 60
	polls := map[bool]int{}
	for _, tells := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			_, v := digicertOf(t, fakeca.Config{Approval: true})
			list := issuers(t, v)
			if !tells {
				c := list["digicert"].Connector.(*digicert.Connector)
				list["digicert"] = orders.Issuer{Connector: silent{c, c, c, c}, Limits: list["digicert"].Limits}
			}
			e := w.engine("n1", list)
			e.lead()
			defer e.lose()
			var placed []fleet.OrderPlacement
			for i := range count {
				placed = append(placed, placement(t, fmt.Sprintf("o%d", i), "digicert", fmt.Sprintf("o%d.example.com", i)))
			}
			w.sync("a", placed)
			pass(6 * time.Hour)
			before := v.fake.Core().Count(fakeca.Status)
			pass(6 * time.Hour)
			polls[tells] = v.fake.Core().Count(fakeca.Status) - before
			if !tells {
				return
			}
			require.NoError(t, v.fake.Core().Approve(v.fake.Core().Ledger(nil)[17].ID))
			pass(8 * time.Minute)
			ready := 0
			for _, p := range placed {
				if w.stage(p.ID) == fleet.StageCollected {
					ready++
					w.delivered(p)
				}
			}
			assert.Equal(t, 1, ready)
			// The hint is none that is relied on.
			v.fake.Core().Script(fakeca.Search, fakeca.Repeat(10_000, fakeca.Fault{Kind: fakeca.Refuse, Status: 400})...)
			v.fake.Core().ApproveAll()
			pass(8 * time.Hour)
			for _, p := range placed {
				if w.stage(p.ID) != fleet.StageDelivered {
					w.delivered(p)
				}
			}
			once(t, v, count)
		})
	}
	t.Logf("questions about %d orders in six hours: %d, and %d with an authority that tells of changes", count, polls[false], polls[true])
	assert.Less(t, polls[true], polls[false]/2)
}

// silent is a connector that does not tell of changes.
type silent struct {
	connector.Connector
	connector.Searcher
	connector.Canceller
	connector.Revoker
}

// A term that ends while an order is placed leaves the call its time to be answered,
// and stores the answer; a call that is not answered then is in doubt.
func TestATermThatEndsWhileAnOrderIsPlaced(t *testing.T) {
	for name, c := range map[string]struct {
		answer time.Duration
		doubt  bool
	}{"answered soon": {3 * time.Second, false}, "not answered": {time.Minute, true}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				fake, v := digicertOf(t, fakeca.Config{Delay: time.Minute})
				list := issuers(t, v)
				slow := &slowAnswers{Connector: list["digicert"].Connector.(*digicert.Connector), until: make(chan struct{})}
				first := w.engine("n1", map[string]orders.Issuer{"digicert": {Kind: "digicert", Connector: slow}})
				first.lead()
				p := placement(t, "o1", "digicert", "www.example.com")
				w.sync("a", []fleet.OrderPlacement{p})
				pass(2 * time.Second)
				require.Equal(t, fleet.StagePlacing, w.stage("o1"))
				time.AfterFunc(c.answer, func() { close(slow.until) })
				ended := time.Now()
				first.lose() // waits for what it began
				assert.LessOrEqual(t, time.Since(ended), 16*time.Second)
				second := w.engine("n2", list)
				second.lead()
				defer second.lose()
				pass(time.Hour)
				w.delivered(p)
				once(t, v, 1)
				assert.Equal(t, 1, fake.Core().Count(fakeca.Place))
				assert.Equal(t, c.doubt, slices.Contains(w.kinds("o1"), fleet.KindOrderUnknown))
			})
		})
	}
}
