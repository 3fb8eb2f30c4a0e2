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

	programs []*os.Process // that were started on it; of the thread alone until gone is closed

	work chan func()   // for the thread that is in the namespace
	end  chan struct{} // tells it to leave
	gone chan struct{} // closed when it has
	left error         // why it could not; to be read when gone is closed
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

// live is the host's thread. Nothing else of this process runs on it until it has left the namespace. It does not end with
// the host: what it had started before it belonged to this host would get its parent-death signal.
func (h *Host) live(own bool, ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() { // by the first thread, others tell in which namespace the process is
		defer runtime.UnlockOSThread()
		go h.live(own, ready)
		<-h.gone
		return
	}
	defer close(h.gone)
	back := runtime.UnlockOSThread
	var err error
	if !own {
		back, err = h.enter()
	}
	if err == nil {
		err = h.plug()
	}
	ready <- err
	for err == nil {
		select {
		case fn := <-h.work:
			fn()
			continue
		case <-h.end:
		}
		break
	}
	back()
}

// enter puts the thread into a namespace of its own. back takes it out of it and lets others have it; where that fails, the
// thread ends, and close says so.
func (h *Host) enter() (back func(), err error) {
	before, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return runtime.UnlockOSThread, &os.PathError{Op: "open", Path: "/proc/thread-self/ns/net", Err: err}
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return runtime.UnlockOSThread, errors.Join(os.NewSyscallError("unshare", err), unix.Close(before))
	}
	return func() {
		if err := unix.Setns(before, unix.CLONE_NEWNET); err != nil {
			h.left = os.NewSyscallError("setns", err)
		} else {
			runtime.UnlockOSThread()
		}
		h.left = errors.Join(h.left, unix.Close(before))
	}, nil
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

// Start starts a program on the host. It is killed at the latest when the host goes.
func (h *Host) Start(cmd *exec.Cmd) error {
	err := errors.New("the host is gone")
	h.do(func() {
		if err = cmd.Start(); err == nil {
			h.programs = append(h.programs, cmd.Process)
		}
	})
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
	problems := []error{h.left}
	for _, program := range h.programs {
		if err := program.Kill(); !errors.Is(err, os.ErrProcessDone) {
			problems = append(problems, err)
		}
	}
	return errors.Join(append(problems, h.tun.Close(), unix.Close(h.control))...)
}
