//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/internal/testca"
)

// cluster is coordinators that belong together, each a process of its own.
type cluster struct {
	t       testing.TB
	program string             // that nodes run when they are added
	prepare func(*coordinator) // called before a node's first start, if it is set
	// advertise, if it is set, is given where a node listens for the others, and
	// says what they are told.
	advertise func(peers string) string
	nodes     []*coordinator
}

// startCluster starts three and waits until each has a vote.
func startCluster(t testing.TB, settings ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, program: filepath.Join(binDir, "certctl-coordinator")}
	c.start(settings...)
	return c
}

// start starts three nodes and waits until each has a vote.
func (c *cluster) start(settings ...string) {
	c.t.Helper()
	for i := range 3 {
		c.add(i, settings...)
	}
	c.awaitVotes()
}

// awaitVotes waits until each node has a vote.
func (c *cluster) awaitVotes() {
	c.t.Helper()
	await(c.t, 3*time.Minute, "every node has a vote", func() error {
		members, err := c.members()
		if err != nil {
			return err
		}
		for _, m := range members.Items {
			if !m.Voter {
				return fmt.Errorf("%s has none", m.ID)
			}
		}
		return nil
	})
}

// add starts one more node with the command line and the settings with which it
// will be started again, too.
func (c *cluster) add(i int, settings ...string) {
	c.t.Helper()
	node := c.node(i, settings...)
	node.start()
	node.awaitServing()
}

// node is one more node, that does not run yet.
func (c *cluster) node(i int, settings ...string) *coordinator {
	c.t.Helper()
	port, err := testca.Port()
	require.NoError(c.t, err)
	peers := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	told := peers
	if c.advertise != nil {
		told = c.advertise(peers)
	}
	settings = append([]string{
		fmt.Sprintf("CERTCTL_NODE_ID=node%d", i), "CERTCTL_CLUSTER_LISTEN=" + peers, "CERTCTL_CLUSTER_ADVERTISE=" + told,
		"CERTCTL_CLUSTER_STABILIZATION=1s", "CERTCTL_LOG_FORMAT=json",
	}, settings...)
	if i > 0 {
		var token resource.CreatedJoinToken
		require.NoError(c.t, c.nodes[0].try(http.MethodPost, "/api/v1/cluster/join-tokens", resource.CreateJoinToken{}, &token))
		settings = append(settings, "CERTCTL_CLUSTER_JOIN_TOKEN="+token.Token)
	}
	node := newCoordinator(c.t, settings...)
	if c.prepare != nil {
		c.prepare(node)
	}
	node.env = append(node.env, "CERTCTL_SERVER_URL="+node.url())
	node.name, node.path = fmt.Sprintf("node%d", i), c.program
	if i > 0 {
		node.http, node.token = c.nodes[0].http, c.nodes[0].token
	}
	c.nodes = append(c.nodes, node)
	return node
}

// members is how the first node that answers sees the cluster.
func (c *cluster) members() (members resource.Members, err error) {
	for _, node := range c.nodes {
		if !node.running() {
			continue
		}
		if members, err = node.members(); err == nil {
			return members, nil
		}
	}
	return members, err
}

func (c *coordinator) members() (members resource.Members, err error) {
	err = c.try(http.MethodGet, "/api/v1/cluster/members", nil, &members)
	return members, err
}

// leader waits for a leader, with all members in health behind it.
func (c *cluster) leader() int {
	c.t.Helper()
	found := -1
	await(c.t, 2*time.Minute, "a leader with healthy followers", func() error {
		members, err := c.members()
		if err != nil {
			return err
		}
		for _, m := range members.Items {
			if m.Health != resource.MemberHealthy {
				return fmt.Errorf("%s is %s: %s", m.ID, m.Health, m.Reason)
			}
		}
		for i, node := range c.nodes {
			if node.name == members.Leader {
				found = i
				return nil
			}
		}
		return errors.New("no leader is known")
	})
	return found
}

// equal waits until all nodes have the same facts, and returns them.
func (c *cluster) equal() []resource.Event {
	c.t.Helper()
	var first []resource.Event
	await(c.t, 2*time.Minute, "all journals are equal", func() error {
		for i, node := range c.nodes {
			facts := node.facts("")
			if i == 0 {
				first = facts
				continue
			}
			if len(facts) != len(first) {
				return fmt.Errorf("%s has %d facts, %s %d", node.name, len(facts), c.nodes[0].name, len(first))
			}
			for j := range facts {
				if !sameFact(facts[j], first[j]) {
					return fmt.Errorf("fact %d of %s is %+v, not %+v", j, node.name, facts[j], first[j])
				}
			}
		}
		return nil
	})
	return first
}

func sameFact(a, b resource.Event) bool {
	sameDetail := string(a.Detail) == string(b.Detail)
	sameTime := a.Time.Equal(b.Time)
	a.Detail, b.Detail, a.Time, b.Time = nil, nil, time.Time{}, time.Time{}
	return sameDetail && sameTime && reflect.DeepEqual(a, b)
}

var electionWon = regexp.MustCompile(`"msg":"election won".*?"term":(\d+)`)

// terms gathers who won which term, from what the nodes write.
type terms struct {
	mu      sync.Mutex
	winners map[string]map[string]bool
}

// watch has the lines of a node's output looked at.
func (s *terms) watch(node *coordinator) {
	node.output.mu.Lock()
	defer node.output.mu.Unlock()
	node.output.line = func(line []byte) { s.see(node.name, line) }
}

// see looks at one line of a node.
func (s *terms) see(node string, line []byte) {
	match := electionWon.FindSubmatch(line)
	if match == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	term := string(match[1])
	if s.winners[term] == nil {
		s.winners[term] = map[string]bool{}
	}
	s.winners[term][node] = true
}

// counted is how many terms were won, and how many by more than one node.
func (s *terms) counted() (won, twice int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, nodes := range s.winners {
		won++
		if len(nodes) > 1 {
			twice++
		}
	}
	return won, twice
}
