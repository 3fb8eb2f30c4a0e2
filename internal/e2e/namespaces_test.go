//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/internal/testnet"
)

// inNetwork marks the process whose network is the test's.
const inNetwork = "CERTCTL_E2E_NETWORK"

// Three coordinators run on three hosts, and those who sync with them and work at
// them on a fourth, each a network namespace of its own. The network between them
// loses packets and holds them up, carries them in one direction only, or leaves
// the leader, another node, or the clients with too few of them. What is
// acknowledged meanwhile, and whether anything is, is held against what may be.
func TestClusterOverABadNetworkOfNamespaces(t *testing.T) {
	if os.Getenv(inNetwork) != "" {
		newNamespaces(t).prove()
		return
	}
	t.Parallel()
	if err := testnet.Usable(); testnet.Unusable(err) {
		t.Skipf("this process (uid %d) cannot make network namespaces: %v", os.Getuid(), err)
	}
	out, err := apart(t, inNetwork, syscall.CLONE_NEWNET)
	require.NoError(t, err, "%s", out)
	t.Logf("in a process of its own:\n%s", out)
}

// namespaces is a cluster whose nodes run on hosts of a test network.
type namespaces struct {
	*cluster
	network *testnet.Network
	clients *testnet.Host
	hosts   []*testnet.Host // of the nodes
	won     *terms
}

func newNamespaces(t *testing.T) *namespaces {
	t.Helper()
	s := &namespaces{
		cluster: &cluster{t: t, program: filepath.Join(binDir, "certctl-coordinator")},
		network: testnet.New(), won: &terms{winners: map[string]map[string]bool{}},
	}
	t.Cleanup(func() { assert.NoError(t, s.network.Close()) })
	var err error
	s.clients, err = s.network.Join()
	require.NoError(t, err)
	s.prepare = func(node *coordinator) {
		host, err := s.network.Add()
		require.NoError(t, err)
		s.hosts = append(s.hosts, host)
		node.launch = host.Start
		node.address = host.Address().String() + ":8443"
		peers := host.Address().String() + ":8444"
		node.env = append(node.env, "CERTCTL_SERVER_LISTEN="+node.address, "CERTCTL_CLUSTER_LISTEN="+peers, "CERTCTL_CLUSTER_ADVERTISE="+peers)
		s.won.watch(node)
	}
	s.start()
	return s
}

// cut loses all packets from some hosts to others, but for those to themselves.
func (s *namespaces) cut(from, to []*testnet.Host) {
	s.impair(from, to, always(testnet.Fault{Cut: true}))
}

// part loses all packets between some hosts and others, in both directions.
func (s *namespaces) part(some, others []*testnet.Host) {
	s.cut(some, others)
	s.cut(others, some)
}

func (s *namespaces) impair(from, to []*testnet.Host, fault func() testnet.Fault) {
	for _, a := range from {
		for _, b := range to {
			if a != b {
				s.network.Break(a, b, fault())
			}
		}
	}
}

func always(f testnet.Fault) func() testnet.Fault { return func() testnet.Fault { return f } }

// everybody is all hosts, but for some.
func (s *namespaces) everybody(but ...*testnet.Host) []*testnet.Host {
	return slices.DeleteFunc(append(slices.Clone(s.hosts), s.clients), func(h *testnet.Host) bool { return slices.Contains(but, h) })
}

// others is the hosts of all nodes but one.
func (s *namespaces) others(but *testnet.Host) []*testnet.Host { return s.everybody(but, s.clients) }

// networkFault is one way in which the network is bad.
type networkFault struct {
	name string
	// inject is given the host of the leader and that of another node.
	inject    func(leader, follower *testnet.Host)
	meanwhile expectation
}

// expectation is what becomes of those who sync while a fault lasts.
type expectation int

const (
	goOn   expectation = iota // they get on
	silent                    // they reach too few nodes, so that nobody may tell them that anything is done
	either                    // that depends: terms may end before much is done in them
)

