package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/daemon"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/settings"
)

// storedCluster is what three nodes of an earlier version have left.
type storedCluster struct {
	*stored
	dir     string
	members []resource.Member

	mu     sync.Mutex
	moved  map[string]string // addresses of that time, and where the nodes listen now; guarded by mu
	dialer net.Dialer
}

func eachStoredCluster(t *testing.T, test func(s *storedCluster)) {
	archives, err := filepath.Glob(filepath.Join("testdata", "*.cluster.tar.gz"))
	require.NoError(t, err)
	require.NotEmpty(t, archives)
	for _, archive := range archives {
		t.Run(filepath.Base(archive), func(t *testing.T) {
			dir := t.TempDir()
			unpack(t, archive, dir)
			s := &storedCluster{
				stored: &stored{t: t, data: filepath.Join(dir, "c1"), expected: filepath.Join(dir, "expected")}, dir: dir, moved: map[string]string{},
			}
			var members resource.Members
			require.NoError(t, json.Unmarshal([]byte(s.text(s.expected, "members.json")), &members))
			s.members = members.Items
			require.Len(t, s.members, 3)
			s.skipIfOver()
			test(s)
		})
	}
}

// dial reaches a node of that time where it listens now.
func (s *storedCluster) dial(ctx context.Context, address string) (net.Conn, error) {
	s.mu.Lock()
	now, ok := s.moved[address]
	s.mu.Unlock()
	if !ok {
		now = address
	}
	return s.dialer.DialContext(ctx, "tcp", now)
}

// node is one of the nodes, with this version's program.
func (s *storedCluster) node(member resource.Member) *daemontest.Node {
	n := daemontest.NewNode(s.t, member.ID, daemontest.Options{Faults: daemon.Faults{Dial: s.dial}})
	n.Settings.DataDir = filepath.Join(s.dir, member.ID)
	n.Settings.Cluster.Advertise = member.Address
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved[member.Address] = n.Settings.Cluster.Listen
	return n
}

// has requires that a node has what the nodes of that time said.
func (s *storedCluster) has(view *fleet.View) {
	t := s.t
	for _, want := range said[resource.Agent](s.stored, "agents.json") {
		agent, ok := view.Agent(want.ID)
		require.True(t, ok, "agent %s", want.ID)
		assert.Equal(t, want.Identity.Fingerprint, agent.Current.Fingerprint)
	}
	for _, want := range said[resource.Certificate](s.stored, "certificates.json") {
		row, ok := view.Certificate(want.AgentID, want.Name)
		require.True(t, ok, "certificate %s", want.Name)
		assert.Equal(t, want.Serial, row.Columns.Serial)
	}
	for _, want := range said[resource.EnrollmentToken](s.stored, "token.json") {
		got, ok := view.EnrollmentToken(want.ID)
		require.True(t, ok, "token %s", want.ID)
		assert.Equal(t, want.Uses, got.Uses)
	}
	states := map[resource.TokenState]int{}
	for _, want := range said[resource.JoinToken](s.stored, "join-tokens.json") {
		states[want.State]++
		got, ok := view.JoinToken(want.ID)
		require.True(t, ok, "join token %s", want.ID)
		assert.Equal(t, want.UsedBy, got.UsedBy)
		assert.Equal(t, want.State == "revoked", !got.RevokedAt.IsZero())
	}
	assert.Equal(t, map[resource.TokenState]int{"usable": 1, "used": 3, "revoked": 1}, states)
}

// TestStoredClusterIsServed: the nodes of an earlier version find each other again,
// elect a leader, have all that they had, store changes, and grow by one that has the
// join token of that time.
func TestStoredClusterIsServed(t *testing.T) {
	eachStoredCluster(t, func(s *storedCluster) {
		var nodes []*daemontest.Node
		for _, member := range s.members {
			n := s.node(member)
			n.Begin()
			nodes = append(nodes, n)
		}
		var leader *daemontest.Node
		require.Eventually(t, func() bool {
			for _, n := range nodes {
				if n.Node().IsLeader() {
					leader = n
				}
			}
			return leader != nil
		}, patience, 20*time.Millisecond)
		leader.Do(fleet.CreateEnrollmentToken{ID: "after", SecretHash: [32]byte{1}, ExpiresAt: time.Now().Add(time.Hour)})
		index := leader.Node().AppliedIndex()
		for _, n := range nodes {
			require.NoError(t, n.Node().WaitIndex(t.Context(), index))
			view := n.Node().State().View()
			s.has(view)
			_, ok := view.EnrollmentToken("after")
			assert.True(t, ok)
			assert.Len(t, view.ClusterNodes(), 3, "the fourth was removed")
		}
		joins := daemontest.NewNode(t, "new", daemontest.Options{Faults: daemon.Faults{Dial: s.dial}})
		joins.Settings.Cluster.JoinToken = settings.NewSecret(leader.JoinToken().Reveal())
		joins.Start()
		require.Eventually(t, func() bool {
			members, _ := leader.Node().Members()
			voters := 0
			for _, m := range members {
				if m.Voter {
					voters++
				}
			}
			return voters == 4
		}, patience, 50*time.Millisecond)
		s.has(joins.Node().State().View())
	})
}

// TestStoredClusterIsRecovered: of the three directories one is left; this version
// makes a cluster of one of it, with all that was there.
func TestStoredClusterIsRecovered(t *testing.T) {
	eachStoredCluster(t, func(s *storedCluster) {
		for _, member := range s.members[1:2] {
			dir := filepath.Join(s.dir, member.ID)
			journal, err := history.Open(history.Config{Path: filepath.Join(dir, "journal.db"), Log: quiet})
			require.NoError(t, err)
			conf := cluster.Config{Dir: dir, NodeID: member.ID, Journal: journal, Log: quiet}
			report, state, err := cluster.Inspect(conf, 10)
			require.NoError(t, err)
			s.has(state.View())
			require.NoError(t, errors.Join(
				cluster.Recover(t.Context(), conf, cluster.PlanRecovery(report, member.Address, time.Now())), journal.Close()))
			n := s.node(member)
			n.Start()
			s.has(n.Node().State().View())
			members, _ := n.Node().Members()
			assert.Len(t, members, 1)
			require.Eventually(t, func() bool { return len(n.Node().State().View().ClusterNodes()) == 1 }, patience, 50*time.Millisecond,
				"the nodes that are gone are forgotten")
		}
	})
}

// TestStoredAgentKnowsItsCluster: an agent's state of that time is opened, with all
// nodes that it had heard of.
func TestStoredAgentKnowsItsCluster(t *testing.T) {
	eachStoredCluster(t, func(s *storedCluster) {
		state, err := store.Open(filepath.Join(s.dir, "agent", "state.db"), store.Options{})
		require.NoError(t, err)
		defer func() { require.NoError(t, state.Close()) }()
		identity, err := state.Identity()
		require.NoError(t, err)
		var urls []string
		for _, member := range s.members {
			urls = append(urls, member.URL)
		}
		assert.ElementsMatch(t, urls, identity.Nodes)
		assert.Equal(t, said[resource.Agent](s.stored, "agents.json")[0].ID, identity.AgentID)
	})
}
