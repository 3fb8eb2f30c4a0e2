package service

import (
	"context"
	"sync"
	"sync/atomic"
)

// Lifecycle is how a daemon talks to whoever runs it. All methods may be
// called at any time and from several goroutines. The zero value is for tests:
// it tells nobody, and nothing ever asks it to reload.
type Lifecycle struct{ s *session }

// Ready says that the daemon has started: what depends on it may start too,
// and "systemctl start" returns. Windows hears that a service runs as soon as
// its process does, since it gives up on a service that says so late.
func (l Lifecycle) Ready() {
	if l.s != nil {
		l.s.manager.ready()
	}
}

// Status tells people in one line what the daemon is doing at the moment;
// "systemctl status" shows it.
func (l Lifecycle) Status(text string) {
	if l.s != nil {
		l.s.manager.status(text)
	}
}

// Failed says why the daemon is about to end without having been asked to. The
// reason goes where the operator of a service looks for it: the status line of
// systemd, or the Event Log of Windows. It does not end anything.
func (l Lifecycle) Failed(err error) {
	if l.s != nil {
		l.s.manager.failed(err)
	}
}

// Reload asks to be told when the daemon shall read its configuration again
// (SIGHUP, "systemctl reload", "sc control NAME paramchange"). Requests that
// come while one waits are merged with it. A daemon that never calls Reload is
// ended by SIGHUP, as programs are; under systemd it is then started anew, so
// that the new configuration is in force either way. A daemon calls it before it
// says Ready.
//
// The hangup of the terminal that a daemon was started from ends it in any case:
// whoever closes a window does not mean that the program in it shall go on, and
// what it has to say from then on goes nowhere. nohup(1) and setsid(1) are for
// those who mean that.
func (l Lifecycle) Reload() <-chan struct{} {
	if l.s == nil {
		return nil
	}
	l.s.subscribe.Do(func() { close(l.s.subscribed) })
	return l.s.reload
}

// Reloading says that the daemon puts another configuration into effect, and that
// "systemctl reload" is to wait for it. The returned function says that this is
// over, in one line: with the new configuration, or with the old one and why.
func (l Lifecycle) Reloading() (done func(text string)) {
	if l.s == nil {
		return func(string) {}
	}
	l.s.manager.reloading()
	return func(text string) {
		l.s.manager.reloaded()
		l.s.manager.status(text)
	}
}

// Watch makes the service manager's watchdog ask healthy before each sign of
// life: from then on, an error, or no answer in time, keeps the sign back, and
// systemd kills and restarts a daemon that gave none for WatchdogSec. Without
// Watch it is enough that the process runs its goroutines. healthy says whether
// the daemon itself has come to a standstill; being cut off from others does
// not count. A second call replaces the first.
func (l Lifecycle) Watch(healthy func(context.Context) error) {
	if l.s != nil {
		l.s.healthy.Store(&healthy)
	}
}

// manager is the service manager that runs this process. Its methods are best
// effort, since nobody is helped by a daemon that ends because it could not
// report, and safe for concurrent use.
type manager interface {
	ready()
	reloading()
	reloaded()
	stopping()
	status(text string)
	failed(err error)
}

// session is one life of a daemon.
type session struct {
	manager    manager
	reload     chan struct{} // holds one request
	subscribe  sync.Once
	subscribed chan struct{} // closed when somebody takes from reload
	healthy    atomic.Pointer[func(context.Context) error]
}

func newSession(m manager) *session {
	return &session{manager: m, reload: make(chan struct{}, 1), subscribed: make(chan struct{})}
}

// requestReload reports whether there is somebody to hear the request.
func (s *session) requestReload() bool {
	select {
	case <-s.subscribed:
	default:
		return false
	}
	select {
	case s.reload <- struct{}{}:
	default: // one is waiting, which covers this one
	}
	return true
}

// unmanaged is the manager of a process that no service manager runs.
type unmanaged struct{}

func (unmanaged) ready()        {}
func (unmanaged) reloading()    {}
func (unmanaged) reloaded()     {}
func (unmanaged) stopping()     {}
func (unmanaged) status(string) {}
func (unmanaged) failed(error)  {}
