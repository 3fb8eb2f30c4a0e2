package store

import (
	bolt "go.etcd.io/bbolt"
)

// Turns is what SaveTurns was given, by issuer; nil before.
func (s *Store) Turns() (map[string]Turns, error) {
	var all map[string]Turns
	err := s.view(func(tx *bolt.Tx) (err error) {
		all, err = turns(tx)
		return err
	})
	return all, err
}

func turns(tx *bolt.Tx) (map[string]Turns, error) {
	stored, err := getJSON[map[string]Turns](tx, bucketMeta, []byte(metaTurns))
	if stored == nil {
		return nil, err
	}
	return *stored, err
}

// SaveTurns replaces what is stored of every issuer.
func (s *Store) SaveTurns(all map[string]Turns) error {
	return s.write(commitTurns, func(c *change) error { return c.putJSON(bucketMeta, []byte(metaTurns), all) })
}
