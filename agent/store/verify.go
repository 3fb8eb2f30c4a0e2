package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/wire"
)

// verify checks a whole file of the current schema: every value by its checksum
// and as JSON, and every index, counter and digest against what it is derived
// from. An index that is wrong would be a certificate that is never renewed.
func verify(tx *bolt.Tx) error {
	for _, name := range buckets {
		if tx.Bucket([]byte(name)) == nil {
			return damage("its part %q is missing", name)
		}
	}
	c, err := loadCounters(tx)
	if err != nil {
		return err
	}
	for _, check := range []func(*bolt.Tx, counters) error{verifyMeta, verifyCertificates, verifyInventory, verifyOutbox, verifyDesired, verifyRest} {
		if err := check(tx, c); err != nil {
			return err
		}
	}
	return nil
}

func verifyMeta(tx *bolt.Tx, _ counters) error {
	id, err := unsealMeta(tx, metaInstance)
	if err != nil {
		return err
	}
	if len(id) == 0 {
		return damage("its instance id is missing")
	}
	created, err := getJSON[time.Time](tx, bucketMeta, []byte(metaCreated))
	if err != nil {
		return err
	}
	if created == nil {
		return damage("the time of its creation is missing")
	}
	// Also under names that nobody asks for: a damaged name would otherwise be an
	// identity that was never there.
	err = tx.Bucket([]byte(bucketMeta)).ForEach(func(key, value []byte) error {
		_, err := unseal(bucketMeta, key, value)
		return err
	})
	if err != nil {
		return err
	}
	if _, err := getJSON[SyncState](tx, bucketMeta, []byte(metaSync)); err != nil {
		return err
	}
	if _, err := getJSON[map[string]Turns](tx, bucketMeta, []byte(metaTurns)); err != nil {
		return err
	}
	if _, err := getJSON[ClockMark](tx, bucketMeta, []byte(metaClock)); err != nil {
		return err
	}
	_, err = getJSON[Identity](tx, bucketMeta, []byte(metaIdentity))
	return err
}

