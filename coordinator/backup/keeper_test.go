package backup

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/snapshotfile"
	"github.com/certctl/certctl/shared/durable"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memoryNode is a state without a cluster.
type memoryNode struct {
	t     *testing.T
	state *fleet.State
}

func (n *memoryNode) State() *fleet.State    { return n.state }
func (n *memoryNode) Status() cluster.Status { return cluster.Status{Term: 7} }

func (n *memoryNode) apply(payload fleet.Payload) {
	n.t.Helper()
	command, err := fleet.NewCommand(time.Unix(1, 0), payload)
	require.NoError(n.t, err)
	entry, err := fleet.EncodeEntry([]fleet.Command{command})
	require.NoError(n.t, err)
	results, _, err := n.state.Apply(n.state.Index()+1, entry)
	require.NoError(n.t, err)
	require.NoError(n.t, results[0].Err())
}

// change moves the index on.
func (n *memoryNode) change() {
	n.t.Helper()
	n.apply(fleet.CreateEnrollmentToken{ID: strings.Repeat("t", int(n.state.Index()))})
}

// newNode has a CA.
var authorities = sync.OnceValues(func() ([]fleet.Authority, error) {
	key := ca.NewSealKey()
	authority, err := ca.New(ca.Config{SealKey: key.Reveal(), Name: "Example", LeafLifetime: time.Hour, IdentityLifetime: time.Hour})
	if err != nil {
		return nil, err
	}
	return authority.Create()
})

func newNode(t *testing.T) *memoryNode {
	t.Helper()
	state, err := fleet.New()
	require.NoError(t, err)
	n := &memoryNode{t: t, state: state}
	made, err := authorities()
	require.NoError(t, err)
	n.apply(fleet.InitCA{Authorities: made})
	return n
}

// keeperTest is a keeper with a clock and a log that the test reads.
type keeperTest struct {
	*Keeper
	t    *testing.T
	node *memoryNode
	dir  string
	now  time.Time
	log  *bytes.Buffer
	hook durable.Hook
	keep int
}

func newKeeper(t *testing.T) *keeperTest {
	t.Helper()
	k := &keeperTest{t: t, node: newNode(t), dir: filepath.Join(t.TempDir(), "snapshots"), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), log: new(bytes.Buffer), keep: 3}
	k.restart()
	return k
}

func (k *keeperTest) restart() {
	k.t.Helper()
	keeper, err := New(Config{
		Node: k.node, NodeID: "n1", Dir: k.dir, Interval: time.Hour, Keep: k.keep, Log: slog.New(slog.NewTextHandler(k.log, nil)),
		Now: func() time.Time { return k.now },
		Hook: func(step durable.Step, path string, done bool) error {
			if k.hook == nil {
				return nil
			}
			return k.hook(step, path, done)
		},
	})
	require.NoError(k.t, err)
	k.Keeper = keeper
}

func (k *keeperTest) files() (names []string) {
	k.t.Helper()
	entries, err := os.ReadDir(k.dir)
	require.NoError(k.t, err)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// later lets an interval pass with a change in it, and looks.
func (k *keeperTest) later() {
	k.t.Helper()
	k.now = k.now.Add(time.Hour)
	k.node.change()
	k.look()
}

func TestSnapshotsAreTakenAndRetired(t *testing.T) {
	k := newKeeper(t)
	k.look()
	require.Len(t, k.files(), 1)
	first := k.files()[0]
	k.node.change()
	k.look()
	assert.Equal(t, []string{first}, k.files(), "none is due")
	k.now = k.now.Add(59 * time.Minute)
	k.restart()
	k.look()
	assert.Equal(t, []string{first}, k.files(), "after a restart neither")
	k.now = k.now.Add(time.Minute)
	k.look()
	assert.Len(t, k.files(), 2)
	k.now = k.now.Add(time.Hour)
	k.look()
	assert.Len(t, k.files(), 2, "nothing has changed")
	for range 5 {
		k.later()
	}
	require.Len(t, k.files(), 3, "as many as are kept")
	status := k.Status()
	assert.Equal(t, filepath.Join(k.dir, k.files()[2]), status.Newest)
	assert.Equal(t, k.node.state.Index(), status.Index)
	assert.Equal(t, 3, status.Good)
	assert.Zero(t, status.Bad)
	require.NoError(t, status.Err)
	age, ok := status.Age(k.now.Add(time.Minute))
	assert.True(t, ok)
	assert.Equal(t, time.Minute, age)

	info, err := os.Stat(status.Newest)
	require.NoError(t, err)
	assert.Zero(t, info.Mode().Perm()&0o077)
	assert.Equal(t, info.Size(), status.Size)
	file, err := os.Open(status.Newest)
	require.NoError(t, err)
	defer file.Close()
	summary, err := Check(file)
	require.NoError(t, err)
	assert.Equal(t, "n1", summary.NodeID)
	assert.EqualValues(t, 7, summary.Term)
	assert.Equal(t, fleet.Level, summary.Level)
	assert.Len(t, summary.SealKeys, 1)
	assert.Len(t, summary.ClusterID, 16)
	assert.Equal(t, k.node.state.View().Rows(fleet.TableEnrollmentTokens), summary.Rows["enrollment_tokens"])
}

// What is damaged does not push out what is good, and is not built upon.
func TestADamagedSnapshotDoesNotCount(t *testing.T) {
	k := newKeeper(t)
	for range 3 {
		k.later()
	}
	newest := k.Status().Newest
	whole, err := os.ReadFile(newest)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(newest, whole[:len(whole)-1], 0o600))
	k.restart()
	k.now = k.now.Add(time.Minute)
	k.look()
	assert.Equal(t, 1, k.Status().Bad)
	assert.NotEqual(t, newest, k.Status().Newest)
	assert.Equal(t, k.now, k.Status().Time, "the newest good one is older than an interval")
	assert.Contains(t, k.log.String(), "is not good")
	require.Len(t, k.files(), 4)
	k.later()
	k.later()
	assert.Equal(t, 3, k.Status().Good)
	assert.Equal(t, 1, k.Status().Bad)
	assert.FileExists(t, newest, "it is left for a person")
}

