package store

import (
	"bytes"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/wire"
)

// Wanted is what is known of the desired state of the centre besides its
// assignments.
type Wanted struct {
	// Digest of the state that is in force; "" before the first one came.
	Digest     string    `json:"digest,omitempty"`
	ReceivedAt time.Time `json:"received_at,omitzero"`
	// RefusedDigest and Refusal are of a later state that could not be taken; the
	// one above stays in force.
	RefusedDigest string `json:"refused_digest,omitempty"`
	Refusal       string `json:"refusal,omitempty"`
}

// Wanted is what is known of the desired state; zero before the first one came.
func (s *Store) Wanted() (Wanted, error) {
	var wanted Wanted
	err := s.view(func(tx *bolt.Tx) (err error) {
		wanted, err = loadWanted(tx)
		return err
	})
	return wanted, err
}

func loadWanted(tx *bolt.Tx) (Wanted, error) {
	stored, err := getJSON[Wanted](tx, bucketMeta, []byte(metaDesired))
	if stored == nil {
		return Wanted{}, err
	}
	return *stored, err
}

// Desired is the desired state that is in force, as SaveDesired was last given
// it; its digest is "" before.
func (s *Store) Desired() (wire.Desired, error) {
	var desired wire.Desired
	err := s.view(func(tx *bolt.Tx) error {
		wanted, err := loadWanted(tx)
		if err != nil {
			return err
		}
		desired.Digest = wanted.Digest
		desired.Assignments, err = assignments(tx, bucketAssignments)
		return err
	})
	if err != nil {
		return wire.Desired{}, err
	}
	return desired, nil
}

// Accepted are the definitions that this host goes by, as SaveAccepted was last
// given them, ordered by name.
func (s *Store) Accepted() ([]wire.Assignment, error) {
	var list []wire.Assignment
	err := s.view(func(tx *bolt.Tx) (err error) {
		list, err = assignments(tx, bucketAccepted)
		return err
	})
	return list, err
}

// SaveAccepted replaces the definitions that this host goes by, in one
// transaction: one that is changed to something that the host refuses is needed
// again. Those that stay as they are are not written.
func (s *Store) SaveAccepted(list []wire.Assignment) error {
	return s.write(commitAccepted, func(c *change) error {
		if c.tx.Bucket([]byte(bucketAccepted)) == nil {
			if len(list) == 0 {
				return nil
			}
			if _, err := c.tx.CreateBucket([]byte(bucketAccepted)); err != nil {
				return fmt.Errorf("make %s: %w", bucketAccepted, err)
			}
		}
		return c.replaceAssignments(bucketAccepted, list)
	})
}

// assignments are those in a bucket, which need not be there.
func assignments(tx *bolt.Tx, bucket string) ([]wire.Assignment, error) {
	b := tx.Bucket([]byte(bucket))
	if b == nil {
		return nil, nil
	}
	var list []wire.Assignment
	err := b.ForEach(func(key, value []byte) error {
		var a wire.Assignment
		if err := decode(bucket, key, value, &a); err != nil {
			return err
		}
		if a.Name != string(key) {
			return damage("assignment %s is stored as %q", quoteKey(key), a.Name)
		}
		list = append(list, a)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// SaveDesired replaces the desired state, in one transaction. One that is not
// valid changes nothing and gives a *wire.Problem. Assignments that stay as they
// are are not written again.
func (s *Store) SaveDesired(desired *wire.Desired) error {
	if problem := desired.Validate(); problem != nil {
		return problem
	}
	return s.write(commitDesired, func(c *change) error {
		wanted, err := loadWanted(c.tx)
		if err != nil {
			return err
		}
		if wanted.Digest != desired.Digest {
			wanted = Wanted{Digest: desired.Digest, ReceivedAt: s.now().Round(0).UTC()}
		}
		wanted.RefusedDigest, wanted.Refusal = "", ""
		if err := c.replaceAssignments(bucketAssignments, desired.Assignments); err != nil {
			return err
		}
		return c.putJSON(bucketMeta, []byte(metaDesired), wanted)
	})
}

// replaceAssignments makes a bucket hold these and no others.
func (c *change) replaceAssignments(bucket string, list []wire.Assignment) error {
	stays := make(map[string]bool, len(list))
	for _, a := range list {
		stays[a.Name] = true
		if err := c.putJSON(bucket, []byte(a.Name), a); err != nil {
			return err
		}
	}
	var gone [][]byte
	cursor := c.tx.Bucket([]byte(bucket)).Cursor()
	for key, _ := cursor.First(); key != nil; key, _ = cursor.Next() {
		if !stays[string(key)] {
			gone = append(gone, bytes.Clone(key))
		}
	}
	for _, key := range gone {
		if err := c.remove(bucket, key); err != nil {
			return err
		}
	}
	return nil
}

// RefuseDesired remembers that a desired state could not be taken, and stores the
// facts with it, once for each digest: the coordinator sends the state again and
// again. The one in force stays.
func (s *Store) RefuseDesired(digest, refusal string, events ...wire.Event) error {
	return s.write(commitRefusal, func(c *change) error {
		wanted, err := loadWanted(c.tx)
		if err != nil {
			return err
		}
		digest, refusal = cutText(digest, wire.MaxTextLen), cutText(refusal, wire.MaxTextLen)
		if wanted.Refusal != "" && wanted.RefusedDigest == digest {
			return nil
		}
		wanted.RefusedDigest, wanted.Refusal = digest, refusal
		if err := c.emit(events); err != nil {
			return err
		}
		return c.putJSON(bucketMeta, []byte(metaDesired), wanted)
	})
}

func verifyDesired(tx *bolt.Tx, _ counters) error {
	wanted, err := loadWanted(tx)
	if err != nil {
		return err
	}
	list, err := assignments(tx, bucketAssignments)
	if err != nil {
		return err
	}
	if len(list) > 0 && wanted.Digest == "" {
		return damage("%d assignments belong to no desired state", len(list))
	}
	if _, err := assignments(tx, bucketAccepted); err != nil {
		return err
	}
	return tx.Bucket([]byte(bucketCommands)).ForEach(func(key, value []byte) error {
		var command Command
		if err := decode(bucketCommands, key, value, &command); err != nil {
			return err
		}
		if command.Request.ID != string(key) {
			return damage("command %s is stored as %q", quoteKey(key), command.Request.ID)
		}
		if !command.State.Final() && command.State != wire.CommandAccepted {
			return damage("command %s is in the unknown state %q", quoteKey(key), command.State)
		}
		return nil
	})
}
