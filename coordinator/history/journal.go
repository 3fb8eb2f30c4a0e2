package history

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history/boltfile"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/jitter"
)

// Config says where a journal is and how much it keeps. Path and Log are
// required.
type Config struct {
	Path string
	Log  *slog.Logger
	// MaxAge is how long routine facts are kept, by their own time. 0 keeps
	// them until MaxBytes is reached.
	MaxAge time.Duration
	// MaxBytes bounds the routine facts, in bytes of their encoding; the file is
	// somewhat larger. 0 is 1 GiB.
	MaxBytes int64
	// Hook is called around each transaction that takes facts of another node. Nil
	// in production.
	Hook durable.Hook
}

const (
	defaultMaxBytes = 1 << 30
	minMaxBytes     = 64 << 10
)

// warnAt is the part of MaxBytes from which on Append and Status warn.
const warnAt = 0.8

func (c Config) withDefaults() Config {
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	return c
}

func (c Config) validate() error {
	var problems []error
	if !filepath.IsAbs(c.Path) {
		problems = append(problems, fmt.Errorf("the path %q is not absolute", c.Path))
	}
	if c.Log == nil {
		problems = append(problems, errors.New("the logger is missing"))
	}
	if c.MaxAge < 0 {
		problems = append(problems, fmt.Errorf("the age %v is negative; 0 keeps facts until the size is reached", c.MaxAge))
	}
	if c.MaxBytes < minMaxBytes {
		problems = append(problems, fmt.Errorf("the size of %d bytes is below %d", c.MaxBytes, minMaxBytes))
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("journal configuration: %w", err)
	}
	return nil
}

// Journal is an open journal. Append and Skip belong to one goroutine at a time,
// and so does Backfill, which may be another one; the other methods may be called by any number of goroutines, at the same time
// too.
type Journal struct {
	config Config
	db     *bbolt.DB
	// through and full mirror what is in the file.
	through atomic.Uint64
	full    atomic.Bool // the warning was given
	kept    Kept        // nil: this is where facts are kept
}

// Kept says up to which log index facts are kept elsewhere for good. An error says
// that this is not known now.
type Kept func(ctx context.Context) (through uint64, err error)

// KeepUntil lets Run drop no fact for its age before it is kept elsewhere. It is
// called before Run.
func (j *Journal) KeepUntil(kept Kept) { j.kept = kept }

// Through is the newest log index of which the journal has all facts.
func (j *Journal) Through() uint64 { return j.through.Load() }

// Append stores facts, which are in order, and then counts as having everything
// up to the log index through. Facts at or below the index that it had before
// are ignored: they are here already. It is one synced transaction: after an
// error nothing is stored.
//
// When the routine facts exceed MaxBytes, the oldest of them go and are counted.
func (j *Journal) Append(through uint64, facts []fleet.Fact) error {
	var sum ledger
	err := j.update(func(b buckets) error {
		var err error
		if sum, err = b.ledger(); err != nil {
			return err
		}
		for _, fact := range facts {
			if fact.Index <= sum.Through {
				continue
			}
			if err := b.add(&sum, fact); err != nil {
				return err
			}
		}
		sum.Through = max(sum.Through, through)
		if err := b.shrink(&sum, j.config.MaxBytes); err != nil {
			return err
		}
		return b.setLedger(sum)
	})
	if err != nil {
		return fmt.Errorf("journal %s: append: %w", j.config.Path, err)
	}
	j.through.Store(sum.Through)
	j.warn(sum)
	return nil
}

// Skip records that the log goes on after index, and that the facts after Through
// and up to there are to be had of other nodes alone; see [Journal.Backfill].
func (j *Journal) Skip(index uint64) error {
	err := j.update(func(b buckets) error {
		sum, err := b.ledger()
		if err != nil || index <= sum.Through {
			return err
		}
		if err := b.gaps.Put(indexKey(sum.Through+1), indexKey(index)); err != nil {
			return err
		}
		sum.Through = index
		return b.setLedger(sum)
	})
	if err != nil {
		return fmt.Errorf("journal %s: skip: %w", j.config.Path, err)
	}
	j.through.Store(max(j.through.Load(), index))
	return nil
}

// warn speaks up once when the journal comes near its size.
func (j *Journal) warn(sum ledger) {
	near := float64(sum.Bytes) >= warnAt*float64(j.config.MaxBytes)
	if near == j.full.Swap(near) || !near {
		return
	}
	j.config.Log.Warn("the journal is nearly full; its oldest routine facts will be dropped, facts of the audit trail never",
		"path", j.config.Path, "bytes", sum.Bytes, "max_bytes", j.config.MaxBytes)
}

// Status is how full a journal is.
type Status struct {
	Through    uint64 // newest log index
	Facts      uint64 // routine facts
	Bytes      int64  // of routine facts
	MaxBytes   int64
	AuditFacts uint64
	// Dropped counts the routine facts that went for want of room, which is not
	// planned; Expired those that went by age, which is.
	Dropped uint64
	Expired uint64
	// Floor is the log index up to which routine facts may be missing because they
	// were dropped, here or in the journals that facts were taken from.
	Floor uint64
	// Gaps are the indexes whose facts this journal never had.
	Gaps Gaps
	// NearlyFull says that dropping is near or has begun.
	NearlyFull bool
}

// Status is the journal's own count of itself.
func (j *Journal) Status() (Status, error) {
	var s Status
	err := j.view(func(b buckets) error {
		sum, err := b.ledger()
		if err != nil {
			return err
		}
		s = Status{
			Through: sum.Through, Facts: sum.Facts, Bytes: sum.Bytes, MaxBytes: j.config.MaxBytes,
			AuditFacts: sum.Audit, Dropped: sum.Dropped, Expired: sum.Expired, Floor: sum.floor(),
			NearlyFull: float64(sum.Bytes) >= warnAt*float64(j.config.MaxBytes),
		}
		s.Gaps, err = b.listGaps()
		return err
	})
	if err != nil {
		return Status{}, fmt.Errorf("journal %s: status: %w", j.config.Path, err)
	}
	return s, nil
}

// Trim drops the routine facts that are older than MaxAge at the time now, and
// returns how many went.
func (j *Journal) Trim(now time.Time) (int, error) { return j.TrimThrough(now, math.MaxUint64) }

// TrimThrough is Trim for facts up to a log index. It works in small steps, so that
// Append never waits long for it.
func (j *Journal) TrimThrough(now time.Time, through uint64) (int, error) {
	if j.config.MaxAge == 0 {
		return 0, nil
	}
	total := 0
	for {
		dropped := 0
		err := j.update(func(b buckets) error {
			sum, err := b.ledger()
			if err != nil {
				return err
			}
			if dropped, err = b.expire(&sum, now.Add(-j.config.MaxAge), through); err != nil {
				return err
			}
			return b.setLedger(sum)
		})
		if err != nil {
			return total, fmt.Errorf("journal %s: trim: %w", j.config.Path, err)
		}
		total += dropped
		if dropped < trimStep {
			return total, nil
		}
	}
}

// Close closes the file.
func (j *Journal) Close() error {
	if err := j.db.Close(); err != nil {
		return fmt.Errorf("journal %s: close: %w", j.config.Path, err)
	}
	return nil
}

func (j *Journal) update(fn func(b buckets) error) error {
	return guard(func() error {
		return j.db.Update(func(tx *bbolt.Tx) error {
			b, err := openBuckets(tx)
			if err != nil {
				return err
			}
			return fn(b)
		})
	})
}

func (j *Journal) view(fn func(b buckets) error) error {
	return guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			b, err := openBuckets(tx)
			if err != nil {
				return err
			}
			return fn(b)
		})
	})
}

// guard turns what bbolt does about damaged pages into ErrDamaged.
func guard(fn func() error) error {
	err := boltfile.Guard(fn)
	if errors.Is(err, boltfile.ErrDamaged) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

func factKey(f fleet.Fact) []byte {
	return binary.BigEndian.AppendUint32(indexKey(f.Index), f.Ordinal)
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

const factKeyLen = 12

// trimInterval is how often Run looks for facts that are too old.
const trimInterval = time.Hour

// Run drops what is too old, from time to time, until ctx is done; then it
// returns nil. A failure is logged and tried again at the next time: old facts
// do no harm meanwhile.
func (j *Journal) Run(ctx context.Context) error {
	soon := make(chan struct{}, 1)
	soon <- struct{}{}
	jitter.Loop(ctx, trimInterval, jitter.DefaultSchedulerJitter, soon, func(ctx context.Context) {
		through := uint64(math.MaxUint64)
		if j.kept != nil {
			var err error
			if through, err = j.kept(ctx); err != nil {
				// Size is what bounds the journal then.
				j.config.Log.Debug("old facts stay in the journal: whether they are kept elsewhere is not known", "err", err)
				return
			}
		}
		dropped, err := j.TrimThrough(time.Now(), through)
		if err != nil {
			j.config.Log.Error("old facts cannot be dropped from the journal", "err", err)
			return
		}
		if dropped > 0 {
			j.config.Log.Info("dropped old facts from the journal", "path", j.config.Path, "facts", dropped)
		}
	})
	return nil
}
