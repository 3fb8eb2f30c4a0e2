package orders_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/internal/fakeca"
	fakeentrust "github.com/certctl/certctl/internal/fakeca/entrust"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// inService has an order delivered, and its host report the certificate.
func (w *world) inService(e *runner, kind string) *fleet.Order {
	w.t.Helper()
	p := placement(w.t, "o1", kind, "www.example.com")
	w.sync("a", []fleet.OrderPlacement{p})
	e.Wake()
	pass(10 * time.Minute)
	w.delivered(p)
	o := w.order("o1")
	agent, _ := w.state.View().Agent("a")
	summary := wire.Summary{Names: pki.MustParseNames(o.Names...), Issuer: "coordinator/" + kind, State: wire.StateValid, Serial: o.Serial, Fingerprint: o.Fingerprint, NotAfter: o.NotAfter}
	data, err := json.Marshal(summary)
	require.NoError(w.t, err)
	row, err := fleet.NewRow(wire.Row{Name: o.Certificate, Revision: 1, Data: data})
	require.NoError(w.t, err)
	w.do(fleet.SyncAgent{AgentID: "a", BootID: "boot", Sequence: agent.Sync.Sequence + 1, Revision: 1, HeadRevision: 1, Rows: []fleet.Row{row}})
	return o
}

// wish is what the API stores before it asks the authority.
func (w *world) wish(o *fleet.Order) {
	w.t.Helper()
	w.do(fleet.RevokeOrder{Actor: "api_token:x", Agent: "a", ID: o.ID, Step: fleet.RevocationAsked, Reason: 1})
}

// An authority that has not revoked is asked again, more and more seldom, until it has;
// then the host is told to replace what it has in service.
func TestARevocationIsTriedUntilItIsDone(t *testing.T) {
	for kind, start := range fakes {
		t.Run(kind, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				v := start(t, fakeca.Config{})
				e := w.engine("n1", issuers(t, v))
				e.lead()
				defer e.lose()
				o := w.inService(e, kind)
				core := v.fake.Core()
				core.Script(fakeca.Revoke, fakeca.Repeat(1000, fakeca.Fault{Kind: fakeca.Refuse, Status: 403})...)
				w.wish(o)
				asked := core.Count(fakeca.Revoke)
				pass(time.Minute)
				assert.Equal(t, asked, core.Count(fakeca.Revoke), "whoever asked for it may be asking still")
				pass(time.Hour)
				tries := core.Count(fakeca.Revoke) - asked
				assert.Equal(t, 4, tries, "after 2, 4, 10 and 28 minutes: the pauses grow")
				failed := w.order("o1").Revocation
				assert.NotEmpty(t, failed.Failure)
				assert.True(t, failed.DoneAt.IsZero())
				assert.Empty(t, w.state.View().AgentCommands("a"), "it is not revoked")
				assert.LessOrEqual(t, w.count(fleet.TypeRevokeOrder), 3, "the same failure is stored once")
				status := e.Status()[0]
				assert.Zero(t, status.PausedUntil, "an account that may not revoke orders on")
				assert.Zero(t, status.Orders, "a revocation is no order")

				core.Forget()
				pass(time.Hour)
				assert.False(t, core.Ledger(nil)[0].Newest().RevokedAt.IsZero())
				done := w.order("o1").Revocation
				assert.False(t, done.DoneAt.IsZero())
				assert.Equal(t, "api_token:x", done.By)
				told := w.state.View().AgentCommands("a")
				require.Len(t, told, 1)
				assert.Equal(t, wire.CommandRenew, told[0].Kind)
				assert.Equal(t, o.Serial, told[0].Serial)
				assert.Equal(t, 1, told[0].Reason)
				assert.False(t, told[0].RevokedAt.IsZero())
				after := core.Count(fakeca.Revoke)
				pass(4 * time.Hour)
				assert.Equal(t, after, core.Count(fakeca.Revoke), "it is done")
			})
		})
	}
}

// What an authority decides later is not asked for again, but after. Nobody revokes what
// has expired.
func TestARevocationThatTheAuthorityDecidesLater(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		fake, v := entrustOf(t, fakeca.Config{Validity: 60 * day})
		e := w.engine("n1", issuers(t, v))
		e.lead()
		defer e.lose()
		o := w.inService(e, "entrust")
		fake.Set(fakeentrust.Modes{ActionStatus: "ACCEPTED"})
		w.wish(o)
		pass(time.Hour)
		assert.Equal(t, 1, fake.Core().Count(fakeca.Revoke))
		taken := w.order("o1").Revocation
		assert.False(t, taken.TakenAt.IsZero())
		assert.True(t, taken.DoneAt.IsZero())
		entry := fake.Core().Ledger(nil)[0]
		_, err := fake.Core().Revoke(entry.ID, entry.Newest().Number, 1)
		require.NoError(t, err)
		pass(time.Hour)
		assert.False(t, w.order("o1").Revocation.DoneAt.IsZero())
		assert.Equal(t, 1, fake.Core().Count(fakeca.Revoke))
	})
	bubble(t, func(t *testing.T, w *world) {
		fake, v := entrustOf(t, fakeca.Config{Validity: 3 * time.Hour})
		list := issuers(t, v)
		e := w.engine("n1", list)
		e.lead()
		o := w.inService(e, "entrust")
		fake.Core().Script(fakeca.Revoke, fakeca.Repeat(1000, fakeca.Fault{Kind: fakeca.Refuse, Status: 500})...)
		w.wish(o)
		pass(4 * time.Hour)
		asked := fake.Core().Count(fakeca.Revoke)
		assert.Positive(t, asked)
		pass(3 * time.Hour)
		e.lose()
		// Nor does the next leader.
		other := w.engine("n2", list, func(c *orders.Config) { c.NodeID = "n2" })
		other.lead()
		defer other.lose()
		pass(time.Hour)
		assert.Equal(t, asked, fake.Core().Count(fakeca.Revoke))
	})
}
