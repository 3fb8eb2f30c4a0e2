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

// spell is a fault that befalls one node and is lifted again. In between clients
// are told of so many changes, and it lasts for longer than an election if it
// says so.
type spell struct {
	name  string
	at    func(*bench) *member
	begin func(*member)
	acks  int64
	lasts bool
	end   func(*member)
}

func (s spell) fault() fault {
	return fault{s.name, func(b *bench, l *load) {
		m := s.at(b)
		s.begin(m)
		l.progress(s.acks)
		if s.lasts {
			b.rest(b.longer())
		}
		s.end(m)
	}}
}

func faults() []fault {
	spells := []spell{
		{"the leader is gone", (*bench).leader, (*member).crash, 3, false, (*member).restart},
		// So many that it needs a snapshot, or nearly so.
		{"a follower is gone", (*bench).follower, (*member).crash, 100, false, (*member).restart},
		{"the leader hands over", (*bench).leader, (*member).stop, 3, false, (*member).restart},
		{"the leader pauses", (*bench).leader, (*member).isolate, 3, true, (*member).heal},
		{"a follower pauses", (*bench).follower, (*member).isolate, 0, true, (*member).heal},
		{"nobody hears anybody", (*bench).leader, (*member).isolateAll, 0, true, (*member).heal},
		{"the leader is not heard", (*bench).leader, (*member).mute, 3, true, (*member).heal},
		{"the leader hears nothing", (*bench).leader, (*member).deafen, 3, true, (*member).heal},
		{"the leader and one follower do not hear each other", (*bench).leader, (*member).quarrel, 3, true, (*member).heal},
		{"the network loses and delays", (*bench).leader, (*member).weakenAll, 3, true, (*member).heal},
		{"the leader's disk is full", (*bench).leader, (*member).fill, 3, true, (*member).mend},
		{"a follower's disk is full", (*bench).follower, (*member).fill, 3, true, (*member).mend},
		{"a sync of the leader's disk fails", (*bench).leader, (*member).failSyncs, 3, false, (*member).mend},
		{"a sync of a follower's disk fails", (*bench).follower, (*member).failSyncs, 3, false, (*member).mend},
		{"the leader's disk is slow", (*bench).leader, (*member).slow, 3, true, (*member).mend},
		{"a clock jumps", (*bench).leader, (*member).jump, 10, false, (*member).setClock},
	}
	all := []fault{
		{"two are gone", twoAreGone},
		{"a follower comes back with an old disk", comesBackOld},
		{"a follower's log is changed", changedLog},
		{"a follower's snapshot is cut short", cutSnapshot},
		{"two are lost, and the third goes on alone", twoAreLost},
		{"the state is set back to a snapshot", setBack},
		{"all are lost, and a snapshot is restored to a fresh cluster", startedAnew},
	}
	for _, s := range spells {
		all = append(all, s.fault())
	}
	return all
}

// longer is a time in which an election happens.
func (b *bench) longer() time.Duration {
	return 2*electionTimeout + time.Duration(b.random.Int64N(int64(2*electionTimeout)))
}

// rest lets a fault last.
func (b *bench) rest(d time.Duration) { pause(context.Background(), d) }

// follower is one that does not lead.
func (b *bench) follower() *member { return b.others(b.leader())[0] }

// restart starts a node that was down, which must not refuse what it finds, unless
// it was damaged before and this was not noticed.
func (m *member) restart() {
	if m.spoiled {
		m.bench.startOrReplace(m)
		return
	}
	require.NoError(m.bench.t, m.start(), m.id)
}

// isolate lets a node neither hear nor be heard, as if it were stopped.
func (m *member) isolate() { m.mute(); m.deafen() }

func (m *member) isolateAll() {
	for _, each := range m.bench.members {
		each.isolate()
	}
}

func (m *member) mute() {
	for _, other := range m.bench.others(m) {
		m.bench.network.cut(m.id, other.id)
	}
}

func (m *member) deafen() {
	for _, other := range m.bench.others(m) {
		m.bench.network.cut(other.id, m.id)
	}
}

// quarrel lets a node and one other not hear each other.
func (m *member) quarrel() {
	other := m.bench.others(m)[0]
	m.bench.network.cut(m.id, other.id)
	m.bench.network.cut(other.id, m.id)
}

func (m *member) weakenAll() {
	for _, from := range m.bench.members {
		for _, to := range m.bench.others(from) {
			m.bench.network.weaken(from.id, to.id, 0.03, electionTimeout/8)
		}
	}
}

func (m *member) heal() { m.bench.network.heal() }

func (m *member) fill() {
	m.disk.set(syscall.ENOSPC, true, -1, 0)
	m.bench.struck(m)
}

// failSyncs lets some writes fail that are there all the same.
func (m *member) failSyncs() {
	m.disk.set(syscall.EIO, false, 1+m.bench.random.IntN(3), 0)
	m.bench.struck(m)
}

func (m *member) slow() { m.disk.set(nil, false, 0, electionTimeout/2) }
func (m *member) mend() { m.disk.set(nil, false, 0, 0) }

// jump sets a clock: answers are remembered for an hour by the clocks of the
// proposers.
func (m *member) jump() {
	m.clock.Store(m.bench.random.Int64N(int64(40*time.Minute)) - int64(20*time.Minute))
}

func (m *member) setClock() { m.clock.Store(0) }

func twoAreGone(b *bench, _ *load) {
	down := b.others(b.members[b.random.IntN(3)])
	down[0].crash()
	down[1].crash()
	b.rest(b.longer())
	down[1].restart()
	down[0].restart()
}

func comesBackOld(b *bench, l *load) {
	m := b.follower()
	m.stop()
	old := filepath.Join(b.t.TempDir(), "old")
	require.NoError(b.t, copyTree(b.form.dir(m), old))
	m.restart()
	l.progress(20)
	// It has forgotten what it promised: the others stand in for it, and they only
	// can while none of them is gone too.
	b.caughtUp()
	m.stop()
	b.keepFacts(m)
	require.NoError(b.t, os.RemoveAll(b.form.dir(m)))
	require.NoError(b.t, os.Rename(old, b.form.dir(m)))
	b.leader()
	m.restart()
	b.caughtUp()
}

func changedLog(b *bench, l *load) {
	m := b.follower()
	m.stop()
	// Without the snapshot that it took when it stopped, as if it had been killed.
	if snapshots := b.snapshots(m); len(snapshots) > 0 {
		require.NoError(b.t, os.RemoveAll(filepath.Dir(snapshots[len(snapshots)-1])))
	}
	b.spoil(filepath.Join(b.form.dir(m), "raft", "log.db"), l.name)
	m.spoiled = true
	b.startOrReplace(m)
	b.caughtUp()
}

func cutSnapshot(b *bench, _ *load) {
	m := b.follower()
	m.stop()
	if snapshots := b.snapshots(m); len(snapshots) > 0 {
		newest := snapshots[len(snapshots)-1]
		info, err := os.Stat(newest)
		require.NoError(b.t, err)
		require.NoError(b.t, os.Truncate(newest, b.random.Int64N(info.Size())))
	}
	b.startOrReplace(m)
	b.caughtUp()
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
		b.replace(m)
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
