//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/internal/testca"
)

// clusterNode is a coordinator with a peer port of its own.
func clusterNode(t *testing.T, id string, settings ...string) *coordinator {
	t.Helper()
	port, err := testca.Port()
	require.NoError(t, err)
	c := newCoordinator(t, append(settings, fmt.Sprintf("CERTCTL_CLUSTER_LISTEN=127.0.0.1:%d", port),
		"CERTCTL_NODE_ID="+id, "CERTCTL_CLUSTER_STABILIZATION=1s")...)
	c.name = id
	return c
}

// verb runs a verb of the coordinator's program with the node's configuration.
func (c *coordinator) verb(args ...string) result {
	c.t.Helper()
	return call(c.t, c.env, "certctl-coordinator", append(args, "--config", filepath.Join(c.home, "coordinator.yaml"))...)
}

// awaitWhole waits until each node works, has its vote and answers.
func awaitWhole(c *cluster) {
	c.t.Helper()
	await(c.t, 3*time.Minute, "all nodes work", func() error {
		m, err := c.members()
		if err != nil {
			return err
		}
		working := 0
		for _, member := range m.Items {
			if member.Voter && member.Health == resource.MemberHealthy {
				working++
			}
		}
		if working != len(c.nodes) || m.Leader == "" {
			return fmt.Errorf("%d of %d members work and vote: %+v", working, len(m.Items), m.Items)
		}
		for _, n := range c.nodes {
			if err := n.connect(); err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
		}
		return nil
	})
}

type setUpOutput struct {
	NodeID    string `json:"node_id"`
	ClusterID string `json:"cluster_id"`
	Done      bool   `json:"done"`
}

func (c *coordinator) setsUp(args ...string) (out setUpOutput) {
	c.t.Helper()
	r := c.verb(append(args, "--output", "json")...)
	require.Zero(c.t, r.status, r.stderr)
	require.NoError(c.t, json.Unmarshal([]byte(r.stdout), &out))
	return out
}

