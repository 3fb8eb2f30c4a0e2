//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/shared/wire"
)

// mixed is a cluster whose nodes run different versions, under load.
type mixed struct {
	*cluster
	previous, this, next string // programs
	load                 *load
	won                  *terms

	mu        sync.Mutex
	installed map[string]int // snapshots of a leader, by node; guarded by mu
}

func newMixed(t *testing.T) *mixed {
	m := &mixed{
		cluster: &cluster{t: t}, won: &terms{winners: map[string]map[string]bool{}}, installed: map[string]int{},
		this: filepath.Join(binDir, "certctl-coordinator"),
	}
	m.prepare = func(node *coordinator) {
		node.output.line = func(line []byte) {
			m.won.see(node.name, line)
			if bytes.Contains(bytes.ToLower(line), []byte(`"installed remote snapshot"`)) {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.installed[node.name]++
			}
		}
	}
	return m
}

func (m *mixed) snapshots(node *coordinator) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.installed[node.name]
}

// lead hands the leadership to a node.
func (m *mixed) lead(node *coordinator) {
	m.t.Helper()
	await(m.t, 2*time.Minute, node.name+" leads", func() error {
		members, err := m.members()
		if err != nil {
			return err
		}
		if members.Leader == node.name {
			return nil
		}
		if err := node.try(http.MethodPost, "/api/v1/cluster/transfer", resource.TransferLeadership{To: node.name}, nil); err != nil {
			return err
		}
		return errors.New("it was asked to")
	})
}

// change has a node go on with another program, from its own data directory.
func (m *mixed) change(node *coordinator, program string) {
	m.t.Helper()
	node.stop()
	node.path = program
	node.start()
	node.awaitServing()
}

// goesOn sees that the load gets on from now: syncs of each host and a token at each
// node.
func (m *mixed) goesOn(step string) {
	m.t.Helper()
	m.leader() // with all others in health behind it
	since := time.Now()
	for _, h := range m.load.hosts {
		await(m.t, time.Minute, step+": "+h.id+" syncs at each node", func() error {
			if n := h.countAfter(since); n < len(m.nodes) { // each at the next one
				return fmt.Errorf("%d syncs", n)
			}
			return nil
		})
	}
	for _, node := range m.nodes {
		await(m.t, time.Minute, step+": a token is made at "+node.name, func() error {
			made, err := node.tryToken(resource.CreateEnrollmentToken{TTLSeconds: 86400})
			if err == nil {
				m.load.operate.acknowledged(made.ID)
			}
			return err
		})
	}
	m.t.Logf("%s: it goes on, %v after the start", step, time.Since(m.load.began).Round(100*time.Millisecond))
}

var forwardedOK = regexp.MustCompile(`(?m)^certctl_raft_forwarded_proposals_total\{outcome="stored"\} (\d+)$`)

// forwarded is how many changes this run of a node has passed to the leader with
// success.
func (c *coordinator) forwarded() int {
	c.t.Helper()
	text, err := c.metrics(c.token)
	require.NoError(c.t, err)
	match := forwardedOK.FindStringSubmatch(text)
	if match == nil {
		return 0
	}
	n, err := strconv.Atoi(match[1])
	require.NoError(c.t, err)
	return n
}

// passes sees that changes made at a node reach the leader, which is another one.
func (m *mixed) passes(node, leader *coordinator) {
	m.t.Helper()
	before := node.forwarded()
	await(m.t, time.Minute, node.name+" passes a change to "+leader.name, func() error {
		made, err := node.tryToken(resource.CreateEnrollmentToken{TTLSeconds: 86400})
		if err != nil {
			return err
		}
		m.load.operate.acknowledged(made.ID)
		if now := node.forwarded(); now <= before {
			return fmt.Errorf("it has passed %d on, and %d before", now, before)
		}
		return nil
	})
}

// refusesNext sees that a node of the next version makes no change that one of these
// nodes does not understand, and names them.
func (m *mixed) refusesNext(node *coordinator, behind ...string) {
	m.t.Helper()
	m.leader()
	await(m.t, time.Minute, "the change is refused for want of "+fmt.Sprint(behind), func() error {
		err := node.try(http.MethodPost, "/api/v1/tokens", resource.CreateAPIToken{Name: "next", Role: "viewer"}, nil)
		if problem, ok := errors.AsType[*wire.Problem](err); !ok || problem.Code != wire.CodeConflict {
			require.Error(m.t, err, "it was made while %v do not understand it", behind)
			return err
		}
		require.Contains(m.t, err.Error(), "not every node of the cluster understands this change")
		for _, name := range behind {
			require.Contains(m.t, err.Error(), name)
		}
		return nil
	})
}

