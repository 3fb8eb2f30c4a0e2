package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/durable"
)

// DefaultOutboxLimit is how many facts wait for the coordinator before the
// outbox coalesces them.
const DefaultOutboxLimit = 10_000

// lockTimeout is how long Open waits for a program that inspects the file.
const lockTimeout = time.Second

// Options of Open. The zero value is usable.
type Options struct {
	// Now is the clock for facts and orders that come without a time; nil is
	// time.Now.
	Now func() time.Time
	// OutboxLimit bounds the number of facts in the outbox; 0 is
	// DefaultOutboxLimit.
	OutboxLimit int
	// OnDrop, when set, is called for each fact that a full outbox coalesced or
	// dropped, after that is stored. It must not write to the store.
	OnDrop func(Dropped)
	// Hook is called around each durable step, for tests of crashes and failing
	// disks; nil in production.
	Hook durable.Hook
}

// Store is an open state file. Make it with Open.
type Store struct {
	source source
	db     *bolt.DB
	lock   *durable.FileLock

	now         func() time.Time
	outboxLimit int
	onDrop      func(Dropped)
	instance    string
	boot        string

	// handedOut is the newest event that Events returned in this run: the
	// coordinator may know it already, so that it is never merged into another.
	handedOut atomic.Uint64

	commits atomic.Uint64
	looked  atomic.Uint64

	unserved unserved // what Horizon knows

	mu      sync.Mutex // held by the one writer
	unknown error      // not nil after a commit with unknown outcome
	hook    durable.Hook
}

// source is a state file before and while it is open.
type source struct {
	path   string
	layout layout
	hook   durable.Hook
}

// Open opens the state file at path, and creates it, and its directory, where
// they are missing. It takes a lock beside the file, checks the file as a whole,
// and brings an older schema up to date after keeping a copy (path.vN.bak).
//
// A file that it refuses, for which the error is an *Error around one of the
// sentinels, it leaves exactly as it is. A directory that belongs to somebody
// else, or that others may write, is refused too; that others may not read it
// is for the caller to see to (durable.CheckPrivateDir).
func Open(path string, opts Options) (*Store, error) {
	return open(path, opts, current)
}

func open(path string, opts Options, l layout) (_ *Store, err error) {
	if opts.OutboxLimit < 0 {
		return nil, fmt.Errorf("outbox limit %d; give a positive number, or 0 for %d", opts.OutboxLimit, DefaultOutboxLimit)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("state file %s: %w", path, err)
	}
	s := &Store{
		source:      source{path: abs, layout: l, hook: opts.Hook},
		now:         opts.Now,
		outboxLimit: opts.OutboxLimit,
		onDrop:      opts.OnDrop,
		boot:        randomID(),
		hook:        opts.Hook,
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.outboxLimit == 0 {
		s.outboxLimit = DefaultOutboxLimit
	}
	if err := s.source.checkDirectory(); err != nil {
		return nil, err
	}
	if s.lock, err = s.source.takeLock(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.lock.Unlock())
		}
	}()
	// With the lock held nobody else writes here: what a crash left goes.
	if _, err := durable.RemoveStaleTemp(filepath.Dir(abs)); err != nil {
		return nil, s.source.access(err)
	}
	if err := s.source.createIfMissing(s.now()); err != nil {
		return nil, err
	}
	if err := s.source.inspect(); err != nil {
		return nil, err
	}
	if s.db, err = s.source.openFile(false); err != nil {
		return nil, err
	}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	return s, nil
}

// start reads what the store keeps in memory.
func (s *Store) start() error {
	return s.view(func(tx *bolt.Tx) error {
		id, err := unsealMeta(tx, metaInstance)
		s.instance = string(id)
		return err
	})
}

// Close releases the file. It waits for reads and writes that are under way;
// later calls of other methods fail.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(s.db.Close(), s.lock.Unlock()); err != nil {
		return fmt.Errorf("close state file %s: %w", s.source.path, err)
	}
	return nil
}

// Path is the absolute path of the state file.
func (s *Store) Path() string { return s.source.path }

// InstanceID is random and made with the file: it names this history.
func (s *Store) InstanceID() string { return s.instance }

// Commits counts the transactions that were written since Open. Those that change
// nothing are not.
func (s *Store) Commits() uint64 { return s.commits.Load() }

// BootID is random and made by each Open: it names this run of the agent.
func (s *Store) BootID() string { return s.boot }

func randomID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b[:])
}

