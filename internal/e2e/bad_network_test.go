//go:build linux

package e2e

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/counts"
)

// hop stands before a node: what the other nodes send to it, and its answers,
// go through it.
type hop struct {
	listener net.Listener
	target   string
	done     sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
	// Of new and of existing connections.
	cut   bool          // nothing gets through
	delay time.Duration // the most that a piece is held up
	loss  float64       // of all pieces, how many break the connection
}

func newHop(t testing.TB, target string) *hop {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &hop{listener: listener, target: target, conns: map[net.Conn]bool{}}
	p.done.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *hop) address() string { return p.listener.Addr().String() }

func (p *hop) set(cut bool, delay time.Duration, loss float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.delay, p.loss = cut, delay, loss
}

func (p *hop) close() {
	p.mu.Lock()
	p.closed = true
	for conn := range p.conns {
		conn.Close()
	}
	p.mu.Unlock()
	p.listener.Close()
	p.done.Wait()
}

// hold takes a connection into care; false if there is no more to be done.
func (p *hop) hold(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		conn.Close()
		return false
	}
	p.conns[conn] = true
	return true
}

func (p *hop) accept() {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		if !p.hold(from) {
			return
		}
		p.done.Go(func() { p.carry(from) })
	}
}

func (p *hop) carry(from net.Conn) {
	defer p.end(from)
	to, err := net.Dial("tcp", p.target)
	if err != nil || !p.hold(to) {
		return
	}
	defer p.end(to)
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			defer way[0].Close()
			defer way[1].Close()
			p.copy(way[1], way[0])
		})
	}
	both.Wait()
}

func (p *hop) end(conn net.Conn) {
	conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
}

func (p *hop) copy(to io.Writer, from io.Reader) {
	piece := make([]byte, 32<<10)
	for {
		n, err := from.Read(piece)
		if err != nil || !p.pass() {
			return
		}
		if _, err := to.Write(piece[:n]); err != nil {
			return
		}
	}
}

// pass waits until a piece may go on, and says whether the connection does.
func (p *hop) pass() bool {
	for {
		p.mu.Lock()
		cut, delay, loss, closed := p.cut, p.delay, p.loss, p.closed
		p.mu.Unlock()
		switch {
		case closed || !cut && rand.Float64() < loss:
			return false
		case !cut:
			if delay > 0 {
				pause(context.Background(), rand.N(delay))
			}
			return true
		}
		pause(context.Background(), 10*time.Millisecond)
	}
}

// Three coordinators reach each other over a network that delays and breaks off,
// over which one of them, the leader or another one, is not reached although it
// reaches the others, and which is gone altogether for a while.
func TestClusterOverABadNetwork(t *testing.T) {
	t.Parallel()
	c := &cluster{t: t, program: filepath.Join(binDir, "certctl-coordinator")}
	var hops []*hop
	c.advertise = func(peers string) string {
		p := newHop(t, peers)
		hops = append(hops, p)
		return p.address()
	}
	c.start()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := startLoad(ctx, c, 3, 2, 1)
	heal := func() {
		for _, p := range hops {
			p.set(false, 0, 0)
		}
	}
	faults := 0
	for round := range times(1, 10) {
		l.operate.object.Store(int64(round))
		for _, fault := range []func(leader int){
			func(int) { // delay and breaks, everywhere
				for _, p := range hops {
					p.set(false, 80*time.Millisecond, 0.01)
				}
				l.acknowledgedAfter(time.Now())
			},
			func(leader int) { // a follower is not reached
				hops[(leader+1)%3].set(true, 0, 0)
				l.acknowledgedAfter(time.Now())
			},
			func(leader int) { hops[leader].set(true, 0, 0) }, // the leader is not reached, and reaches the others
			func(leader int) { // nobody is reached
				for _, p := range hops {
					p.set(true, 0, 0)
				}
			},
		} {
			fault(c.leader())
			pause(ctx, 2500*time.Millisecond) // two and a half times the election timeout
			heal()
			l.acknowledgedAfter(time.Now())
			faults++
		}
	}
	c.leader()
	cancel()
	l.wait()
	found := l.verify()
	counts.Report(t, "cluster-networks", faults, "faults of the network between three real coordinators under load: delays and breaks, one that is not reached, none that is")
	counts.Report(t, "cluster-networks-wrong", found.wrong(), "acknowledged facts lost, facts twice, nodes that differ, histories that cannot be explained")
	assert.Zero(t, found.wrong())
}
