//go:build unix

package crashtest

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/internal/counts"
)

// Every scenario is cut off at every durable step, before and after it, and what
// follows must end as if nothing had happened: one certificate for each renewal,
// the old pair or the new one in service at every moment, no key left over, every
// fact told. A second crash hits what follows the first one, at every step of it.
//
// The race detector makes all this five times as slow and has nothing to say about
// crashes: under it, a part is done, and all of it in a process without it.
func TestCrashAtEveryDurableStep(t *testing.T) {
	if underRace {
		t.Run("all of it, without the race detector", func(t *testing.T) {
			t.Parallel()
			withoutRace(t, "^TestCrashAtEveryDurableStep$")
		})
	}
	t.Run("scenario", func(t *testing.T) {
		b := newBench(t)
		t.Run("cut off", func(t *testing.T) {
			for _, s := range scenarios() {
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					s.enumerate(t, b)
				})
			}
		})
		if t.Failed() || underRace {
			return
		}
		if ran := int(b.scenarios.Load()); ran < len(scenarios()) {
			t.Logf("only %d scenarios were asked for", ran)
			return
		}
		b.requireEveryStep(t)
		b.report(t)
	})
}

// stride is how many crash points there are for each that is tried.
func stride() int {
	if underRace {
		return 16
	}
	return 1
}

// enumerate cuts a scenario off at each of its steps, and a sample of what follows
// once more. In a soak that is all of it.
func (s *scenario) enumerate(t *testing.T, b *bench) {
	b.scenarios.Add(1)
	points := s.record(t, b)
	require.NotEmpty(t, points)
	random := rand.New(rand.NewPCG(b.seed, 2))
	firsts, seconds := 20/stride(), 10
	if os.Getenv("CERTCTL_SOAK") != "" {
		firsts, seconds = len(points), math.MaxInt
	}
	sample := sampled(random, len(points), firsts)
	for i, p := range points {
		if s.twice && sample[i] {
			first := p.clone(p.label)
			first.at = p.at
			s.crashAgain(t, first, random, seconds)
		}
		if i%stride() == 0 {
			s.recover(t, p, nil)
		}
	}
	t.Logf("%d crash points", len(points))
}

// sampled draws k of n.
func sampled(random *rand.Rand, n, k int) map[int]bool {
	chosen := make(map[int]bool, min(n, k))
	for _, i := range random.Perm(n)[:min(n, k)] {
		chosen[i] = true
	}
	return chosen
}

// crashAgain cuts off the recovery from a crash, at some of its steps.
func (s *scenario) crashAgain(t *testing.T, first *world, random *rand.Rand, seconds int) {
	s.recover(t, first, func(w *world) { w.recording.Store(true) })
	again := first.points.list
	chosen := sampled(random, len(again), seconds)
	for i, p := range again {
		if !chosen[i] {
			assert.NoError(t, os.RemoveAll(p.root))
			continue
		}
		p.label = first.label + ", and then " + p.label
		first.bench.second.Add(1)
		s.recover(t, p, nil)
	}
}

// withoutRace runs tests of this package in a process of their own. What they
// report goes where reports of this process go.
func withoutRace(t *testing.T, run string) {
	t.Helper()
	limit := "-timeout=14m"
	if os.Getenv("CERTCTL_SOAK") != "" {
		limit = "-timeout=3h"
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", limit, "-v", "-run", run, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s", out)
	}
}

// record runs a scenario to its end, and returns the world at each step of it.
func (s *scenario) record(t *testing.T, b *bench) (points []*world) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, b, s.layouts...)
		s.begin(w)
		w.recording.Store(true)
		s.act(w)
		w.recording.Store(false)
		if s.refused {
			require.Positive(t, w.held.Load(), "looks at a place after an attempt that failed, before the next one")
		}
		s.restart(w, s.renewals)
		w.close()
		points = w.points.list
	})
	return points
}

// off is for how long a host is off after a crash. It is longer than the age at
// which a key that nothing refers to is an orphan, so that the next start has to
// remove what the crash left of such.
const off = 2 * time.Hour

// recover starts an agent on what a crash has left. again, when set, is called
// with the world before the agent starts, and says what to do until it rests.
func (s *scenario) recover(t *testing.T, w *world, again func(*world)) {
	synctest.Test(t, func(t *testing.T) {
		w.t, w.tick = t, s.tick
		if list := w.unconfirmed; s.power || len(list.names)+len(list.contents) > 0 {
			w.platter = newPlatter(t, w.root)
			w.platter.doubt(list)
		}
		w.pass(w.at.Sub(epoch) + off)
		for _, p := range w.places {
			p.mended = p.mended.Add(off) // what was broken still is
		}
		w.bench.points.Add(1)
		w.observe(w.label)
		var found *store.Certificate
		w.opened = func() { found = w.inspect() }
		if again != nil {
			again(w)
		}
		if w.centre != nil {
			w.centre.serve(t)
		}
		w.open()
		if s.comesBack && w.removed {
			w.pass(time.Minute)
			require.NoError(t, w.stop())
			w.removed = false
			w.open()
		}
		renewals := s.renewals
		if s.asked != nil && !s.asked(w, found) {
			renewals--
		}
		if s.check != nil {
			w.pass(time.Minute)
		} else {
			w.rest(renewals, cmp.Or(s.limit, 24*time.Hour))
		}
		w.recording.Store(false)
		s.finish(w, renewals)
		w.close()
		assert.NoError(t, os.RemoveAll(w.root))
	})
}

func (b *bench) report(t *testing.T) {
	counts.Report(t, "crash-points", int(b.points.Load()), "states after a crash at a durable step, on each of which an agent came to rest")
	counts.Report(t, "crash-points-second", int(b.second.Load()), fmt.Sprintf("of these, those after a second crash in the recovery from a first one (sampled with seed %d; all in a soak)", b.seed))
	counts.Report(t, "crash-points-power", int(b.power.Load()), "of these, those after a power failure: what was not synced is lost, and the programs start again")
	counts.Report(t, "crash-steps", len(b.steps), "kinds of durable steps at which a crash was tried: all that the agent has")
	counts.Report(t, "crash-observations", int(b.observations.Load()), "looks at a key and its certificate, on disk and in service")
	counts.Report(t, "crash-observations-refused", int(b.held.Load()), "of these, those at a place that had refused the new pair, before the next attempt: files and program held the old one")
	counts.Report(t, "crash-mismatched-pairs", int(b.mismatches.Load()), "of the observations, those that met no pair, one of two halves, or another than was promised")
	counts.Report(t, "crash-duplicate-certificates", int(b.duplicates.Load()), "certificates issued beyond one for each renewal")
	counts.Report(t, "crash-lost-facts", int(b.lost.Load()), "facts that were not told")
	counts.Report(t, "crash-facts-twice", int(b.twice.Load()), "facts that were told twice")
	counts.Report(t, "crash-orphaned-keys", int(b.orphans.Load()), "key files that nothing refers to, after the sweep")
	t.Logf("%d facts, %d looks between the renames of two files of one pair", b.facts.Load(), b.windows.Load())
	assert.Zero(t, b.mismatches.Load()+b.duplicates.Load()+b.lost.Load()+b.twice.Load()+b.orphans.Load())
}
