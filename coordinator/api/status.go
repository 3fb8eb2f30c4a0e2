package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/buildinfo"
)

type statusDocument struct {
	Body resource.Status
}

func (s *server) registerStatus(api huma.API) {
	huma.Register(api, narrows(untagged(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "show-status", Method: http.MethodGet, Path: "/api/v1/status", Tags: []string{"status"},
		Summary:     "Show the coordinator and its fleet",
		Description: "Counts of the whole fleet. They may be as old as as_of says.",
	}), "it tells the time and how far this node is")), s.showStatus)
}

func (s *server) showStatus(ctx context.Context, _ *struct{}) (*statusDocument, error) {
	scope := scopeOf(ctx)
	var journal resource.JournalStatus
	if scope.IsZero() { // else its numbers are of hosts that are not there
		var err error
		if journal, err = s.journalStatus(); err != nil {
			return nil, err
		}
	}
	ready := s.Node.Ready()
	leader, _ := s.Node.Leader()
	out := &statusDocument{Body: resource.Status{
		Version: buildinfo.Version(), Time: s.Now().UTC(),
		Node: resource.NodeStatus{
			ID: s.Node.ID(), Ready: ready.Ready(), Leading: ready.Leading, Leader: leader, AppliedIndex: s.Node.State().Index(),
		},
		Journal: journal, Database: s.Database != nil,
	}}
	counted := s.tallyOf(scope).get(s)
	out.Body.AsOf, out.Body.Agents, out.Body.Certificates = counted.at.UTC(), counted.agents, counted.certificates
	out.Body.Earliest, out.Body.Orders, out.Body.OrdersPending = counted.earliest, counted.orders, counted.ordersPending
	out.Body.SafeUntil, out.Body.NotSafe, out.Body.NeedingAttention = counted.safeUntil, counted.notSafe, counted.needingAttention
	return out, nil
}

func (s *server) journalStatus() (resource.JournalStatus, error) {
	journal, err := s.Journal.Status()
	if err != nil {
		return resource.JournalStatus{}, s.fail("read the journal's status", err)
	}
	return resource.JournalStatus{
		Facts: journal.Facts, AuditFacts: journal.AuditFacts, Bytes: journal.Bytes, MaxBytes: journal.MaxBytes,
		Dropped: journal.Dropped, NearlyFull: journal.NearlyFull,
	}, nil
}

// countShare bounds what counting may cost: one part in so many of the time of
// one processor, however often it is asked for.
const countShare = 20

// earliestHosts is how many hosts the status names.
const earliestHosts = 5

// scopesCounted bounds the scopes whose counts are kept.
const scopesCounted = 64

// tallies are the counts of the fleet, and of what there is of it for each scope that
// was asked about last.
type tallies struct {
	mu     sync.Mutex
	counts map[string]*tally
}

func (s *server) tallyOf(scope fleet.Scope) *tally {
	t := &s.tallies
	t.mu.Lock()
	defer t.mu.Unlock()
	name := scope.String()
	if t.counts[name] == nil {
		if t.counts == nil || len(t.counts) >= scopesCounted {
			t.counts = map[string]*tally{}
		}
		t.counts[name] = &tally{scope: scope}
	}
	return t.counts[name]
}

// tally is the last count of the fleet, or of a scope. Counting goes through every summary,
// because health depends on the clock and on who is cut off; a count that took
// a moment is kept for many of them, one that took none is made afresh.
type tally struct {
	scope    fleet.Scope
	mu       sync.Mutex // held while counting: those who ask meanwhile share the result
	last     fleetCount
	keep     time.Duration // how long last is good, by the monotonic clock
	finished time.Time
}

type fleetCount struct {
	at            time.Time
	agents        resource.AgentCounts
	certificates  resource.HealthCounts
	earliest      []resource.HostHorizon
	ordersPending int
	orders        resource.OrderCounts
	safeUntil     time.Time
	// certificates, of active agents
	notSafe, needingAttention int
}