func (s *source) checkDirectory() error {
	dir := filepath.Dir(s.path)
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := durable.EnsurePrivateDir(dir); err != nil {
			return s.access(err)
		}
		return nil
	}
	if err != nil {
		return s.access(err)
	}
	if !info.IsDir() {
		return &Error{File: s.path, Mend: "move that file away, or set state_dir to another place",
			Err: fmt.Errorf("%w: %s is not a directory", ErrReadOnly, dir)}
	}
	own, err := durable.OwnershipOf(dir)
	if err != nil {
		return s.access(err)
	}
	if runtime.GOOS == "windows" {
		return nil // the mode bits say nothing there; the caller checks the DACL
	}
	// By the bits and not by trying, so that root hears of it too.
	switch me := os.Geteuid(); {
	case own.UID != durable.Keep && own.UID != me:
		return &Error{File: s.path, Mend: fmt.Sprintf("run \"chown -R %d %s\", or start certctl-agent as its owner", me, dir),
			Err: fmt.Errorf("%w: its directory belongs to user id %d, and this program runs as user id %d", ErrReadOnly, own.UID, me)}
	case own.Mode&0o022 != 0:
		return &Error{File: s.path, Mend: fmt.Sprintf("run \"chmod 0700 %s\"", dir),
			Err: fmt.Errorf("%w: its directory may be written by other users (mode %04o)", ErrReadOnly, own.Mode)}
	case own.Mode&0o300 != 0o300:
		return &Error{File: s.path, Mend: fmt.Sprintf("run \"chmod 0700 %s\"", dir),
			Err: fmt.Errorf("%w: its directory is read-only (mode %04o)", ErrReadOnly, own.Mode)}
	}
	return nil
}

func (s *source) takeLock() (*durable.FileLock, error) {
	lock, err := durable.Lock(s.path + ".lock")
	if held, ok := errors.AsType[*durable.LockedError](err); ok {
		return nil, &Error{File: s.path, Mend: mendLocked, Err: fmt.Errorf("%w: %w", ErrLocked, held)}
	}
	if err != nil {
		return nil, s.access(err)
	}
	return lock, nil
}

// createIfMissing makes an empty state file under another name, syncs it, and
// renames it: bbolt writes a new file in several steps, and a power cut between
// them must not leave half a file under the name that counts.
func (s *source) createIfMissing(now time.Time) error {
	if _, err := os.Lstat(s.path); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return s.access(err)
		}
		return nil
	}
	temp := source{path: s.path + ".new", layout: s.layout}
	// What is there is the rest of an attempt that did not end; we hold the lock.
	if err := os.Remove(temp.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.access(err)
	}
	if err := s.hook.Around(stepMake, temp.path, func() error { return temp.make(now) }); err != nil {
		if removeErr := os.Remove(temp.path); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
		return s.access(err)
	}
	if err := s.hook.Around(stepMakeName, s.path, func() error { return durable.Rename(temp.path, s.path) }); err != nil {
		return s.access(err)
	}
	return nil
}

func (s *source) make(now time.Time) error {
	db, err := s.openFile(false)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error { return initialise(tx, s.layout.version, now) })
	return errors.Join(err, db.Close())
}

// inspect decides, without changing anything, whether the file is ours, whole
// and of a schema that we know, and then brings the schema up to date.
func (s *source) inspect() error {
	// Opened for reading, bbolt looks at the two meta pages only, and by its
	// own lock keeps other programs from writing while the rest is checked.
	db, err := s.openFile(true)
	if err != nil {
		return err
	}
	var version uint64
	err = s.checkFile()
	if err == nil {
		version, err = s.checkContent(db)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return s.refusal(err)
	}
	if version > s.layout.version {
		return &Error{File: s.path, Mend: mendNewer,
			Err: fmt.Errorf("%w: its schema is %d, and this version knows schemas up to %d", ErrNewerSchema, version, s.layout.version)}
	}
	if version < s.layout.version {
		return s.migrate(version)
	}
	return nil
}

// checkContent returns the schema; a file of the current one is checked whole.
func (s *source) checkContent(db *bolt.DB) (version uint64, err error) {
	err = guard(func() error {
		return db.View(func(tx *bolt.Tx) (err error) {
			if version, err = schemaOf(tx); err != nil || version != s.layout.version {
				return err
			}
			return s.layout.verify(tx)
		})
	})
	return version, err
}

// refusal adds the mend to what was found within the file.
func (s *source) refusal(err error) error {
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	switch {
	case errors.Is(err, ErrForeign):
		return &Error{File: s.path, Mend: mendForeign, Err: err}
	case errors.Is(err, ErrDamaged):
		return s.damaged(err)
	}
	return s.access(err)
}

// openFile opens the file with bbolt. A panic of bbolt, which it uses to report
// some kinds of damage, becomes an error.
func (s *source) openFile(readOnly bool) (*bolt.DB, error) {
	var db *bolt.DB
	var file *os.File
	err := guard(func() (err error) {
		db, err = bolt.Open(s.path, 0o600, &bolt.Options{
			Timeout:      lockTimeout,
			ReadOnly:     readOnly,
			FreelistType: bolt.FreelistMapType,
			NoStatistics: true,
			OpenFile: func(name string, flag int, perm os.FileMode) (*os.File, error) {
				f, err := os.OpenFile(name, flag, perm)
				file = f
				return f, err
			},
		})
		return err
	})
	if err == nil {
		return db, nil
	}
	if file != nil {
		file.Close() // a panic leaves it open, and with it the lock
	}
	return nil, s.openError(err)
}

// guard turns a panic, and a fault in memory that is mapped from a damaged file
// or a failing disk, into ErrDamaged.
func guard(fn func() error) (err error) {
	faults := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(faults)
		if r := recover(); r != nil {
			err = damage("reading it failed: %v", r)
		}
	}()
	return fn()
}