func (s *namespaces) faults() []networkFault {
	type host = testnet.Host
	one := func(h *host) []*host { return []*host{h} }
	loss := func() testnet.Fault { return testnet.Fault{Loss: 0.05 + 0.15*rand.Float64()} }
	late := testnet.Fault{Delay: 100 * time.Millisecond, Jitter: 50 * time.Millisecond}
	return []networkFault{
		{name: "5 to 20 % of packets are lost in each direction", inject: func(_, _ *host) {
			s.impair(s.everybody(), s.everybody(), loss)
		}},
		{name: "packets are 50 to 150 ms late in each direction", inject: func(_, _ *host) {
			s.impair(s.everybody(), s.everybody(), always(late))
		}},
		{name: "packets between the nodes are late and lost", meanwhile: either, inject: func(_, _ *host) {
			s.impair(s.hosts, s.hosts, func() testnet.Fault { f := late; f.Loss = 0.05; return f })
		}},
		{name: "the leader is not heard by the other nodes", inject: func(leader, _ *host) {
			s.cut(one(leader), s.others(leader))
		}},
		{name: "the leader does not hear the other nodes", inject: func(leader, _ *host) {
			s.cut(s.others(leader), one(leader))
		}},
		{name: "the leader is cut off", inject: func(leader, _ *host) {
			s.part(one(leader), s.everybody(leader))
		}},
		{name: "another node is cut off", inject: func(_, follower *host) {
			s.part(one(follower), s.everybody(follower))
		}},
		{name: "another node is not heard", inject: func(_, follower *host) {
			s.cut(one(follower), s.others(follower))
		}},
		{name: "another node does not hear", inject: func(_, follower *host) {
			s.cut(s.others(follower), one(follower))
		}},
		{name: "the leader and one other node do not reach each other", inject: func(leader, follower *host) {
			s.part(one(leader), one(follower))
		}},
		{name: "the clients are left with the leader, and it alone", meanwhile: silent, inject: func(leader, _ *host) {
			s.part([]*host{s.clients, leader}, s.others(leader))
		}},
		{name: "the clients are left with another node, and it alone", meanwhile: silent, inject: func(_, follower *host) {
			s.part([]*host{s.clients, follower}, s.others(follower))
		}},
		// Its lease goes on after the others have begun to look for another leader.
		{name: "the leader hears the others late, and then is not heard by them", inject: func(leader, _ *host) {
			s.impair(s.others(leader), one(leader), always(testnet.Fault{Delay: 400 * time.Millisecond}))
			pause(s.t.Context(), time.Second)
			s.cut(one(leader), s.others(leader))
		}},
		{name: "the leader's interface goes down and up", inject: func(leader, _ *host) {
			for range 4 {
				require.NoError(s.t, leader.SetUp(false))
				pause(s.t.Context(), time.Duration(100+rand.IntN(300))*time.Millisecond)
				require.NoError(s.t, leader.SetUp(true))
				pause(s.t.Context(), time.Duration(100+rand.IntN(300))*time.Millisecond)
			}
		}},
	}
}

func (s *namespaces) prove() {
	t := s.t
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := startLoad(ctx, s.cluster, 3, 6, rand.Uint64())
	agents := []*member{newMember(t, s.cluster, 0), newMember(t, s.cluster, 1)}
	for _, agent := range agents {
		agent.run(ctx)
	}
	faults := s.faults()
	var recovered []time.Duration
	injected, silences, told := 0, 0, 0
	for range times(1, 10) {
		for _, i := range rand.Perm(len(faults)) {
			fault := faults[i]
			leader := s.leader()
			l.operate.object.Store(int64(injected))
			before, set := s.network.Traffic(), time.Now()
			fault.inject(s.hosts[leader], s.hosts[(leader+1+rand.IntN(2))%3])
			began := time.Now()
			if fault.meanwhile == goOn {
				l.acknowledgedAfter(began)
			}
			pause(ctx, 2500*time.Millisecond-time.Since(set)) // two and a half times the election timeout
			during := l.countAfter(began)
			if fault.meanwhile == silent {
				silences++
				told += during
			}
			after := s.network.Traffic()
			require.Positive(t, after.Lost+after.Held-before.Lost-before.Held, "no packet met the fault %q", fault.name)
			require.NoError(t, s.network.Heal())
			healed := time.Now()
			recovered = append(recovered, l.acknowledgedAfter(healed).Sub(healed))
			injected++
			t.Logf("%s: %v, %d packets carried, %d of them late, %d lost, %d syncs acknowledged; another one %v after it was over", fault.name, healed.Sub(set).Round(time.Millisecond),
				after.Carried-before.Carried, after.Held-before.Held, after.Lost-before.Lost, during, recovered[len(recovered)-1].Round(time.Millisecond))
		}
	}
	s.leader()
	cancel()
	l.wait()
	for _, agent := range agents {
		agent.done.Wait()
	}
	facts, lost, twice := s.settle(agents)
	found := l.verify()
	found.lost += lost
	found.twice += twice
	elections, doubled := s.won.counted()
	slices.Sort(recovered)
	all := s.network.Traffic()
	counts.Report(t, "cluster-namespaces", injected, fmt.Sprintf(
		"faults of the network between three real coordinators on hosts of their own, under load: of %d packets %d were lost and %d late; from the end of a fault to the next acknowledged sync p50 %d ms, longest %d ms",
		all.Carried+all.Lost, all.Lost, all.Held, quantile(recovered, 0.5).Milliseconds(), quantile(recovered, 1).Milliseconds()))
	counts.Report(t, "cluster-namespaces-told-by-too-few", told, fmt.Sprintf("syncs acknowledged while the clients reached one node of three and no other did, which they did %d times", silences))
	counts.Report(t, "cluster-namespaces-leaders-twice", doubled, fmt.Sprintf("of %d terms, those with more than one leader", elections))
	counts.Report(t, "cluster-namespaces-wrong", found.wrong(), fmt.Sprintf(
		"acknowledged facts lost, facts twice, nodes that differ, histories that cannot be explained, of %d syncs, %d facts of agents, %d tokens and %d operations",
		found.acknowledged, facts, found.tokens, found.operations))
	assert.Zero(t, found.wrong()+doubled+told)
}

// countAfter is how many syncs were answered that were sent after a moment.
func (l *load) countAfter(moment time.Time) (count int) {
	for _, h := range l.hosts {
		h.mu.Lock()
		for i := len(h.acked) - 1; i >= 0 && h.acked[i].sent.After(moment); i-- {
			count++
		}
		h.mu.Unlock()
	}
	return count
}
