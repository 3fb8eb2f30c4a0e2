package clusterfaults

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/internal/clusterfaults/linear"
)

// end is behind all indexes of one cluster; see bench.at.
const end = 1 << 40

// twoAreLost: two disks are gone, and an operator goes on from what is left. The
// verifiers look into the disks that are gone, so that they know what was lost:
// that and nothing else may be missing, and the plan must have said so.
func twoAreLost(b *bench, l *load) {
	survivor := b.members[b.random.IntN(len(b.members))]
	if b.random.IntN(2) == 0 {
		survivor = b.leader()
	}
	if b.random.IntN(4) > 0 { // the others go on without it, and a leader does not know it at once
		survivor.isolate()
		l.progress(20)
	}
	lost := b.others(survivor)
	b.crashAll()

	l.answers.Lock() // with nobody there, each answer that was given is written down now
	loss, last := b.lossOf(survivor)
	if newest := b.newest(); newest != survivor {
		newest.writeFacts()
	}
	b.keepFacts(lost...)
	b.lose(l, loss, append(b.factsOnDisk(survivor), b.kept...))
	plan := b.form.recover(survivor)
	require.Equal(b.t, survivor.id, plan.Choose)
	assert.True(b.t, plan.Lost.Possible, "two of three may have acknowledged what the third has not")
	assert.Equal(b.t, last, plan.Lost.After)
	assert.LessOrEqual(b.t, b.at(plan.Lost.Sure), loss.After, "the plan says that nothing up to there is lost")
	l.answers.Unlock()

	require.NoError(b.t, survivor.start())
	for _, m := range lost {
		require.NoError(b.t, emptyDir(b.form.dir(m)))
		b.form.join(m)
	}
	b.awaitVoters()
	b.caughtUp()
}

// lossOf looks into the disks of all members, which are down, for what a cluster
// that goes on with one of them has lost, and for the end of its log.
func (b *bench) lossOf(survivor *member) (loss linear.Loss, last uint64) {
	b.t.Helper()
	own, newest := survivor.inspect(), b.newest().inspect()
	// Two logs with an entry of the same term are the same up to there. What is not
	// in a log any more was committed.
	common := min(own.LastIndex, newest.LastIndex)
	for ; ; common-- {
		a, knownA := termOf(own, common)
		b, knownB := termOf(newest, common)
		if !knownA || !knownB || a == b {
			break
		}
	}
	loss = linear.Loss{After: b.at(common), Before: b.at(end), Kept: map[[16]byte]bool{}}
	for _, command := range b.commands(survivor, common+1, own.LastIndex) {
		loss.Kept[command.ID] = true
	}
	b.t.Logf("%s has %d entries, %d of them as the others; they had %d", survivor.id, own.LastIndex, common, newest.LastIndex)
	return loss, own.LastIndex
}

// newest is the member with the newest log; all are down. What was acknowledged is
// in it.
func (b *bench) newest() (newest *member) {
	b.t.Helper()
	var log *cluster.Report
	for _, m := range b.members {
		if r := m.inspect(); log == nil || r.LastTerm > log.LastTerm || r.LastTerm == log.LastTerm && r.LastIndex > log.LastIndex {
			newest, log = m, r
		}
	}
	return newest
}

