package renewal

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
)

// A renewal may keep the key that is in service. Two pairs of one record then
// name the same file, and it is removed when neither does: every place that drops
// a pair asks named before it removes a key.

// reasonSpent is why a renewal for the key in service is given up.
const reasonSpent = "its key is not to be used again"

// named reports whether one of the pairs has this key.
func named(keyID string, pairs ...*store.Generation) bool {
	return slices.ContainsFunc(pairs, func(g *store.Generation) bool { return g != nil && g.KeyID == keyID })
}

// reuses reports whether the pair under way is for the key in service.
func reuses(rec *store.Certificate) bool {
	return rec.Next != nil && named(rec.Next.KeyID, rec.Current)
}

// keySpent reports whether the next certificate has to have another key than the one
// in service. Whoever asks for a renewal by hand may do so because somebody else
// has the key.
func keySpent(rec *store.Certificate) bool { return rec.Forced || rec.Current.KeySpent }

// mayReuse reports whether the next certificate keeps the key in service.
func mayReuse(rec *store.Certificate, m *managed) bool {
	return m.ReuseKey && rec.Current != nil && !keySpent(rec) && rec.Current.KeyAlgorithm == m.KeyAlgorithm
}

// keyMadeAt is when the key of a pair was made, as far as that is known.
func keyMadeAt(g *store.Generation) time.Time {
	if g.KeyMadeAt.IsZero() {
		return g.IssuedAt
	}
	return g.KeyMadeAt
}

// keyInService is the id of the key to be used again, "" if there is to be a new
// one. A key that cannot be used any more, or that others could read, is no reason
// to let a certificate expire; one that cannot be read just now is worth a retry.
func (e *Engine) keyInService(m *managed, rec *store.Certificate) (id string, _ error) {
	if !mayReuse(rec, m) {
		return "", nil
	}
	id = rec.Current.KeyID
	key, err := e.cfg.Keys.Load(id)
	if err == nil {
		leaf := leafOf(rec.Current)
		if leaf == nil {
			err = &keys.Error{File: id, Problem: "belongs to a certificate that cannot be read", Mend: "nothing is to be done"}
		} else if err = pki.MatchKey(leaf, key); err == nil {
			e.keyWorks(id)
			return id, nil
		}
	}
	if e.keyFails(id) < keyAttempts && !lost(err) {
		return "", fmt.Errorf("key in service, which the renewal is to keep: %w", err)
	}
	e.keyWorks(id)
	e.log.Warn("key in service cannot be used again; the renewal makes a new one", "certificate", m.Name, "key_id", id, "err", err)
	return "", nil
}

// lost reports whether a key is gone or unfit for good.
func lost(err error) bool {
	_, unfit := errors.AsType[*keys.Error](err)
	return unfit || errors.Is(err, keys.ErrNotFound) || errors.Is(err, pki.ErrKeyMismatch)
}

// keyFails counts a failure of a key and returns how many there were in a row.
func (e *Engine) keyFails(id string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unusable[id]++
	return e.unusable[id]
}
