package store

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

// HostHorizon is how long a host is safe on its own, seen from one moment.
// Whoever speaks of a host's horizon goes by it: status, metrics and reports.
type HostHorizon struct {
	// SafeUntil is when the first expired certificate would be served if the
	// coordinator, every CA and the network were gone from that moment on. It is
	// past when an expired or revoked one is served already, and nil when nothing
	// is in service or one of NotSafe makes any later moment untrue.
	SafeUntil *time.Time
	// NotSafe names the certificates that are not safe at that moment, in order:
	// those that are expired, revoked or not in service everywhere (see
	// [Certificate.Horizon]). One that left the configuration is not among them.
	NotSafe []string
}

// Horizon is the offline horizon of the host at a time. It costs in proportion
// to what is not safe and to what has changed since it was asked last, however
// many certificates there are.
func (s *Store) Horizon(now time.Time) (HostHorizon, error) {
	s.unserved.mu.Lock()
	defer s.unserved.mu.Unlock()
	var h HostHorizon
	err := s.view(func(tx *bolt.Tx) error {
		if err := s.unserved.follow(tx); err != nil {
			return err
		}
		h = HostHorizon{}
		if first, ok, err := earliest(tx, bucketExpiry); err != nil {
			return err
		} else if ok {
			h.SafeUntil = &first
		}
		// What is served everywhere is not safe if its end is past; what is not
		// has no horizon, whatever its end.
		notSafe := make(map[string]bool, len(s.unserved.names))
		maps.Copy(notSafe, s.unserved.names)
		ended, err := upTo(tx, bucketExpiry, now, 0, new(atomic.Uint64))
		if err != nil {
			return err
		}
		for _, name := range ended {
			notSafe[name] = true
		}
		h.NotSafe = slices.Sorted(maps.Keys(notSafe))
		return nil
	})
	if err != nil {
		return HostHorizon{}, err
	}
	if len(h.NotSafe) > 0 && h.SafeUntil != nil && now.Before(*h.SafeUntil) {
		h.SafeUntil = nil
	}
	return h, nil
}

// unserved are the names of the certificates without a horizon. They are kept in
// memory: an index in the file would have to be right in files of versions that
// do not know it. Whether a certificate has a horizon is part of its row, so that
// each change of it has a revision.
type unserved struct {
	mu       sync.Mutex // held before the file is read, so that revisions only grow
	revision uint64     // that names is of
	names    map[string]bool
}

// follow takes over what has changed. What it did before an error does no harm:
// it is done again.
func (u *unserved) follow(tx *bolt.Tx) error {
	c, err := loadCounters(tx)
	if err != nil || c.Revision == u.revision {
		return err
	}
	if u.names == nil {
		u.names = make(map[string]bool)
	}
	revisions := tx.Bucket([]byte(bucketRevisions)).Cursor()
	for key, name := revisions.Seek(numberKey(u.revision + 1)); key != nil; key, name = revisions.Next() {
		record, err := getJSON[Certificate](tx, bucketCertificates, name)
		switch {
		case err != nil:
			return err
		case record == nil:
			return damage("revision %s names the row %q, which has no certificate", quoteKey(key), name)
		case record.Horizon().IsZero():
			u.names[string(name)] = true
		default:
			delete(u.names, string(name))
		}
	}
	records := tx.Bucket([]byte(bucketCertificates))
	maps.DeleteFunc(u.names, func(name string, _ bool) bool { return !has(records, []byte(name)) })
	u.revision = c.Revision
	return nil
}
