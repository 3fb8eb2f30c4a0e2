package store

import "github.com/certctl/certctl/shared/wire"

// UpdateIdentity reads, changes and stores the identity in one transaction,
// with the facts that belong to the change. fn gets the stored identity, its
// own copy, or nil, and returns what to store; nil forgets it. When fn returns
// an error, nothing is stored and that error is returned as it is.
func (s *Store) UpdateIdentity(fn func(current *Identity) (*Identity, error), events ...wire.Event) error {
	return s.write(commitIdentity, func(c *change) error {
		current, err := getJSON[Identity](c.tx, bucketMeta, []byte(metaIdentity))
		if err != nil {
			return err
		}
		next, err := fn(current)
		if err != nil {
			return err
		}
		if err := c.emit(events); err != nil {
			return err
		}
		if next == nil {
			return c.remove(bucketMeta, []byte(metaIdentity))
		}
		return c.putJSON(bucketMeta, []byte(metaIdentity), next)
	})
}
