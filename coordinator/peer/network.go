package peer

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/jitter"
)

// Protocols of the port, as ALPN names them.
const (
	raftProtocol = "certctl-raft/1" // streams of Raft
	peerProtocol = "certctl-peer/1" // HTTP/1.1 requests between nodes
)

// Members is who belongs to the cluster, as far as this node knows.
type Members interface {
	// Member reports whether a node is a member, by the latest that is known.
	Member(id string) bool
	// At is the member that is expected at an address.
	At(address string) (id string, ok bool)
	// Key is the fingerprint of the key by which a member is known; "" if there is
	// none that is good. known is false while it cannot be known here.
	Key(id string) (fingerprint string, known bool)
	// Refresh asks the members that are known for the present ones. It is called,
	// seldom and by one goroutine at a time, before somebody unknown is refused, or
	// somebody with an unknown key;
	// its calls have to be made with ctx.
	Refresh(ctx context.Context) error
}

// NetworkConfig is what a network needs. Listener, Advertise, Identity and Log are
// required; what is 0 has a default.
type NetworkConfig struct {
	// Listener is the node's peer port. The network closes it.
	Listener net.Listener
	// Advertise is the address, host:port, at which others reach this node.
	Advertise string
	Identity  *Identity
	Log       *slog.Logger

	// Dial connects to an address; nil is a net.Dialer, which looks a name up
	// each time.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// HandshakeTimeout bounds connecting, and the handshake of either side: 10 s.
	HandshakeTimeout time.Duration
	// MaxHandshakes bounds the incoming connections that have not shown yet who
	// they are: 256. One more ends the oldest of them.
	MaxHandshakes int
	// MaxIncoming bounds the incoming connections of members, MaxFromPeer those of
	// one: 2048 and 512.
	MaxIncoming, MaxFromPeer int
	// RefreshGap is the shortest time between two calls of Members.Refresh: 1 s.
	RefreshGap time.Duration
	// MaxAge is when a connection ends however well it works, so that what opened
	// it has not expired long ago: 20 days.
	MaxAge time.Duration
}

func (c NetworkConfig) withDefaults() NetworkConfig {
	set := func(value *int, to int) {
		if *value == 0 {
			*value = to
		}
	}
	last := func(value *time.Duration, to time.Duration) {
		if *value == 0 {
			*value = to
		}
	}
	last(&c.HandshakeTimeout, 10*time.Second)
	last(&c.RefreshGap, time.Second)
	last(&c.MaxAge, 20*24*time.Hour)
	set(&c.MaxHandshakes, 256)
	set(&c.MaxIncoming, 2048)
	set(&c.MaxFromPeer, 512)
	if c.Dial == nil {
		dialer := &net.Dialer{}
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
	return c
}

func (c NetworkConfig) validate() error {
	if host, port, err := net.SplitHostPort(c.Advertise); err != nil || host == "" || port == "" || port == "0" {
		return fmt.Errorf("peer network: Advertise %q is not host:port", c.Advertise)
	}
	switch {
	case c.Listener == nil:
		return errors.New("peer network: Listener is missing")
	case c.Identity == nil:
		return errors.New("peer network: Identity is missing")
	case c.Log == nil:
		return errors.New("peer network: Log is missing")
	case c.HandshakeTimeout < 0 || c.RefreshGap < 0 || c.MaxAge < 0 || c.MaxHandshakes < 0 || c.MaxIncoming < 0 || c.MaxFromPeer < 0:
		return errors.New("peer network: a limit is negative")
	}
	return nil
}

// Network is a node's connections to the others. Its methods may be called by any
// number of goroutines; those that set something up, before Run.
type Network struct {
	config   NetworkConfig
	identity *Identity
	log      *slog.Logger

	// life ends with Run, or with Close; what dials or answers ends with it.
	life context.Context
	end  context.CancelFunc

	mu       sync.Mutex // guards what follows
	members  Members
	conns    map[*conn]struct{}
	incoming map[string]int // connections by peer
	total    int            // of incoming
	pending  *list.List     // of net.Conn: handshakes under way, the oldest first
	streams  *streamLayer   // the present one; nil if there is none
	pools    map[string]*pool
	onClosed []func()
	running  bool
	ended    bool

	closing sync.Once
	tasks   sync.WaitGroup // goroutines; none is added once ended is set
	users   sync.WaitGroup // of connections that net/http has not let go of
	refresh refresher
	refused refusals
	counted counters
	server  *httpServer
}

// New checks the configuration. Nothing is accepted before Run; connecting to
// others is possible at once.
func New(c NetworkConfig) (*Network, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	n := &Network{
		config: c, identity: c.Identity, log: c.Log,
		conns: map[*conn]struct{}{}, incoming: map[string]int{}, pending: list.New(), pools: map[string]*pool{},
	}
	n.life, n.end = context.WithCancel(context.Background())
	n.refused.log = c.Log
	n.server = newHTTPServer(n)
	return n, nil
}

// SetMembers says whom to ask who belongs to the cluster. Until then nobody does.
func (n *Network) SetMembers(m Members) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.members = m
}

