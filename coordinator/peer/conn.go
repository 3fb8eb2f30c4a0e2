package peer

import (
	"crypto/x509"
	"net"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/clusterca"
)

// A conn is a connection to or from a member. It is a net.Conn that says nothing
// of the TLS below it: net/http takes it for a plain one, and asks for no protocol.
type conn struct {
	net.Conn // what is sent and received, in the clear
	raw      net.Conn
	network  *Network
	key      connKey
	chain    []*x509.Certificate // of the peer
	shown    string              // fingerprint of the peer's key
	own      *x509.Certificate   // what this node showed
	roots    *clusterca.Roots    // by which the peer was let in
	since    time.Time
	layer    *streamLayer // of a stream of Raft

	closing sync.Once
	err     error
	done    func() // told once the owner closes
}

// connKey is how connections are counted.
type connKey struct {
	Peer     string
	Protocol string
	Incoming bool
}

// Close ends the connection as TLS wants it, and forgets it.
func (c *conn) Close() error {
	c.closing.Do(func() {
		c.network.forget(c)
		c.err = c.Conn.Close()
		if c.done != nil {
			c.done()
		}
	})
	return c.err
}

// cut ends the connection now, whatever is being sent: its owner finds that out
// at the next read or write, and closes it.
func (c *conn) cut() {
	c.raw.Close()
	c.network.forget(c)
}

// register counts a connection in; the refusal is 0 if there is room.
func (n *Network) register(c *conn) verdict {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.ended:
		return verdictStopping
	case c.key.Incoming && (n.total >= n.config.MaxIncoming || n.incoming[c.key.Peer] >= n.config.MaxFromPeer):
		return verdictBusy
	}
	n.conns[c] = struct{}{}
	if !c.key.Incoming && c.key.Protocol == peerProtocol {
		n.users.Add(1) // net/http closes every connection that it dialled
		c.done = n.users.Done
	}
	if c.key.Incoming {
		n.total++
		n.incoming[c.key.Peer]++
	}
	return verdictAccepted
}

func (n *Network) forget(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.conns[c]; !ok {
		return
	}
	delete(n.conns, c)
	if !c.key.Incoming {
		return
	}
	n.total--
	if n.incoming[c.key.Peer]--; n.incoming[c.key.Peer] == 0 {
		delete(n.incoming, c.key.Peer)
	}
}

// CloseExcept ends at once every connection, in either direction, whose peer is
// not a member by the function given, or is known by another key now.
func (n *Network) CloseExcept(member func(id string) bool) {
	for peer, count := range n.closeWhere(func(c *conn) bool { return !member(c.key.Peer) || n.impostor(c) }) {
		if !n.isEnded() {
			n.log.Info("the connections of a node were ended", "peer", peer, "connections", count)
		}
	}
	n.dropPools(member)
}

// CloseAll ends every connection at once.
func (n *Network) CloseAll() { n.CloseExcept(func(string) bool { return false }) }

// closeWhere ends connections, and counts them by peer.
func (n *Network) closeWhere(condition func(*conn) bool) map[string]int {
	n.mu.Lock()
	var list []*conn
	for c := range n.conns {
		list = append(list, c)
	}
	told := n.onClosed
	n.mu.Unlock()
	ended, ownStreams := map[string]int{}, false
	for _, c := range list {
		if !condition(c) {
			continue
		}
		ended[c.key.Peer]++
		ownStreams = ownStreams || c.key.Protocol == raftProtocol && !c.key.Incoming
		n.counted.closed.Add(1)
		c.cut()
	}
	if ownStreams {
		for _, fn := range told {
			fn()
		}
	}
	return ended
}

// sweep ends the connections that could not be opened again: those whose
// certificates, on either side, lead to a root that is trusted no more, and those with
// somebody whose key turns out not to be the member's. It goes by the roots and not by
// the clock, which may be wrong today and right tomorrow; the age of a connection,
// which no clock that is set can change, bounds it instead.
func (n *Network) sweep() {
	n.closeWhere(func(c *conn) bool {
		return n.outdated(c) || n.impostor(c) || time.Since(c.since) > n.config.MaxAge
	})
}

// outdated reports whether a connection is by a root that has gone since. It is
// asked of a new connection too, once the sweep can find it.
func (n *Network) outdated(c *conn) bool {
	roots := n.identity.current.Load().roots
	return roots != c.roots && (roots.SignerOf(c.chain[0]) == "" || roots.SignerOf(c.own) == "")
}
