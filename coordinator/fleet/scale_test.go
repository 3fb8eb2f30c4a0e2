//go:build linux

package fleet_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/fleet/fleettest"
)

// A largeFleet is a state with the agents and certificates of a fleet.
type largeFleet struct {
	fleettest.Large
	state           *fleet.State
	entries, octets int
}

func newLargeFleet(t testing.TB, agents, each int) *largeFleet {
	t.Helper()
	state, err := fleet.New()
	require.NoError(t, err)
	f := &largeFleet{Large: fleettest.Large{T: t, Agents: agents, Each: each, At: testTime}, state: state}
	f.Store = f.apply
	return f
}

func (f *largeFleet) apply(commands []fleet.Command) {
	entry, err := fleet.EncodeEntry(commands)
	require.NoError(f.T, err)
	results, _, err := f.state.Apply(f.state.Index()+1, entry)
	require.NoError(f.T, err)
	for _, result := range results {
		require.NoError(f.T, result.Err())
	}
	f.entries++
	f.octets += len(entry)
}

// A moment is the time, and the processor time of this process.
type moment struct {
	at        time.Time
	processor time.Duration
}

func now() moment {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for the process itself
	return moment{time.Now(), time.Duration(u.Utime.Nano() + u.Stime.Nano())}
}

// took says both times: a busy machine makes the first one longer.
func (m moment) took() string {
	end := now()
	return fmt.Sprintf("%v (%v of processor time)", end.at.Sub(m.at).Round(time.Millisecond), (end.processor - m.processor).Round(time.Millisecond))
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func number(t testing.TB, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}

// TestScale fills a state with 100,000 agents and 1,000,000 certificates, and
// says what it takes; CERTCTL_SCALE_AGENTS makes it another number.
func TestScale(t *testing.T) {
	if os.Getenv("CERTCTL_SOAK") == "" {
		t.Skip("takes minutes and gigabytes: runs with CERTCTL_SOAK set")
	}
	f := newLargeFleet(t, number(t, "CERTCTL_SCALE_AGENTS", 100_000), 10)
	state := f.state
	empty := heap()
	f.Add(f.Token())
	began := now()
	for i := range f.Agents {
		f.Add(f.Enroll(i))
	}
	f.Flush()
	agents := heap()
	t.Logf("%d agents enrolled in %v, %d entries: %.0f MiB of heap, %d bytes each", f.Agents, began.took(), f.entries, mib(agents-empty), (agents-empty)/uint64(f.Agents))

	began, f.entries, f.octets = now(), 0, 0
	for i := range f.Agents {
		f.Add(f.Sync(i))
	}
	f.Flush()
	filled, rows := heap(), f.Agents*f.Each
	require.Equal(t, rows, state.View().Rows(fleet.TableCertificates))
	t.Logf("%d certificates in %v, %d entries of %.0f MiB: %.0f MiB of heap more, %d bytes each; %.0f MiB in all",
		rows, began.took(), f.entries, mib(uint64(f.octets)), mib(filled-agents), (filled-agents)/uint64(rows), mib(filled))

	// One renewal in one entry, then a hundred.
	for _, batch := range []int{1, 100} {
		var took []time.Duration
		for n := range 1000 / batch {
			commands := make([]fleet.Command, batch)
			for k := range commands {
				i := (n*batch+k)*97 + batch
				command, err := fleet.NewCommand(testTime, f.Renewed(i%f.Agents))
				require.NoError(t, err)
				commands[k] = command
			}
			entry, err := fleet.EncodeEntry(commands)
			require.NoError(t, err)
			at := time.Now()
			_, _, err = state.Apply(state.Index()+1, entry)
			took = append(took, time.Since(at))
			require.NoError(t, err)
		}
		slices.Sort(took)
		t.Logf("an entry of %d syncs with one renewed certificate each is applied in %v (median), %v (99 of 100), %v (most)", batch, took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	}

	path := filepath.Join(t.TempDir(), "snapshot")
	file, err := os.Create(path)
	require.NoError(t, err)
	began = now()
	require.NoError(t, state.Snapshot().Persist(file))
	require.NoError(t, file.Sync())
	written := began.took()
	info, err := file.Stat()
	require.NoError(t, err)
	require.NoError(t, file.Close())
	t.Logf("a snapshot is written and synced in %v: %.0f MiB", written, mib(uint64(info.Size())))

	want := state.View().Version(fleet.Tables()...)
	f.state = nil
	runtime.GC()
	file, err = os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	restored, err := fleet.New()
	require.NoError(t, err)
	began = now()
	require.NoError(t, restored.Restore(bufio.NewReaderSize(file, 1<<20)))
	t.Logf("it is restored in %v; %.0f MiB of heap then", began.took(), mib(heap()))
	require.Equal(t, want, restored.View().Version(fleet.Tables()...))
	require.Equal(t, rows, restored.View().Rows(fleet.TableCertificates))
}

func mib(octets uint64) float64 { return float64(octets) / (1 << 20) }
