//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
)

// An upgradeLoad makes enrolment tokens, one after the other, at whichever node takes
// them.
type upgradeLoad struct {
	nodes  []*coordinator
	mu     sync.Mutex
	made   []string // guarded by mu; ids that were acknowledged
	failed int      // guarded by mu; nodes that did not take one
}

func (m *upgradeLoad) run(ctx context.Context) {
	for next := 0; ctx.Err() == nil; next++ {
		var made resource.CreatedEnrollmentToken
		err := m.nodes[next%len(m.nodes)].try(http.MethodPost, "/api/v1/enrollment-tokens", resource.CreateEnrollmentToken{Description: "upgrade"}, &made)
		m.mu.Lock()
		if err != nil {
			m.failed++
		} else {
			m.made = append(m.made, made.ID)
		}
		m.mu.Unlock()
		pause(ctx, 20*time.Millisecond)
	}
}

func (m *upgradeLoad) acknowledged() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.made...)
}

// tokensOf lists the ids of a node's enrolment tokens as the cluster has them now.
func (c *coordinator) tokensOf() (ids map[string]int, err error) {
	ids = map[string]int{}
	for path := "/api/v1/enrollment-tokens?limit=500&consistent=true"; ; {
		var page resource.Page[resource.EnrollmentToken]
		if err := c.try(http.MethodGet, path, nil, &page); err != nil {
			return nil, err
		}
		for _, token := range page.Items {
			ids[token.ID]++
		}
		if page.NextCursor == "" {
			return ids, nil
		}
		path = "/api/v1/enrollment-tokens?limit=500&consistent=true&cursor=" + page.NextCursor
	}
}

// TestRollingUpgrade: three nodes of an earlier version are replaced by this one,
// node by node, while changes are made at all of them. Each step is a cluster of
// both versions, and nothing that was acknowledged is gone.
func TestRollingUpgrade(t *testing.T) {
	previous := os.Getenv("CERTCTL_PREVIOUS")
	if previous == "" {
		t.Skip("runs with CERTCTL_PREVIOUS, the path of an earlier certctl-coordinator: see internal/upgrade/rolling.sh")
	}
	t.Parallel()
	c := startClusterOf(t, previous)
	maker := &upgradeLoad{nodes: c.nodes}
	ctx, stop := context.WithCancel(t.Context())
	var making sync.WaitGroup
	making.Go(func() { maker.run(ctx) })
	defer making.Wait()
	defer stop()

	check := func(step string) {
		t.Helper()
		wanted := maker.acknowledged()
		require.NotEmpty(t, wanted, step)
		for _, n := range c.nodes {
			var ids map[string]int
			await(t, time.Minute, n.name+" lists the tokens", func() (err error) {
				ids, err = n.tokensOf()
				return err
			})
			for _, id := range wanted {
				require.Equal(t, 1, ids[id], "%s: token %s at %s", step, id, n.name)
			}
		}
		t.Logf("%s: %d acknowledged, all of them at each node", step, len(wanted))
	}
	awaitMore := func(than int) {
		t.Helper()
		await(t, time.Minute, "changes are made", func() error {
			if now := len(maker.acknowledged()); now < than+10 {
				return fmt.Errorf("%d since", now-than)
			}
			return nil
		})
	}
	awaitMore(0)
	check("all of the earlier version")
	// The followers first, as the documentation has it, then the leader.
	leader := c.nodes[c.leader()]
	order := []*coordinator{}
	for _, n := range c.nodes {
		if n != leader {
			order = append(order, n)
		}
	}
	for i, n := range append(order, leader) {
		before := len(maker.acknowledged())
		n.stop()
		n.path = filepath.Join(binDir, "certctl-coordinator")
		n.start()
		n.awaitServing()
		c.leader() // and all members are in health
		awaitMore(before)
		check(fmt.Sprintf("%d of this version", i+1))
	}
	m, err := c.members()
	require.NoError(t, err)
	for _, member := range m.Items {
		assert.Equal(t, m.Items[0].Level, member.Level)
	}
	stop()
	making.Wait()
	check("at the end")
	t.Logf("%d were not taken, by a node that was away or had no leader", maker.failed)
}
