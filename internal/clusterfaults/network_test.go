package clusterfaults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/shared/backoff"
)

// network connects nodes over the loopback interface, and gets in between. A
// node's address is its name; where it listens changes with every start.
type network struct {
	mu        sync.Mutex
	random    *rand.Rand
	addresses map[string]string // of those that are reached
	links     map[[2]string]*link
	conns     map[*conn]bool
}

func newNetwork(random *rand.Rand) *network {
	return &network{random: random, addresses: map[string]string{}, links: map[[2]string]*link{}, conns: map[*conn]bool{}}
}

// link is one direction between two nodes.
type link struct {
	mu      sync.Mutex
	cut     bool
	healed  chan struct{} // closed when it is whole again
	loss    float64       // of all writes, how many break the connection
	delayed time.Duration // the most that a write is held up
}

func (n *network) link(from, to string) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := [2]string{from, to}
	if n.links[key] == nil {
		n.links[key] = &link{}
	}
	return n.links[key]
}

func (n *network) draw() float64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.random.Float64()
}

// cut loses everything between two nodes in this direction until heal: what is
// sent waits, as it does in a TCP connection that gets no answer.
func (n *network) cut(from, to string) {
	l := n.link(from, to)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.cut {
		l.cut, l.healed = true, make(chan struct{})
	}
}

// weaken makes a direction lose and delay.
func (n *network) weaken(from, to string, loss float64, delayed time.Duration) {
	l := n.link(from, to)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loss, l.delayed = loss, delayed
}

// heal makes all links whole.
func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		l.mu.Lock()
		if l.cut {
			close(l.healed)
		}
		l.cut, l.loss, l.delayed = false, 0, 0
		l.mu.Unlock()
	}
}

func (l *link) whole() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.cut && l.loss == 0 && l.delayed == 0
}

// pass waits until something may go through, or until ctx is done. It returns
// false when the connection is to break.
func (l *link) pass(ctx context.Context, draw func() float64) bool {
	for {
		l.mu.Lock()
		cut, healed, loss, delayed := l.cut, l.healed, l.loss, l.delayed
		l.mu.Unlock()
		if !cut {
			if loss > 0 && draw() < loss {
				return false
			}
			return delayed == 0 || backoff.Wait(ctx, time.Duration(draw()*float64(delayed))) == nil
		}
		select {
		case <-healed:
		case <-ctx.Done():
			return false
		}
	}
}

// listen makes a node reachable, at a port that is new.
func (n *network) listen(node string) (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		n.plug(node, l.Addr().String())
	}
	return l, err
}

// plug makes a node reachable.
func (n *network) plug(node, address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addresses[node] = address
}

// unplug breaks all connections of a node, and lets nobody reach it before it is
// plugged in again.
func (n *network) unplug(node string) {
	n.mu.Lock()
	delete(n.addresses, node)
	var broken []*conn
	for c := range n.conns {
		if c.from == node || c.to == node {
			broken = append(broken, c)
		}
	}
	n.mu.Unlock()
	for _, c := range broken {
		c.Close()
	}
}

// plugged reports whether a node is reachable.
func (n *network) plugged(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.addresses[node] != ""
}

func (n *network) dial(ctx context.Context, from, to string) (net.Conn, error) {
	n.mu.Lock()
	address, plugged := n.addresses[to], n.addresses[from] != ""
	n.mu.Unlock()
	if address == "" || !plugged {
		return nil, fmt.Errorf("dial %s: nobody listens", to)
	}
	if !n.link(from, to).pass(ctx, n.draw) || !n.link(to, from).pass(ctx, n.draw) {
		return nil, fmt.Errorf("dial %s: no answer", to)
	}
	inner, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner, network: n, from: from, to: to, closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[c] = true
	return c, nil
}

// conn is the dialler's end of a connection. It stands for both directions.
type conn struct {
	net.Conn
	network  *network
	from, to string
	once     sync.Once
	closed   chan struct{}

	mu          sync.Mutex
	read, write time.Time // deadlines
}

func (c *conn) pass(from, to string, deadline *time.Time) error {
	if c.network.link(from, to).whole() {
		return nil
	}
	c.mu.Lock()
	until := *deadline
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	if !until.IsZero() {
		ctx, cancel = context.WithDeadline(context.Background(), until)
	}
	defer cancel()
	go func() {
		select {
		case <-c.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	if c.network.link(from, to).pass(ctx, c.network.draw) {
		return nil
	}
	if ctx.Err() == context.DeadlineExceeded {
		return os.ErrDeadlineExceeded
	}
	c.Close()
	return net.ErrClosed
}

func (c *conn) Write(p []byte) (int, error) {
	if err := c.pass(c.from, c.to, &c.write); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil {
		err = c.pass(c.to, c.from, &c.read)
	}
	if err != nil {
		n = 0
	}
	return n, err
}

func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	c.read, c.write = t, t
	c.mu.Unlock()
	return c.Conn.SetDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.read = t
	c.mu.Unlock()
	return c.Conn.SetReadDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.write = t
	c.mu.Unlock()
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.network.mu.Lock()
	delete(c.network.conns, c)
	c.network.mu.Unlock()
	return c.Conn.Close()
}

// streams is a node's raft.StreamLayer.
type streams struct {
	net.Listener
	network *network
	node    string
}

func (s *streams) Addr() net.Addr { return address(s.node) }

func (s *streams) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.network.dial(ctx, s.node, string(to))
}

// address is a node's name.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }
