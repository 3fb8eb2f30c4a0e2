package history

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/certctl/certctl/coordinator/history/boltfile"
	"github.com/certctl/certctl/shared/durable"
)

// Reasons why a journal is not opened or not read. The file is left as it is.
var (
	ErrExists  = errors.New("there is a journal already; open it instead of creating it")
	ErrMissing = errors.New("there is no journal; restore it from the backup that the Raft log is from")
	ErrInUse   = errors.New("another coordinator has the journal open; stop it first")
	ErrForeign = errors.New("this is not a journal of the coordinator; give another path, or move the file away")
	ErrDamaged = errors.New("the journal is damaged; it was left as it is: keep a copy and restore it from a backup")
	ErrNewer   = errors.New("the journal was written by a later version; upgrade this coordinator")
)

const lockPatience = time.Second

// Create makes a new, empty journal and opens it. It is there completely or not
// at all, whatever happens meanwhile. ErrExists says that there is one.
func Create(c Config) (*Journal, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(c.Path); err == nil {
		return nil, fmt.Errorf("journal %s: %w", c.Path, ErrExists)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("journal: %w", err)
	}
	fresh := c.Path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("journal: clear away an earlier attempt: %w", err)
	}
	if err := initialise(fresh); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: create: %w", c.Path, err), os.Remove(fresh))
	}
	if err := durable.Rename(fresh, c.Path); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return Open(c)
}

func initialise(path string) (err error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockPatience})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketRoutine, bucketAudit, bucketGaps} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		b, err := openBuckets(tx)
		if err != nil {
			return err
		}
		if err := b.meta.Put(keyFormat, []byte(formatName+strconv.Itoa(formatVersion))); err != nil {
			return err
		}
		return b.setLedger(ledger{})
	})
}

// Open opens a journal. Errors wrap one of the reasons above where it applies.
func Open(c Config) (*Journal, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	if err := boltfile.Check(c.Path); err != nil {
		return nil, fmt.Errorf("journal %s: %w", c.Path, reason(err))
	}
	var db *bbolt.DB
	err := guard(func() (err error) {
		db, err = bbolt.Open(c.Path, 0o600, &bbolt.Options{Timeout: lockPatience, FreelistType: bbolt.FreelistMapType})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", c.Path, reason(err))
	}
	j := &Journal{config: c, db: db}
	if err := j.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", c.Path, err), db.Close())
	}
	return j, nil
}

// reason classifies what stands in the way of opening a file.
func reason(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrMissing
	case errors.Is(err, bolterrors.ErrTimeout):
		return ErrInUse
	case errors.Is(err, boltfile.ErrForeign):
		return ErrForeign
	case errors.Is(err, ErrDamaged):
		return err
	case errors.Is(err, boltfile.ErrDamaged), errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	default:
		return err
	}
}

// load proves that the file is a journal and that both of its ends are readable.
func (j *Journal) load() error {
	return guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			if err := checkFormat(tx); err != nil {
				return err
			}
			b, err := openBuckets(tx)
			if err != nil {
				return err
			}
			sum, err := b.ledger()
			if err != nil {
				return err
			}
			for _, bucket := range []*bbolt.Bucket{b.routine, b.audit} {
				if err := checkEnds(bucket, sum.Through); err != nil {
					return err
				}
			}
			j.through.Store(sum.Through)
			return nil
		})
	})
}

func checkFormat(tx *bbolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return ErrForeign
	}
	digits, ok := strings.CutPrefix(string(meta.Get(keyFormat)), formatName)
	if !ok {
		return ErrForeign
	}
	version, err := strconv.Atoi(digits)
	switch {
	case err != nil || version < 1:
		return fmt.Errorf("%w: its version cannot be read", ErrDamaged)
	case version > formatVersion:
		return fmt.Errorf("%w: version %d, known is %d", ErrNewer, version, formatVersion)
	}
	return nil
}

func checkEnds(bucket *bbolt.Bucket, through uint64) error {
	cursor := bucket.Cursor()
	for _, end := range []func() ([]byte, []byte){cursor.First, cursor.Last} {
		k, v := end()
		if k == nil {
			continue
		}
		fact, err := decodeFact(v)
		if err != nil {
			return err
		}
		if len(k) != factKeyLen || string(k) != string(factKey(fact)) || fact.Index > through {
			return fmt.Errorf("%w: a fact is not where it belongs", ErrDamaged)
		}
	}
	return nil
}
