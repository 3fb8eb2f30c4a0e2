package coordinatortest

import (
	"context"
	"net"
	"sync"
)

// Memory is a network within the process: a listener and the way to it. It
// works in a bubble of testing/synctest, where a real one does not.
type Memory struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	open []net.Conn // every end that was ever handed out

	// Down, when set, refuses connections while it returns true.
	Down func() bool
}

// NewMemory makes a network.
func NewMemory() *Memory {
	return &Memory{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Dial connects to whatever listens, whoever was meant.
func (m *Memory) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	refused := &net.OpError{Op: "dial", Net: network, Addr: m.Addr(), Err: net.ErrClosed}
	if m.Down != nil && m.Down() {
		return nil, refused
	}
	ours, theirs := net.Pipe()
	m.mu.Lock()
	m.open = append(m.open, ours, theirs)
	m.mu.Unlock()
	select {
	case m.conns <- theirs:
		return ours, nil
	case <-m.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (m *Memory) Accept() (net.Conn, error) {
	select {
	case conn := <-m.conns:
		return conn, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener, and cuts every connection. Both ends of a TLS
// connection say good-bye when they close it, which nobody reads any more: over
// a pipe without a buffer they would wait for a time that in a bubble never
// comes, since its clock stops with the test.
func (m *Memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, conn := range m.open {
		_ = conn.Close()
	}
	m.open = nil
	return nil
}

// Addr implements net.Listener.
func (*Memory) Addr() net.Addr { return address{} }

type address struct{}

// Network implements net.Addr.
func (address) Network() string { return "memory" }

// String implements net.Addr.
func (address) String() string { return "memory" }