func TestAFullDiskIsToldAndSurvived(t *testing.T) {
	k := newKeeper(t)
	k.later()
	good := k.files()
	k.hook = func(step durable.Step, _ string, done bool) error {
		if strings.HasSuffix(string(step), "write") && !done {
			return syscall.ENOSPC
		}
		return nil
	}
	for range 5 {
		k.later()
		assert.Equal(t, good, k.files(), "nothing is left behind, and nothing good is removed")
	}
	status := k.Status()
	require.ErrorIs(t, status.Err, syscall.ENOSPC)
	assert.EqualValues(t, 5, status.Failures)
	assert.Equal(t, k.now, status.ErrTime)
	assert.Contains(t, k.log.String(), "make room on this disk")
	age, _ := status.Age(k.now)
	assert.Equal(t, 5*time.Hour, age, "what is there is still known")
	k.hook = nil
	k.look()
	require.NoError(t, k.Status().Err)
	assert.Len(t, k.files(), 2)
}

// Wherever it is cut off, what has its name is good, and the next look clears up.
func TestACrashLeavesGoodFilesOnly(t *testing.T) {
	crash := errors.New("crash")
	for at := 1; ; at++ {
		k := newKeeper(t)
		for range 3 {
			k.later()
		}
		n := 0
		k.hook = func(durable.Step, string, bool) error {
			if n++; n >= at {
				return crash
			}
			return nil
		}
		k.later()
		if n < at {
			assert.Greater(t, at, 15, "writing and removing are steps")
			return
		}
		k.hook = nil
		k.restart()
		k.later()
		assert.Zero(t, k.Status().Bad, "cut off at %d", at)
		assert.Equal(t, 3, k.Status().Good)
		for _, name := range k.files() {
			assert.True(t, strings.HasSuffix(name, ".snapshot"), name)
		}
	}
}

func TestWhatIsReadBackDifferentlyGetsNoName(t *testing.T) {
	k := newKeeper(t)
	k.hook = func(step durable.Step, path string, done bool) error {
		if step != "durable: sync" || !done {
			return nil
		}
		// The disk keeps something else.
		temps, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".certctl-*.tmp"))
		require.NoError(t, err)
		require.Len(t, temps, 1)
		content, err := os.ReadFile(temps[0])
		require.NoError(t, err)
		content[len(content)/2] ^= 1
		return os.WriteFile(temps[0], content, 0o600)
	}
	k.look()
	require.ErrorIs(t, k.Status().Err, snapshotfile.ErrDamaged)
	assert.Empty(t, k.files())
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	k := newKeeper(t)
	k.later()
	others := []string{
		"certctl-0123456789abcdef-00000000000000000001-20200101T000000Z.snapshot", // of another cluster
		"by-hand.snapshot", "notes.txt",
	}
	for _, name := range others {
		require.NoError(t, os.WriteFile(filepath.Join(k.dir, name), []byte("x"), 0o600))
	}
	for range 6 {
		k.later()
	}
	for _, name := range others {
		assert.FileExists(t, filepath.Join(k.dir, name))
	}
	assert.Len(t, k.files(), 3+len(others))
	// A file of the future is not waited for.
	k.now = k.now.Add(-24 * time.Hour)
	k.node.change()
	k.look()
	status := k.Status()
	require.NoError(t, status.Err)
}

func TestANodeWithoutACAHasNothingToKeep(t *testing.T) {
	k := newKeeper(t)
	state, err := fleet.New()
	require.NoError(t, err)
	k.node.state = state
	k.look()
	assert.NoDirExists(t, k.dir)
}

func TestADirectoryThatOthersSeeIsRefused(t *testing.T) {
	k := newKeeper(t)
	require.NoError(t, os.Mkdir(k.dir, 0o755))
	k.look()
	var refused *durable.PrivateDirError
	require.ErrorAs(t, k.Status().Err, &refused)
	assert.Contains(t, k.log.String(), "chmod 0700")
}

func TestTheLoopTakesOneAtOnceAndThenByTheInterval(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := &keeperTest{t: t, node: newNode(t), dir: filepath.Join(dir, "snapshots"), log: new(bytes.Buffer)}
		keeper, err := New(Config{Node: k.node, NodeID: "n1", Dir: k.dir, Interval: time.Hour, Keep: 100, Log: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		k.Keeper = keeper
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- keeper.Run(ctx) }()
		synctest.Wait()
		assert.Len(t, k.files(), 1)
		for range 12 {
			k.node.change()
			<-time.After(time.Hour)
		}
		cancel()
		require.NoError(t, <-ended)
		assert.InDelta(t, 12, len(k.files()), 2)
	})
}

func TestConfigIsChecked(t *testing.T) {
	_, err := New(Config{Dir: "relative"})
	for _, part := range []string{"Node is", "NodeID", "relative", "Interval", "Keep", "Log"} {
		assert.ErrorContains(t, err, part)
	}
}
