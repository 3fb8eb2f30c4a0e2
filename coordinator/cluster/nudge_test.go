package cluster_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
)

// namedStreams are streams over loopback between nodes whose addresses are their
// names.
type namedStreams struct {
	net.Listener
	name  string
	names *sync.Map // to the addresses of their listeners
}

type nameAddr string

func (nameAddr) Network() string  { return "tcp" }
func (a nameAddr) String() string { return string(a) }

func (s namedStreams) Addr() net.Addr { return nameAddr(s.name) }

func (s namedStreams) Dial(name raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	address, ok := s.names.Load(string(name))
	if !ok {
		return nil, fmt.Errorf("there is no %s", name)
	}
	return net.DialTimeout("tcp", address.(string), timeout)
}

// Followers learn at once that what they have stored is committed, and not when
// Raft would tell them: a write through a follower is answered, and what was written
// is soon everywhere.
func TestFollowersLearnAtOnceWhatIsCommitted(t *testing.T) {
	names := new(sync.Map)
	m := newMesh(t, 3, func(c *cluster.Config) {
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		names.Store(c.NodeID, listener.Addr().String())
		transport := cluster.NewTransport(namedStreams{listener, c.NodeID, names}, slog.New(slog.DiscardHandler))
		t.Cleanup(transport.CloseStreams) // which are kept for the next message
		c.Transport = transport
		cluster.SetCommitTimeout(c, 20*time.Second) // a message that got lost is sent again then
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*testPatience)
	defer cancel()
	for i := range 20 {
		through := m.follower()
		if i%2 == 1 {
			through = m.leader()
		}
		m.do(through, newToken(fmt.Sprintf("token%d", i)))
		for _, n := range m.all() {
			require.NoError(t, n.WaitIndex(ctx, through.AppliedIndex()), "node %s, write %d", n.id, i)
		}
	}
}
