package sync

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	gosync "sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync/coordinatortest"
	"github.com/certctl/certctl/shared/wire"
)

// node is the URL of a node of the test's cluster.
func node(n int) string { return fmt.Sprintf("https://%s:%d", coordinatortest.Host, n) }

func nodes(n int) (list []string) {
	for i := range n {
		list = append(list, node(i+1))
	}
	return list
}

// Each node is the first one of its share of the agents, and when one goes only
// its own agents go elsewhere, to both of the others.
func TestAgentsSpreadOverTheNodes(t *testing.T) {
	const agents = 6000
	share, moved := map[string]int{}, map[string]int{}
	for i := range agents {
		id := fmt.Sprintf("agent%d", i)
		three := spread(id, nodes(3))
		assert.ElementsMatch(t, nodes(3), three)
		share[three[0]]++
		two := spread(id, nodes(2))
		if three[0] == node(3) {
			moved[two[0]]++
		} else {
			assert.Equal(t, three[0], two[0])
		}
	}
	for _, one := range nodes(3) {
		assert.InDelta(t, agents/3, share[one], agents/20, one)
	}
	for _, one := range nodes(2) {
		assert.InDelta(t, agents/6, moved[one], agents/20, one)
	}
}

// Whatever a coordinator says of its nodes, each round tries a server that the
// host was given, no round tries many, and in time all have had their turn.
func TestRounds(t *testing.T) {
	now := time.Now()
	for _, of := range []struct{ nodes, given int }{{0, 1}, {0, 2}, {0, 16}, {1, 0}, {1, 1}, {3, 0}, {3, 1}, {3, 2}, {16, 1}, {16, 16}} {
		var s servers
		identity := &store.Identity{AgentID: "a", Nodes: nodes(of.nodes)}
		for i := range of.given {
			identity.Servers = append(identity.Servers, node(100+i))
		}
		list, learnt := serversOf(identity, nil)
		s.set(list, learnt, now)
		seen := map[int]bool{}
		for range 8 {
			order := s.round(now)
			require.NotEmpty(t, order)
			assert.Len(t, order, min(of.nodes, nodesTried)+min(of.given, givenTried), "%+v", of)
			assert.Len(t, slices.Compact(slices.Sorted(slices.Values(order))), len(order), "none twice")
			for _, i := range order {
				seen[i] = true
			}
			s.failed(order)
		}
		assert.Len(t, seen, len(list), "%+v", of)
	}

	// It stays with what answers, and goes home after a while.
	var s servers
	s.set(nodes(3), 3, now)
	s.answered(2, now)
	assert.Equal(t, []int{2, 0, 1}, s.round(now.Add(homeAfter/2-time.Second)))
	assert.Equal(t, []int{0, 2, 1}, s.round(now.Add(homeAfter*3/2)))
	assert.Equal(t, []int{2, 0, 1}, s.round(now.Add(homeAfter*3/2)), "once in a while")
	s.answered(0, now)
	assert.Equal(t, []int{0, 1, 2}, s.round(now.Add(time.Hour)))
	// Another list keeps the server in use.
	s.answered(2, now)
	s.set([]string{node(7), node(3), node(1)}, 3, now)
	assert.Equal(t, []int{1, 2, 0}, s.round(now))
}

func TestServersOfAnIdentity(t *testing.T) {
	identity := &store.Identity{AgentID: "a", Servers: []string{node(1), node(9)}, Nodes: nodes(2)}
	list, learnt := serversOf(identity, []string{node(8), node(2)})
	assert.Equal(t, 2, learnt)
	assert.ElementsMatch(t, nodes(2), list[:2])
	assert.Equal(t, []string{node(8), node(9)}, list[2:])
	_, err := New(Config{Store: new(store.Store), Keys: new(keys.Dir), Log: slog.New(slog.DiscardHandler), Servers: []string{"http://x"}})
	assert.ErrorContains(t, err, "Servers[0]")
}

// cluster is what a host's dialler meets: each node as the test has it.
type cluster struct {
	host *host
	mu   gosync.Mutex
	// dead are the ports where nobody answers, as when packets are dropped.
	dead  map[string]bool
	dials []string
	// requests counts those of each node that were answered, by port.
	requests map[string]int
	fault    map[string]coordinatortest.Fault // by port
}

