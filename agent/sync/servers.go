package sync

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// nodesTried is how many nodes of the cluster one round tries, and givenTried
	// how many other servers that the host was given. Who has more of either goes
	// on with the rest in the next round.
	nodesTried, givenTried = 3, 3
	// homeAfter is how long an agent stays with another node than its own before
	// it tries that again, by half of it more or less.
	homeAfter = 10 * time.Minute
	// scatter is the longest pause before the next server: the agents of a node
	// that is gone do not all come to the next one in the same moment.
	scatter = 250 * time.Millisecond
)

// Patience with one server while there are others.
const (
	connectPatience   = 3 * time.Second
	handshakePatience = 4 * time.Second
	// answerPatience counts from when the request is sent. A node takes five seconds
	// at most to find out that its leader does not answer.
	answerPatience = 7 * time.Second
)

// servers are where the coordinator may be reached: the nodes of the cluster as
// it last told them, in an order of this agent's own, so that the agents spread
// over the nodes, and after them what else the host was given, which nothing that
// a coordinator says takes away.
type servers struct {
	list  []string
	nodes int // so many of list, from the beginning

	current int       // the one that answered last, or the next one to be tried
	given   int       // how far the rounds before have come in what the host was given
	homeAt  time.Time // when the first node is tried again
}

// serversOf are the servers of an identity and those of the configuration.
func serversOf(identity *store.Identity, configured []string) (list []string, nodes int) {
	list = spread(identity.AgentID, identity.Nodes)
	nodes = len(list)
	for _, server := range slices.Concat(configured, identity.Servers) {
		if !slices.Contains(list, server) {
			list = append(list, server)
		}
	}
	return list, nodes
}

// spread puts nodes in the order of an agent: by a hash of both, so that each
// node is the first one of its share of the agents, and one that comes or goes
// moves no others.
func spread(agentID string, nodes []string) []string {
	weight := func(node string) []byte {
		sum := sha256.Sum256([]byte(agentID + "\x00" + node))
		return sum[:]
	}
	ordered := slices.Clone(nodes)
	slices.SortFunc(ordered, func(a, b string) int { return bytes.Compare(weight(a), weight(b)) })
	return ordered
}

// set takes another list, and stays with the server that is in use if it is in
// it.
func (s *servers) set(list []string, nodes int, now time.Time) {
	used := ""
	if s.current < len(s.list) {
		used = s.list[s.current]
	}
	s.list, s.nodes, s.given, s.homeAt = list, nodes, 0, time.Time{}
	s.current = max(slices.Index(list, used), 0)
	s.stay(now)
}

// round is which servers are tried now, one after the other.
func (s *servers) round(now time.Time) (order []int) {
	nodes, given := 0, 0
	add := func(i int) {
		count, limit := &nodes, nodesTried
		if i >= s.nodes {
			count, limit = &given, givenTried
		}
		if *count < limit && !slices.Contains(order, i) {
			order, *count = append(order, i), *count+1
		}
	}
	if s.nodes > 0 && s.current != 0 && !now.Before(s.homeAt) {
		add(0)
		s.homeAt = now.Add(home())
	}
	add(s.current)
	first := s.current
	if first >= s.nodes {
		first = 0
	}
	for i := range s.nodes {
		add((first + i) % s.nodes)
	}
	for i, others := 0, len(s.list)-s.nodes; i < others; i++ {
		add(s.nodes + (s.given+i)%others)
	}
	return order
}

// answered says that a server has answered: it is kept.
func (s *servers) answered(i int, now time.Time) {
	if i == s.current {
		return
	}
	s.current = i
	s.stay(now)
}

// stay says until when an agent stays with a node that is not its own.
func (s *servers) stay(now time.Time) {
	if s.current != 0 && s.nodes > 0 {
		s.homeAt = now.Add(home())
	}
}

func home() time.Duration {
	return homeAfter/2 + rand.N(homeAfter) //nolint:gosec // spreads load, guards nothing
}

// failed says that none of a round has answered. The next one goes on behind
// them.
func (s *servers) failed(order []int) {
	last := -1
	for _, i := range order {
		if i < s.nodes {
			last = i
		} else {
			s.given++
		}
	}
	if others := len(s.list) - s.nodes; others > 0 {
		s.given %= others
	}
	switch {
	case last >= 0:
		s.current = (last + 1) % s.nodes
	case len(s.list) > 0:
		s.current = s.nodes + s.given
	}
}

// nodesDigest is what the coordinator is told of the nodes that are known.
func (l *link) nodesDigest() string {
	return wire.ServersDigest(wire.CleanServers(l.servers.list[:l.servers.nodes]))
}

// befriend stores what the coordinator says of its nodes. What is wrong in it is
// left out.
func (c *Client) befriend(told []string) error {
	if len(told) == 0 {
		return nil
	}
	nodes := wire.CleanServers(told)
	changed := false
	err := c.identities.UpdateIdentity(func(current *store.Identity) (*store.Identity, error) {
		if agentID(current) != c.link.agentID {
			return nil, errIdentityChanged
		}
		changed = len(nodes) > 0 && !slices.Equal(current.Nodes, nodes)
		if changed {
			current.Nodes = nodes
		}
		return current, nil
	})
	if err != nil || !changed {
		return err
	}
	c.log.Info("the coordinator has told its nodes", "servers", nodes)
	return nil
}
