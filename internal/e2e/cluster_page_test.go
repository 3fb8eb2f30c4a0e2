//go:build linux

package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
)

// TestThePageOnClusters follows the page word for word, from one real coordinator
// to three, through a restart, a change of leader, a replaced node, one that
// leaves, and new roots.
func TestThePageOnClusters(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.found("c1")
	before := s.newToken()
	for _, st := range stepsOf(t, "../cluster.md") {
		s.do(st)
	}
	var members resource.Members
	s.admin.reads(&members, "cluster", "members")
	var ids []string
	for _, member := range members.Items {
		ids = append(ids, member.ID)
		assert.True(t, member.Voter, member.ID)
	}
	assert.ElementsMatch(t, []string{"c1", "c4", "c5"}, ids)
	assert.Contains(t, s.tokens(), before)
	s.admin.does("cluster", "health", "--watch", "--interval", "1s")

	// The node that has left does not come back by itself, and does on purpose.
	left := s.machine("c2")
	await(t, time.Minute, "c2 ends", func() error {
		if left.running() {
			return errors.New("it runs")
		}
		return nil
	})
	assert.Equal(t, 3, left.cmd.ProcessState.ExitCode())
	again := left.verb("run")
	assert.Equal(t, 3, again.status)
	assert.Contains(t, again.stderr, "has left its cluster")
	assert.Contains(t, again.stderr, "certctl-coordinator join --put-aside")
	token := strings.TrimSpace(s.admin.does("cluster", "join-token", "create", "--quiet"))
	refused := left.verb("join", token)
	assert.Equal(t, 1, refused.status)
	assert.Contains(t, refused.stderr, "has left its cluster")
	joined := left.verb("join", "--put-aside", token)
	require.Zero(t, joined.status, joined.stderr)
	s.startOn("c2")
	s.admin.reads(&members, "cluster", "members")
	assert.Len(t, members.Items, 4)
}
