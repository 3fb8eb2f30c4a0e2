package agentapi

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// place sends a sync with an order, and returns what became of it.
func (a *agent) place(orders ...wire.OrderRequest) (*wire.SyncResponse, []wire.OrderResult) {
	a.w.t.Helper()
	request := a.request()
	request.Orders = orders
	answer := a.send(request)
	return answer, answer.Orders
}

func (a *agent) collect(ids ...string) *wire.SyncResponse {
	a.w.t.Helper()
	request := a.request()
	request.Collected = ids
	return a.send(request)
}

func TestOrder(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	key := w.newKey()
	names := pki.MustParseNames("www.example.com", "192.0.2.9")
	csr, err := pki.CreateCSR(key, names)
	require.NoError(t, err)
	order := wire.OrderRequest{ID: newAgentID(), Certificate: "web", Issuer: "builtin", CSR: csr, ValiditySeconds: 3600}

	answer, results := a.place(order)
	require.Len(t, results, 1)
	require.Equal(t, wire.OrderIssued, results[0].State, "the answer to the sync that placed it has the certificate")
	assert.Greater(t, answer.PauseMillis, int64(pendingPause/time.Millisecond))
	chain, err := pki.ParseChainPEM([]byte(results[0].Chain))
	require.NoError(t, err)
	chain, err = pki.CheckIssued(chain, key.Public(), names, time.Now())
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(w.ca.Root())
	intermediates := x509.NewCertPool()
	intermediates.AddCert(chain[1])
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, DNSName: "www.example.com"})
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(time.Hour), chain[0].NotAfter, time.Minute)

	// The result comes until it is collected, and the order is not worked on
	// again, however often it is placed.
	for range 2 {
		_, again := a.place(order)
		assert.Equal(t, results, again)
	}
	assert.Equal(t, results, a.sync().Orders)
	assert.Empty(t, a.collect(order.ID).Orders)
	w.unchanged(func() { assert.Empty(t, a.collect(order.ID).Orders, "collecting again changes nothing") })
	assert.Empty(t, a.sync().Orders)

	// Who has lost what was collected needs a new order.
	_, results = a.place(order)
	require.Len(t, results, 1)
	assert.Equal(t, wire.OrderRejected, results[0].State)
	assert.Equal(t, wire.CodeConflict, results[0].Problem.Code)
}

// What is wrong with one order rejects that order alone.
func TestOrdersRefused(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	good := a.order("www.example.com")
	with := func(o wire.OrderRequest, change func(*wire.OrderRequest)) wire.OrderRequest {
		change(&o)
		return o
	}
	cases := map[string]struct {
		order wire.OrderRequest
		code  wire.Code
		field string
	}{
		"names not allowed":  {a.order("www.example.org"), wire.CodeNamesRefused, "csr"},
		"one name too many":  {a.order("www.example.com", "example.com"), wire.CodeNamesRefused, "csr"},
		"address":            {a.order("198.51.100.1"), wire.CodeNamesRefused, "csr"},
		"coordinator's name": {a.order("pki.example.com"), wire.CodeNamesRefused, "csr"},
		"covering wildcard":  {a.order("*.example.com"), wire.CodeNamesRefused, "csr"},
		"its address":        {a.order("192.0.2.1"), wire.CodeNamesRefused, "csr"},
		"damaged CSR":        {with(a.order("a.example.com"), func(o *wire.OrderRequest) { o.CSR = o.CSR[:50] }), wire.CodeCSRInvalid, "csr"},
		"identity's CSR":     {with(a.order("a.example.com"), func(o *wire.OrderRequest) { o.CSR = w.csr(w.newKey()) }), wire.CodeCSRInvalid, "csr"},
		"unknown issuer":     {with(a.order("a.example.com"), func(o *wire.OrderRequest) { o.Issuer = "digicert" }), wire.CodeIssuerUnknown, "issuer"},
		"short lifetime":     {with(a.order("a.example.com"), func(o *wire.OrderRequest) { o.ValiditySeconds = 1 }), wire.CodeInvalid, "validity_seconds"},
	}
	orders := []wire.OrderRequest{good, with(a.order("b.example.com"), func(o *wire.OrderRequest) { o.ValiditySeconds = 1 << 60 })}
	names := map[string]string{}
	for name, c := range cases {
		orders = append(orders, c.order)
		names[c.order.ID] = name
	}
	_, results := a.place(orders...)
	require.Len(t, results, len(orders))
	for _, result := range results {
		name, bad := names[result.ID]
		if !bad {
			assert.Equal(t, wire.OrderIssued, result.State)
			continue
		}
		c := cases[name]
		require.Equal(t, wire.OrderRejected, result.State, name)
		assert.Equal(t, c.code, result.Problem.Code, name)
		assert.Equal(t, c.field, result.Problem.Field, name)
		assert.NotEmpty(t, result.Problem.Detail, name)
		assert.NotEmpty(t, result.Problem.Mend, name)
		assert.Empty(t, result.Chain)
	}
}

