//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/shared/wire"
)

// Of three coordinators the one that leads is killed, again and again, while
// hosts sync and operators work at all of them; every now and then a node is
// stopped for longer than an election takes and goes on. Each time the hosts get
// on with the others. In the end every fact that was acknowledged is in all
// journals once, all nodes are equal, no term had two leaders, and there is an
// order of what the operators did that explains what they were answered.
func TestKillCluster(t *testing.T) {
	t.Parallel()
	const hosts, operators = 4, 3
	kills, everyPause := times(5, killsWanted(500)), times(5, 10)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	c := startCluster(t)
	won := &terms{winners: map[string]map[string]bool{}}
	for _, node := range c.nodes {
		won.watch(node)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := startLoad(ctx, c, hosts, operators, seed)

	var failovers []time.Duration
	pauses := 0
	for kill := range kills {
		leader := c.leader()
		l.operate.object.Store(int64(kill))
		pause(ctx, time.Duration(50+random.IntN(400))*time.Millisecond)
		require.True(t, c.nodes[leader].running(), "the leader ended by itself")
		killed := time.Now()
		c.nodes[leader].kill()
		took := l.acknowledgedAfter(killed).Sub(killed)
		failovers = append(failovers, took)
		if took > failover {
			c.tell(fmt.Sprintf("%v passed after the kill of %s at %s", took, c.nodes[leader].name, killed.UTC().Format(time.RFC3339Nano)))
		}
		c.nodes[leader].start()
		if kill%everyPause == everyPause-1 {
			pauses++
			c.pauseOne(l, pauses%len(c.nodes))
		}
		if kill%20 == 19 {
			c.restartAll(l)
		}
	}
	c.leader()
	for _, node := range c.nodes {
		node.awaitServing()
	}
	cancel()
	l.wait()

	found := l.verify()
	elections, doubled := won.counted()

	slices.Sort(failovers)
	p50, p99 := failovers[len(failovers)/2], failovers[(len(failovers)*99+99)/100-1]
	t.Logf("%d kills, %d pauses, %d syncs with changes acknowledged, %d operations of operators, %d with an unknown outcome",
		kills, pauses, found.acknowledged, found.operations, found.unknown)
	t.Logf("from the kill of the leader to the next acknowledged sync: p50 %v, p99 %v, longest %v",
		p50.Round(time.Millisecond), p99.Round(time.Millisecond), failovers[len(failovers)-1].Round(time.Millisecond))
	counts.Report(t, "cluster-kills", kills, fmt.Sprintf("kill -9 of the leader of three real coordinators under load; p50 %d ms, p99 %d ms to the next acknowledged sync", p50.Milliseconds(), p99.Milliseconds()))
	counts.Report(t, "cluster-kills-pauses", pauses, "times that one of them was stopped for longer than an election takes, and went on")
	counts.Report(t, "cluster-kills-lost-facts", found.lost, fmt.Sprintf("of %d acknowledged facts of hosts and %d acknowledged tokens, those that are not there", found.acknowledged, found.tokens))
	counts.Report(t, "cluster-kills-facts-twice", found.twice, "facts of hosts that the journals have more than once")
	counts.Report(t, "cluster-kills-nodes-differ", found.differing, "nodes whose tables differ from the others'")
	counts.Report(t, "cluster-kills-leaders-twice", doubled, fmt.Sprintf("of %d terms, those with more than one leader", elections))
	counts.Report(t, "cluster-kills-not-linearizable", found.notLinearizable, fmt.Sprintf("histories without an order that explains them, of %d operations on any node", found.operations))
	assert.Zero(t, found.wrong()+doubled)
	inTime(t, p99)
}

// tell logs what the nodes have written lately.
func (c *cluster) tell(why string) {
	for _, node := range c.nodes {
		c.t.Logf("%s; %s wrote:\n%s", why, node.name, node.output.tail())
	}
}

// findings is what is wrong in the end; the first block should be 0.
type findings struct {
	lost, twice     int // facts and tokens that were acknowledged and are not there; facts that are there again
	differing       int // nodes with another state than the first
	notLinearizable int

	acknowledged, tokens, operations, unknown int
}

func (f *findings) wrong() int { return f.lost + f.twice + f.differing + f.notLinearizable }

// verify holds what is stored on each node of a whole cluster against what hosts
// and operators, who have ended, were told.
func (l *load) verify() (f findings) {
	l.t.Helper()
	c := l.operate.cluster
	// Journals are written behind the answers.
	deadline := time.Now().Add(time.Minute)
	for again := true; again; again = f.lost > 0 && time.Now().Before(deadline) {
		f = findings{}
		facts := c.equal()
		for _, h := range l.hosts {
			missing, twice := h.compare(facts)
			f.lost += missing
			f.twice += twice
			f.acknowledged += int(h.event)
		}
	}
	lost, tokens := l.operate.lostTokens(c)
	f.lost, f.tokens = f.lost+lost, tokens
	f.differing = c.differing()
	l.operate.readAll(l.t, c)
	if err := l.operate.history.Check(2 * time.Minute); !assert.NoError(l.t, err) {
		f.notLinearizable = 1
	}
	f.operations, f.unknown = l.operate.history.Len()
	return f
}

// pauseOne stops a node, as a machine that swaps or a hypervisor does, until the
// others have gone on without it.
func (c *cluster) pauseOne(l *load, i int) {
	c.t.Helper()
	c.leader()
	node := c.nodes[i]
	node.signal(syscall.SIGSTOP)
	stopped := time.Now()
	l.acknowledgedAfter(stopped)
	pause(context.Background(), 3*time.Second) // three times the election timeout
	l.acknowledgedAfter(time.Now())
	node.signal(syscall.SIGCONT)
}

// restartAll stops the nodes in order, one after the other, and starts them again,
// as an upgrade does. It lets each take a snapshot, which nodes that are killed
// every few seconds never come to.
func (c *cluster) restartAll(l *load) {
	c.t.Helper()
	for _, node := range c.nodes {
		c.leader()
		node.stop()
		l.acknowledgedAfter(time.Now())
		node.start()
	}
}

// load is hosts and operators at work.
type load struct {
	t       testing.TB
	began   time.Time
	hosts   []*host
	operate *operators
	done    sync.WaitGroup
}

func startLoad(ctx context.Context, c *cluster, hosts, operating int, seed uint64, change ...func(*host)) *load {
	l := &load{t: c.t, began: time.Now(), operate: newOperators(c)}
	for i := range hosts {
		l.hosts = append(l.hosts, newHost(c.t, c, fmt.Sprintf("host%d", i)))
	}
	for i, h := range l.hosts {
		h.next, h.turns = i, &l.operate.turns
		for _, change := range change {
			change(h)
		}
		l.done.Go(func() { assert.NoError(c.t, h.work(ctx)) })
	}
	for i := range operating {
		random := rand.New(rand.NewPCG(seed, uint64(i+1)))
		l.done.Go(func() { l.operate.work(ctx, random) })
	}
	return l
}

func (l *load) wait() { l.done.Wait() }

// still calls a function while nobody does anything.
func (l *load) still(fn func()) {
	l.operate.turns.Lock()
	defer l.operate.turns.Unlock()
	fn()
}

// acknowledgedAfter waits for the first sync that was sent after a moment and
// answered, and returns when that was.
func (l *load) acknowledgedAfter(moment time.Time) (first time.Time) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for first.IsZero() {
		for _, h := range l.hosts {
			if at, ok := h.firstAfter(moment); ok && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
		require.NoError(l.t, ctx.Err(), "no sync is acknowledged")
		pause(ctx, 2*time.Millisecond)
	}
	return first
}

// compare counts which of a host's facts are missing although they were
// acknowledged, and which are there again.
func (h *host) compare(facts []resource.Event) (missing, twice int) {
	seen := map[uint64]int{}
	for _, fact := range facts {
		var event wire.Event
		if fact.AgentID == h.id && fact.Kind == string(wire.EventRenewed) && json.Unmarshal(fact.Detail, &event) == nil {
			seen[event.Sequence]++
		}
	}
	for sequence := uint64(1); sequence <= h.event; sequence++ {
		if seen[sequence] == 0 {
			missing++
		}
	}
	for _, n := range seen {
		if n > 1 {
			twice++
		}
	}
	return missing, twice
}
