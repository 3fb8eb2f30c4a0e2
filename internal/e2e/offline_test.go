//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/internal/testca/pebble"
	"github.com/certctl/certctl/shared/wire"
)

// shortLived is a Pebble whose certificates are renewed after some twenty
// seconds.
func shortLived(t *testing.T, validity time.Duration) *pebble.Server {
	return pebble.Run(t, pebble.Options{Profiles: map[string]pebble.Profile{"short": {Description: "short", Validity: validity}}})
}

// While the coordinator is gone an ACME certificate is renewed all the same,
// and the first sync after its return tells all of it, each fact once.
func TestOfflineRenewal(t *testing.T) {
	t.Parallel()
	ca := shortLived(t, time.Minute)
	web := startWeb(t, "www.example")
	c := startCoordinator(t)
	a := newAgent(t, "the agent", section{
		"issuers":      section{"pebble": acmeIssuer(ca)},
		"certificates": []section{certificate("www", "pebble", "www.example", deployTo(web, 0))},
	})
	a.enroll(c)
	a.startAndAwait()
	awaitInService(t, c, a, web, "www", "www.example", "")
	await(t, time.Minute, "the renewal is near", func() error {
		// The coordinator goes shortly before, so that the pauses between the
		// agent's attempts to reach it do not grow long.
		own, err := a.certificate("www")
		if err != nil {
			return err
		}
		if left := time.Until(own.RenewAt); left > 3*time.Second {
			return fmt.Errorf("it is %v away", left)
		}
		return nil
	})
	before := a.awaitSettled(2 * time.Minute).Certificates[0].Fingerprint
	c.stop()
	gone := time.Now()
	var renewed control.Certificate
	await(t, 2*time.Minute, "the certificate is renewed without the coordinator", func() (err error) {
		if renewed, err = a.certificate("www"); err != nil {
			return err
		}
		if renewed.Fingerprint == before || settled(&control.Status{Certificates: []control.Certificate{renewed}}) != nil {
			return fmt.Errorf("not yet: %s, %s", renewed.State, renewed.LastError)
		}
		return nil
	})
	var offline *control.Status
	await(t, 2*time.Minute, "the agent notices that it is cut off", func() error {
		if offline = a.status(); offline.Coordinator.State != control.ConnectionCutOff {
			return fmt.Errorf("it says %s", offline.Coordinator.State)
		}
		return nil
	})
	assert.Equal(t, 0, a.call("status").status, "being cut off is a normal state")

	back := time.Now()
	c.start()
	c.awaitServing()
	await(t, 2*time.Minute, "the agent has found the coordinator again", func() error {
		agents := c.agents()
		if len(agents) != 1 || !agents[0].LastSeen.After(back) {
			return errors.New("not seen yet")
		}
		return nil
	})
	t.Logf("the coordinator was away for %v; the agent found it %v later", back.Sub(gone), time.Since(back))
	// One sync brings it all: when the report is right, the agent was last seen
	// in the sync that it came back with, or in the one after if that came while
	// this test looked.
	first := c.agents()[0].LastSeen
	await(t, time.Minute, "the report is right", func() error {
		rows, err := c.report(a.id)
		if err != nil {
			return err
		}
		now, err := a.certificate("www")
		if err != nil {
			return err
		}
		if row := rows["www"]; row.Fingerprint == before || row.Fingerprint != now.Fingerprint {
			return fmt.Errorf("it has %s, the agent %s", row.Fingerprint, now.Fingerprint)
		}
		return nil
	})
	assert.Less(t, c.agents()[0].LastSeen.Sub(first), syncInterval*2, "the report is right within one sync")

	require.NoError(t, eventsInOrder(c, a))
	kinds := make(map[wire.EventKind]int)
	for _, fact := range c.facts(a.id) {
		kinds[wire.EventKind(fact.Kind)]++
	}
	assert.Equal(t, 1, kinds[wire.EventStarted])
	assert.GreaterOrEqual(t, kinds[wire.EventRenewed], 1)
}

// eventsInOrder checks that the journal has every event that the agent has
// sent, once, in the agent's order.
func eventsInOrder(c *coordinator, a *agent) error {
	var last uint64
	for _, fact := range c.facts(a.id) {
		if fact.Actor != "agent:"+a.id || fact.Audit != 0 {
			continue
		}
		var event wire.Event
		if err := json.Unmarshal(fact.Detail, &event); err != nil || event.Sequence == 0 {
			continue // made by the coordinator about an act of the agent
		}
		if event.Sequence != last+1 {
			return fmt.Errorf("event %d (%s) comes after event %d", event.Sequence, event.Kind, last)
		}
		last = event.Sequence
	}
	if last == 0 {
		return errors.New("the journal has no event of the agent")
	}
	return nil
}
