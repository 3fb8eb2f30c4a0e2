//go:build unix

package crashtest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy/file"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/shared/durable"
)

// outage is how long a disk is full or read-only.
const outage = 2 * time.Hour

// diskFault is what a disk says from one step on.
type diskFault struct {
	name string
	err  error
	// lasts is for how long it says so; 0 is once.
	lasts time.Duration
	// hits says which steps; nil is each, before and after it.
	hits func(durable.Step) bool
	// half says that it begins with a write that stores half of what it was given.
	half bool
}

// writes are the steps that write to a file under its path. (What durable.WriteFile
// writes has another name until it is whole, and a commit is of the state file: it
// meets real disks in TestSmallDisks.)
var writes = map[durable.Step]bool{"keys: write": true, "deploy/file: write": true, "store: check room": true}

// begins reports whether the disk may fail first at a step, on this side of it.
func (f *diskFault) begins(step durable.Step, done bool) bool {
	switch {
	case f.half:
		return done && writes[step]
	case f.hits == nil:
		return true
	}
	return !done && f.hits(step)
}

// strike makes the disk fail there.
func (f *diskFault) strike(path string) error {
	if !f.half {
		return f.err
	}
	info, err := os.Stat(path)
	if err == nil {
		err = errors.Join(os.Truncate(path, info.Size()/2), os.Chtimes(path, time.Now(), time.Now())) // in virtual time, as hook does
	}
	return errors.Join(f.err, err)
}

// roomless are the steps that a full disk does not keep from anything.
var roomless = map[durable.Step]bool{
	"keys: restrict": true, "keys: close": true, "keys: read back": true, "keys: discard": true, "keys: remove": true,
	"store: end check of room": true, "renewal: remove unused scratch directory": true,
	"deploy/file: set owner and mode": true, "deploy/file: rename": true, "deploy/file: remove": true,
	"deploy/file: check": true, "deploy/file: reload": true, "deploy/file: verify": true,
	"deploy/file: save state": true, "deploy/file: save end": true, // the commit within it fails
	"deploy/file: close transaction": true, "deploy/file: remove snapshot": true,
	"deploy/file: remove old directory": true, "deploy/file: remove leftover": true,
}

// programs are the steps that are not the disk's.
var programs = map[durable.Step]bool{"deploy/file: check": true, "deploy/file: reload": true, "deploy/file: verify": true}

func diskFaults() []diskFault {
	needsRoom := func(s durable.Step) bool { return !roomless[s] }
	isOfDisk := func(s durable.Step) bool { return !programs[s] }
	return []diskFault{
		{name: "input/output error", err: syscall.EIO},
		{name: "full", err: syscall.ENOSPC, lasts: outage, hits: needsRoom},
		{name: "full for one write, but for half of it", err: syscall.ENOSPC, hits: needsRoom, half: true},
		{name: "full within a write", err: syscall.ENOSPC, lasts: outage, hits: needsRoom, half: true},
		{name: "read-only", err: syscall.EROFS, lasts: outage, hits: isOfDisk},
		{name: "read-only within a write", err: syscall.EROFS, lasts: outage, hits: isOfDisk, half: true},
	}
}

// tally is what the tests of disks count.
type tally struct {
	sync.Mutex
	faults, stops, unstorable int
}

// A disk fails at every durable step in turn: once, before and after it, with an
// error that leaves unknown what is on it; and from the step on, for two hours,
// because it is full or read-only, which a write may find out when half of it is done. The agent goes on by itself, or ends with an
// error that names the file and the mend and goes on when it is started again.
// What was in service stays. While nothing can be stored, nothing is asked of the
// authority.
func TestDiskFailsAtEveryDurableStep(t *testing.T) {
	if underRace {
		t.Run("all of it, without the race detector", func(t *testing.T) {
			withoutRace(t, "^TestDiskFailsAtEveryDurableStep$")
		})
	}
	b := newBench(t)
	var sum tally
	t.Run("fault", func(t *testing.T) {
		for _, s := range []scenario{
			{name: "first certificate", layouts: []file.Layout{combined}, fresh: true, renewals: 1},
			{name: "renewal", layouts: []file.Layout{file.LayoutDirectory}, renewals: 2},
		} {
			for _, f := range diskFaults() {
				t.Run(s.name+"/"+f.name, func(t *testing.T) {
					t.Parallel()
					base := s.base(t, b)
					k, stops := 1, 0
					for ; ; k += stride() {
						struck, ended := s.failAt(t, base, f, k, &sum)
						if !struck {
							break
						}
						stops += ended
					}
					require.Greater(t, k, map[bool]int{false: 20, true: 3}[f.half], "steps")
					if !underRace { // which tries a few steps only
						assert.Equalf(t, errors.Is(f.err, syscall.EIO) || s.fresh && !f.half, stops > 0,
							"a running agent ended, or an agent could not start, %d times: a failing disk ends one, a full or read-only one keeps it from its first start only", stops)
					}
				})
			}
		}
	})
	if t.Failed() || underRace {
		return
	}
	counts.Report(t, "disk-faults", sum.faults, "durable steps at which a disk failed, filled up or became read-only, each survived")
	counts.Report(t, "disk-fail-stops", sum.stops, "times that the agent ended or could not start, with an error that names the file and the mend")
	counts.Report(t, "disk-orders-unstorable", sum.unstorable, "orders or certificates that an authority was asked for while nothing could be stored")
	counts.Report(t, "disk-mismatched-pairs", int(b.mismatches.Load()), fmt.Sprintf("of %d looks at a key and its certificate, those that met no pair or one of two halves", b.observations.Load()))
	assert.Zero(t, sum.unstorable)
	assert.Zero(t, b.mismatches.Load()+b.duplicates.Load()+b.lost.Load()+b.twice.Load()+b.orphans.Load())
}