// writeFacts has a member that is down, and whose disk is given up, write the facts
// of its whole log, which it would have when it was started again.
func (m *member) writeFacts() {
	t := m.bench.t
	t.Helper()
	journal, err := history.Open(history.Config{Path: filepath.Join(m.bench.form.dir(m), "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	c := cluster.Config{Dir: m.bench.form.dir(m), NodeID: m.id, Journal: journal, Log: slog.New(slog.DiscardHandler)}
	require.NoError(t, cluster.Recover(context.Background(), c, cluster.PlanRecovery(m.inspect(), "nowhere", time.Now())))
	require.NoError(t, journal.Close())
}

// inspect looks at the log of a member that is down.
func (m *member) inspect() *cluster.Report {
	m.bench.t.Helper()
	report, _, err := cluster.Inspect(cluster.Config{Dir: m.bench.form.dir(m), NodeID: m.id, Log: slog.New(slog.DiscardHandler)}, 1)
	require.NoError(m.bench.t, err)
	return report
}

func termOf(r *cluster.Report, index uint64) (uint64, bool) {
	for _, run := range r.Terms {
		if run.From <= index && index <= run.To {
			return run.Term, true
		}
	}
	return 0, false
}

// commands reads some entries of the log of a member that is down.
func (b *bench) commands(m *member, from, to uint64) (commands []fleet.Command) {
	b.t.Helper()
	if from > to {
		return nil
	}
	file, err := raftboltdb.New(raftboltdb.Options{
		Path: filepath.Join(b.form.dir(m), "raft", "log.db"), BoltOptions: &bbolt.Options{ReadOnly: true}, MsgpackUseNewTimeFormat: true,
	})
	require.NoError(b.t, err)
	for index := from; index <= to; index++ {
		var entry raft.Log
		require.NoError(b.t, file.GetLog(index, &entry))
		if entry.Type == raft.LogCommand {
			some, err := fleet.DecodeEntry(entry.Data)
			require.NoError(b.t, err)
			commands = append(commands, some...)
		}
	}
	require.NoError(b.t, file.Close())
	return commands
}

// removeKept removes the state of before a recovery: the next one would put its
// own aside under the same name if it came in the same second.
func removeKept(dir string) error {
	kept, err := filepath.Glob(filepath.Join(dir, "raft.before-recovery-*"))
	for _, old := range kept {
		err = errors.Join(err, os.RemoveAll(old))
	}
	return err
}

// snapshot is one that was taken of the state, as the form of the nodes needs it.
type snapshot struct {
	index  uint64
	pieces [][]byte
	file   []byte
}

// setBack: an operator restores a snapshot to the cluster that it is of, and
// sometimes the leader is gone in the middle of it. What was acknowledged in
// between is undone, and nothing else.
func setBack(b *bench, l *load) {
	s := b.form.save(b.members[b.random.IntN(len(b.members))])
	l.progress(20)
	leader := b.leader()
	m := b.others(leader)[0]
	if b.random.IntN(2) == 0 {
		b.restore(m, s)
	} else {
		restored := make(chan struct{})
		go func() {
			defer close(restored)
			b.restore(m, s)
		}()
		b.rest(time.Duration(b.random.IntN(20)) * time.Millisecond)
		leader.crash()
		l.progress(3)
		leader.restart() // bare nodes have told nobody what they understand, and are asked
		<-restored
	}
	b.written(m)
	b.caughtUp()
	l.answers.Lock()
	defer l.answers.Unlock()
	b.undone(l, m, s.index)
}

// restore restores a snapshot, again and again until it is said to be done.
func (b *bench) restore(m *member, s snapshot) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := b.form.restore(m, s)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			assert.NoError(b.t, err, "the snapshot is not restored")
			return
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// undone tells the verifiers of each restore of a snapshot that is in the journal
// of a member. Each undoes what came before it and after the snapshot.
func (b *bench) undone(l *load, m *member, snapshot uint64) {
	b.t.Helper()
	restores := 0
	for _, fact := range b.read(m.journal) {
		if fact.Kind == fleet.KindStateRestored && fact.Index > b.restored {
			restores++
			b.restored = fact.Index
			b.setBack(l, b.at(snapshot), fact)
		}
	}
	require.Positive(b.t, restores)
}

// startedAnew: nothing is left but a snapshot that was saved while clients worked.
// A new cluster, with clients of its own, takes it over.
func startedAnew(b *bench, l *load) {
	s := b.form.save(b.members[b.random.IntN(len(b.members))])
	l.progress(20)
	if d, ok := b.form.(*daemons); ok {
		d.keepSealKey(b.members[0])
	}
	b.crashAll()
	l.answers.Lock()
	defer l.answers.Unlock()
	b.newest().writeFacts()
	b.keepFacts(b.members...)
	b.lose(l, linear.Loss{After: b.at(s.index), Before: b.at(end)}, b.kept)
	b.clusters.Add(1)
	for _, m := range b.members {
		require.NoError(b.t, emptyDir(b.form.dir(m)))
	}

	first := b.members[0]
	b.form.found(first)
	others := startLoad(b, 3, b.random.Uint64(), false) // agents of theirs are unknown afterwards
	others.progress(10)
	b.restore(first, s)
	others.progress(3)
	for _, m := range b.members[1:] {
		b.form.join(m)
	}
	b.awaitVoters()
	others.progress(3)
	b.written(first)
	others.end()
	b.undone(others, first, 0)
	b.caughtUp()
	b.check(others)
}
