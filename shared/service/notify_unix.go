//go:build !windows

package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/certctl/certctl/shared/jitter"
)

// notifySystemd sends one message as sd_notify(3) does; it does nothing when
// this process is not a service of systemd. The variables stay in the
// environment: systemd takes messages of the main process only.
func notifySystemd(state string) (sent bool, err error) { return daemon.SdNotify(false, state) }

// watchdogInterval is half of what systemd waits for a sign of life, as
// sd_watchdog_enabled(3) recommends; 0 if it waits for none.
func watchdogInterval() (time.Duration, error) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0, fmt.Errorf("cannot use WATCHDOG_USEC of the environment: %w: unset it, or correct WatchdogSec= of the unit", err)
	}
	return limit / 2, nil
}

// systemd is the manager behind NOTIFY_SOCKET.
type systemd struct {
	notify func(string) (bool, error)
	stderr io.Writer
	name   string
	once   sync.Once // the first failure is told, later ones are the same
}

func (m *systemd) ready() { m.send(daemon.SdNotifyReady) }

// reloading is in one message, as sd_notify(3) asks for.
func (m *systemd) reloading() {
	m.send(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}
func (m *systemd) reloaded()          { m.send(daemon.SdNotifyReady) }
func (m *systemd) stopping()          { m.send(daemon.SdNotifyStopping) }
func (m *systemd) status(text string) { m.send("STATUS=" + oneLine(text)) }
func (m *systemd) failed(err error)   { m.status("failed: " + err.Error()) }

func (m *systemd) send(state string) {
	if _, err := m.notify(state); err != nil {
		m.once.Do(func() { fmt.Fprintf(m.stderr, "%s: systemd was not told %q: %v\n", m.name, state, err) })
	}
}

// oneLine keeps a text from starting another assignment: a message to systemd
// is lines of them.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// errNoAnswer is when the daemon's check of itself took too long.
var errNoAnswer = errors.New("no answer")

// keepAlive sends a sign of life at each beat, unless the daemon says that it is
// not well.
func (p *process) keepAlive(life context.Context, s *session, every time.Duration) {
	well := true
	jitter.Loop(life, every, jitter.DefaultSchedulerJitter, nil, func(ctx context.Context) {
		err := s.check(ctx, every/2)
		if err == nil {
			_, err = p.notify(daemon.SdNotifyWatchdog)
		}
		// Once for each change: at every beat it would only be noise.
		switch {
		case err != nil && well:
			fmt.Fprintf(p.stderr, "%s: no sign of life for systemd, which restarts this process soon: %v\n", p.name, err)
		case err == nil && !well:
			fmt.Fprintf(p.stderr, "%s: signs of life for systemd again\n", p.name)
		}
		well = err == nil
	})
}

// check asks the daemon whether it is well. The asking goroutine is left
// behind when there is no answer in time: that the daemon hangs is just what
// the watchdog is for, and its answer is what ends the process.
func (s *session) check(ctx context.Context, patience time.Duration) error {
	healthy := s.healthy.Load()
	if healthy == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errNoAnswer)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- (*healthy)(ctx) }()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
