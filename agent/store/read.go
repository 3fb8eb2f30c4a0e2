package store

import (
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/wire"
)

// AtRest is what a state file holds that decisions depend on.
type AtRest struct {
	Certificates []*Certificate    // ordered by name
	Assignments  []wire.Assignment // as the centre wants them
	Accepted     []wire.Assignment // as this host goes by them
	Identity     *Identity         // nil when the host is not enrolled
	Turns        map[string]Turns  // by issuer
}

// ReadAtRest reads the state file at path, and changes nothing: neither the file
// nor its lock, and an older schema is not brought up to date. While an agent has
// the file open the error wraps ErrLocked; a file that is not there gives
// fs.ErrNotExist.
func ReadAtRest(path string) (_ *AtRest, err error) {
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
	rest := new(AtRest)
	err = guard(func() error {
		return db.View(func(tx *bolt.Tx) (err error) {
			if rest.Certificates, err = certificates(tx); err != nil {
				return err
			}
			if rest.Identity, err = getJSON[Identity](tx, bucketMeta, []byte(metaIdentity)); err != nil {
				return err
			}
			if rest.Assignments, err = assignments(tx, bucketAssignments); err != nil {
				return err
			}
			if rest.Accepted, err = assignments(tx, bucketAccepted); err != nil {
				return err
			}
			rest.Turns, err = turns(tx)
			return err
		})
	})
	if err != nil {
		return nil, s.refusal(err)
	}
	return rest, nil
}