// nodesOf makes the host's network one of many servers.
func nodesOf(h *host) *cluster {
	c := &cluster{host: h, dead: map[string]bool{}, requests: map[string]int{}, fault: map[string]coordinatortest.Fault{}}
	h.prepare = func(client *Client) { client.dial = c.dial }
	h.coord.Fault = func(r *http.Request) coordinatortest.Fault {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, port, _ := net.SplitHostPort(r.Host)
		c.requests[port]++
		return c.fault[port]
	}
	return c
}

func (c *cluster) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, _ := net.SplitHostPort(address)
	c.mu.Lock()
	c.dials = append(c.dials, port)
	dead := c.dead[port] || c.dead["*"] && host != coordinatortest.Host
	c.mu.Unlock()
	if dead {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return c.host.network.Dial(ctx, network, address)
}

// change does something to the cluster while requests are under way.
func (c *cluster) change(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn()
}

// taken are the dials since the last call, and the answered requests.
func (c *cluster) taken() (dials []string, requests map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dials, requests = c.dials, c.requests
	c.dials, c.requests = nil, map[string]int{}
	return dials, requests
}

func portOf(server string) string { return server[strings.LastIndex(server, ":")+1:] }

// A host learns of the nodes, keeps that, moves to its own one without haste, and
// begins there after a restart.
func TestNodesAreLearnt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		c := nodesOf(h)
		h.enrol()
		own := spread(h.agentID, nodes(3))[0]
		given := own
		for _, one := range nodes(3) {
			if one != own {
				given = one
			}
		}
		identity := h.identity()
		identity.Servers = []string{given}
		require.NoError(t, h.store.SaveIdentity(identity))
		h.start()
		h.pass(time.Second)
		assert.Empty(t, h.identity().Nodes, "an earlier version says nothing")

		h.coord.Change(func() { h.coord.Servers = append(nodes(3), "http://"+coordinatortest.Host) })
		h.pass(2 * time.Minute)
		assert.Equal(t, nodes(3), h.identity().Nodes)
		assert.Equal(t, []string{given}, h.identity().Servers)
		assert.Equal(t, given, h.client.State().Server, "no haste")
		h.pass(homeAfter*3/2 + 3*time.Minute) // the longest stay, and the sync after it
		assert.Equal(t, own, h.client.State().Server)
		c.taken()
		h.pass(10 * time.Minute)
		dials, requests := c.taken()
		assert.Empty(t, dials, "the connection stays")
		assert.GreaterOrEqual(t, requests[portOf(own)], 8)

		h.restart()
		h.pass(time.Second)
		assert.Equal(t, own, h.client.State().Server)
		// A cluster that has become another one is learnt anew.
		h.coord.Change(func() { h.coord.Servers = nodes(2) })
		h.pass(2 * time.Minute)
		assert.Equal(t, nodes(2), h.identity().Nodes)
	})
}

// inCluster is a started host that knows three nodes and is at home.
func inCluster(t *testing.T) (*host, *cluster, []string) {
	h := newHost(t)
	c := nodesOf(h)
	h.enrol()
	identity := h.identity()
	identity.Servers, identity.Nodes = []string{node(9)}, nodes(3)
	require.NoError(t, h.store.SaveIdentity(identity))
	h.coord.Servers = nodes(3)
	h.start()
	h.pass(time.Second)
	mine := spread(h.agentID, nodes(3))
	require.Equal(t, mine[0], h.client.State().Server)
	require.Equal(t, Connected, h.client.State().Standing)
	c.taken()
	return h, c, mine
}

// connectedWithin is how long it takes until the agent has synced anew.
func (h *host) connectedWithin(d time.Duration) time.Duration {
	began := time.Now()
	h.fact(began.String())
	h.client.Kick()
	for time.Since(began) < d {
		h.pass(50 * time.Millisecond)
		if state := h.client.State(); state.Standing == Connected && state.LastSuccess.After(began) {
			break
		}
	}
	return time.Since(began)
}

