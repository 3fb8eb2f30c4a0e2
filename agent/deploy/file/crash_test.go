package file

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/shared/durable"
)

// crash is what a process that dies throws.
type crash struct{}

// script decides what happens at each point of a deployment; the points are
// numbered from 0, two for each step.
type script struct {
	point   int
	crashAt int          // -1: never
	failAt  int          // -1: never
	failing durable.Step // fails whenever it begins; "" is none
}

func (s *script) fault(at durable.Step, _ string, done bool) error {
	point := s.point
	s.point++
	if point == s.crashAt {
		panic(crash{})
	}
	if point == s.failAt || at == s.failing && !done {
		return syscall.EIO
	}
	return nil
}

// attempt is one call of Deploy by one process, which may die in it.
func (h *host) attempt(t *testing.T, config Config, p pair, generation uint64, s *script) (report *deploy.Report, err error, crashed bool) {
	t.Helper()
	target := newTarget(t, config)
	target.hook = s.fault
	defer func() {
		if r := recover(); r != nil {
			_, crashed = r.(crash)
			require.True(t, crashed, "panic: %v", r)
		}
	}()
	report, err = target.Deploy(context.Background(), h.task(p, generation))
	return report, err, false
}

// scenario is where an enumeration begins.
type scenario struct {
	layout Layout
	before string // "old" or "absent"
	// failing makes the first call roll back, so that faults hit the way back too.
	failing durable.Step
}

func scenarios() []scenario {
	var list []scenario
	for _, layout := range layouts() {
		for _, before := range []string{"old", "absent"} {
			for _, failing := range []durable.Step{"", stepCheck, stepVerify} {
				if failing == stepCheck && (layout != LayoutFiles || before != "old") {
					continue // its way back is a part of the one from verify
				}
				list = append(list, scenario{layout, before, failing})
			}
		}
	}
	return list
}

func setUp(t *testing.T, s scenario, pairs map[string]pair) (*host, Config) {
	t.Helper()
	h := newHost(t)
	h.paths.Certificate, h.paths.Chain, h.paths.Combined = "", "", ""
	config := h.config(s.layout)
	if s.before == "old" {
		h.mustDeploy(t, config, pairs["old"], 1)
	}
	return h, config
}

// TestFaultAtEachPoint lets a deployment fail or die at each point in turn, and
// then has a new process, which knows nothing but the disk and the last saved
// state, go on in three ways: the same pair again, the same pair with a check
// that fails, and the next generation. Each must end with one whole pair, and
// with the one from before the first call if it fails.
func TestFaultAtEachPoint(t *testing.T) {
	pairs := map[string]pair{"old": newPair(t), "new": newPair(t), "newer": newPair(t)}
	ways := map[string]func(*testing.T, scenario, *host, Config){
		"again": func(t *testing.T, _ scenario, h *host, config Config) {
			h.mustDeploy(t, config, pairs["new"], 2)
			assert.Equal(t, "new", h.found(t, pairs))
		},
		"again and failing": func(t *testing.T, s scenario, h *host, config Config) {
			done := h.found(t, pairs) == "new" && h.state == nil && isEmpty(t, h.scratch)
			_, err, _ := h.attempt(t, config, pairs["new"], 2, &script{crashAt: -1, failAt: -1, failing: stepCheck})
			if done {
				require.NoError(t, err, "a finished deployment is not done again")
				return
			}
			if err == nil { // the record was gone, so that the deployment had ended well
				assert.Equal(t, "new", h.found(t, pairs))
				return
			}
			assert.True(t, requireFailure(t, err, deploy.StageCheck).RolledBack, "%v", err)
			assert.Equal(t, s.before, h.found(t, pairs))
		},
		"next generation": func(t *testing.T, _ scenario, h *host, config Config) {
			h.state = nil // it belongs to the generation before
			h.mustDeploy(t, config, pairs["newer"], 3)
			assert.Equal(t, "newer", h.found(t, pairs))
		},
	}
	for _, s := range scenarios() {
		for way, goOn := range ways {
			if way != "again and failing" && (s.failing != "" || s.before != "old") {
				continue // what these ways meet does not depend on how it came about
			}
			t.Run(fmt.Sprintf("%s/%s/failing %s/%s", s.layout, s.before, s.failing, way), func(t *testing.T) {
				t.Parallel()
				points := 0
				for _, dies := range []bool{true, false} {
					for i := 0; dies || i < points; i++ {
						h, config := setUp(t, s, pairs)
						sc := &script{crashAt: -1, failAt: i, failing: s.failing}
						if dies {
							sc.crashAt, sc.failAt = i, -1
						}
						_, err, crashed := h.attempt(t, config, pairs["new"], 2, sc)
						h.checkAfterFault(t, s, pairs, err, crashed)
						if dies && !crashed {
							points = i
							break // past the last point
						}
						goOn(t, s, h, config)
						h.requireTidy(t)
						if t.Failed() {
							t.Fatalf("after point %d (process dies: %v), error %v", i, dies, err)
						}
					}
				}
				require.Greater(t, points, 20, "the seam was not reached")
			})
		}
	}
}

