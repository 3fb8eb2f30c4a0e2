package crashtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
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

// inNamespace marks the process that has mounts of its own.
const inNamespace = "CERTCTL_TEST_SMALL_DISKS"

// The state of the agent and the files of its programs lie on two small file
// systems, one of which is full but for a few kilobytes, of every number there
// are, or becomes read-only, when a renewal is due. No fault is made up here.
func TestSmallDisks(t *testing.T) {
	if os.Getenv(inNamespace) != "" {
		smallDisks(t)
		return
	}
	if underRace {
		withoutRace(t, "^TestSmallDisks$")
		return
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestSmallDisks$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		refused(t, err)
	}
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestSmallDisks", "%s", out)
}

// refused says that this machine permits no mounts. Where everything must be
// tested, and for whoever may mount, that is a failure.
func refused(t *testing.T, err error) {
	t.Helper()
	status, readErr := os.ReadFile("/proc/self/status")
	require.NoError(t, readErr)
	capabilities := regexp.MustCompile(`(?m)^CapEff:\s*[0-9a-f]+$`).FindString(string(status))
	const mayMount = 1 << 21 // CAP_SYS_ADMIN
	var bits uint64
	_, scanErr := fmt.Sscanf(strings.Fields(capabilities)[1], "%x", &bits)
	require.NoError(t, scanErr)
	if os.Getenv("CI") != "" || bits&mayMount != 0 {
		require.NoErrorf(t, err, "small file systems cannot be mounted, and this test must run here (%s)", capabilities)
	}
	t.Skipf("this process may not mount file systems, nor make a namespace in which it may (%s, without CAP_SYS_ADMIN): %v", capabilities, err)
}

const smallDisk = "size=4m,mode=0700"

