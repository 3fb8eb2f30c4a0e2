package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/wire"
)

// Schema is the version of the file's layout that this package writes.
const Schema = 2

// The buckets of schema 2. Values of all but the indexes are sealed JSON.
const (
	bucketMeta         = "meta"         // see the keys below
	bucketCertificates = "certificates" // name -> Certificate
	bucketSchedule     = "schedule"     // index: NextAction, name
	bucketExpiry       = "expiry"       // index: first expiry of what is served, name
	bucketRows         = "rows"         // name -> storedRow
	bucketRevisions    = "revisions"    // index: revision -> name, of rows
	bucketRemovals     = "removals"     // revision -> name, of removed rows
	bucketEvents       = "events"       // sequence -> wire.Event
	bucketKinds        = "event_kinds"  // index: kind, sequence
	bucketSubjects     = "event_newest" // index: kind, certificate -> newest sequence
	bucketOrders       = "orders"       // id -> Order
	bucketCollected    = "collected"    // ids whose results the coordinator need not send again
	bucketIssuers      = "issuers"      // name -> its own JSON
	bucketAssignments  = "assignments"  // name -> wire.Assignment
	bucketCommands     = "commands"     // id -> Command
)

// bucketRemoved holds what is kept of certificates that are not configured any
// more: name -> Removed. It is not one of buckets: it is made when it is needed,
// so that earlier versions, which do not know it, can still open the file.
const bucketRemoved = "removed"

// bucketAccepted holds the definitions of assignments that are in force: name ->
// wire.Assignment. It is made when it is needed, for the same reason.
const bucketAccepted = "accepted"

var buckets = []string{bucketMeta, bucketCertificates, bucketSchedule, bucketExpiry, bucketRows, bucketRevisions,
	bucketRemovals, bucketEvents, bucketKinds, bucketSubjects, bucketOrders, bucketCollected, bucketIssuers, bucketAssignments, bucketCommands}

// Keys of bucketMeta. Magic and schema are read before anything else is known
// about the file, so their form is the same in every schema.
const (
	metaMagic    = "magic"
	metaSchema   = "schema"
	metaInstance = "instance"
	metaCreated  = "created"
	metaCounters = "counters"
	metaSync     = "sync"
	metaIdentity = "identity"
	metaClock    = "clock"
	metaTurns    = "turns"
	metaDesired  = "desired"
)

const magic = "certctl-agent state"

// counters is what every write that touches inventory or outbox moves on.
type counters struct {
	Revision uint64      `json:"revision"` // newest given to a row or removal
	Digest   wire.Digest `json:"digest"`   // of all rows
	Event    uint64      `json:"event"`    // newest given to an event
	Dropped  uint64      `json:"dropped"`  // facts coalesced or dropped, ever
	// Outbox counts the events that wait, by kind.
	Outbox map[wire.EventKind]int `json:"outbox,omitempty"`
}

func (c *counters) waiting() int {
	n := 0
	for _, count := range c.Outbox {
		n += count
	}
	return n
}

// storedRow is one row of the inventory.
type storedRow struct {
	Revision uint64          `json:"revision"`
	Data     json.RawMessage `json:"data"`
}

func (r storedRow) row(name string) wire.Row {
	return wire.Row{Name: name, Revision: r.Revision, Data: r.Data}
}

// initialise fills a new file.
func initialise(tx *bolt.Tx, version uint64, now time.Time) error {
	for _, name := range buckets {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	created, err := json.Marshal(now)
	if err != nil {
		return err
	}
	empty, err := json.Marshal(counters{})
	if err != nil {
		return err
	}
	return errors.Join(
		sealMeta(tx, metaMagic, []byte(magic)),
		sealMeta(tx, metaSchema, numberKey(version)),
		sealMeta(tx, metaInstance, []byte(randomID())),
		sealMeta(tx, metaCreated, created),
		sealMeta(tx, metaCounters, empty),
	)
}

func sealMeta(tx *bolt.Tx, key string, payload []byte) error {
	return tx.Bucket([]byte(bucketMeta)).Put([]byte(key), seal(bucketMeta, []byte(key), payload))
}

// unsealMeta returns nil for a key that is not there.
func unsealMeta(tx *bolt.Tx, key string) ([]byte, error) {
	value := tx.Bucket([]byte(bucketMeta)).Get([]byte(key))
	if value == nil {
		return nil, nil
	}
	payload, err := unseal(bucketMeta, []byte(key), value)
	return bytes.Clone(payload), err
}

// schemaOf also decides whether the file is ours at all.
func schemaOf(tx *bolt.Tx) (uint64, error) {
	if tx.Bucket([]byte(bucketMeta)) == nil {
		return 0, fmt.Errorf("%w: it is a bbolt file of another program", ErrForeign)
	}
	mark := tx.Bucket([]byte(bucketMeta)).Get([]byte(metaMagic))
	if mark == nil {
		return 0, fmt.Errorf("%w: it is a bbolt file of another program", ErrForeign)
	}
	if text, err := unseal(bucketMeta, []byte(metaMagic), mark); err != nil || string(text) != magic {
		return 0, fmt.Errorf("%w: it is a bbolt file of another program", ErrForeign)
	}
	version, err := unsealMeta(tx, metaSchema)
	if err != nil {
		return 0, err
	}
	if len(version) != 8 {
		return 0, damage("the schema version is missing")
	}
	return binary.BigEndian.Uint64(version), nil
}

func loadCounters(tx *bolt.Tx) (counters, error) {
	var c counters
	value := tx.Bucket([]byte(bucketMeta)).Get([]byte(metaCounters))
	if value == nil {
		return c, damage("the counters are missing")
	}
	err := decode(bucketMeta, []byte(metaCounters), value, &c)
	return c, err
}

// openError classifies an error of bolt.Open, whose own kinds do not tell a
// damaged file from one that was never bbolt's.
func (s *source) openError(err error) error {
	if errors.Is(err, berrors.ErrTimeout) {
		return s.locked()
	}
	if durable.IsFull(err) || durable.IsReadOnly(err) {
		return s.access(err) // what a new file got is no file yet, and nobody's damage
	}
	if found := s.checkFile(); found != nil {
		return found
	}
	return s.access(err)
}

// quoteKey prints a key of a bucket, which may be text, a number or both.
func quoteKey(key []byte) string {
	const longest = 64
	if len(key) > longest {
		return fmt.Sprintf("%q...", key[:longest])
	}
	return fmt.Sprintf("%q", key)
}