// Handle serves requests of members at a pattern of [http.ServeMux]; [From] says
// whose they are. It must be called before Run.
func (n *Network) Handle(pattern string, h http.Handler) {
	n.mustNotRun("Handle")
	n.server.mux.Handle(pattern, h)
}

// OnClosed adds what is called after this node has ended streams of Raft that it
// had opened itself: whoever keeps idle ones drops them (see
// [raft.NetworkTransport.CloseStreams]). It must be called before Run.
func (n *Network) OnClosed(fn func()) {
	n.mustNotRun("OnClosed")
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onClosed = append(n.onClosed, fn)
}

func (n *Network) mustNotRun(method string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running {
		panic("peer: " + method + " after Run")
	}
}

// Advertise is the address at which others reach this node.
func (n *Network) Advertise() string { return n.config.Advertise }

// Run accepts connections until ctx is done. Then it closes the port and every
// connection, in whatever they are, and returns when all that the network started
// has ended. It returns an error only if the port fails.
func (n *Network) Run(ctx context.Context) error {
	n.mu.Lock()
	if n.running || n.ended {
		n.mu.Unlock()
		return errors.New("peer network: Run was called before, or after Close")
	}
	n.running = true
	n.mu.Unlock()

	changed := n.identity.Changed()
	var loops sync.WaitGroup
	loops.Go(n.server.serve)
	loops.Go(func() {
		jitter.Loop(n.life, time.Hour, jitter.DefaultSchedulerJitter, changed, func(context.Context) { n.sweep() })
	})
	stop := context.AfterFunc(ctx, n.Close)
	err := n.accept()
	stop()
	n.Close()
	loops.Wait()
	n.tasks.Wait()
	n.users.Wait()
	n.server.conns.Wait()
	return err
}

// Close ends the network: the port, all connections, and whatever waits for one.
// It does not wait for them; Run does. A network that never runs needs it too.
func (n *Network) Close() { n.closing.Do(n.close) }

func (n *Network) close() {
	n.mu.Lock()
	n.ended = true
	n.mu.Unlock()
	n.end()
	n.config.Listener.Close()
	n.closePending()
	n.CloseAll()
	n.server.close()
	n.dropPools(func(string) bool { return false })
}

func (n *Network) isEnded() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ended
}

// start runs a part on a goroutine that Run waits for; false if it is too late.
func (n *Network) start(fn func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		return false
	}
	n.tasks.Go(fn)
	return true
}

// acceptPolicy is the pause after the port could not accept, as when the process
// has no descriptors left.
var acceptPolicy = backoff.Policy{Initial: 5 * time.Millisecond, Max: time.Second, Multiplier: 2, Jitter: 0.2}

// accept takes connections until the port is closed.
func (n *Network) accept() error {
	failures := 0
	for {
		raw, err := n.config.Listener.Accept()
		switch {
		case err == nil:
			failures = 0
			pending := n.addPending(raw)
			if !n.start(func() { n.greet(pending) }) {
				raw.Close()
			}
		case n.isEnded():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("the peer port %s was closed: %w", n.config.Listener.Addr(), err)
		default:
			failures++
			n.refused.note(reasonPort, "", "", "let the process have more open files, or find out who opens so many connections", err)
			_ = backoff.Wait(n.life, acceptPolicy.Delay(failures, nil)) // the port is closed then, too
		}
	}
}

// addPending notes a connection that has not shown yet who it is. Where there are
// too many, the oldest goes: an honest one is done in some milliseconds, and one
// that only waits must not keep it out.
func (n *Network) addPending(raw net.Conn) *list.Element {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pending.Len() >= n.config.MaxHandshakes {
		oldest := n.pending.Front()
		n.pending.Remove(oldest)
		oldest.Value.(net.Conn).Close()
		n.counted.refuse(reasonCrowd)
	}
	return n.pending.PushBack(raw)
}

// donePending reports whether the connection was still waited for.
func (n *Network) donePending(e *list.Element) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for at := n.pending.Front(); at != nil; at = at.Next() {
		if at == e {
			n.pending.Remove(e)
			return true
		}
	}
	return false
}

func (n *Network) closePending() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for at := n.pending.Front(); at != nil; at = at.Next() {
		at.Value.(net.Conn).Close()
	}
}
