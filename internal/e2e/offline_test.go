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

// shortLived is a Pebble whose certificates are good for that long.
func shortLived(t *testing.T, validity time.Duration) *pebble.Server {
	return pebble.Run(t, pebble.Options{Profiles: map[string]pebble.Profile{"short": {Description: "short", Validity: validity}}})
}

// While the coordinator is gone an ACME certificate is renewed all the same,
// and the first sync after its return tells all of it, each fact once.
func TestOfflineRenewal(t *testing.T) {
	t.Parallel()
	ca := shortLived(t, 2*time.Minute)
	web := startWeb(t, "www.example")
	c := startCoordinator(t)
	a := newAgent(t, "the agent", section{
		"issuers":      section{"pebble": acmeIssuer(ca)},
		"certificates": []section{certificate("www", "pebble", "www.example", deployTo(web, 0))},
	})
	a.enroll(c)
	a.startAndAwait()
	awaitInService(t, c, a, web, "www", "www.example", "")
	await(t, 3*time.Minute, "the renewal is near", func() error {
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
	c.stop()
	gone := time.Now()
	old, err := a.certificate("www")
	require.NoError(t, err)
	var renewed control.Certificate
	await(t, 3*time.Minute, "the certificate is renewed without the coordinator", func() (err error) {
		if renewed, err = a.certificate("www"); err != nil {
			return err
		}
		if renewed.Fingerprint == old.Fingerprint || settled(&control.Status{Certificates: []control.Certificate{renewed}}) != nil {
			return fmt.Errorf("not yet: %s, %s", renewed.State, renewed.LastError)
		}
		return nil
	})
	// Without its authority the agent has nothing more to tell for most of a
	// minute: what makes it sync below is the coordinator's return alone.
	ca.Kill()
	var offline *control.Status
	await(t, 2*time.Minute, "the agent notices that it is cut off", func() error {
		if offline = a.status(); offline.Coordinator.State != control.ConnectionCutOff {
			return fmt.Errorf("it says %s", offline.Coordinator.State)
		}
		return nil
	})
	assert.Equal(t, 0, a.call("status").status, "being cut off is a normal state")

	// From now on the coordinator asks for a pause of many minutes: what the
	// first sync does not tell stays untold.
	c.env = append(c.env, "CERTCTL_SYNC_INTERVAL=30m")
	back := time.Now()
	c.start()
	c.awaitServing()
	var own control.Certificate
	await(t, 6*time.Minute, "the agent has found the coordinator again", func() error {
		status, err := a.tryStatus()
		if err != nil {
			return err
		}
		if status.Coordinator.State != control.ConnectionConnected {
			return fmt.Errorf("it says %s: %s", status.Coordinator.State, status.Coordinator.LastError)
		}
		own = status.Certificates[0]
		return nil
	})
	t.Logf("the coordinator was away for %v; the agent found it %v later", back.Sub(gone), time.Since(back))
	rows, err := c.report(a.id)
	require.NoError(t, err)
	assert.NotEqual(t, old.Fingerprint, own.Fingerprint)
	assert.Equal(t, own.Fingerprint, rows["www"].Fingerprint, "the report is right after the first sync")
	assert.Equal(t, own.Serial, rows["www"].Serial)
	// An agent repeats the request that it had no answer to. What has happened
	// since follows at once, and belongs to the same sync.
	accepted, err := c.syncs()
	require.NoError(t, err)
	assert.Contains(t, []int{1, 2}, accepted, "requests of the first sync")

	require.NoError(t, eventsInOrder(c, a))
	var kinds map[wire.EventKind]int
	told := 0
	await(t, time.Minute, "the journal, which is written behind the answers, has the renewal", func() error {
		kinds, told = make(map[wire.EventKind]int), 0
		for _, fact := range c.facts(a.id) {
			kinds[wire.EventKind(fact.Kind)]++
			var event wire.Event
			if fact.Kind == string(wire.EventRenewed) && json.Unmarshal(fact.Detail, &event) == nil && event.Serial == renewed.Serial {
				told++
			}
		}
		if told == 0 {
			return fmt.Errorf("it has %v", kinds)
		}
		return nil
	})
	assert.Equal(t, 1, kinds[wire.EventStarted])
	assert.Equal(t, 1, told, "the renewal without the coordinator is told once")
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