// A node that lies dead costs seconds once, and nothing while it stays dead but
// for a look now and then.
func TestADeadNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, mine := inCluster(t)
		// As when a host loses its power: the connections are there and nobody
		// answers on them, nor on new ones.
		c.change(func() {
			c.dead[portOf(mine[0])] = true
			c.fault[portOf(mine[0])] = coordinatortest.Hang
		})
		took := h.connectedWithin(time.Minute)
		assert.LessOrEqual(t, took, answerPatience+time.Second)
		assert.Equal(t, mine[1], h.client.State().Server)
		c.taken()
		h.pass(homeAfter/2 - time.Minute)
		dials, _ := c.taken()
		assert.NotContains(t, dials, portOf(mine[0]), "it is left alone")
		assert.LessOrEqual(t, h.connectedWithin(time.Minute), 2*time.Second)

		// A look costs no more than a connection that does not come about.
		h.pass(homeAfter * 3 / 2)
		dials, _ = c.taken()
		assert.Contains(t, dials, portOf(mine[0]))
		assert.Equal(t, mine[1], h.client.State().Server)
		assert.Equal(t, Connected, h.client.State().Standing)

		// From the beginning it costs the time of one.
		h.crash()
		h.open()
		began := time.Now()
		h.start()
		h.pass(connectPatience + scatter + 100*time.Millisecond)
		assert.Equal(t, Connected, h.client.State().Standing, "%v", time.Since(began))

		c.change(func() { c.dead[portOf(mine[0])], c.fault[portOf(mine[0])] = false, coordinatortest.None })
		h.pass(homeAfter * 2)
		assert.Equal(t, mine[0], h.client.State().Server, "home again")
	})
}

// Who has no leader sends its agents on; who has too much to do has them wait.
func TestUnavailableIsNotOverloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, mine := inCluster(t)
		c.change(func() { c.fault[portOf(mine[0])] = coordinatortest.Unavailable })
		assert.LessOrEqual(t, h.connectedWithin(time.Minute), 2*time.Second)
		assert.Equal(t, mine[1], h.client.State().Server)

		// If none has a leader, each is asked once, and then there is the pause.
		c.change(func() {
			for _, one := range append(nodes(3), node(9)) {
				c.fault[portOf(one)] = coordinatortest.Unavailable
			}
		})
		c.taken()
		h.fact("one")
		h.client.Kick()
		h.pass(2 * time.Second)
		_, requests := c.taken()
		assert.Len(t, requests, 4)
		for _, n := range requests {
			assert.Equal(t, 1, n)
		}
		assert.Equal(t, CutOff, h.client.State().Standing)
		c.change(func() { clear(c.fault) })
		h.pass(time.Minute)
		require.Equal(t, Connected, h.client.State().Standing)

		used := h.client.State().Server
		c.taken()
		h.coord.Change(func() {
			h.coord.Refuse = &wire.Problem{Status: http.StatusServiceUnavailable, Code: wire.CodeOverloaded, RetryAfterSeconds: 40}
		})
		h.fact("two")
		h.client.Kick()
		h.pass(30 * time.Second)
		_, requests = c.taken()
		assert.Equal(t, map[string]int{portOf(used): 1}, requests, "the next one is spared")
		h.coord.Change(func() { h.coord.Refuse = nil })
		h.pass(20 * time.Second)
		_, requests = c.taken()
		assert.Equal(t, map[string]int{portOf(used): 1}, requests, "when it was told, and where")
		assert.Equal(t, Connected, h.client.State().Standing)
	})
}

// A coordinator that tells nonsense, or was taken over, cuts no host off from
// what it was given.
func TestAWrongListCutsNobodyOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		c := nodesOf(h)
		h.enrol()
		identity := h.identity()
		identity.Servers = []string{node(9)}
		require.NoError(t, h.store.SaveIdentity(identity))
		c.dead["*"] = true
		var wrong []string
		for i := range 100 {
			wrong = append(wrong, fmt.Sprintf("https://nowhere%02d.example", i), "ftp://x", strings.Repeat("x", 1<<10))
		}
		h.coord.Servers = wrong
		h.start()
		h.pass(time.Minute)
		assert.Len(t, h.identity().Nodes, wire.MaxServers)
		assert.Equal(t, node(9), h.client.State().Server)
		for range 30 {
			h.pass(time.Minute)
			assert.Equal(t, Connected, h.client.State().Standing)
		}
		h.restart()
		h.pass(nodesTried*(connectPatience+scatter) + time.Second)
		assert.Equal(t, Connected, h.client.State().Standing)

		h.coord.Change(func() { h.coord.Servers = []string{node(4)} })
		h.pass(5 * time.Minute)
		assert.Equal(t, []string{node(4)}, h.identity().Nodes, "and what is right is learnt again")
	})
}
