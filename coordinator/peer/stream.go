package peer

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// queueLength bounds the accepted connections that nobody has taken yet.
const queueLength = 64

// A queue hands connections from the network to who serves them.
type queue struct {
	places chan struct{}
	conns  chan *conn
	closed chan struct{}
	once   sync.Once
}

func newQueue() *queue {
	return &queue{places: make(chan struct{}, queueLength), conns: make(chan *conn, queueLength), closed: make(chan struct{})}
}

// reserve takes a place, which put then uses.
func (q *queue) reserve() bool {
	select {
	case <-q.closed:
		return false
	default:
	}
	select {
	case q.places <- struct{}{}:
		return true
	default:
		return false
	}
}

// put gives a connection to the place that was reserved, or the place back.
func (q *queue) put(c *conn) {
	if c == nil {
		<-q.places
		return
	}
	q.conns <- c // has as many places
	select {
	case <-q.closed:
		q.drain()
	default:
	}
}

func (q *queue) accept(life context.Context) (net.Conn, error) {
	select {
	case <-q.closed:
		return nil, net.ErrClosed
	case <-life.Done():
		return nil, net.ErrClosed
	case c := <-q.conns:
		<-q.places
		return c, nil
	}
}

func (q *queue) close() {
	q.once.Do(func() { close(q.closed) })
	q.drain()
}

func (q *queue) drain() {
	for {
		select {
		case c := <-q.conns:
			c.Close()
			<-q.places
		default:
			return
		}
	}
}

// address is where others reach this node: a name or an IP address with a port.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// A streamLayer carries the streams of Raft.
type streamLayer struct {
	network *Network
	queue   *queue
}

// StreamLayer is what Raft's network transport runs over, until it is closed. A
// new one ends the one before, with all of its streams.
func (n *Network) StreamLayer() raft.StreamLayer {
	layer := &streamLayer{network: n, queue: newQueue()}
	n.mu.Lock()
	before := n.streams
	n.streams = layer
	n.mu.Unlock()
	if before != nil {
		before.Close()
	}
	return layer
}

// Accept implements net.Listener.
func (l *streamLayer) Accept() (net.Conn, error) { return l.queue.accept(l.network.life) }

// Addr implements net.Listener: it is where others reach this node.
func (l *streamLayer) Addr() net.Addr { return address(l.network.config.Advertise) }

// Close implements net.Listener. It ends the streams too: Raft leaves those that
// the others have opened to end by themselves.
func (l *streamLayer) Close() error {
	n := l.network
	n.mu.Lock()
	if n.streams == l {
		n.streams = nil
	}
	var list []*conn
	for c := range n.conns {
		if c.layer == l {
			list = append(list, c)
		}
	}
	n.mu.Unlock()
	l.queue.close()
	for _, c := range list {
		c.cut()
	}
	return nil
}

// Dial connects to the member that is expected at an address.
func (l *streamLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	n := l.network
	ctx := n.life
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	id, ok := n.at(ctx, string(to))
	if !ok {
		return nil, fmt.Errorf("connect to %s: no member of the cluster has that address: %w", to, ErrNotMember)
	}
	c, err := n.dial(ctx, id, string(to), raftProtocol)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	c.layer = l
	n.mu.Unlock()
	select {
	case <-l.queue.closed:
		c.Close()
		return nil, net.ErrClosed
	default:
		return c, nil
	}
}
