package store

import (
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// ReadCertificates returns the records in the state file at path, ordered by
// name, and changes nothing: neither the file nor its lock, and an older schema
// is not brought up to date. While an agent has the file open the error wraps
// ErrLocked; a file that is not there gives fs.ErrNotExist.
func ReadCertificates(path string) (_ []*Certificate, err error) {
	s := source{path: path, layout: current}
	db, err := s.openFile(true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := s.checkFile(); err != nil {
		return nil, s.refusal(err)
	}
	version, err := s.checkContent(db)
	if err != nil {
		return nil, s.refusal(err)
	}
	if version != Schema {
		return nil, fmt.Errorf("state file %s: its schema is %d, and this version reads schema %d; let the agent of this version start with it once", path, version, Schema)
	}
	var list []*Certificate
	err = guard(func() error {
		return db.View(func(tx *bolt.Tx) (err error) {
			list, err = certificates(tx)
			return err
		})
	})
	if err != nil {
		return nil, s.refusal(err)
	}
	return list, nil
}
