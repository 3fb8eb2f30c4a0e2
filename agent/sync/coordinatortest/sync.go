package coordinatortest

import (
	"bytes"
	"crypto/x509"
	"net/http"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Overtake makes as if a later sync had come from another host with a copy of
// the agent's identity. The caller holds the lock.
func (a *Agent) Overtake() { a.sequence += 1000 }

// sync is the rule of package wire, in its plainest form.
func (c *Coordinator) sync(a *Agent, body []byte) any {
	if len(body) > wire.MaxSyncBody {
		c.t.Errorf("a sync of %d bytes is above the limit", len(body))
	}
	var r wire.SyncRequest
	p := wire.Decode(bytes.NewReader(body), wire.MaxSyncBody, &r)
	if p == nil {
		p = r.Validate()
	}
	if !assert.Nil(c.t, p, "the agent sent a request that is not valid") {
		return p
	}
	if c.MaxRows > 0 && len(r.Rows) > c.MaxRows {
		return problem(http.StatusRequestEntityTooLarge, wire.CodeBodyTooLarge, "too many rows")
	}
	if r.BootID == a.previous || r.BootID == a.boot && r.Sequence < a.sequence {
		return problem(http.StatusConflict, wire.CodeStale, "a later sync is known")
	}
	if r.BootID != a.boot {
		a.previous, a.boot = a.boot, r.BootID
	}
	a.sequence, a.Host = r.Sequence, r.Host
	a.Skew = time.Since(r.SentAt)
	a.inventory(&r)
	for _, e := range r.Events {
		if e.Sequence > a.event {
			a.event = e.Sequence
			a.Events = append(a.Events, e)
		}
	}
	answer := &wire.SyncResponse{PauseMillis: c.Pause.Milliseconds(), ServerTime: c.now()}
	for _, id := range r.Collected {
		if result := a.Orders[id]; result != nil {
			result.State = "collected"
		}
	}
	for _, order := range r.Orders {
		a.Placed[order.ID]++
		a.MadeAt[order.ID] = order.PlacedAt
		if known := a.Orders[order.ID]; known == nil || known.State == wire.OrderPending {
			a.Orders[order.ID] = c.decide(order, c.HoldOrders || c.Late && known == nil)
		}
	}
	for _, result := range a.Orders {
		if result.State != "collected" {
			answer.Orders = append(answer.Orders, *result)
		}
	}
	a.desired(&r, answer)
	a.Trust, answer.Trust = r.Trust, c.missing(r.Trust)
	if r.ServersDigest != wire.ServersDigest(wire.CleanServers(c.Servers)) {
		answer.Servers = c.Servers
	}
	answer.Revision, answer.Event, answer.ResyncID = a.revision, a.event, a.resyncID
	return answer
}

func (c *Coordinator) decide(order wire.OrderRequest, hold bool) *wire.OrderResult {
	result := &wire.OrderResult{ID: order.ID, State: wire.OrderPending}
	if hold {
		result.Stage, result.Detail, result.Mend = c.Progress.Stage, c.Progress.Detail, c.Progress.Mend
	}
	csr, err := pki.ParseCSR(order.CSR)
	switch {
	case err != nil:
		result.State, result.Problem = wire.OrderRejected, problem(http.StatusBadRequest, wire.CodeCSRInvalid, err.Error())
	case c.Reject != nil:
		result.State, result.Problem = wire.OrderRejected, c.Reject
	case !hold:
		leaf := c.sign(&x509.Certificate{
			NotAfter: time.Now().Add(24 * time.Hour), DNSNames: csr.Names.DNS, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}, csr.PublicKey)
		result.State, result.Chain = wire.OrderIssued, pemOf(leaf)
	}
	return result
}

// desired is what a sync says of the desired state and of commands.
func (a *Agent) desired(r *wire.SyncRequest, answer *wire.SyncResponse) {
	if a.DesiredDigest = r.DesiredDigest; a.Desired != nil && a.Desired.Digest != r.DesiredDigest {
		answer.Desired = a.Desired
	}
	if len(r.Assignments) > 0 {
		a.Assignments = r.Assignments
		a.AssignmentReports++
	}
	for _, result := range r.Commands {
		if old := a.Results[result.ID]; !old.State.Final() {
			a.Results[result.ID] = result
			if result.State.Final() {
				a.Final[result.ID]++
			}
		}
	}
	for _, command := range a.Commands {
		if !a.Results[command.ID].State.Final() {
			answer.Commands = append(answer.Commands, command)
		}
	}
}

func (a *Agent) inventory(r *wire.SyncRequest) {
	within := r.ResyncID != "" && r.ResyncID == a.resyncID
	switch {
	case within && r.BaseRevision == 0:
		a.resyncBegun, a.revision, a.marked = true, r.Revision, map[string]bool{}
	case within && !a.resyncBegun, r.BaseRevision > a.revision, !within && r.HeadRevision < a.revision:
		a.askForAll()
		return
	default:
		a.revision = max(a.revision, r.Revision)
	}
	for _, row := range r.Rows {
		old, known := a.Rows[row.Name]
		if known && row.Revision <= old.Revision && (!within || a.marked[row.Name]) {
			continue
		}
		a.Rows[row.Name] = row
		if within {
			a.marked[row.Name] = true
		}
	}
	for _, gone := range r.Removed {
		if old, known := a.Rows[gone.Name]; known && gone.Revision > old.Revision {
			delete(a.Rows, gone.Name)
		}
	}
	if r.Revision != r.HeadRevision {
		return
	}
	if within {
		for name := range a.Rows {
			if !a.marked[name] {
				delete(a.Rows, name)
			}
		}
		a.resyncID, a.resyncBegun = "", false
	}
	if a.Digest() != r.Digest {
		a.askForAll()
	}
}

func (a *Agent) askForAll() {
	if a.resyncID != "" && !a.resyncBegun {
		return
	}
	a.Resyncs++
	a.resyncBegun = false
	a.resyncID = newID(a.Resyncs)
}

// Digest is that of the rows that the model has.
func (a *Agent) Digest() wire.Digest {
	var d wire.Digest
	for _, row := range a.Rows {
		d.Toggle(row.Hash())
	}
	return d
}

// forget loses a row of whoever asks.
func (c *Coordinator) forget(r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	agent, _, refusal := c.agent(r)
	if refusal != nil {
		return
	}
	for name := range agent.Rows {
		delete(agent.Rows, name)
		return
	}
}