func verifyCertificates(tx *bolt.Tx, _ counters) error {
	scheduled, serving, records := 0, 0, 0
	schedule, expiry, rows := tx.Bucket([]byte(bucketSchedule)), tx.Bucket([]byte(bucketExpiry)), tx.Bucket([]byte(bucketRows))
	err := tx.Bucket([]byte(bucketCertificates)).ForEach(func(key, value []byte) error {
		var record Certificate
		if err := decode(bucketCertificates, key, value, &record); err != nil {
			return err
		}
		if record.Name != string(key) {
			return damage("certificate %s is stored as %q", quoteKey(key), record.Name)
		}
		records++
		if !record.NextAction.IsZero() {
			scheduled++
			if !has(schedule, momentKey(record.NextAction, record.Name)) {
				return damage("certificate %q is missing in the schedule", record.Name)
			}
		}
		if end := record.serviceEnd(); !end.IsZero() {
			serving++
			if !has(expiry, momentKey(end, record.Name)) {
				return damage("certificate %q is missing in the index of expiries", record.Name)
			}
		}
		if !has(rows, key) {
			return damage("certificate %q has no row", record.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return errors.Join(
		verifyMarks(tx, bucketSchedule, scheduled),
		verifyMarks(tx, bucketExpiry, serving),
		verifyCount(tx, bucketRows, records),
	)
}

func verifyInventory(tx *bolt.Tx, c counters) error {
	var digest wire.Digest
	rows := 0
	revisions := tx.Bucket([]byte(bucketRevisions))
	err := tx.Bucket([]byte(bucketRows)).ForEach(func(key, value []byte) error {
		var row storedRow
		if err := decode(bucketRows, key, value, &row); err != nil {
			return err
		}
		rows++
		digest.Toggle(row.row(string(key)).Hash())
		if row.Revision == 0 || row.Revision > c.Revision || !bytes.Equal(revisions.Get(numberKey(row.Revision)), key) {
			return damage("row %s is not what its revision %d names", quoteKey(key), row.Revision)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if digest != c.Digest {
		return damage("the digest of the inventory does not match its rows")
	}
	if err := verifyCount(tx, bucketRevisions, rows); err != nil {
		return err
	}
	return tx.Bucket([]byte(bucketRemovals)).ForEach(func(key, value []byte) error {
		name, err := unseal(bucketRemovals, key, value)
		if err != nil {
			return err
		}
		revision, err := splitNumber(key)
		if err != nil || revision == 0 || revision > c.Revision || revisions.Get(key) != nil ||
			checkName("certificate name", string(name)) != nil || has(tx.Bucket([]byte(bucketRows)), name) {
			return damage("the removal %s of %s cannot be", quoteKey(key), quoteKey(name))
		}
		return nil
	})
}

func verifyOutbox(tx *bolt.Tx, c counters) error {
	kinds := tx.Bucket([]byte(bucketKinds))
	waiting := map[wire.EventKind]int{}
	newest := map[string][]byte{}
	err := tx.Bucket([]byte(bucketEvents)).ForEach(func(key, value []byte) error {
		var e wire.Event
		if err := decode(bucketEvents, key, value, &e); err != nil {
			return err
		}
		if !bytes.Equal(key, numberKey(e.Sequence)) || e.Sequence == 0 || e.Sequence > c.Event {
			return damage("event %s has the number %d", quoteKey(key), e.Sequence)
		}
		if !has(kinds, kindKey(e.Kind, e.Sequence)) {
			return damage("event %d is missing among those of its kind", e.Sequence)
		}
		waiting[e.Kind]++
		newest[string(subjectKey(e.Kind, e.Certificate))] = bytes.Clone(key)
		return nil
	})
	if err != nil {
		return err
	}
	total := 0
	for kind, count := range waiting {
		total += count
		if c.Outbox[kind] != count {
			return damage("the outbox counts %d facts of kind %q and holds %d", c.Outbox[kind], kind, count)
		}
	}
	if len(c.Outbox) != len(waiting) {
		return damage("the outbox counts facts of kinds that it does not hold")
	}
	for subject, sequence := range newest {
		if !bytes.Equal(tx.Bucket([]byte(bucketSubjects)).Get([]byte(subject)), sequence) {
			return damage("the newest event of %q is not the one that is listed", subject)
		}
	}
	if err := verifyCount(tx, bucketSubjects, len(newest)); err != nil {
		return err
	}
	return verifyMarks(tx, bucketKinds, total)
}

func verifyRest(tx *bolt.Tx, _ counters) error {
	if err := eachRemoved(tx, func(*Removed) error { return nil }); err != nil {
		return err
	}
	err := tx.Bucket([]byte(bucketOrders)).ForEach(func(key, value []byte) error {
		var order Order
		if err := decode(bucketOrders, key, value, &order); err != nil {
			return err
		}
		if order.Request.ID != string(key) {
			return damage("order %s is stored as %q", quoteKey(key), order.Request.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = tx.Bucket([]byte(bucketCollected)).ForEach(func(key, value []byte) error {
		_, err := unseal(bucketCollected, key, value)
		return err
	})
	if err != nil {
		return err
	}
	return tx.Bucket([]byte(bucketIssuers)).ForEach(func(key, value []byte) error {
		payload, err := unseal(bucketIssuers, key, value)
		if err == nil && !json.Valid(payload) {
			err = damage("the state of issuer %s is not JSON", quoteKey(key))
		}
		return err
	})
}

// has reports whether a key is there; the value of an index entry is empty.
func has(b *bolt.Bucket, key []byte) bool {
	found, _ := b.Cursor().Seek(key)
	return bytes.Equal(found, key)
}

// verifyMarks counts the entries of an index whose keys say all.
func verifyMarks(tx *bolt.Tx, bucket string, want int) error {
	err := tx.Bucket([]byte(bucket)).ForEach(func(key, value []byte) error {
		if len(value) > 0 {
			return damage("%s %s has a value, which nothing here gave it", bucket, quoteKey(key))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return verifyCount(tx, bucket, want)
}

func verifyCount(tx *bolt.Tx, bucket string, want int) error {
	count := 0
	err := tx.Bucket([]byte(bucket)).ForEach(func(_, _ []byte) error {
		count++
		return nil
	})
	if err != nil {
		return err
	}
	if count != want {
		return damage("%s has %d entries instead of %d", bucket, count, want)
	}
	return nil
}
