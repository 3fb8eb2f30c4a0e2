//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/issuers/issuerstest"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/shared/wire"
)

// Two orders wait for a person. An operator sees them with the command line, approves
// one at the authority and takes the other one back, and each comes to its end: with
// two orders at the authority, and no third.
func TestOperatorOfOrders(t *testing.T) {
	t.Parallel()
	authority := issuerstest.Serve(t, "digicert", fakeca.Config{Approval: true})
	c := newCoordinator(t)
	require.NoError(t, os.WriteFile(filepath.Join(c.home, "coordinator.yaml"), []byte("issuers:\n  ov:\n"+authority.Settings("    ")), 0o600))
	c.start()
	c.awaitServing()
	o := newOperator(t)
	o.does("login", "--server", c.url(), "--token-file", filepath.Join(c.data, "admin.token"), "--ca-file", filepath.Join(c.data, "root.pem"))
	a := newAgent(t, "the agent", section{"certificates": []section{
		certificate("www", "coordinator/ov", "www.example.com"), certificate("api", "coordinator/ov", "api.example.com"),
	}})
	a.enroll(c, "**.example.com")
	a.startAndAwait()

	var orders resource.Page[resource.Order]
	await(t, 2*time.Minute, "both orders wait for a person", func() error {
		o.reads(&orders, "orders", "list", "--stage", "needs_person", "--issuer", "ov")
		if len(orders.Items) != 2 {
			return fmt.Errorf("%d do", len(orders.Items))
		}
		return nil
	})
	by := map[string]resource.Order{}
	for _, order := range orders.Items {
		by[order.Certificate] = order
		require.NotNil(t, order.Handle)
		shown := o.does("orders", "show", order.ID)
		for _, text := range []string{"NEEDS A PERSON, since ", "order " + order.Handle.Order, order.Reference, "To do: ", "certctl orders retry " + order.ID} {
			assert.Contains(t, shown, text)
		}
	}
	assert.Contains(t, o.does("status"), "2 NEED A PERSON")
	assert.Contains(t, o.does("jobs", "list", "--state", "needs_person", "--kind", "order"), "www")
	assert.Contains(t, o.does("orders", "validations", by["www"].ID), "www.example.com")
	stage := func(order resource.Order, want resource.OrderStage) {
		t.Helper()
		await(t, 2*time.Minute, order.Certificate+" is "+string(want), func() error {
			var now resource.Order
			if o.reads(&now, "orders", "show", order.AgentID+"/"+order.ID); now.Stage != want {
				return fmt.Errorf("it is %s: %s %s", now.Stage, now.Detail, now.LastError)
			}
			return nil
		})
	}

	assert.Contains(t, o.does("orders", "cancel", by["api"].ID[:12], "--note", "not wanted", "--yes"), "is to be taken back")
	stage(by["api"], resource.OrderCancelled)
	require.NoError(t, authority.Fake.Core().Approve(by["www"].Handle.Order))
	assert.Contains(t, o.does("orders", "retry", by["www"].ID), "is looked after now")
	stage(by["www"], resource.OrderDelivered)
	await(t, 2*time.Minute, "the host has the certificate", func() error {
		own, err := a.certificate("www")
		if err == nil && own.State != wire.StateValid {
			err = errors.New("it is " + string(own.State))
		}
		return err
	})
	states := map[string]fakeca.State{}
	for _, order := range authority.Fake.Core().Ledger(nil) {
		states[order.CommonName] = order.State
	}
	// What waits for approval is taken back there by rejecting the request.
	assert.Equal(t, map[string]fakeca.State{"www.example.com": fakeca.Issued, "api.example.com": fakeca.Rejected}, states)
	assert.Len(t, authority.Fake.Core().Ledger(nil), 2)
	assert.NotContains(t, o.does("status"), "ORDERS")
}
