package upgrade

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/settings"
)

// TestStoredDirectoryBecomesACluster: the coordinator of before is the first of
// three, what it had is on all of them, and is there when it is gone.
func TestStoredDirectoryBecomesACluster(t *testing.T) {
	eachStored(t, func(s *stored) {
		s.skipIfOver()
		first := daemontest.NewNode(t, s.text(s.data, "node-id"), daemontest.Options{})
		first.Settings.DataDir = s.data
		first.Start()
		nodes := []*daemontest.Node{first}
		for i := range 2 {
			n := daemontest.NewNode(t, fmt.Sprintf("new%d", i+1), daemontest.Options{})
			n.Settings.Cluster.JoinToken = settings.NewSecret(first.JoinToken().Reveal())
			n.Start()
			nodes = append(nodes, n)
		}
		require.Eventually(t, func() bool {
			members, _ := first.Node().Members()
			voters := 0
			for _, member := range members {
				if member.Voter {
					voters++
				}
			}
			return voters == len(nodes)
		}, patience, 50*time.Millisecond)
		view := first.Node().State().View()
		assert.Len(t, view.ClusterNodes(), len(nodes))
		for _, n := range nodes {
			require.NoError(t, n.Node().WaitIndex(t.Context(), view.Index()))
			assert.Equal(t, view.Version(fleet.TableCertificates), n.Node().State().View().Version(fleet.TableCertificates))
			s.sameTokens(n.Node().State().View())
		}

		first.Stop()
		viewer := s.text(s.expected, "viewer.token")
		for _, n := range nodes[1:] {
			c := &served{stored: s, url: n.URL(), http: s.client()}
			var agents resource.Page[resource.Agent]
			require.Eventually(t, func() bool {
				_, err := c.try(http.MethodGet, "/api/v1/agents?limit=500&consistent=true", viewer, nil, &agents)
				return err == nil
			}, patience, 50*time.Millisecond)
			assert.Equal(t, len(said[resource.Agent](s, "agents.json")), len(agents.Items))
		}
		// The CA's key came along.
		var made resource.CreatedEnrollmentToken
		c := &served{stored: s, url: nodes[1].URL(), http: s.client()}
		c.do(http.MethodPost, "/api/v1/enrollment-tokens", s.text(s.data, "admin.token"), resource.CreateEnrollmentToken{NamePatterns: []string{"*.example.com"}}, &made)
		c.enroll(made.Token)
	})
}
