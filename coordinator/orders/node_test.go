package orders_test

import (
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/connector/digicert"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/internal/fakeca"
	fakedigicert "github.com/certctl/certctl/internal/fakeca/digicert"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// An order on a real node, with its log on disk, over a real connection: it goes on
// after a restart.
func TestAnOrderOnARealNode(t *testing.T) {
	fake := fakedigicert.New(fakeca.Config{Approval: true})
	server := httptest.NewServer(fake)
	defer server.Close()
	c, err := digicert.New(digicert.Config{
		URL: server.URL + fakedigicert.Base, Key: text(fakedigicert.Key), Product: "ssl_basic", Organization: fakedigicert.Organization,
	})
	require.NoError(t, err)
	defer c.Close()
	var engine *orders.Engine
	prepare := func(n *cluster.Node) {
		engine, err = orders.New(orders.Config{
			Node: n, NodeID: "test", Log: slog.New(slog.DiscardHandler),
			Issuers: map[string]orders.Issuer{"digicert": {Kind: "digicert", Connector: c, Limits: asyncpoll.Limits{Rate: 100, Concurrency: 2}}},
		})
		require.NoError(t, err)
		engine.Lead(n)
	}
	dir := t.TempDir()
	n := clustertest.Restart(t, dir, prepare)
	n.Do(fleet.CreateEnrollmentToken{Actor: "local", ID: "token", SecretHash: [32]byte{42}, NamePatterns: []string{"**.example.com"}, ExpiresAt: time.Now().AddDate(1, 0, 0)})
	n.Do(fleet.EnrollAgent{
		TokenID: "token", SecretHash: [32]byte{42}, AgentID: "a",
		Identity: fleet.Identity{Certificate: []byte("a"), Fingerprint: "f", PublicKeyFingerprint: "k", Serial: "0a", NotAfter: time.Now().AddDate(0, 3, 0)},
		Host:     wire.HostReport{Hostname: "a", OS: "linux", Arch: "amd64", StartedAt: time.Now()}, Names: pki.MustParseNames("www.example.com"),
	})
	p := placement(t, "o1", "digicert", "www.example.com")
	require.NoError(t, n.Do(fleet.SyncAgent{AgentID: "a", BootID: "boot", Sequence: 1, Orders: []fleet.OrderPlacement{p}}).Err())
	engine.Wake()
	stage := func(n *clustertest.Node) fleet.Stage {
		o, ok := n.State().View().Order("a", "o1")
		require.True(t, ok)
		return o.Stage()
	}
	require.Eventually(t, func() bool { return stage(n) == fleet.StageNeedsPerson }, time.Minute, 5*time.Millisecond)
	assert.True(t, engine.Status()[0].Leading)
	n.Stop()

	n = clustertest.Restart(t, dir, prepare)
	require.Eventually(t, func() bool { return n.IsLeader() && engine.Status()[0].Leading }, time.Minute, 5*time.Millisecond)
	fake.Core().ApproveAll()
	require.NoError(t, n.Do(fleet.RetryOrder{Actor: "local", Agent: "a", ID: "o1"}).Err())
	engine.Wake()
	require.Eventually(t, func() bool { return stage(n) == fleet.StageCollected }, time.Minute, 5*time.Millisecond)
	assert.Len(t, fake.Core().Ledger(nil), 1)
	assert.Zero(t, n.Term()-n.Status().Term)
}
