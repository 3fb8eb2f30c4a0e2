//go:build linux

package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/coordinator/api/resource"
)

// TestThePageOnClusters follows the page word for word, from one real coordinator
// to three, through a restart, a change of leader, a replaced node and new roots.
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
	assert.ElementsMatch(t, []string{"c1", "c2", "c4"}, ids)
	assert.Contains(t, s.tokens(), before)
	s.admin.does("cluster", "health", "--watch", "--every", "1s")
}