// base is the world that a scenario begins with; no agent runs.
func (s *scenario) base(t *testing.T, b *bench) *world {
	var base *world
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, b, s.layouts...)
		s.begin(w)
		base = w.clone("base")
	})
	return base
}

// failAt runs a scenario in which the disk fails at the k-th call around a step.
// It returns false when there was no such call.
func (s *scenario) failAt(t *testing.T, base *world, f diskFault, k int, sum *tally) (struck bool, stops int) {
	synctest.Test(t, func(t *testing.T) {
		base.t = t
		w := base.clone("")
		w.at, w.watching = base.at, true
		w.pass(w.at.Sub(epoch))
		var mu sync.Mutex
		var until time.Time
		var orders, certificates, calls int
		over := false
		w.strike = func(step durable.Step, path string, done bool) error {
			mu.Lock()
			defer mu.Unlock()
			if struck {
				if !done && time.Now().Before(until) && f.hits(step) {
					return f.err
				}
				return nil
			}
			if !f.begins(step, done) {
				return nil
			}
			if calls++; calls < k || over {
				return nil
			}
			struck, until = true, time.Now().Add(f.lasts)
			w.label = fmt.Sprintf("%s, at call %d, %s", f.name, k, step)
			orders, certificates = w.ca.heard()
			// What cannot be removed stays until the next deployment.
			w.untidy = step == "deploy/file: remove snapshot" || step == "deploy/file: remove old directory"
			return f.strike(path)
		}
		stops = w.supervise(s.renewals, outage-time.Minute)
		if struck && f.lasts > 0 {
			// The disk is as it was at the stroke, and so is what the authority knows.
			nowOrders, nowCertificates := w.ca.heard()
			more := nowOrders - orders + nowCertificates - certificates
			assert.Zerof(t, more, "%s: asked for although nothing could be stored", w.label)
			sum.Lock()
			sum.unstorable += more
			sum.Unlock()
			w.pass(10 * time.Minute)
		}
		stops += w.supervise(s.renewals, 24*time.Hour)
		require.True(t, settled(w.record(), s.renewals), "%s does not come to rest: %+v", w.label, w.record())
		w.requireServed(s.renewals)
		mu.Lock()
		over = true
		mu.Unlock()
		s.restart(w, s.renewals)
		w.close()
		assert.NoError(t, os.RemoveAll(w.root))
		if struck {
			sum.Lock()
			sum.faults++
			sum.stops += stops
			sum.Unlock()
		}
	})
	return struck, stops
}

// supervise does what a service manager does, until the agent is at rest, for at
// most the time given: it starts an agent that has ended, or could not start. It
// returns how often the agent ended, having checked what it said.
func (w *world) supervise(n uint64, limit time.Duration) (stops int) {
	w.t.Helper()
	runs := w.stop != nil
	for end := time.Now().Add(limit); time.Now().Before(end); w.pass(time.Minute) {
		if !runs {
			if err := w.tryOpen(); err != nil {
				stops++
				w.requireMend(err)
				continue
			}
			runs = true
		}
		synctest.Wait()
		select {
		case <-w.ended:
			err := w.stop()
			w.requireMend(err)
			stops++
			runs = false
			continue
		default:
		}
		if settled(w.record(), n) {
			return stops
		}
	}
	if !runs {
		w.stop = nil
	}
	return stops
}

// requireMend checks that an error that ends the agent names the file and says
// what to do.
func (w *world) requireMend(err error) {
	w.t.Helper()
	text := err.Error()
	assert.Contains(w.t, text, w.root, w.label)
	mend := false
	for _, words := range []string{"check the disk", "free some space", "mount the file system writable", "check that its file system is not full"} {
		mend = mend || strings.Contains(text, words)
	}
	assert.Truef(w.t, mend, "%s: no mend in: %s", w.label, text)
}