func (t *tally) get(s *server) fleetCount {
	t.mu.Lock()
	defer t.mu.Unlock()
	began := time.Now()
	if !t.finished.IsZero() && began.Sub(t.finished) < t.keep {
		return t.last
	}
	t.last = s.count(t.scope)
	t.finished = time.Now()
	t.keep = s.Keep(t.finished.Sub(began))
	return t.last
}

// keepFor is how long a count is good that took so long, unless somebody says
// otherwise.
func keepFor(took time.Duration) time.Duration {
	if took <= 10*time.Millisecond {
		return 0
	}
	return countShare * took
}

func (s *server) count(scope fleet.Scope) fleetCount {
	p := s.live(scope)
	view, now := p.view, p.Now
	count := fleetCount{at: now}
	count.orders, count.ordersPending = countOrders(view)
	contacts := make(map[string]contact, view.Rows(fleet.TableAgents))
	each(func(page fleet.Page) ([]*fleet.Agent, string, error) { return view.Agents(fleet.AgentFilter{}, page) }, func(a *fleet.Agent) {
		if a.State != fleet.AgentActive {
			count.agents.Retired++
			return
		}
		touch := p.contact(a)
		contacts[a.ID] = touch
		count.agents.Active++
		if len(a.Host.Warnings) > 0 {
			count.agents.Warned++
		}
		if n := a.Host.NotSafe; n > 0 {
			count.agents.NotSafe++
			count.notSafe += n
		}
		if n := view.NeedingAttention(a.ID); n > 0 {
			count.agents.NeedingAttention++
			count.needingAttention += n
		}
		if touch.cutOff {
			count.agents.CutOff++
		} else {
			count.agents.Connected++
		}
	})
	// There is an index for this; a first page has no cursor that could be wrong.
	first, _, err := view.Agents(fleet.AgentFilter{BySafeUntil: true}, fleet.Page{Limit: earliestHosts})
	if err != nil {
		panic("api: a list without a cursor refused it: " + err.Error())
	}
	count.earliest = make([]resource.HostHorizon, 0, len(first))
	for _, a := range first {
		host := resource.HostHorizon{AgentID: a.ID, Hostname: a.Host.Hostname, NotSafe: a.Host.NotSafe}
		if a.Host.SafeUntil != nil {
			host.SafeUntil = a.Host.SafeUntil.UTC()
		}
		count.earliest = append(count.earliest, host)
	}
	if until, ok := view.SafeUntil(now); ok {
		count.safeUntil = until.UTC()
	}
	each(func(page fleet.Page) ([]*fleet.Certificate, string, error) {
		return view.Certificates(fleet.CertificateFilter{}, page)
	}, func(row *fleet.Certificate) {
		health, _ := p.health(row, contacts[row.Agent])
		count.certificates.Add(health)
	})
	return count
}

// countOrders counts the orders at authorities, and all that wait for their
// certificate, those at the built-in CA too.
func countOrders(view *fleet.View) (counts resource.OrderCounts, pending int) {
	for _, c := range view.OrderCounts() {
		switch c.Stage {
		case fleet.StageNeedsPerson:
			counts.NeedsPerson += c.Count
		case fleet.StageUnknown:
			counts.UnknownOutcome += c.Count
		case fleet.StageRequested, fleet.StagePlacing, fleet.StagePending, fleet.StageIssued:
		default:
			continue
		}
		counts.Open += c.Count
	}
	return counts, counts.Open + len(view.BuiltinOrders(0))
}

// each goes through a whole list of one view. Its cursors cannot be wrong.
func each[T any](list func(fleet.Page) ([]T, string, error), visit func(T)) {
	for page := (fleet.Page{Limit: fleet.MaxLimit}); ; {
		records, next, err := list(page)
		if err != nil {
			panic("api: a list refused its own cursor: " + err.Error())
		}
		for _, record := range records {
			visit(record)
		}
		if page.Cursor = next; next == "" {
			return
		}
	}
}
