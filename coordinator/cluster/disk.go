package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"runtime"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/history/boltfile"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/durable"
)

// Durable steps of the log.
const (
	stepStoreLogs  durable.Step = "cluster: store log entries"
	stepDeleteLogs durable.Step = "cluster: delete log entries"
	stepStoreVote  durable.Step = "cluster: store term and vote"
)

var diskRetry = backoff.Policy{Initial: 50 * time.Millisecond, Max: time.Second, Multiplier: 2, Jitter: 0.2}

// files is what raft-boltdb offers.
type files interface {
	raft.LogStore
	raft.StableStore
	Close() error
}

// A disk keeps the log, the term and the votes in one file. Entries carry a sum,
// so that what the file system gives back differently is noticed, and not
// applied.
type disk struct {
	files
	path string
	hook durable.Hook
	log  *slog.Logger
	// ended is closed when the node does not wait for its disk any more, and leads
	// reports whether it leads. Nil is a node that does not run.
	ended <-chan struct{}
	leads func() bool
	// surrender is called when the node ends without a term or vote being stored;
	// Raft does nothing any more.
	surrender func()
}

// StoreLog implements raft.LogStore.
func (d *disk) StoreLog(entry *raft.Log) error { return d.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore. A leader that cannot store steps down, and
// is told so at once.
func (d *disk) StoreLogs(entries []*raft.Log) error {
	for _, entry := range entries {
		// An entry of another node has the sum that was made there.
		if err := checkSum(entry); err != nil {
			return err
		}
		entry.Extensions = appendSum(nil, entry)
	}
	return d.persist(stepStoreLogs, d.following, func() error { return d.files.StoreLogs(entries) })
}

// GetLog implements raft.LogStore. While the node runs, an entry that is damaged
// counts as gone: Raft gives a follower that needs it a snapshot instead.
func (d *disk) GetLog(index uint64, entry *raft.Log) error {
	err := d.get(index, entry)
	if d.ended != nil && errors.Is(err, ErrLogDamaged) {
		d.log.Error("an entry of the Raft log is damaged; who needs it gets a snapshot instead", "path", d.path, "index", index, "err", err)
		return raft.ErrLogNotFound
	}
	return err
}

func (d *disk) get(index uint64, entry *raft.Log) error {
	err := boltfile.Guard(func() error { return d.files.GetLog(index, entry) })
	switch {
	case errors.Is(err, raft.ErrLogNotFound):
		return err // Raft compares it
	case err != nil:
		return fmt.Errorf("%s: %w: entry %d: %w", d.path, ErrLogDamaged, index, err)
	case entry.Index != index:
		return fmt.Errorf("%s: %w: entry %d says that it is %d", d.path, ErrLogDamaged, index, entry.Index)
	}
	if err := checkSum(entry); err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	return nil
}

// DeleteRange implements raft.LogStore. It cuts off old entries, which can wait,
// or replaces new ones.
func (d *disk) DeleteRange(first, last uint64) error {
	end, err := d.LastIndex()
	if err != nil {
		return err
	}
	replaces := func() bool { return last >= end && d.following() }
	return d.persist(stepDeleteLogs, replaces, func() error { return d.files.DeleteRange(first, last) })
}

// Set implements raft.StableStore.
func (d *disk) Set(key, value []byte) error {
	return d.storeVote(func() error { return d.files.Set(key, value) })
}

// SetUint64 implements raft.StableStore. Raft stores the term that it has read once
// more while it is opened. Nothing has to be waited for then, and nobody could end
// the wait.
func (d *disk) SetUint64(key []byte, value uint64) error {
	if stored, err := d.GetUint64(key); err == nil && stored == value {
		err := d.hook.Around(stepStoreVote, d.path, func() error { return d.files.SetUint64(key, value) })
		if err != nil {
			d.log.Error("the Raft log cannot be written; check its disk and that it is not full", "path", d.path, "err", err)
		}
		return nil
	}
	return d.storeVote(func() error { return d.files.SetUint64(key, value) })
}

// storeVote stores a part of the term and the vote, however long that takes.
//
// When the node ends first, Raft can be told neither that it is stored, because
// it would act on it, nor that it is not, because it ends the program then. And
// it cannot be kept waiting, because its end waits for this goroutine. So the
// goroutine ends here, where the panic would be, with its deferred calls: what
// another node asked is answered without a vote, or not at all, and nothing that
// would follow from the term happens. Only Raft's own goroutine and those of the
// transport's streams come here once the node can end; both are gone in an
// orderly stop as well. What waits for Raft is told by surrender.
func (d *disk) storeVote(do func() error) error {
	err := d.persist(stepStoreVote, func() bool { return true }, do)
	if err == nil || d.ended == nil {
		return err
	}
	d.log.Error("the term or the vote was not stored before the node stopped; it takes part in nothing any more", "path", d.path, "err", err)
	d.surrender()
	runtime.Goexit()
	return err
}

// following reports whether this node is told by another one what to store.
func (d *disk) following() bool { return d.leads != nil && !d.leads() }

// persist does one step, again and again if it fails and patient says so, until
// the node ends.
//
// After an error nobody knows what is on the disk, and Raft goes on with what it
// remembers: with an end of the log, for one, that it has had cut off. A node
// that waits for its disk does no harm: it takes part in nothing meanwhile, and
// the others go on.
func (d *disk) persist(step durable.Step, patient func() bool, do func() error) error {
	last := d.ended == nil
	for attempt := 1; ; attempt++ {
		err := d.hook.Around(step, d.path, do)
		if err == nil || last || !patient() {
			return err
		}
		pause := diskRetry.Delay(attempt, nil)
		d.log.Error("the Raft log cannot be written; this node takes part in nothing until it can, check its disk and that it is not full",
			"path", d.path, "step", step, "err", err, "retry_in", pause)
		last = !d.wait(pause)
	}
}

// wait returns false as soon as the node does not wait any more.
func (d *disk) wait(pause time.Duration) bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-d.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	return backoff.Wait(ctx, pause) == nil
}

// A sum stands in the extensions of an entry, behind a mark: versions before it
// left them empty, and pass on what they do not know.
const sumMark = "sum1"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendSum appends the mark and the sum of an entry.
func appendSum(b []byte, entry *raft.Log) []byte {
	var head [17]byte
	binary.BigEndian.PutUint64(head[0:], entry.Index)
	binary.BigEndian.PutUint64(head[8:], entry.Term)
	head[16] = byte(entry.Type)
	sum := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, entry.Data)
	return binary.BigEndian.AppendUint32(append(b, sumMark...), sum)
}

// checkSum compares an entry with its sum, if it has one.
func checkSum(entry *raft.Log) error {
	var room [len(sumMark) + 4]byte
	if len(entry.Extensions) == 0 || string(entry.Extensions) == string(appendSum(room[:0], entry)) {
		return nil
	}
	return fmt.Errorf("%w: entry %d differs from its checksum", ErrLogDamaged, entry.Index)
}