func smallDisks(t *testing.T) {
	require.NoError(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	b := newBench(t)
	layouts := []file.Layout{file.LayoutFiles, file.LayoutDirectory}
	renewal := scenario{name: "renewal", layouts: layouts, renewals: 2}
	first := scenario{name: "first certificate", layouts: layouts, fresh: true, renewals: 1}
	var sum smallSum
	for _, sweep := range []sweep{
		{of: &renewal, small: "state", most: 768, gap: 16},
		{of: &renewal, small: "www", most: 48, gap: 4},
		{of: &first, small: "state", most: 768, gap: 96},
		{of: &first, small: "www", most: 48, gap: 12},
	} {
		if os.Getenv("CERTCTL_SOAK") != "" {
			sweep.gap = os.Getpagesize() >> 10 // less makes no difference
		}
		sweep.run(t, sweep.of.base(t, b), &sum)
	}
	base := renewal.base(t, b)
	readOnly := renewal.readOnly(t, base)
	counts.Report(t, "small-disks", sum.full, "free sizes of a real file system that filled up under a renewal or a first certificate, each survived")
	counts.Report(t, "small-disks-read-only", readOnly, "moments of a renewal at which a file system became read-only: that of the programs, of the keys, of the scratch directories, and, after an error, of all state")
	counts.Report(t, "small-disks-nothing-asked", sum.unheard, "of the sizes, those with no room for a result: the authority was asked for nothing")
	counts.Report(t, "small-disks-mismatched-pairs", int(b.mismatches.Load()), fmt.Sprintf("of %d looks at a key and its certificate, those that met no pair or one of two halves", b.observations.Load()))
	t.Logf("the agent ended %d times", sum.stops)
	assert.Zero(t, b.mismatches.Load()+b.duplicates.Load()+b.lost.Load()+b.twice.Load()+b.orphans.Load())
}

// sweep is a range of free sizes.
type sweep struct {
	of        *scenario
	small     string
	most, gap int // kilobytes
}

// smallSum is what all runs came to.
type smallSum struct{ full, unheard, stops int }

// run goes through the sizes, the largest first: it shows how much the agent demands
// before it asks for anything.
func (s *sweep) run(t *testing.T, base *world, sum *smallSum) {
	t.Helper()
	late, full, reserve := 0, 0, 0
	for free := s.most; free >= 0; free -= s.gap {
		full++
		ran := s.of.runSmall(t, base, s.small, free)
		reserve = max(reserve, ran.reserve)
		sum.stops += ran.stops
		if ran.waited {
			late++
		}
		if ran.unheard {
			sum.unheard++
		}
		if s.small == "state" {
			assert.Equalf(t, ran.waited, ran.unheard, "%s, %d KiB free: the authority is asked when, and only when, there is room for the result", s.of.name, free)
			if free<<10 < reserve {
				assert.Truef(t, ran.unheard, "%s, %d KiB free, which is less than the %d that are demanded before anything is asked", s.of.name, free, reserve>>10)
			}
		}
	}
	sum.full += full
	require.Positive(t, late, "%s: on %s the disk was never full", s.of.name, s.small)
	require.Less(t, late, full, "%s: on %s the disk was always full", s.of.name, s.small)
	require.Greater(t, reserve, 16<<10, "octets that are demanded before anything is asked")
}

// mount puts a copy of a world on two file systems of its own, and parts of the
// state on further ones.
func mount(t *testing.T, base *world, further ...string) *world {
	t.Helper()
	w := &world{
		t: t, bench: base.bench, root: base.bench.disk(t), at: base.at, ca: base.ca.clone(), settings: base.settings, before: base.before,
	}
	for _, p := range base.places {
		w.places = append(w.places, &place{id: p.id, kept: p.kept.copy(), program: p.at(base.root, w.root)})
	}
	for _, part := range append([]string{"state", "www"}, further...) {
		at := filepath.Join(w.root, part)
		require.NoError(t, os.MkdirAll(at, 0o700))
		require.NoError(t, syscall.Mount("tmpfs", at, "tmpfs", 0, smallDisk))
		t.Cleanup(func() { assert.NoError(t, syscall.Unmount(at, 0)) })
		if from := filepath.Join(base.root, part); exists(t, from) { // else nothing has run there yet
			require.NoError(t, copyTree(from, at))
		}
	}
	return w
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	return err == nil
}

// leave fills a file system but for so many kilobytes.
func (w *world) leave(part string, free int) {
	w.t.Helper()
	dir := filepath.Join(w.root, part)
	var stat syscall.Statfs_t
	require.NoError(w.t, syscall.Statfs(dir, &stat))
	fill := int64(stat.Bfree)*stat.Bsize - int64(free)<<10
	require.Positive(w.t, fill)
	require.NoError(w.t, os.WriteFile(filepath.Join(dir, "filler"), make([]byte, fill), 0o600))
}

// smallRun is what a renewal on a small disk came to.
type smallRun struct {
	waited  bool // until there was more room
	unheard bool // until then the authority was asked for nothing
	stops   int  // of the agent
	reserve int  // octets that it demanded before it asked for anything; 0 if it never had them
}

// runSmall renews on a disk with that much room, and gives it more after a while.
func (s *scenario) runSmall(t *testing.T, base *world, small string, free int) (ran smallRun) {
	synctest.Test(t, func(t *testing.T) {
		w := mount(t, base)
		w.label, w.watching = fmt.Sprintf("%d KiB free on %s", free, small), true
		w.strike = func(step durable.Step, path string, done bool) error {
			if step == "store: check room" && done {
				info, err := os.Stat(path)
				if assert.NoError(t, err) {
					ran.reserve = int(info.Size())
				}
			}
			return nil
		}
		if !s.fresh { // the agent runs already when the disk fills up
			w.pass(w.at.Sub(epoch) - 10*time.Minute)
			w.open()
			w.pass(time.Minute)
		}
		w.leave(small, free)
		orders, certificates := w.ca.heard()
		if !s.fresh {
			w.pass(10 * time.Minute)
		}
		ran.stops = w.supervise(s.renewals, outage)
		ran.waited = w.stop == nil || !settled(w.record(), s.renewals)
		nowOrders, nowCertificates := w.ca.heard()
		ran.unheard = orders == nowOrders && certificates == nowCertificates
		assert.LessOrEqual(t, nowOrders, orders+1, w.label)
		if ran.waited && w.stop != nil {
			w.requireStored(nowOrders - orders)
		}
		require.NoError(t, os.Remove(filepath.Join(w.root, small, "filler")))
		ran.stops += w.supervise(s.renewals, 24*time.Hour)
		s.end(w)
	})
	return ran
}

// requireStored checks that an order that the authority has heard of is one that
// the agent has on its disk.
func (w *world) requireStored(orders int) {
	w.t.Helper()
	rec := w.record()
	if orders == 0 {
		return
	}
	w.ca.mu.Lock()
	defer w.ca.mu.Unlock()
	for number, o := range w.ca.orders {
		if o.client != rec.OrderID {
			continue
		}
		assert.Containsf(w.t, string(rec.OrderState)+string(rec.Phase), map[bool]string{true: number, false: "issued"}[rec.Phase == "order_placed"],
			"%s: the order is not on disk", w.label)
	}
}
