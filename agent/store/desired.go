package store

import (
	"bytes"
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
		desired.Assignments, err = assignments(tx)
		return err
	})
	if err != nil {
		return wire.Desired{}, err
	}
	return desired, nil
}

func assignments(tx *bolt.Tx) ([]wire.Assignment, error) {
	var list []wire.Assignment
	err := tx.Bucket([]byte(bucketAssignments)).ForEach(func(key, value []byte) error {
		list = append(list, wire.Assignment{})
		return decode(bucketAssignments, key, value, &list[len(list)-1])
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
	return s.write(func(c *change) error {
		wanted, err := loadWanted(c.tx)
		if err != nil {
			return err
		}
		if wanted.Digest != desired.Digest {
			wanted = Wanted{Digest: desired.Digest, ReceivedAt: s.now().Round(0).UTC()}
		}
		wanted.RefusedDigest, wanted.Refusal = "", ""
		stays := make(map[string]bool, len(desired.Assignments))
		for _, a := range desired.Assignments {
			stays[a.Name] = true
			if err := c.putJSON(bucketAssignments, []byte(a.Name), a); err != nil {
				return err
			}
		}
		var gone [][]byte
		cursor := c.tx.Bucket([]byte(bucketAssignments)).Cursor()
		for key, _ := cursor.First(); key != nil; key, _ = cursor.Next() {
			if !stays[string(key)] {
				gone = append(gone, bytes.Clone(key))
			}
		}
		for _, key := range gone {
			if err := c.remove(bucketAssignments, key); err != nil {
				return err
			}
		}
		return c.putJSON(bucketMeta, []byte(metaDesired), wanted)
	})
}

// RefuseDesired remembers that a desired state could not be taken, and stores the
// facts with it, once for each digest: the coordinator sends the state again and
// again. The one in force stays.
func (s *Store) RefuseDesired(digest, refusal string, events ...wire.Event) error {
	return s.write(func(c *change) error {
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
	count := 0
	err = tx.Bucket([]byte(bucketAssignments)).ForEach(func(key, value []byte) error {
		var a wire.Assignment
		if err := decode(bucketAssignments, key, value, &a); err != nil {
			return err
		}
		if a.Name != string(key) {
			return damage("assignment %s is stored as %q", quoteKey(key), a.Name)
		}
		count++
		return nil
	})
	if err != nil {
		return err
	}
	if count > 0 && wanted.Digest == "" {
		return damage("%d assignments belong to no desired state", count)
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
