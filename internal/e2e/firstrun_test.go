//go:build linux

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/internal/testca/pebble"
	"github.com/certctl/certctl/internal/testnginx"
	"github.com/certctl/certctl/shared/pki"
)

// awaitInService waits until nginx, the agent and the coordinator agree on the
// fingerprint of a certificate, which is not the one before, and returns it.
func awaitInService(t *testing.T, c *coordinator, a *agent, web *testnginx.Server, name, dnsName, before string) string {
	t.Helper()
	var served string
	await(t, 2*time.Minute, name+" is in service and reported", func() error {
		leaf, err := servedLeaf(context.Background(), web, dnsName)
		if err != nil {
			return err
		}
		served = pki.Fingerprint(leaf)
		own, err := a.certificate(name)
		if err != nil {
			return err
		}
		rows, err := c.report(a.id)
		if err != nil {
			return err
		}
		row := rows[name]
		switch {
		case served == before:
			return fmt.Errorf("nginx still serves %s", served)
		case served != own.Fingerprint:
			return fmt.Errorf("nginx serves %s, the agent says %q (%s, %s)", served, own.Fingerprint, own.State, own.LastError)
		case served != row.Fingerprint:
			return fmt.Errorf("nginx serves %s, the report says %q", served, row.Fingerprint)
		case row.Health != resource.HealthOK:
			return fmt.Errorf("its health is %s: %s", row.Health, row.HealthReason)
		}
		return nil
	})
	return served
}

// A stranger starts a coordinator with its defaults, makes a token, enrols a
// host with two certificates, and sees both served.
func TestFirstRun(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	web := startWeb(t, "internal.example", "public.example")
	c := startCoordinator(t)
	a := newAgent(t, "the agent", section{
		"issuers": section{"pebble": acmeIssuer(ca)},
		"certificates": []section{
			certificate("internal", "coordinator", "internal.example", deployTo(web, 0)),
			certificate("public", "pebble", "public.example", deployTo(web, 1)),
		},
	})
	good := a.call("check-config")
	require.Zero(t, good.status, good.stderr)

	notRunning := a.call("status")
	assert.Equal(t, 2, notRunning.status, "status of an agent that is not running")
	a.enroll(c, "internal.example")
	a.startAndAwait()

	internal := awaitInService(t, c, a, web, "internal", "internal.example", "")
	public := awaitInService(t, c, a, web, "public", "public.example", "")

	well := a.call("status")
	assert.Zero(t, well.status, "status: %s%s", well.stdout, well.stderr)
	assert.Contains(t, well.stdout, "2 certificates, all in service; safe until ")
	agents := c.agents()
	require.Len(t, agents, 1)
	assert.Equal(t, a.id, agents[0].ID)
	assert.True(t, agents[0].Connected)
	assert.Equal(t, 2, agents[0].Certificates)
	assert.WithinDuration(t, *a.status().SafeUntil, agents[0].SafeUntil, time.Second, "the offline horizon")

	for name, before := range map[string]string{"internal": internal, "public": public} {
		renewed := a.call("renew", name)
		require.Zero(t, renewed.status, "renew %s: %s%s", name, renewed.stdout, renewed.stderr)
		awaitInService(t, c, a, web, name, name+".example", before)
	}
	assert.Len(t, ca.Ledger().Issued, 2)
	assert.Equal(t, 2, ca.Ledger().Orders)
	assert.Equal(t, 1, ca.Ledger().Replaced, "the renewal said what it replaces")

	unknown := a.call("renew", "nosuch")
	assert.Equal(t, 1, unknown.status)
	assert.Contains(t, unknown.stderr, "nosuch")
}
