//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/shared/wire"
)

// Agent and coordinator are killed in turn and together, while the agent renews
// and tells. In the end the journal holds each fact of the agent once, in the
// agent's order, and none is missing: as many renewals as the agent has made.
func TestKillBothSides(t *testing.T) {
	t.Parallel()
	const certificates = 3
	kills := times(14, 200)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	c := startCoordinator(t, "CERTCTL_CA_LEAF_LIFETIME=1m")
	var wanted []section
	for i := range certificates {
		wanted = append(wanted, certificate(fmt.Sprintf("c%d", i), "coordinator", fmt.Sprintf("c%d.example", i)))
	}
	a := newAgent(t, "the agent", section{"certificates": wanted})
	a.enroll(c, "*.example")
	a.startAndAwait()

	agentKills, coordinatorKills := 0, 0
	for range kills {
		life, end := context.WithTimeout(t.Context(), time.Duration(50+random.IntN(1200))*time.Millisecond)
		forceRenewal(life, a, fmt.Sprintf("c%d", random.IntN(certificates)))
		<-life.Done()
		end()
		which := random.IntN(3)
		if which != 0 {
			require.True(t, c.running(), "the coordinator ended by itself")
			c.kill()
			coordinatorKills++
		}
		if which != 1 {
			require.True(t, a.running(), "the agent ended by itself")
			a.kill()
			agentKills++
			a.start()
		}
		if which != 0 {
			c.start()
		}
	}
	c.awaitServing()
	a.kill() // one without a reason to wait for its next attempt to reconnect
	a.startAndAwait()

	await(t, 3*time.Minute, "the host and the report agree", func() error { return agree(c, a, certificates) })
	var made uint64
	var facts []resource.Event
	await(t, 2*time.Minute, "every fact has arrived, once", func() error {
		if err := eventsInOrder(c, a); err != nil {
			return err
		}
		before := a.status()
		facts = c.facts(a.id)
		told := countFacts(facts, wire.EventRenewed)
		after := a.status()
		made = 0
		for i := range before.Certificates {
			if before.Certificates[i].Renewals != after.Certificates[i].Renewals {
				return errors.New("a renewal came between")
			}
			made += before.Certificates[i].Renewals
		}
		if uint64(told) != made {
			return fmt.Errorf("the journal has %d renewals, the agent made %d", told, made)
		}
		return nil
	})
	assert.Zero(t, a.status().Coordinator.EventsDropped, "facts dropped")
	// A renewal that begins now has an order that is open for a moment.
	var whole []resource.Event
	await(t, 2*time.Minute, "no order is open", func() error {
		whole = c.facts("")
		return noneOpen(whole)
	})
	twice := ordersOnce(t, whole)
	missing, repeated := tally(facts, made)
	counts.Report(t, "both-kills", agentKills+coordinatorKills,
		fmt.Sprintf("kill -9: %d of the agent, %d of the coordinator, in turn and together", agentKills, coordinatorKills))
	counts.Report(t, "both-kills-facts-lost", missing, fmt.Sprintf("of %d renewals that the agent made, those that the journal does not have", made))
	counts.Report(t, "both-kills-facts-twice", repeated, "facts of the agent that the journal has more than once")
	counts.Report(t, "both-kills-duplicate-orders", twice, "orders that were placed twice or have not exactly one certificate")
	assert.Zero(t, missing)
	assert.Zero(t, repeated)
	t.Logf("%d kills of the agent, %d of the coordinator; %d renewals, each told once", agentKills, coordinatorKills, made)
}

// noneOpen checks that each order that was placed has an outcome.
func noneOpen(facts []resource.Event) error {
	open := make(map[string]bool)
	for _, fact := range facts {
		switch fact.Kind {
		case "order.requested":
			open[fact.Object] = true
		case "order.issued", "order.rejected":
			delete(open, fact.Object)
		}
	}
	if len(open) > 0 {
		return fmt.Errorf("%d orders are open", len(open))
	}
	return nil
}

// tally holds the journal against the number of renewals that the agent made: how
// many it misses, and how many facts it has more than once, by the number that
// the agent gave them and by the certificate that they are about.
func tally(facts []resource.Event, made uint64) (missing, repeated int) {
	numbers := make(map[uint64]bool)
	renewed := make(map[string]bool)
	for _, fact := range facts {
		var event wire.Event
		if json.Unmarshal(fact.Detail, &event) != nil || event.Sequence == 0 {
			continue // made by the coordinator itself
		}
		again := numbers[event.Sequence]
		numbers[event.Sequence] = true
		if event.Kind == wire.EventRenewed {
			again = again || renewed[event.Serial]
			renewed[event.Serial] = true
		}
		if again {
			repeated++
		}
	}
	return int(made) - len(renewed), repeated
}

// countFacts counts the events of a kind that the agent has told.
func countFacts(facts []resource.Event, kind wire.EventKind) int {
	n := 0
	for _, fact := range facts {
		var event wire.Event
		if fact.Kind == string(kind) && json.Unmarshal(fact.Detail, &event) == nil {
			n += int(max(event.Count, 1))
		}
	}
	return n
}