// Three nodes: the version before this one, this one and a version to come run in
// one cluster, in all orders, under load. The first node is of before, and has a log
// that does not reach back to its beginning: so those that join get its state as a
// snapshot, of the version before on this one and then the other way round.
func TestRollingUpgrade(t *testing.T) {
	m := newMixed(t)
	old := buildPrevious(t)
	m.previous, m.next = filepath.Join(old, "certctl-coordinator"), filepath.Join(buildNext(t), "certctl-coordinator")
	t.Parallel()
	began := time.Now()

	m.program = m.previous
	m.add(0)
	first := m.nodes[0]
	agents := map[string]*agent{}
	for _, version := range []string{"the previous agent", "this agent"} {
		a := newAgent(t, version, section{"certificates": []section{certificate("www", "coordinator", "www.example.com")}})
		if version == "the previous agent" {
			a.path = filepath.Join(old, "certctl-agent")
		}
		a.enroll(first, "*.example.com")
		a.startAndAwait()
		agents[version] = a
	}
	for _, a := range agents {
		a.awaitSettled(2 * time.Minute)
	}
	first.stop()
	recovered := run(t, command(first.env, m.previous, "recover", "run", "--yes", "--config", filepath.Join(first.home, "coordinator.yaml")))
	require.Zero(t, recovered.status, recovered.stderr)
	first.start()
	first.awaitServing()

	m.program = m.this
	m.add(1)
	second := m.nodes[1]
	require.Positive(t, m.snapshots(second), "this version takes a snapshot of the previous one")
	m.awaitVotes()
	m.program = m.previous
	third := m.node(2)
	joined := run(t, command(third.env, m.previous, "join", "--config", filepath.Join(third.home, "coordinator.yaml")))
	require.Zero(t, joined.status, joined.stderr)
	m.lead(second)
	third.start()
	third.awaitServing()
	require.Positive(t, m.snapshots(third), "the previous version takes a snapshot of this one")
	m.awaitVotes()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m.load = startLoad(ctx, m.cluster, 3, 3, uint64(began.UnixNano()), func(h *host) { h.roams = true })
	m.lead(second)
	m.goesOn("this version leads two of before")
	m.passes(first, second)
	m.passes(third, second)
	agents["the previous agent"].renews()
	m.lead(first)
	m.goesOn("the previous version leads one of its own and one of this")
	m.passes(second, first)
	agents["this agent"].renews()
	m.change(second, m.previous)
	m.goesOn("a node went back to the previous version")

	// The upgrade, to this version and to the next at once, the leader last.
	m.change(second, m.next)
	m.change(third, m.this)
	m.lead(first)
	m.goesOn("the previous version leads one of this and one of the next")
	m.refusesNext(second, first.name, third.name)
	m.lead(second)
	m.refusesNext(second, first.name, third.name)
	m.goesOn("the next version leads one of this and one of the previous")
	m.passes(first, second)
	m.load.still(func() { assert.Zero(t, m.differing(), "between versions") })
	m.change(first, m.next)
	m.lead(second)
	m.refusesNext(second, third.name)
	m.change(third, m.next)
	m.leader()
	var made resource.CreatedAPIToken
	await(t, time.Minute, "what only the next version understands is done when all are of it", func() error {
		return second.try(http.MethodPost, "/api/v1/tokens", resource.CreateAPIToken{Name: "next", Role: "viewer"}, &made)
	})
	m.goesOn("all are of the next version")
	for _, a := range agents {
		a.goesOn(m.cluster)
	}

	// There is no way back from there.
	m.lead(second)
	first.kill()
	first.path = m.previous
	first.start()
	await(t, time.Minute, "the previous version ends at what it does not understand", func() error {
		if first.running() {
			return errors.New("it runs")
		}
		return nil
	})
	assert.Equal(t, 1, first.cmd.ProcessState.ExitCode())
	assert.Contains(t, first.output.tail(), "the log holds a command that this version does not know")
	assert.Contains(t, first.output.tail(), "upgrade this node to the version that the leader runs")
	m.load.acknowledgedAfter(time.Now())
	first.path = m.next
	first.start()
	first.awaitServing()
	m.goesOn("that node is of the next version again")
	cancel()
	m.load.wait()
	m.verify(time.Since(began))
}

// verify counts what is wrong at the end.
func (m *mixed) verify(took time.Duration) {
	t := m.t
	lost, tokens := m.load.operate.lostTokens(m.cluster)
	twice, facts := 0, 0
	for _, h := range m.load.hosts {
		facts += int(h.event)
		for _, node := range m.nodes {
			// The journal of a node that has joined begins with that; the load began
			// after it. Journals are written behind the answers.
			missing, again := 0, 0
			deadline := time.Now().Add(time.Minute)
			for more := true; more; more = missing > 0 && time.Now().Before(deadline) {
				missing, again = h.compare(node.facts(h.id))
			}
			assert.Zero(t, missing+again, "facts of %s at %s: %d missing, %d more than once", h.id, node.name, missing, again)
			lost, twice = lost+missing, twice+again
		}
	}
	differing := m.differing()
	m.load.operate.readAll(t, m.cluster)
	unordered := 0
	if err := m.load.operate.history.Check(2 * time.Minute); !assert.NoError(t, err) {
		unordered = 1
	}
	operations, unknown := m.load.operate.history.Len()
	terms, doubled := m.won.counted()
	t.Logf("%d operations of operators, %d with an unknown outcome, in %v", operations, unknown, took.Round(100*time.Millisecond))
	counts.Report(t, "mixed-versions-facts", facts, fmt.Sprintf("acknowledged facts of hosts, beside %d tokens, while nodes of three versions changed places", tokens))
	counts.Report(t, "mixed-versions-lost", lost, "acknowledged facts and tokens that a node lacks")
	counts.Report(t, "mixed-versions-twice", twice, "facts that a node has more than once")
	counts.Report(t, "mixed-versions-nodes-differ", differing, "nodes whose tables differ from the others'")
	counts.Report(t, "mixed-versions-leaders-twice", doubled, fmt.Sprintf("of %d terms, those with more than one leader", terms))
	counts.Report(t, "mixed-versions-not-linearizable", unordered, fmt.Sprintf("histories without an order that explains them, of %d operations on any node", operations))
	assert.Zero(t, lost+twice+differing+doubled+unordered)
}