func TestAnOrderUnderAUsedID(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	order := a.order("www.example.com")
	a.place(order)
	other := a.order("www.example.com")
	other.ID = order.ID
	_, results := a.place(other)
	require.Len(t, results, 1)
	assert.Equal(t, wire.OrderRejected, results[0].State)
	assert.Equal(t, wire.CodeConflict, results[0].Problem.Code)
}

// Orders that nobody worked on, because no leader could, are done when one can.
func TestOrdersWaitForTheCA(t *testing.T) {
	w := stillWorld(t)
	a := w.enrolled()
	cut := error(&cluster.UnknownOutcomeError{Err: errors.New("leadership lost")})
	order := a.order("www.example.com")
	csr, err := pki.ParseCSR(order.CSR)
	require.NoError(t, err)

	// Placed by an earlier leader: nobody here is told of it.
	placement := fleet.OrderPlacement{ID: order.ID, Certificate: "web", Issuer: BuiltinIssuer, CSR: order.CSR, Names: csr.Names}
	elsewhere := fleet.OrderPlacement{ID: "of-another-issuer", Certificate: "web", Issuer: "digicert", CSR: order.CSR, Names: csr.Names}
	w.do(fleet.SyncAgent{AgentID: a.id, BootID: a.boot, Sequence: 1, Orders: []fleet.OrderPlacement{placement, elsewhere}})
	w.node.before.Store(&cut)
	w.service.workOnce(t.Context()) // is not stored
	stored, ok := w.view().Order(a.id, order.ID)
	require.True(t, ok)
	require.Equal(t, fleet.OrderRequested, stored.State)
	w.node.after.Store(&cut)
	w.service.workOnce(t.Context()) // is stored, and nobody knows
	stored, ok = w.view().Order(a.id, order.ID)
	require.True(t, ok)
	require.Equal(t, fleet.OrderIssued, stored.State)
	chain := stored.ChainPEM
	w.service.workOnce(t.Context())
	stored, ok = w.view().Order(a.id, order.ID)
	require.True(t, ok)
	assert.Equal(t, chain, stored.ChainPEM, "the first certificate stays the order's")
	stored, ok = w.view().Order(a.id, "of-another-issuer")
	require.True(t, ok)
	assert.Equal(t, fleet.OrderRequested, stored.State, "it is not this issuer's")
}

// A damaged CSR that got past the placement ends its order instead of coming
// back for ever.
func TestAnOrderThatCannotBeRead(t *testing.T) {
	w := stillWorld(t)
	a := w.enrolled()
	w.do(fleet.SyncAgent{AgentID: a.id, BootID: a.boot, Sequence: 1, Orders: []fleet.OrderPlacement{
		{ID: "damaged-order", Certificate: "web", Issuer: BuiltinIssuer, CSR: []byte("x"), Names: pki.MustParseNames("www.example.com")},
	}})
	w.service.workOnce(t.Context())
	stored, ok := w.view().Order(a.id, "damaged-order")
	require.True(t, ok)
	assert.Equal(t, fleet.OrderRejected, stored.State)
	assert.Equal(t, wire.CodeCSRInvalid, stored.Problem.Code)
}

