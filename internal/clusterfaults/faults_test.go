package clusterfaults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
)

// A fault happens to a whole cluster that clients work with, and is over, with
// every node running, when inject returns. What it left behind may still be
// mending.
type fault struct {
	name   string
	inject func(b *bench, l *load)
}

// longer is a time in which an election happens.
func (b *bench) longer() time.Duration {
	return 2*electionTimeout + time.Duration(b.random.Int64N(int64(2*electionTimeout)))
}

// rest lets a fault last.
func (b *bench) rest(d time.Duration) { pause(context.Background(), d) }

// restart starts a node that was down, which must not refuse what it finds, unless
// it was damaged before and this was not noticed.
func (b *bench) restart(m *member) {
	if m.spoiled {
		b.startOrReplace(m)
		return
	}
	require.NoError(b.t, m.start(), m.id)
}

func faults() []fault {
	return []fault{
		{"the leader is gone", func(b *bench, l *load) {
			m := b.leader()
			m.crash()
			l.progress(3)
			b.restart(m)
		}},
		{"a follower is gone", func(b *bench, l *load) {
			m := b.others(b.leader())[0]
			m.crash()
			l.progress(100) // so many that it needs a snapshot, or nearly so
			b.restart(m)
		}},
		{"two are gone", func(b *bench, _ *load) {
			down := b.others(b.members[b.random.IntN(3)])
			down[0].crash()
			down[1].crash()
			b.rest(b.longer())
			b.restart(down[1])
			b.restart(down[0])
		}},
		{"the leader pauses", func(b *bench, l *load) {
			b.isolate(b.leader())
			l.progress(3)
			b.rest(b.longer())
			b.network.heal()
		}},
		{"a follower pauses", func(b *bench, _ *load) {
			b.isolate(b.others(b.leader())[0])
			b.rest(b.longer())
			b.network.heal()
		}},
		{"nobody hears anybody", func(b *bench, _ *load) {
			for _, m := range b.members {
				b.isolate(m)
			}
			b.rest(b.longer())
			b.network.heal()
		}},
		{"the leader is not heard", func(b *bench, l *load) {
			m := b.leader()
			for _, other := range b.others(m) {
				b.network.cut(m.id, other.id)
			}
			l.progress(3)
			b.rest(b.longer())
			b.network.heal()
		}},
		{"the leader hears nothing", func(b *bench, l *load) {
			m := b.leader()
			for _, other := range b.others(m) {
				b.network.cut(other.id, m.id)
			}
			l.progress(3)
			b.rest(b.longer())
			b.network.heal()
		}},
		{"the leader and one follower do not hear each other", func(b *bench, l *load) {
			m := b.leader()
			other := b.others(m)[0]
			b.network.cut(other.id, m.id)
			b.network.cut(m.id, other.id)
			l.progress(3)
			b.rest(b.longer())
			b.network.heal()
		}},
		{"the network loses and delays", func(b *bench, l *load) {
			for _, m := range b.members {
				for _, other := range b.others(m) {
					b.network.weaken(m.id, other.id, 0.03, electionTimeout/8)
				}
			}
			l.progress(3)
			b.rest(2 * b.longer())
			b.network.heal()
		}},
		{"the leader's disk is full", func(b *bench, l *load) {
			m := b.leader()
			m.disk.set(syscall.ENOSPC, true, -1, 0)
			b.struck(m)
			l.progress(3)
			b.rest(b.longer())
			m.disk.set(nil, false, 0, 0)
		}},
		{"a follower's disk is full", func(b *bench, l *load) {
			m := b.others(b.leader())[0]
			m.disk.set(syscall.ENOSPC, true, -1, 0)
			b.struck(m)
			l.progress(3)
			b.rest(b.longer())
			m.disk.set(nil, false, 0, 0)
		}},
		{"a sync of the leader's disk fails", func(b *bench, l *load) {
			m := b.leader()
			m.disk.set(syscall.EIO, false, 1+b.random.IntN(3), 0) // and what it wrote is there all the same
			b.struck(m)
			l.progress(3)
			m.disk.set(nil, false, 0, 0)
		}},
		{"a sync of a follower's disk fails", func(b *bench, l *load) {
			m := b.others(b.leader())[0]
			m.disk.set(syscall.EIO, false, 1+b.random.IntN(3), 0)
			b.struck(m)
			l.progress(3)
			m.disk.set(nil, false, 0, 0)
		}},
		{"the leader's disk is slow", func(b *bench, l *load) {
			m := b.leader()
			m.disk.set(nil, false, 0, electionTimeout/2)
			l.progress(3)
			b.rest(b.longer())
			m.disk.set(nil, false, 0, 0)
		}},
		{"a clock jumps", func(b *bench, l *load) {
			// Answers are remembered for an hour by the clocks of the proposers.
			jump := time.Duration(b.random.Int64N(int64(40*time.Minute))) - 20*time.Minute
			b.leader().clock.Store(int64(jump))
			l.progress(10)
			for _, m := range b.members {
				m.clock.Store(0)
			}
		}},
		{"the leader hands over", func(b *bench, l *load) {
			m := b.leader()
			m.stop()
			l.progress(3)
			b.restart(m)
		}},
		{"a follower comes back with an old disk", func(b *bench, l *load) {
			m := b.others(b.leader())[0]
			m.stop()
			old := filepath.Join(b.t.TempDir(), "old")
			require.NoError(b.t, copyTree(b.form.dir(m), old))
			b.restart(m)
			l.progress(20)
			// It has forgotten what it promised: the others stand in for it, and
			// they only can while none of them is gone too.
			b.caughtUp()
			m.stop()
			b.keepFacts(m)
			require.NoError(b.t, os.RemoveAll(b.form.dir(m)))
			require.NoError(b.t, os.Rename(old, b.form.dir(m)))
			b.leader()
			b.restart(m)
			b.caughtUp()
		}},
		{"a follower's log is changed", func(b *bench, l *load) {
			m := b.others(b.leader())[0]
			m.stop()
			// Without the snapshot that it took when it stopped, as if it had been killed.
			if snapshots := b.snapshots(m); len(snapshots) > 0 {
				require.NoError(b.t, os.RemoveAll(filepath.Dir(snapshots[len(snapshots)-1])))
			}
			b.spoil(filepath.Join(b.form.dir(m), "raft", "log.db"), l.name)
			m.spoiled = true
			b.startOrReplace(m)
			b.caughtUp()
		}},
		{"a follower's snapshot is cut short", func(b *bench, _ *load) {
			m := b.others(b.leader())[0]
			m.stop()
			if snapshots := b.snapshots(m); len(snapshots) > 0 {
				newest := snapshots[len(snapshots)-1]
				info, err := os.Stat(newest)
				require.NoError(b.t, err)
				require.NoError(b.t, os.Truncate(newest, b.random.Int64N(info.Size())))
			}
			b.startOrReplace(m)
			b.caughtUp()
		}},
	}
}

