//go:build linux

package testnet

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

const (
	device = "tun0"
	tunnel = "/dev/net/tun"
)

// Host is a network namespace that programs run in.
type Host struct {
	address netip.Addr
	tun     *os.File // what the host sends is read here, and what is sent to it is written
	control int      // a socket of the namespace, with which its interfaces are configured
	links   map[netip.Addr]*link

	work chan func()   // for the thread that is in the namespace
	end  chan struct{} // tells it to end
	gone chan struct{} // closed when it has
}

// openHost makes a host of a new namespace, or of that which this process is in.
func openHost(address netip.Addr, own bool) (*Host, error) {
	h := &Host{
		address: address, links: map[netip.Addr]*link{},
		work: make(chan func()), end: make(chan struct{}), gone: make(chan struct{}),
	}
	ready := make(chan error)
	go h.live(own, ready)
	if err := <-ready; err != nil {
		<-h.gone
		return nil, fmt.Errorf("make the host %s: %w", address, err)
	}
	return h, nil
}

// live is the host's thread. It is never unlocked: it ends with the namespace, and nothing else of this process runs there.
func (h *Host) live(own bool, ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() { // Go lets no goroutine end the process's first thread
		defer runtime.UnlockOSThread()
		go h.live(own, ready)
		<-h.gone
		return
	}
	defer close(h.gone)
	var err error
	if !own {
		err = os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_NEWNET))
	}
	if err == nil {
		err = h.plug()
	}
	ready <- err
	if err != nil {
		return
	}
	for {
		select {
		case fn := <-h.work:
			fn()
		case <-h.end:
			return
		}
	}
}

// plug gives the namespace its interfaces.
func (h *Host) plug() (err error) {
	h.control, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	fd, err := unix.Open(tunnel, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return errors.Join(&os.PathError{Op: "open", Path: tunnel, Err: err}, unix.Close(h.control))
	}
	if err := h.configure(fd); err != nil {
		return errors.Join(err, unix.Close(fd), unix.Close(h.control))
	}
	h.tun = os.NewFile(uintptr(fd), tunnel) // only now: a device that is not there yet cannot be waited for
	return nil
}

func (h *Host) configure(fd int) error {
	request, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return os.NewSyscallError("TUNSETIFF", err)
	}
	if err := h.setAddress(unix.SIOCSIFADDR, h.address); err != nil {
		return err
	}
	if err := h.setAddress(unix.SIOCSIFNETMASK, netip.AddrFrom4([4]byte{255, 255, 255, 0})); err != nil {
		return err
	}
	if err := h.setUp("lo", true); err != nil {
		return err
	}
	return h.setUp(device, true)
}

func (h *Host) setAddress(what uint, address netip.Addr) error {
	request, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	if err := request.SetInet4Addr(address.AsSlice()); err != nil {
		return err
	}
	return os.NewSyscallError("set an address", unix.IoctlIfreq(h.control, what, request))
}

func (h *Host) setUp(name string, up bool) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(h.control, unix.SIOCGIFFLAGS, request); err != nil {
		return os.NewSyscallError("SIOCGIFFLAGS", err)
	}
	flags := request.Uint16() | unix.IFF_UP
	if !up {
		flags &^= unix.IFF_UP
	}
	request.SetUint16(flags)
	return os.NewSyscallError("SIOCSIFFLAGS", unix.IoctlIfreq(h.control, unix.SIOCSIFFLAGS, request))
}

// Address is where other hosts reach this one.
func (h *Host) Address() netip.Addr { return h.address }

// SetUp takes the host's interface down, with the routes over it, or up again.
func (h *Host) SetUp(up bool) error { return h.setUp(device, up) }

// Start starts a program on the host. It does not outlive the host if its parent-death signal is set.
func (h *Host) Start(cmd *exec.Cmd) error {
	err := errors.New("the host is gone")
	h.do(func() { err = cmd.Start() })
	return err
}

// do runs fn in the namespace: sockets that it opens are of the host.
func (h *Host) do(fn func()) {
	done := make(chan struct{})
	select {
	case h.work <- func() { defer close(done); fn() }:
		<-done
	case <-h.gone:
	}
}

// close takes the host away; nothing may be started on it any more.
func (h *Host) close() error {
	close(h.end)
	<-h.gone
	return errors.Join(h.tun.Close(), unix.Close(h.control))
}