// checkAfterFault checks what the first call left behind.
func (h *host) checkAfterFault(t *testing.T, s scenario, pairs map[string]pair, err error, crashed bool) {
	t.Helper()
	found := h.found(t, pairs)
	if crashed {
		if found == "mixed" {
			assert.Equal(t, LayoutFiles, s.layout, "a directory changes in one step")
			assert.False(t, isEmpty(t, h.scratch), "mixed files and no transaction open")
		}
		return
	}
	if err == nil {
		assert.Empty(t, s.failing)
		assert.Equal(t, "new", found)
		return
	}
	failed, ok := err.(*deploy.Error) //nolint:errorlint // Deploy returns nothing else
	require.True(t, ok, "%T", err)
	switch {
	case failed.RolledBack:
		assert.Equal(t, s.before, found, "%v", err)
	case failed.RollbackErr != nil:
		assert.NotEmpty(t, s.failing, "the way back fails only where two things failed: %v", err)
	default:
		assert.Equal(t, "new", found, "%v", err) // only its end could not be recorded
	}
}

func isEmpty(t *testing.T, dir string) bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	return len(entries) == 0
}

// TestTwoCrashes: the second one hits the call that resumes, at each of its points.
func TestTwoCrashes(t *testing.T) {
	pairs := map[string]pair{"old": newPair(t), "new": newPair(t)}
	for _, layout := range layouts() {
		t.Run(string(layout), func(t *testing.T) {
			t.Parallel()
			for i := 0; ; i++ {
				h, config := setUp(t, scenario{layout: layout, before: "old"}, pairs)
				h.crashInTheMiddle(t, config, pairs["new"])
				_, _, crashed := h.attempt(t, config, pairs["new"], 2, &script{crashAt: i, failAt: -1, failing: stepVerify})
				_, err, _ := h.attempt(t, config, pairs["new"], 2, &script{crashAt: -1, failAt: -1, failing: stepVerify})
				assert.True(t, requireFailure(t, err, deploy.StageVerify).RolledBack)
				assert.Equal(t, "old", h.found(t, pairs), "point %d", i)
				h.requireTidy(t)
				if !crashed {
					require.Greater(t, i, 10)
					return
				}
			}
		})
	}
}

// crashInTheMiddle dies right after the first rename.
func (h *host) crashInTheMiddle(t *testing.T, config Config, p pair) {
	t.Helper()
	target := newTarget(t, config)
	target.hook = func(s durable.Step, _ string, done bool) error {
		if s == stepRename && done {
			panic(crash{})
		}
		return nil
	}
	require.Panics(t, func() { _, _ = target.Deploy(context.Background(), h.task(p, 2)) })
}

// TestCrashLeavesMixedFilesBehind proves that the enumeration meets the state
// that resuming exists for.
func TestCrashLeavesMixedFilesBehind(t *testing.T) {
	pairs := map[string]pair{"old": newPair(t), "new": newPair(t)}
	h, config := setUp(t, scenario{layout: LayoutFiles, before: "old"}, pairs)
	h.crashInTheMiddle(t, config, pairs["new"])
	require.Equal(t, "mixed", h.found(t, pairs))
	require.NotEmpty(t, h.state)
	require.Error(t, newTarget(t, config).Verify(context.Background(), pairs["old"].chain[0]))
	require.Error(t, newTarget(t, config).Verify(context.Background(), pairs["new"].chain[0]))
}

func TestDamagedRecordIsKeptAndNamed(t *testing.T) {
	pairs := map[string]pair{"old": newPair(t), "new": newPair(t)}
	h, config := setUp(t, scenario{layout: LayoutFiles, before: "old"}, pairs)
	h.crashInTheMiddle(t, config, pairs["new"])
	records, err := filepath.Glob(filepath.Join(h.scratch, snapshotPrefix+"*", recordName))
	require.NoError(t, err)
	require.Len(t, records, 1)
	require.NoError(t, os.WriteFile(records[0], []byte("{"), 0o600))
	_, err = newTarget(t, config).Deploy(context.Background(), h.task(pairs["new"], 2))
	failed := requireFailure(t, err, deploy.StagePrepare)
	require.ErrorContains(t, failed, "then remove the directory "+filepath.Dir(records[0]))
	require.FileExists(t, records[0])
}