// isolate lets a node neither hear nor be heard, as if it were stopped.
func (b *bench) isolate(m *member) {
	for _, other := range b.others(m) {
		b.network.cut(m.id, other.id)
		b.network.cut(other.id, m.id)
	}
}

// struck waits until a fault of a disk was met.
func (b *bench) struck(m *member) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b.eventually(ctx, "the disk of "+m.id+" is written to", func() bool { return m.disk.fails() > 0 })
}

// snapshots are the states in the snapshots of a node, the oldest first.
func (b *bench) snapshots(m *member) []string {
	files, err := filepath.Glob(filepath.Join(b.form.dir(m), "raft", "snapshots", "*", "state.bin"))
	require.NoError(b.t, err)
	return files
}

// spoil changes a bit in up to half of the names in a file that begin so.
func (b *bench) spoil(path, begin string) {
	data, err := os.ReadFile(path)
	require.NoError(b.t, err)
	share := b.random.Float64() / 2
	for at := 0; ; at += len(begin) {
		next := bytes.Index(data[at:], []byte(begin))
		if next < 0 {
			break
		}
		at += next
		if b.random.Float64() < share {
			data[at+b.random.IntN(len(begin))] ^= 1 << b.random.IntN(7)
		}
	}
	require.NoError(b.t, os.WriteFile(path, data, 0o600))
}

// startOrReplace starts a node whose files were damaged. It may refuse them, and
// must say so; then a node with an empty disk takes its place.
func (b *bench) startOrReplace(m *member) {
	if err := m.start(); err != nil {
		refused := errors.Is(err, cluster.ErrLogDamaged) || errors.Is(err, fleet.ErrSnapshotDamaged)
		require.Truef(b.t, refused, "%s was refused for another reason: %v", m.id, err)
		b.leader()
		b.keepFacts(m)
		b.form.replace(m)
		m.spoiled = false
	}
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("empty %s: %w", dir, err)
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// copyTree copies files with their modes.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.Mkdir(filepath.Join(to, name), info.Mode().Perm())
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), data, info.Mode().Perm())
	})
}
