//go:build linux

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/wire"
)

// An agent that the operator retires is refused for good and says so; what it
// can renew alone it goes on renewing; and it may enrol anew.
func TestRetiredAgent(t *testing.T) {
	t.Parallel()
	ca := shortLived(t, 30*time.Second)
	c := startCoordinator(t)
	a := newAgent(t, "the agent", section{
		"issuers":      section{"pebble": acmeIssuer(ca)},
		"certificates": []section{certificate("www", "pebble", "www.example")},
	})
	a.enroll(c)
	a.startAndAwait()
	await(t, 2*time.Minute, "the certificate is reported", func() error {
		// Which one it is changes every few seconds.
		own, err := a.certificate("www")
		if err != nil {
			return err
		}
		rows, err := c.report(a.id)
		if err == nil && (own.Serial == "" || rows["www"].Serial != own.Serial) {
			err = fmt.Errorf("the report has the serial number %q, the agent %q", rows["www"].Serial, own.Serial)
		}
		return err
	})

	require.NoError(t, c.try("POST", "/api/v1/agents/"+a.id+"/retire", resource.RetireAgent{Reason: "e2e"}, nil))
	await(t, 2*time.Minute, "the agent learns that it is retired", func() error {
		if state := a.status().Coordinator.State; state != control.ConnectionRetired {
			return fmt.Errorf("it says %s", state)
		}
		return nil
	})
	told := a.call("status")
	assert.Equal(t, 1, told.status, "somebody should look")
	assert.Contains(t, told.stdout, "retired")

	last, err := a.certificate("www")
	require.NoError(t, err)
	var alone control.Certificate
	await(t, 2*time.Minute, "a renewal without the coordinator", func() (err error) {
		alone, err = a.certificate("www")
		if err == nil && (alone.Serial == last.Serial || alone.State != wire.StateValid) {
			err = fmt.Errorf("it is %s: %s", alone.State, alone.LastError)
		}
		return err
	})
	rows, err := c.report(a.id)
	require.NoError(t, err)
	assert.Empty(t, rows, "the report has forgotten a retired agent's certificates")
	assert.Zero(t, a.status().Coordinator.NextSync, "no sync is planned")

	retired := a.id
	a.enrolled(a.enrollWith(c.url(), c.newToken().Token, "--replace"))
	assert.NotEqual(t, retired, a.id)
	await(t, 2*time.Minute, "the new agent's report", func() error {
		rows, err := c.report(a.id)
		if err == nil && rows["www"].Serial == "" {
			err = fmt.Errorf("the report has %v", rows)
		}
		return err
	})
	assert.Equal(t, control.ConnectionConnected, a.status().Coordinator.State)
	for _, known := range c.agents() {
		if known.ID == retired {
			assert.Equal(t, "retired", known.State)
		}
	}
}
