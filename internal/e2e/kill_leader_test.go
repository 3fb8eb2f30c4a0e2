//go:build linux

package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	gosync "sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/agent/enroll"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/wire"
)

// member is the real sync of an agent, with its store, that always has something
// new to say.
type member struct {
	t      testing.TB
	id     string
	store  *store.Store
	client *sync.Client
	facts  int
	done   gosync.WaitGroup
}

// newMember enrols an agent that is given one node.
func newMember(t testing.TB, c *cluster, node int) *member {
	t.Helper()
	dir := t.TempDir()
	key, err := keys.OpenDir(filepath.Join(dir, "keys"))
	require.NoError(t, err)
	m := &member{t: t}
	m.store, err = store.Open(filepath.Join(dir, "state", "state.db"), store.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, m.store.Close()) })
	token, err := wire.ParseEnrollmentToken(c.nodes[node].newToken().Token)
	require.NoError(t, err)
	report := wire.HostReport{Hostname: fmt.Sprintf("member%d", node)}
	identity, err := enroll.Enroll(t.Context(), enroll.Config{
		Servers: []string{c.nodes[node].url()}, Token: token, Store: m.store, Keys: key, Host: report, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	m.id = identity.AgentID
	m.client, err = sync.New(sync.Config{Store: m.store, Keys: key, Host: report, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return m
}

// run syncs, and has a new fact five times a second, until ctx is done.
func (m *member) run(ctx context.Context) {
	m.done.Go(func() { assert.NoError(m.t, m.client.Run(ctx)) })
	m.done.Go(func() {
		for ctx.Err() == nil {
			m.facts++
			err := m.store.Append(wire.Event{Kind: wire.EventIssued, Certificate: fmt.Sprintf("fact%d", m.facts)})
			if !assert.NoError(m.t, err) {
				return
			}
			m.client.Kick()
			pause(ctx, 200*time.Millisecond)
		}
	})
}

// syncedSince is when an exchange succeeded that began after a moment, or that
// ended so long after it that no leader of before has answered.
func (m *member) syncedSince(moment time.Time) (time.Time, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	const lastWord = 100 * time.Millisecond
	for {
		if at := m.client.State().LastSuccess; at.Sub(moment) > lastWord {
			return at, nil
		}
		if err := backoff.Wait(ctx, 2*time.Millisecond); err != nil {
			return time.Time{}, fmt.Errorf("%s: %+v: %w", m.id, m.client.State(), err)
		}
	}
}

// strike has members sync, and strikes the leader so many times, which is mended
// when each of them has synced anew. It returns how long that took, for each.
func (c *cluster) strike(members []*member, times int, strike func(leader *coordinator) (mend func())) (took []time.Duration) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	for _, m := range members {
		m.run(ctx)
	}
	synced := func(since time.Time, each func(at time.Time)) {
		c.t.Helper()
		for _, m := range members {
			at, err := m.syncedSince(since)
			require.NoError(c.t, err)
			each(at)
		}
	}
	for range times {
		leader := c.nodes[c.leader()]
		synced(time.Now(), func(time.Time) {})
		pause(ctx, rand.N(time.Second))
		struck := time.Now()
		mend := strike(leader)
		synced(time.Now(), func(at time.Time) { took = append(took, at.Sub(struck)) })
		mend()
	}
	c.leader()
	for _, node := range c.nodes {
		node.awaitServing()
	}
	cancel()
	for _, m := range members {
		m.done.Wait()
	}
	return took
}

// settle lets members say the rest, and finds everything that they ever had to
// say once on every node.
func (c *cluster) settle(members []*member) (facts, lost, twice int) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	for _, m := range members {
		m.done.Go(func() { assert.NoError(m.t, m.client.Run(ctx)) })
		m.client.Kick()
		await(c.t, 2*time.Minute, "all is said", func() error {
			waiting, err := m.store.Events(1)
			if err == nil && len(waiting) > 0 {
				err = fmt.Errorf("%s has more to say: %+v", m.id, m.client.State())
			}
			return err
		})
	}
	cancel()
	for _, m := range members {
		m.done.Wait()
		facts += m.facts
	}
	// Journals are written behind the answers.
	deadline := time.Now().Add(time.Minute)
	for again := true; again; again = lost > 0 && time.Now().Before(deadline) {
		lost, twice = 0, 0
		seen := map[string]int{} // by agent and fact
		for _, event := range c.equal() {
			if event.Kind == string(wire.EventIssued) {
				seen[event.AgentID+event.Object]++
			}
		}
		for _, m := range members {
			for fact := range m.facts {
				switch n := seen[fmt.Sprintf("%sfact%d", m.id, fact+1)]; {
				case n == 0:
					lost++
				case n > 1:
					twice++
				}
			}
		}
	}
	assert.Zero(c.t, lost, "facts that are not there")
	assert.Zero(c.t, twice, "facts that are there more than once")
	return facts, lost, twice
}

// quantile is the smallest value that so large a part of a sorted list does not
// exceed.
func quantile(sorted []time.Duration, part float64) time.Duration {
	return sorted[max(0, int(math.Ceil(part*float64(len(sorted))))-1)].Round(time.Millisecond)
}

// The leader is killed, and stands still, again and again while agents sync that
// were given one node each. How long that keeps an agent from its next sync is
// measured: its own pace, which is a second at most here, is in that. Everything
// that the agents had to say is on every node once in the end; and one that runs
// as a process goes on and says which node it talks to.
func TestKillLeader(t *testing.T) {
	if !soaking() {
		t.Parallel() // a soak measures time
	}
	c := startCluster(t, "CERTCTL_SYNC_INTERVAL=1s")
	a := newAgent(t, "an agent", section{"certificates": []section{certificate("www", "coordinator", "www.example.com")}})
	a.enroll(c.nodes[0], "*.example.com")
	a.startAndAwait()
	a.awaitSettled(2 * time.Minute)
	var members []*member
	for i := range c.nodes {
		members = append(members, newMember(t, c, i))
	}

	kills, stops := times(3, killsWanted(100)), times(1, 30)
	killed := c.strike(members, kills, func(leader *coordinator) func() {
		leader.kill()
		return leader.start
	})
	stopped := c.strike(members, stops, func(leader *coordinator) func() {
		leader.signal(syscall.SIGSTOP)
		return func() { leader.signal(syscall.SIGCONT) }
	})
	for what, took := range map[string][]time.Duration{"kill -9": killed, "SIGSTOP": stopped} {
		slices.Sort(took)
		t.Logf("from %s of the leader to the next sync of each agent: p50 %v, p99 %v, longest %v, of %d",
			what, quantile(took, 0.5), quantile(took, 0.99), quantile(took, 1), len(took))
	}
	inTime(t, quantile(killed, 0.99))
	a.goesOn(c)
	facts, lost, twice := c.settle(members)
	counts.Report(t, "agents-leaders-killed", kills, fmt.Sprintf("kill -9 of the leader while agents sync; p50 %d ms, p99 %d ms to the next sync of each",
		quantile(killed, 0.5).Milliseconds(), quantile(killed, 0.99).Milliseconds()))
	counts.Report(t, "agents-leaders-stopped", stops, "times that it stood still instead")
	counts.Report(t, "agents-facts-lost", lost, fmt.Sprintf("of %d facts of agents, those that a node lacks", facts))
	counts.Report(t, "agents-facts-twice", twice, "facts of agents that the nodes have more than once")
}

// goesOn requires that an agent knows all nodes, talks to one of them, and renews
// a certificate there.
func (a *agent) goesOn(c *cluster) {
	a.t.Helper()
	var urls []string
	for _, node := range c.nodes {
		urls = append(urls, node.url())
	}
	var status *control.Status
	await(a.t, 2*time.Minute, a.name+" is connected", func() (err error) {
		if status, err = a.tryStatus(); err != nil {
			return err
		}
		if status.Coordinator.State != control.ConnectionConnected || len(status.Enrollment.Nodes) != len(urls) {
			return fmt.Errorf("it is %+v, and knows %v", status.Coordinator, status.Enrollment.Nodes)
		}
		return nil
	})
	assert.Equal(a.t, urls[:1], status.Enrollment.Servers)
	assert.ElementsMatch(a.t, urls, status.Enrollment.Nodes)
	assert.Contains(a.t, urls, status.Coordinator.Server)
	a.renews()
}

// renews has an agent renew its certificate now.
func (a *agent) renews() {
	a.t.Helper()
	before, err := a.certificate("www")
	require.NoError(a.t, err)
	require.Zero(a.t, a.call("renew", "www").status)
	await(a.t, 2*time.Minute, a.name+" renews", func() error {
		now, err := a.certificate("www")
		if err == nil && now.Serial == before.Serial {
			err = fmt.Errorf("it has the certificate of before")
		}
		return err
	})
}