// What is signed is what was allowed, even if this version reads more names in
// the request than the one that placed it did.
func TestAnOrderThatIsReadInTwoWays(t *testing.T) {
	w := stillWorld(t)
	a := w.enrolled()
	order := a.order("www.example.com", "www.example.org")
	w.do(fleet.SyncAgent{AgentID: a.id, BootID: a.boot, Sequence: 1, Orders: []fleet.OrderPlacement{
		{ID: order.ID, Certificate: "web", Issuer: BuiltinIssuer, CSR: order.CSR, Names: pki.MustParseNames("www.example.com")},
	}})
	w.service.workOnce(t.Context())
	stored, ok := w.view().Order(a.id, order.ID)
	require.True(t, ok)
	assert.Equal(t, fleet.OrderRejected, stored.State)
	assert.Empty(t, stored.ChainPEM)
}

func TestReservedNames(t *testing.T) {
	for reserved, names := range map[string]map[string]string{
		"pki.example.com": {"pki.example.com": "pki.example.com", "*.example.com": "*.example.com", "www.example.com": "", "*.pki.example.com": ""},
		// Agents that know the server by its wildcard accept each of these as it.
		"*.example.com": {"*.example.com": "*.example.com", "www.example.com": "www.example.com", "a.b.example.com": "", "example.com": ""},
		"192.0.2.1":     {"192.0.2.1": "192.0.2.1", "192.0.2.2": ""},
	} {
		for name, want := range names {
			assert.Equal(t, want, reservedName(pki.MustParseNames(name), pki.MustParseNames(reserved)), "%s, with %s reserved", name, reserved)
		}
	}
}

// When the issuing CA is at its end, orders stay as they are and agents are told
// to come back soon.
func TestOrdersOfAnExpiredCA(t *testing.T) {
	w := stillWorld(t)
	a := w.enrolled()
	w.sleep(time.Until(w.ca.IssuerExpiry()) + time.Hour)
	w.unchanged(func() {
		_, p := a.renew(w.newKey())
		require.NotNil(t, p)
		assert.Equal(t, wire.CodeInternal, p.Code)
	})
	order := a.order("www.example.com")
	w.do(fleet.SyncAgent{AgentID: a.id, BootID: a.boot, Sequence: 1, Orders: []fleet.OrderPlacement{
		{ID: order.ID, Certificate: "web", Issuer: BuiltinIssuer, CSR: order.CSR, Names: pki.MustParseNames("www.example.com")},
	}})
	w.service.workOnce(t.Context())
	stored, ok := w.view().Order(a.id, order.ID)
	require.True(t, ok)
	assert.Equal(t, fleet.OrderRequested, stored.State)
}

// An agent whose orders are pending comes back soon, and gets at most what fits.
func TestResultsOfManyOrders(t *testing.T) {
	w := stillWorld(t)
	a := w.enrolled()
	csr := a.order("www.example.com").CSR
	var placements []fleet.OrderPlacement
	for range wire.MaxOrders + 20 {
		placements = append(placements, fleet.OrderPlacement{ID: newAgentID(), Certificate: "web", Issuer: BuiltinIssuer, CSR: csr, Names: pki.MustParseNames("www.example.com")})
	}
	w.do(fleet.SyncAgent{AgentID: a.id, BootID: a.boot, Sequence: 1, Orders: placements})
	w.service.workOnce(t.Context())
	a.sequence = 1
	got := map[string]bool{}
	for range 2 {
		results := a.sync().Orders
		require.LessOrEqual(t, len(results), wire.MaxOrders)
		var ids []string
		for _, result := range results {
			got[result.ID] = true
			ids = append(ids, result.ID)
		}
		for _, result := range a.collect(ids...).Orders {
			assert.False(t, got[result.ID])
		}
	}
	assert.Len(t, got, wire.MaxOrders+20)
}
