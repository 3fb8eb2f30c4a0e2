package store

import (
	"errors"
	"fmt"
	"io"
	"os"

	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/durable"
)

// layout is a schema and the ways up to it.
type layout struct {
	version uint64
	// migrations[v] turns a file of schema v into one of v+1, within one
	// transaction with all others. It may use the buckets as they are, but no
	// type of this package that may change later.
	migrations map[uint64]func(*bolt.Tx) error
	// verify checks a whole file of this schema.
	verify func(*bolt.Tx) error
}

var current = layout{version: Schema, verify: verify, migrations: map[uint64]func(*bolt.Tx) error{1: addDesired}}

// addDesired leads from schema 1 to 2, which has what the centre wants.
func addDesired(tx *bolt.Tx) error {
	for _, name := range []string{"assignments", "commands"} {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	return nil
}

// migrate keeps a copy of the file and then brings it up to date in one
// transaction, checked before it is committed: a crash, an error or a full disk
// leaves it as it was.
func (s *source) migrate(from uint64) error {
	for version := from; version < s.layout.version; version++ {
		if s.layout.migrations[version] == nil {
			return s.refusal(damage("it has schema %d, which no version of certctl-agent wrote", version))
		}
	}
	if err := s.keepCopy(from); err != nil {
		return err
	}
	db, err := s.openFile(false)
	if err != nil {
		return err
	}
	err = guard(func() error {
		return s.hook.Around(stepMigrate, s.path, func() error {
			return db.Update(func(tx *bolt.Tx) error {
				for version := from; version < s.layout.version; version++ {
					if err := s.layout.migrations[version](tx); err != nil {
						return fmt.Errorf("change schema %d to %d: %w", version, version+1, err)
					}
				}
				if err := sealMeta(tx, metaSchema, numberKey(s.layout.version)); err != nil {
					return err
				}
				return s.layout.verify(tx)
			})
		})
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return s.refusal(err)
	}
	return nil
}

// keepCopy makes path.vN.bak. One that is there is from a migration that did not
// end, when the file was as it is now.
func (s *source) keepCopy(version uint64) error {
	backup := source{path: fmt.Sprintf("%s.v%d.bak", s.path, version)}
	temp := backup.path + ".new"
	err := s.hook.Around(stepCopy, backup.path, func() error {
		if err := copyFile(s.path, temp); err != nil {
			return errors.Join(err, os.Remove(temp))
		}
		return durable.Rename(temp, backup.path)
	})
	if err != nil {
		return backup.access(err)
	}
	return nil
}

func copyFile(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err == nil {
		err = durable.Sync(dst)
	}
	return errors.Join(err, dst.Close())
}
