package peer

import (
	"sync"
	"sync/atomic"
)

// Stats are the numbers of a network: those of connections are as of now, the
// others count from its start.
type Stats struct {
	// Connections by peer, protocol and direction.
	Connections map[ConnectionKind]int
	// Handshakes that are under way, of connections that came.
	Handshakes int
	// Accepted connections, of members; Dialled ones, and those of them that
	// Failed.
	Accepted, Dialled, Failed uint64
	// Closed counts the connections that were ended because their peer is no
	// member any more, or their certificates or keys count no more.
	Closed uint64
	// Refused connections, by reason.
	Refused map[Reason]uint64
	// Refreshes are the rounds of asking the others who is a member.
	Refreshes uint64
	// UnknownKeys counts the connections that were made on the word of a certificate
	// alone, because this node could not know the member's key.
	UnknownKeys uint64
	// CallsServed and CallsMade count the calls between nodes.
	CallsServed, CallsMade uint64
}

// ConnectionKind is how connections are counted.
type ConnectionKind struct {
	Peer     string // node id
	Protocol string
	Incoming bool
}

type counters struct {
	accepted, dialled, failed, closed, refreshes, unknownKeys, served, made atomic.Uint64

	mu      sync.Mutex
	refused map[Reason]uint64
}

func (c *counters) refuse(reason Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = map[Reason]uint64{}
	}
	c.refused[reason]++
}

// Stats are the network's numbers now.
func (n *Network) Stats() Stats {
	c := &n.counted
	s := Stats{
		Connections: map[ConnectionKind]int{}, Refused: map[Reason]uint64{},
		Accepted: c.accepted.Load(), Dialled: c.dialled.Load(), Failed: c.failed.Load(), Closed: c.closed.Load(),
		Refreshes: c.refreshes.Load(), UnknownKeys: c.unknownKeys.Load(), CallsServed: c.served.Load(), CallsMade: c.made.Load(),
	}
	c.mu.Lock()
	for reason, count := range c.refused {
		s.Refused[reason] = count
	}
	c.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	s.Handshakes = n.pending.Len()
	for conn := range n.conns {
		s.Connections[ConnectionKind(conn.key)]++
	}
	return s
}
