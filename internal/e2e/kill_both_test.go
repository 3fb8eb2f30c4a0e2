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
	await(t, 2*time.Minute, "every fact has arrived, once", func() error {
		if err := eventsInOrder(c, a); err != nil {
			return err
		}
		before := a.status()
		told := countFacts(c, a, wire.EventRenewed)
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
	ordersOnce(t, c.facts(""))
	t.Logf("%d kills of the agent, %d of the coordinator; %d renewals, each told once", agentKills, coordinatorKills, made)
}

// countFacts counts the events of a kind that the agent has told.
func countFacts(c *coordinator, a *agent, kind wire.EventKind) int {
	n := 0
	for _, fact := range c.facts(a.id) {
		var event wire.Event
		if fact.Kind == string(kind) && json.Unmarshal(fact.Detail, &event) == nil {
			n += int(max(event.Count, 1))
		}
	}
	return n
}
