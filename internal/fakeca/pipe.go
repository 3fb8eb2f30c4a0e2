package fakeca

import (
	"context"
	"net"
	"sync"
)

// Pipe is a listener without a network, for tests in a testing/synctest bubble:
// what waits for a socket would hold up the bubble's clock. Whatever address is
// dialled leads to it.
type Pipe struct {
	conns chan net.Conn
	done  chan struct{}
	end   sync.Once
}

// NewPipe makes a Pipe. Close ends it.
func NewPipe() *Pipe { return &Pipe{conns: make(chan net.Conn), done: make(chan struct{})} }

// Dial has the signature of [net.Dialer.DialContext].
func (p *Pipe) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Accept implements net.Listener.
func (p *Pipe) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *Pipe) Close() error { p.end.Do(func() { close(p.done) }); return nil }

// Addr implements net.Listener.
func (p *Pipe) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }
