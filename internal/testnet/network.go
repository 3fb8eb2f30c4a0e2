//go:build linux

package testnet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/certctl/certctl/shared/backoff"
)

// Fault is what happens to packets in one direction between two hosts. The zero value is none.
type Fault struct {
	Cut    bool          // all packets are lost
	Loss   float64       // this part of them is, drawn for each
	Delay  time.Duration // the others arrive so much later,
	Jitter time.Duration // or up to this much sooner or later than that, in the order in which they were sent
}

// Traffic counts packets.
type Traffic struct {
	Carried int // arrived
	Held    int // of those, arrived late, because of a fault
	Lost    int // because of a fault, or because the other host's interface was down
	Dropped int // since too many were on their way
}

// Network carries packets between hosts.
type Network struct {
	ctx  context.Context
	end  context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex // guards what follows, and the links of hosts
	hosts   []*Host
	traffic Traffic
	problem error // that kept packets from being carried
}

// New makes a network without hosts. Close has to be called.
func New() *Network {
	n := &Network{}
	n.ctx, n.end = context.WithCancel(context.Background())
	return n
}

// Usable makes a host and takes it away again.
func Usable() error {
	n := New()
	_, err := n.Add()
	return errors.Join(err, n.Close())
}

// Unusable reports whether an error of Usable says that this process may not make hosts, or that the kernel cannot.
func Unusable(err error) bool {
	for _, reason := range []error{syscall.EPERM, syscall.EACCES, syscall.ENOENT, syscall.ENODEV, syscall.ENOSYS} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// Add makes a host, in a namespace of its own.
func (n *Network) Add() (*Host, error) { return n.add(false) }

// Join makes the namespace that this process is in a host. It must be a new one: the process was started with
// CLONE_NEWNET.
func (n *Network) Join() (*Host, error) { return n.add(true) }

func (n *Network) add(own bool) (*Host, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	address := netip.AddrFrom4([4]byte{192, 0, 2, byte(len(n.hosts) + 1)})
	h, err := openHost(address, own)
	if err != nil {
		return nil, err
	}
	for _, other := range n.hosts {
		n.link(h, other)
		n.link(other, h)
	}
	n.hosts = append(n.hosts, h)
	n.done.Go(func() { n.receive(h) })
	return h, nil
}

// Close takes the network and its hosts away. Programs on them have to have ended. It fails when packets were not carried
// although no fault was set.
func (n *Network) Close() error {
	n.end()
	var problems []error
	n.mu.Lock()
	hosts := n.hosts
	n.mu.Unlock()
	for _, h := range hosts {
		problems = append(problems, h.close())
	}
	n.done.Wait()
	return errors.Join(append(problems, n.problem)...)
}

// Break sets what happens from one host to another, and not the other way. Packets that are on their way arrive.
func (n *Network) Break(from, to *Host, f Fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	from.links[to.address].fault = f
}

// Heal ends all faults, and takes all interfaces up.
func (n *Network) Heal() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var problems []error
	for _, h := range n.hosts {
		for _, l := range h.links {
			l.fault = Fault{}
		}
		problems = append(problems, h.SetUp(true))
	}
	return errors.Join(problems...)
}

// Traffic is what has happened so far.
func (n *Network) Traffic() Traffic {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.traffic
}

// underway is how many packets a link holds, as many as a usual interface's queue.
const underway = 1000

// link is one direction between two hosts.
type link struct {
	fault Fault
	last  time.Time // when the newest packet arrives
	queue chan packet
}

type packet struct {
	content []byte
	arrives time.Time // zero: at once
}

func (n *Network) link(from, to *Host) {
	l := &link{queue: make(chan packet, underway)}
	from.links[to.address] = l
	n.done.Go(func() { n.deliver(l, to) })
}

// receive takes what a host sends.
func (n *Network) receive(h *Host) {
	buffer := make([]byte, 1<<16)
	for {
		size, err := h.tun.Read(buffer)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				n.fail(fmt.Errorf("packets of %s are not carried any more: %w", h.address, err))
			}
			return
		}
		const header = 20
		if size < header || buffer[0]>>4 != 4 {
			continue // the kernel looks for neighbours of IPv6
		}
		n.send(h, netip.AddrFrom4([4]byte(buffer[16:20])), buffer[:size])
	}
}

// send puts a packet on its way, or loses it.
func (n *Network) send(from *Host, to netip.Addr, content []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := from.links[to]
	if l == nil {
		return // nobody has this address
	}
	if l.fault.Cut || rand.Float64() < l.fault.Loss {
		n.traffic.Lost++
		return
	}
	p := packet{content: append([]byte(nil), content...)}
	if now := time.Now(); l.fault.Delay > 0 || l.last.After(now) {
		p.arrives = now.Add(l.fault.Delay)
		if l.fault.Jitter > 0 {
			p.arrives = p.arrives.Add(rand.N(2*l.fault.Jitter) - l.fault.Jitter)
		}
		if p.arrives.Before(l.last) {
			p.arrives = l.last
		}
		l.last = p.arrives
	}
	select {
	case l.queue <- p:
	default:
		n.traffic.Dropped++
	}
}

// deliver gives a host what is sent to it over a link.
func (n *Network) deliver(l *link, to *Host) {
	for {
		var p packet
		select {
		case p = <-l.queue:
		case <-n.ctx.Done():
			return
		}
		if !p.arrives.IsZero() && backoff.Wait(n.ctx, time.Until(p.arrives)) != nil {
			return
		}
		_, err := to.tun.Write(p.content)
		if err != nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, os.ErrClosed) {
			n.fail(fmt.Errorf("a packet to %s is lost: %w", to.address, err))
		}
		n.mu.Lock()
		switch {
		case err != nil: // the interface is down
			n.traffic.Lost++
		case !p.arrives.IsZero():
			n.traffic.Held++
			fallthrough
		default:
			n.traffic.Carried++
		}
		n.mu.Unlock()
	}
}

func (n *Network) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.problem == nil {
		n.problem = err
	}
}
