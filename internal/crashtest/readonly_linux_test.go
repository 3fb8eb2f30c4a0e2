package crashtest

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/durable"
)

// readOnly makes file systems read-only during a renewal, at every so manieth
// step. It returns at how many moments that could be done.
func (s *scenario) readOnly(t *testing.T, base *world) (moments int) {
	t.Helper()
	for _, part := range []struct {
		name   string
		stride int
		run    func(t *testing.T, base *world, part string, k int) (reached, remounted bool)
	}{
		{"www", 4, s.runReadOnly},
		{"state/keys-certificates", 16, s.runReadOnly},
		{"state/snapshots", 16, s.runReadOnly},
		{"state", 16, s.endReadOnly},
	} {
		before := moments
		for k := 1; ; k += part.stride {
			reached, remounted := part.run(t, base, part.name, k)
			if !reached {
				break
			}
			if remounted {
				moments++
			}
		}
		require.Greater(t, moments, before+5, "moments at which %s became read-only", part.name)
	}
	return moments
}

// over is more steps than there are.
const over = 1 << 32

func remount(path string, flags uintptr) error {
	return syscall.Mount("", path, "", syscall.MS_REMOUNT|flags, "")
}

// runReadOnly makes a file system read-only at the k-th step. It can be done while
// nobody has a file open there for writing. The agent runs on.
func (s *scenario) runReadOnly(t *testing.T, base *world, part string, k int) (reached, remounted bool) {
	synctest.Test(t, func(t *testing.T) {
		var further []string
		if filepath.Dir(part) == "state" {
			further = append(further, part)
		}
		w := mount(t, base, further...)
		w.label, w.watching = fmt.Sprintf("%s read-only at call %d", part, k), true
		at := filepath.Join(w.root, part)
		var calls atomic.Int64
		w.strike = func(durable.Step, string, bool) error {
			if calls.Add(1) == int64(k) {
				reached = true
				remounted = remount(at, syscall.MS_RDONLY) == nil
				w.untidy = remounted // what could not be removed stays until the next deployment
			}
			return nil
		}
		w.pass(w.at.Sub(epoch))
		assert.Zero(t, w.supervise(s.renewals, 30*time.Minute), "%s: times that the agent ended", w.label)
		calls.Add(over)
		require.NoError(t, remount(at, 0))
		assert.Zero(t, w.supervise(s.renewals, 24*time.Hour), "%s: times that the agent ended", w.label)
		s.endSwept(w)
	})
	return reached, remounted
}

// endReadOnly has the disk of the state answer with an error at the k-th step, upon
// which it becomes read-only, as systems do with a disk that fails. An agent has the
// state file open for writing as long as it runs, so that it has ended, by itself or
// by an operator, when that happens; it cannot be started until the disk is mended.
func (s *scenario) endReadOnly(t *testing.T, base *world, part string, k int) (reached, remounted bool) {
	synctest.Test(t, func(t *testing.T) {
		w := mount(t, base)
		w.label, w.watching, w.untidy = fmt.Sprintf("%s read-only after call %d", part, k), true, true
		at := filepath.Join(w.root, part)
		var calls atomic.Int64
		w.strike = func(durable.Step, string, bool) error {
			if calls.Add(1) == int64(k) {
				reached = true
				return syscall.EIO
			}
			return nil
		}
		w.pass(w.at.Sub(epoch))
		w.open()
		synctest.Wait()
		for range 60 {
			if reached || settled(w.record(), s.renewals) {
				break
			}
			w.pass(time.Minute)
		}
		calls.Add(over)
		if err := w.stop(); err != nil {
			w.requireMend(err)
		}
		w.stop = nil
		if reached {
			require.NoError(t, remount(at, syscall.MS_RDONLY))
			remounted = true
			orders, certificates := w.ca.heard()
			assert.Positive(t, w.supervise(s.renewals, 10*time.Minute), "%s: times that the agent could not start", w.label)
			nowOrders, nowCertificates := w.ca.heard()
			assert.Equal(t, []int{orders, certificates}, []int{nowOrders, nowCertificates}, "%s: asked although nothing could be stored", w.label)
			w.observe(w.label)
			require.NoError(t, remount(at, 0))
		}
		w.supervise(s.renewals, 24*time.Hour)
		s.endSwept(w)
	})
	return reached, remounted
}

// end checks that a renewal is over, and ends the agent.
func (s *scenario) end(w *world) {
	w.t.Helper()
	require.True(w.t, settled(w.record(), s.renewals), "%s does not come to rest: %+v", w.label, w.record())
	s.finish(w, s.renewals)
	w.close()
}

// endSwept is end after the next start, whose sweep removes the key that could not
// be removed.
func (s *scenario) endSwept(w *world) {
	w.t.Helper()
	require.True(w.t, settled(w.record(), s.renewals), "%s does not come to rest: %+v", w.label, w.record())
	s.restart(w, s.renewals)
	w.close()
}
