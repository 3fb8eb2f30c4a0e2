//go:build !windows

package service

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

// BindRun adds to the verb run the hidden flags that the command line of an
// installed service carries. Only Windows needs one.
func BindRun(*pflag.FlagSet) {}

// Run calls main, on the caller's goroutine, and returns what it returns: the
// exit status of the process. One process may be in Run once at a time.
//
// SIGTERM and SIGINT cancel main's context, with the signal as its cause; main
// then has the time that the service manager gives to come to its end. A second
// one of them ends the process at once with 128 and the signal's number, if it
// comes a second or more after the first: tools that signal a process and then
// its group mean one stop, not two. SIGHUP is a request to reload, see
// [Lifecycle.Reload].
//
// Under systemd (NOTIFY_SOCKET is set) the service's state, its status line and
// the watchdog's signs of life are sent as sd_notify(3) and
// sd_watchdog_enabled(3) say.
func Run(ctx context.Context, def Definition, main func(ctx context.Context, life Lifecycle) int) int {
	if err := def.validate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	caught := make(chan os.Signal, 8)
	wanted := []os.Signal{syscall.SIGTERM, syscall.SIGINT}
	// Under nohup(1) a hangup is for nobody.
	if !signal.Ignored(syscall.SIGHUP) {
		wanted = append(wanted, syscall.SIGHUP)
	}
	signal.Notify(caught, wanted...)
	defer signal.Stop(caught)
	p := &process{name: def.Name, signals: caught, stderr: os.Stderr, exit: os.Exit, notify: notifySystemd, hasTerminal: hasTerminal()}
	return p.run(ctx, main)
}

// sameStop is the span within which signals to stop count as one.
const sameStop = time.Second

// process is what Run needs of the process that it is in.
type process struct {
	name    string
	signals <-chan os.Signal
	stderr  io.Writer
	exit    func(status int)
	notify  func(state string) (sent bool, err error)
	// hasTerminal says that the process was started from a terminal.
	hasTerminal bool
}

// hasTerminal reports whether the process has a controlling terminal. It has none
// any more once that has hung up, before it hears of it.
func hasTerminal() bool {
	terminal, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	terminal.Close()
	return true
}

func (p *process) run(ctx context.Context, main func(context.Context, Lifecycle) int) int {
	ctx, cancel := context.WithCancelCause(ctx)
	s := newSession(&systemd{notify: p.notify, stderr: p.stderr, name: p.name})
	every, err := watchdogInterval()
	if err != nil {
		// Without signs of life systemd would end this process later and
		// would not say why.
		fmt.Fprintf(p.stderr, "%s: %v\n", p.name, err)
		cancel(nil)
		return 1
	}

	// What runs beside main ends with it, not with its context: a daemon that
	// takes its time to stop is still followed, and still alive.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	var beside sync.WaitGroup
	beside.Go(func() { p.obey(life, s, cancel) })
	if every > 0 {
		beside.Go(func() { p.keepAlive(life, s, every) })
	}
	// Also when main panics.
	defer func() {
		end()
		cancel(nil)
		beside.Wait()
	}()
	return main(ctx, Lifecycle{s: s})
}

// A SignalError is the cause of the context of a daemon that a signal ended.
type SignalError struct{ Signal os.Signal }

func (e *SignalError) Error() string { return "ended by signal: " + e.Signal.String() }

// obey follows signals until the daemon's life ends.
func (p *process) obey(life context.Context, s *session, cancel context.CancelCauseFunc) {
	stopping := false
	var since time.Time
	for {
		var sig os.Signal
		select {
		case <-life.Done():
			return
		case sig = <-p.signals:
		}
		if sig == syscall.SIGHUP {
			// A hangup is never the second signal: reloads come from scripts,
			// impatience comes from people.
			if stopping {
				continue
			}
			if closed := p.hasTerminal && !hasTerminal(); !closed && s.requestReload() {
				continue
			}
		}
		if stopping && time.Since(since) < sameStop {
			continue
		}
		if stopping {
			fmt.Fprintf(p.stderr, "%s: %s again: ending at once\n", p.name, sig)
			status := 1
			if n, ok := sig.(syscall.Signal); ok {
				status = 128 + int(n)
			}
			p.exit(status)
			return
		}
		stopping, since = true, time.Now()
		s.manager.stopping()
		cancel(&SignalError{Signal: sig})
	}
}
