package coordinatortest

import (
	"maps"
	"slices"
	"testing"

	"github.com/certctl/certctl/shared/wire"
)

// Clone is another coordinator that knows what this one knows at this moment, for
// tests that go on from there more than once. It does not serve yet.
func (c *Coordinator) Clone(t testing.TB) *Coordinator {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &Coordinator{
		t: t, Fault: c.Fault, Pause: c.Pause, IdentityLifetime: c.IdentityLifetime, Clock: c.Clock, MaxRows: c.MaxRows,
		HoldOrders: c.HoldOrders, Late: c.Late, Progress: c.Progress, Enrolled: c.Enrolled, Body: c.Body, Refuse: c.Refuse, Raw: c.Raw, Reject: c.Reject,
		root: c.root, trust: history{
			chain: slices.Clone(c.trust.chain), roots: slices.Clone(c.trust.roots), retired: slices.Clone(c.trust.retired),
		},
		source: c.source, // it is set anew by a rotation alone
		tokens: map[string]*Token{}, agents: map[string]*Agent{}, requests: maps.Clone(c.requests), issued: c.issued,
	}
	for id, agent := range c.agents {
		d.agents[id] = agent.clone()
	}
	for id, token := range c.tokens {
		copied := *token
		copied.agents = make(map[string]*Agent, len(token.agents))
		for key, agent := range token.agents {
			copied.agents[key] = d.agents[agent.ID]
		}
		d.tokens[id] = &copied
	}
	return d
}

func (a *Agent) clone() *Agent {
	b := *a
	b.Rows, b.Placed, b.Results, b.Final = maps.Clone(a.Rows), maps.Clone(a.Placed), maps.Clone(a.Results), maps.Clone(a.Final)
	b.Events, b.Commands, b.Assignments = slices.Clone(a.Events), slices.Clone(a.Commands), slices.Clone(a.Assignments)
	b.MadeAt = maps.Clone(a.MadeAt)
	b.marked, b.identities = maps.Clone(a.marked), maps.Clone(a.identities)
	b.Orders = make(map[string]*wire.OrderResult, len(a.Orders))
	for id, result := range a.Orders {
		copied := *result
		b.Orders[id] = &copied
	}
	return &b
}
