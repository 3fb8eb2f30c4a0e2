//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/internal/testca"
)

// trio is a cluster of three coordinators, each a process with a data directory
// and ports of its own.
type trio struct {
	t     testing.TB
	nodes []*coordinator // the founder first
}

// startTrio founds a cluster, lets two more nodes join, and waits until each has
// its vote. settings are environment variables of all three.
func startTrio(t testing.TB, settings ...string) *trio {
	t.Helper()
	all := &trio{t: t}
	for i := range 3 {
		port, err := testca.Port()
		require.NoError(t, err)
		own := append([]string{
			fmt.Sprintf("CERTCTL_CLUSTER_LISTEN=127.0.0.1:%d", port), fmt.Sprintf("CERTCTL_NODE_ID=node%d", i+1),
			"CERTCTL_CLUSTER_STABILIZATION=1s",
		}, settings...)
		if i > 0 {
			var made resource.CreatedJoinToken
			require.NoError(t, all.nodes[0].try(http.MethodPost, "/api/v1/cluster/join-tokens", resource.CreateJoinToken{}, &made))
			own = append(own, "CERTCTL_CLUSTER_JOIN_TOKEN="+made.Token)
		}
		c := newCoordinator(t, own...)
		c.name, c.env = fmt.Sprintf("node%d", i+1), append(c.env, "CERTCTL_SERVER_URL="+c.url())
		if i > 0 {
			c.token, c.http = all.nodes[0].token, all.nodes[0].http // the cluster's
		}
		c.start()
		c.awaitServing()
		all.nodes = append(all.nodes, c)
	}
	all.awaitWhole()
	return all
}

func (c *trio) urls() (list []string) {
	for _, n := range c.nodes {
		list = append(list, n.url())
	}
	return list
}

// members is the cluster as one of its nodes sees it.
func (c *trio) members() (m resource.Members, err error) {
	for _, n := range c.nodes {
		if !n.running() {
			continue
		}
		if err = n.try(http.MethodGet, "/api/v1/cluster/members", nil, &m); err == nil {
			return m, nil
		}
	}
	return m, err
}

// awaitWhole waits until each node works and has its vote.
func (c *trio) awaitWhole() {
	c.t.Helper()
	await(c.t, 3*time.Minute, "all three nodes work", func() error {
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

// leader waits for a node that leads.
func (c *trio) leader() *coordinator {
	c.t.Helper()
	var leader *coordinator
	await(c.t, 2*time.Minute, "a node leads", func() error {
		m, err := c.members()
		if err != nil {
			return err
		}
		for _, n := range c.nodes {
			if n.name == m.Leader && n.running() {
				leader = n
				return nil
			}
		}
		return errors.New("none")
	})
	return leader
}
