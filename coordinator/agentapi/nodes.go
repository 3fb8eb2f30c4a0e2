package agentapi

import (
	"sync/atomic"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// noServers is the digest of an agent that knows no nodes.
var noServers = wire.ServersDigest(nil)

// nodeList is where agents are told to go, made from one version of the state.
type nodeList struct {
	version uint64
	servers []string
	digest  string
}

// nodes remembers the last list. The zero value is ready.
type nodes struct{ last atomic.Pointer[nodeList] }

func (n *nodes) list(view *fleet.View) *nodeList {
	version := view.Version(fleet.TableNodes)
	if known := n.last.Load(); known != nil && known.version == version {
		return known
	}
	var urls []string
	for _, node := range view.ClusterNodes() {
		urls = append(urls, node.URL)
	}
	made := &nodeList{version: version, servers: wire.CleanServers(urls)}
	made.digest = wire.ServersDigest(made.servers)
	n.last.Store(made)
	return made
}

// servers are what an agent is told of the nodes, nil if it knows them. A cluster
// of one is reached by what its agents were given, which may be an address that it
// does not know of itself; but an agent that knows nodes learns it when all but
// one are gone.
func (s *Service) servers(view *fleet.View, digest string) []string {
	known := s.nodes.list(view)
	switch {
	case digest == "", digest == known.digest, len(known.servers) == 0:
		return nil
	case len(known.servers) == 1 && digest == noServers:
		return nil
	}
	return known.servers
}
