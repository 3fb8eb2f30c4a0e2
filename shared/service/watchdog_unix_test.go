//go:build !windows

package service

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func lines(text string) []string { return strings.Split(strings.TrimSuffix(text, "\n"), "\n") }

// signsOfLife runs main with a watchdog of a minute and returns when the signs
// of life came, counted from the start, and what was written to standard error.
func signsOfLife(t *testing.T, main func(context.Context, Lifecycle)) (at []time.Duration, stderr string) {
	t.Helper()
	t.Setenv("WATCHDOG_USEC", "60000000")
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards at
		began := time.Now()
		var out bytes.Buffer
		p := &process{name: "certctl-test", stderr: &out, exit: func(int) { t.Error("ended at once") }, notify: func(state string) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			if state == "WATCHDOG=1" {
				at = append(at, time.Since(began))
			}
			return true, nil
		}}
		p.run(t.Context(), func(ctx context.Context, life Lifecycle) int {
			main(ctx, life)
			return 0
		})
		stderr = out.String()
		<-time.After(time.Minute) // for what main has left behind
	})
	return at, stderr
}

func TestWatchdogHearsASignOfLifeInEachHalf(t *testing.T) {
	at, stderr := signsOfLife(t, func(context.Context, Lifecycle) { <-time.After(time.Hour) })
	assert.Greater(t, len(at), 100)
	previous := time.Duration(0)
	for _, moment := range at {
		assert.LessOrEqual(t, moment-previous, 33*time.Second, "systemd waits for a minute")
		previous = moment
	}
	assert.Empty(t, stderr)
}

func TestWatchdogHearsNothingOfADaemonThatIsNotWell(t *testing.T) {
	began := time.Duration(0)
	at, stderr := signsOfLife(t, func(_ context.Context, life Lifecycle) {
		start := time.Now()
		life.Watch(func(context.Context) error {
			if since := time.Since(start); since > 10*time.Minute && since < 20*time.Minute {
				return errors.New("the engine stands still")
			}
			return nil
		})
		<-time.After(30 * time.Minute)
		began = time.Since(start)
	})
	assert.Equal(t, 30*time.Minute, began)
	early, late := 0, 0
	for _, moment := range at {
		assert.False(t, moment > 10*time.Minute && moment < 20*time.Minute, "a sign of life at %v", moment)
		if moment < 10*time.Minute {
			early++
		} else {
			late++
		}
	}
	assert.Greater(t, early, 15)
	assert.Greater(t, late, 15)
	assert.Equal(t, []string{
		"certctl-test: no sign of life for systemd, which restarts this process soon: the engine stands still",
		"certctl-test: signs of life for systemd again",
	}, lines(stderr), "once for each change")
}

func TestWatchdogHearsNothingOfADaemonThatHangs(t *testing.T) {
	at, stderr := signsOfLife(t, func(_ context.Context, life Lifecycle) {
		// It minds no context, and has its answer only when main is over: one at
		// that moment could be in time for the last beat.
		release := make(chan struct{})
		time.AfterFunc(10*time.Minute+time.Second, func() { close(release) })
		life.Watch(func(context.Context) error { <-release; return nil })
		<-time.After(10 * time.Minute)
	})
	assert.Empty(t, at)
	assert.Contains(t, stderr, "no answer")
}

func TestWatchdogIsQuietWhenNobodyListens(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "")
	every, err := watchdogInterval()
	assert.NoError(t, err)
	assert.Zero(t, every)
	t.Setenv("WATCHDOG_USEC", "60000000")
	t.Setenv("WATCHDOG_PID", "1") // of another process
	every, err = watchdogInterval()
	assert.NoError(t, err)
	assert.Zero(t, every)
}
