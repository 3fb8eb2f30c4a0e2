package peer

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Bounds of requests between nodes.
const (
	maxHeader  = 64 << 10
	headerTime = 10 * time.Second
	// The side that connects gives up an idle connection first: a request never
	// meets one that is just being closed.
	idleOfServer = 3 * time.Minute
	idleOfClient = 90 * time.Second
	maxIdle      = 128 // connections to one node that wait for a request
	maxToPeer    = 256 // of them in all; requests beyond it wait
)

// An httpServer answers the requests of other nodes.
type httpServer struct {
	network *Network
	mux     *http.ServeMux
	server  *http.Server
	queue   *queue
	conns   sync.WaitGroup // connections that net/http serves
	calls   callHandler
}

type callHandler func(ctx context.Context, from, method string, request []byte) ([]byte, error)

type fromKey struct{}

// From is the id of the node whose request a context belongs to; "" if it is none.
func From(ctx context.Context) string {
	id, _ := ctx.Value(fromKey{}).(string)
	return id
}

func newHTTPServer(n *Network) *httpServer {
	s := &httpServer{network: n, mux: http.NewServeMux(), queue: newQueue()}
	s.mux.HandleFunc("POST "+callPath+"{method}", s.call)
	s.server = &http.Server{
		Handler:           s.mux,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleOfServer,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(n.log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return n.life },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, fromKey{}, c.(*conn).key.Peer)
		},
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				s.conns.Add(1)
			case http.StateClosed, http.StateHijacked:
				s.conns.Done()
			}
		},
	}
	return s
}

// serve answers until the network ends.
func (s *httpServer) serve() {
	err := s.server.Serve(acceptor{s})
	if !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		s.network.log.Error("requests of other nodes are answered no more", "err", err)
	}
}

func (s *httpServer) close() {
	s.queue.close()
	_ = s.server.Close() // its listener is the queue, which has no errors
}

// An acceptor gives net/http the connections that are for requests.
type acceptor struct{ server *httpServer }

func (a acceptor) Accept() (net.Conn, error) { return a.server.queue.accept(a.server.network.life) }
func (a acceptor) Addr() net.Addr            { return address(a.server.network.config.Advertise) }
func (a acceptor) Close() error              { a.server.queue.close(); return nil }

// A pool holds the connections for requests to one node.
type pool struct {
	address   string
	transport *http.Transport
}

// pool is that of a node at an address. There is one for each node: it is replaced
// when the node has another address.
func (n *Network) pool(id, address string) (*pool, error) {
	n.mu.Lock()
	if n.ended {
		n.mu.Unlock()
		return nil, net.ErrClosed
	}
	before := n.pools[id]
	if before != nil && before.address == address {
		n.mu.Unlock()
		return before, nil
	}
	p := n.newPool(id, address)
	n.pools[id] = p
	n.mu.Unlock()
	if before != nil {
		before.transport.CloseIdleConnections() // each of them takes the lock
	}
	return p, nil
}

func (n *Network) newPool(id, address string) *pool {
	p := &pool{address: address}
	p.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := n.dial(ctx, id, address, peerProtocol)
			if err != nil {
				return nil, &dialError{err}
			}
			return c, nil
		},
		DisableCompression:     true,
		MaxIdleConnsPerHost:    maxIdle,
		MaxConnsPerHost:        maxToPeer,
		IdleConnTimeout:        idleOfClient,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHeader,
	}
	return p
}

// dropPools lets go of the pools of nodes that are no members. What runs in them
// is ended with its connection.
func (n *Network) dropPools(member func(id string) bool) {
	n.mu.Lock()
	all := map[string]*pool{}
	for id, p := range n.pools {
		all[id] = p
	}
	n.mu.Unlock()
	for id, p := range all {
		if member(id) {
			continue
		}
		n.mu.Lock()
		if n.pools[id] == p {
			delete(n.pools, id)
		}
		n.mu.Unlock()
		p.transport.CloseIdleConnections()
	}
}

// Transport sends whole requests to one node, over connections that are kept for
// the next. Scheme and host of a request's URL do not matter; its Host header
// arrives as it is, or else as that host. An error that wraps ErrNotSent says that
// nothing of the request was sent.
func (n *Network) Transport(id, address string) http.RoundTripper {
	return &transport{network: n, id: id, address: address}
}

type transport struct {
	network     *Network
	id, address string
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	p, err := t.network.pool(t.id, t.address)
	if err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, &dialError{err}
	}
	sent := r.WithContext(r.Context())
	where := *r.URL
	if sent.Host == "" {
		sent.Host = where.Host
	}
	// net/http takes a connection that is secured already for a plain one.
	where.Scheme, where.Host = "http", "node"
	sent.URL = &where
	return p.transport.RoundTrip(sent)
}

// ErrNotSent says that there was no connection, so that nothing of a request can
// have arrived.
var ErrNotSent = errors.New("the request was not sent")

// A dialError is the failure to connect.
type dialError struct{ err error }

func (e *dialError) Error() string        { return e.err.Error() }
func (e *dialError) Unwrap() error        { return e.err }
func (e *dialError) Is(target error) bool { return target == ErrNotSent }
