package store

import (
	"bytes"
	"encoding/json"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Identity is the agent's identity; nil when it is not enrolled.
func (s *Store) Identity() (*Identity, error) {
	var identity *Identity
	err := s.view(func(tx *bolt.Tx) (err error) {
		identity, err = getJSON[Identity](tx, bucketMeta, []byte(metaIdentity))
		return err
	})
	return identity, err
}

// SaveIdentity stores the identity; nil forgets it.
func (s *Store) SaveIdentity(identity *Identity) error {
	return s.UpdateIdentity(func(*Identity) (*Identity, error) { return identity, nil })
}

// IssuerState is what SaveIssuerState was last given for that issuer; nil when
// nothing was.
func (s *Store) IssuerState(issuer string) (json.RawMessage, error) {
	var state json.RawMessage
	err := s.view(func(tx *bolt.Tx) error {
		value := tx.Bucket([]byte(bucketIssuers)).Get([]byte(issuer))
		if value == nil {
			return nil
		}
		payload, err := unseal(bucketIssuers, []byte(issuer), value)
		state = bytes.Clone(payload)
		return err
	})
	return state, err
}

// SaveIssuerState stores an issuer's own state, such as its account; nil forgets
// it. It must be JSON and hold no private key, only key ids.
func (s *Store) SaveIssuerState(issuer string, state json.RawMessage) error {
	if err := checkName("issuer name", issuer); err != nil {
		return err
	}
	if state != nil && !json.Valid(state) {
		return fmt.Errorf("state of issuer %q is not JSON; this is a mistake in its program", issuer)
	}
	return s.write(commitIssuerState, func(c *change) error {
		key := []byte(issuer)
		if state == nil {
			return c.remove(bucketIssuers, key)
		}
		return c.put(bucketIssuers, key, seal(bucketIssuers, key, state))
	})
}

// KeyIDs returns the ids of all keys that anything stored here refers to, so
// that other keys can be cleaned away. The states that issuers and deployments
// keep are not understood here: every string in them counts as a key id, which
// can only keep a key too long.
func (s *Store) KeyIDs() (map[string]bool, error) {
	ids := map[string]bool{}
	err := s.view(func(tx *bolt.Tx) error {
		identity, err := getJSON[Identity](tx, bucketMeta, []byte(metaIdentity))
		if err != nil {
			return err
		}
		if identity != nil {
			ids[identity.KeyID] = true
			if identity.Pending != nil {
				ids[identity.Pending.KeyID] = true
			}
			if identity.Enrolling != nil {
				ids[identity.Enrolling.KeyID] = true
			}
		}
		err = tx.Bucket([]byte(bucketCertificates)).ForEach(func(key, value []byte) error {
			var record Certificate
			if err := decode(bucketCertificates, key, value, &record); err != nil {
				return err
			}
			return record.collectKeyIDs(ids)
		})
		if err != nil {
			return err
		}
		err = eachRemoved(tx, func(r *Removed) error { return r.Certificate.collectKeyIDs(ids) })
		if err != nil {
			return err
		}
		return tx.Bucket([]byte(bucketIssuers)).ForEach(func(key, value []byte) error {
			payload, err := unseal(bucketIssuers, key, value)
			if err != nil {
				return err
			}
			return collectStrings(payload, ids)
		})
	})
	if err != nil {
		return nil, err
	}
	delete(ids, "")
	return ids, nil
}

func (c *Certificate) collectKeyIDs(ids map[string]bool) error {
	for _, g := range []*Generation{c.Current, c.Next, c.Previous} {
		if g != nil {
			ids[g.KeyID] = true
		}
	}
	for _, d := range c.Deployments {
		if err := collectStrings(d.State, ids); err != nil {
			return err
		}
	}
	return collectStrings(c.OrderState, ids)
}

// collectStrings adds every string within a JSON document, member names too.
func collectStrings(document []byte, into map[string]bool) error {
	if len(document) == 0 {
		return nil
	}
	var v any
	if err := json.Unmarshal(document, &v); err != nil {
		return damage("a stored state is not JSON: %w", err)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			into[v] = true
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for name, e := range v {
				into[name] = true
				walk(e)
			}
		}
	}
	walk(v)
	return nil
}