// The life of a cluster by the command line alone: founded, grown in both ways, a
// node removed and replaced, moved to another port, and never without an answer
// while any one of them is gone.
func TestClusterByTheCommandLine(t *testing.T) {
	t.Parallel()
	first := clusterNode(t, "c1")
	founded := first.setsUp("init")
	assert.True(t, founded.Done)
	assert.Equal(t, "c1", founded.NodeID)
	again := first.setsUp("init")
	assert.False(t, again.Done, "a second init changes nothing")
	assert.Equal(t, founded.NodeID, again.NodeID)
	first.start()
	first.awaitServing()

	o := newOperator(t)
	o.does("login", "--server", first.url(), "--token-file", filepath.Join(first.data, "admin.token"), "--ca-file", filepath.Join(first.data, "root.pem"))
	// healthAt is what the command line says that asks one node, and its status.
	healthAt := func(c *coordinator) result {
		return o.call("cluster", "health", "--server", c.url(),
			"--token-file", filepath.Join(first.data, "admin.token"), "--ca-file", filepath.Join(first.data, "root.pem"))
	}
	token := func() string {
		var made resource.CreatedJoinToken
		o.reads(&made, "cluster", "join-token", "create")
		return made.Token
	}
	trusting := func(c *coordinator) *coordinator {
		c.token, c.http = first.token, first.http // the cluster's
		return c
	}

	// The second node joins by the verb, the third by its first start.
	second := trusting(clusterNode(t, "c2"))
	file := filepath.Join(second.home, "join-token")
	spent := token()
	require.NoError(t, os.WriteFile(file, []byte(spent+"\n"), 0o600))
	joined := second.setsUp("join", "--token-file", file)
	assert.True(t, joined.Done)
	var builtIn resource.CA
	o.reads(&builtIn, "ca", "show")
	assert.Equal(t, builtIn.ClusterID, founded.ClusterID, "one id, whoever says it")
	assert.Equal(t, builtIn.ClusterID, joined.ClusterID)
	assert.False(t, second.setsUp("join", "--token-file", file).Done)
	second.start()
	second.awaitServing()
	third := trusting(clusterNode(t, "c3", "CERTCTL_CLUSTER_JOIN_TOKEN="+token()))
	third.start()
	third.awaitServing()
	all := &cluster{t: t, nodes: []*coordinator{first, second, third}}
	awaitWhole(all)
	assert.Zero(t, o.call("cluster", "health").status)

	// A token is good for one node.
	fourth := clusterNode(t, "c4")
	refused := fourth.verb("join", spent)
	assert.Equal(t, 1, refused.status)
	assert.Contains(t, refused.stderr, "was used by another node")
	assert.NotContains(t, refused.stderr, strings.Split(spent, ".")[2], "the secret")

	// Whichever node is gone, the others go on.
	for _, gone := range all.nodes {
		gone.kill()
		other := all.nodes[0]
		if other == gone {
			other = all.nodes[1]
		}
		await(t, 2*time.Minute, "a change is stored without "+gone.name, func() error {
			_, err := other.tryToken(resource.CreateEnrollmentToken{TTLSeconds: 600})
			return err
		})
		unwell := healthAt(other)
		assert.Equal(t, 1, unwell.status, "somebody has to look at it")
		assert.Contains(t, unwell.stdout, gone.name, unwell.stderr)
		gone.start()
		awaitWhole(all)
	}

	// All of them are killed, and one comes back: it stores nothing, and shows what
	// it has to those who look.
	for _, n := range all.nodes {
		n.kill()
	}
	third.start()
	await(t, time.Minute, "the only node shows the members", func() error {
		var members resource.Members
		if err := third.try(http.MethodGet, "/api/v1/cluster/members", nil, &members); err != nil {
			return err
		}
		if len(members.Items) != len(all.nodes) {
			return fmt.Errorf("%+v", members.Items)
		}
		return nil
	})
	require.Error(t, third.try(http.MethodGet, "/readyz", nil, nil))
	alone := healthAt(third)
	assert.Equal(t, 1, alone.status)
	assert.Contains(t, alone.stdout, "NOTHING CAN BE STORED", alone.stderr)
	first.start()
	second.start()
	awaitWhole(all)

	// A node moves.
	port, err := testca.Port()
	require.NoError(t, err)
	moved := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	second.stop()
	second.env = append(second.env, "CERTCTL_CLUSTER_LISTEN="+moved)
	second.start()
	await(t, 2*time.Minute, "the others know where it is", func() error {
		members, err := all.members()
		if err != nil {
			return err
		}
		for _, m := range members.Items {
			if m.ID == second.name && m.Address == moved {
				return nil
			}
		}
		return fmt.Errorf("%+v", members.Items)
	})
	awaitWhole(all)

	// The third is removed. It says so, answers nothing that it should not, and does
	// not disturb the others; with an emptied directory it comes in again.
	o.does("cluster", "remove", "c3", "--yes")
	await(t, 2*time.Minute, "the removed node is not ready, and says why", func() error {
		if third.try(http.MethodGet, "/readyz", nil, nil) == nil {
			return errors.New("it says that it is ready")
		}
		if !strings.Contains(third.output.tail(), "removed") {
			return errors.New("its log does not say why")
		}
		return nil
	})
	var health resource.ClusterHealth
	require.NoError(t, first.try(http.MethodGet, "/api/v1/cluster/health", nil, &health))
	assert.Equal(t, 2, health.Voters)
	third.kill()
	require.NoError(t, os.RemoveAll(third.data))
	third.env = append(third.env, "CERTCTL_NODE_ID=c3b", "CERTCTL_CLUSTER_JOIN_TOKEN="+token())
	third.name = "c3b"
	third.start()
	third.awaitServing()
	awaitWhole(all)

	// The leadership is handed over by request.
	was := all.leader()
	var handed resource.Members
	o.reads(&handed, "cluster", "transfer")
	assert.NotEmpty(t, handed.Leader)
	assert.NotEqual(t, all.nodes[was].name, handed.Leader, "the one who led is not the one who leads by the answer")
	all.leader() // and whoever leads then has healthy followers
}
