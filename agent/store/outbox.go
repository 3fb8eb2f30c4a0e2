package store

import (
	"bytes"
	"fmt"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/wire"
)

// Dropped is a fact that a full outbox could not keep on its own.
type Dropped struct {
	Kind        wire.EventKind
	Certificate string
	// Coalesced is true when the fact went into the next one of its kind and
	// certificate, whose Count says so, and false when it is gone.
	Coalesced bool
}

// Append puts a fact into the outbox that belongs to no change of a record.
func (s *Store) Append(e wire.Event) error {
	return s.write(commitEvent, func(c *change) error { return c.emit([]wire.Event{e}) })
}

// Events returns the oldest facts in the outbox, at most limit (all if limit is
// 0 or less), oldest first. They stay until AckEvents.
func (s *Store) Events(limit int) ([]wire.Event, error) {
	var list []wire.Event
	err := s.view(func(tx *bolt.Tx) error {
		cursor := tx.Bucket([]byte(bucketEvents)).Cursor()
		for key, value := cursor.First(); key != nil && (limit <= 0 || len(list) < limit); key, value = cursor.Next() {
			var e wire.Event
			if err := decode(bucketEvents, key, value, &e); err != nil {
				return err
			}
			list = append(list, e)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(list) > 0 {
		newest := list[len(list)-1].Sequence
		for old := s.handedOut.Load(); old < newest && !s.handedOut.CompareAndSwap(old, newest); {
			old = s.handedOut.Load()
		}
	}
	return list, nil
}

// AckEvents deletes the facts up to and including that sequence number. When the
// coordinator knows higher numbers than were ever given here, which happens
// after the state file was restored from an old copy, the following facts get
// numbers above it, or they would be taken for repetitions.
func (s *Store) AckEvents(upto uint64) error {
	if upto > maxCounter {
		return fmt.Errorf("acknowledged event %d is beyond any possible one; check the coordinator", upto)
	}
	return s.write(commitEventsAcked, func(c *change) error {
		cursor := c.tx.Bucket([]byte(bucketEvents)).Cursor()
		var acked []wire.Event
		for key, value := cursor.First(); key != nil; key, value = cursor.Next() {
			var e wire.Event
			if err := decode(bucketEvents, key, value, &e); err != nil {
				return err
			}
			if e.Sequence > upto {
				break
			}
			acked = append(acked, e)
		}
		for _, e := range acked {
			if err := c.takeOut(e); err != nil {
				return err
			}
		}
		if upto > c.counters.Event {
			c.counters.Event = upto
			c.dirty = true
		}
		return nil
	})
}

// EventsDropped counts the facts that a full outbox coalesced or dropped since
// the file was created. Each fact that was ever given to the store was either
// acknowledged, is in the outbox, or is counted here.
func (s *Store) EventsDropped() (uint64, error) {
	var c counters
	err := s.view(func(tx *bolt.Tx) (err error) {
		c, err = loadCounters(tx)
		return err
	})
	return c.Dropped, err
}

// Outbox counts the facts that wait for the coordinator, and is EventsDropped.
func (s *Store) Outbox() (waiting int, dropped uint64, err error) {
	var c counters
	err = s.view(func(tx *bolt.Tx) (err error) {
		c, err = loadCounters(tx)
		return err
	})
	return c.waiting(), c.Dropped, err
}

// emit puts facts into the outbox in their order.
func (c *change) emit(events []wire.Event) error {
	for _, e := range events {
		if err := checkEvent(e); err != nil {
			return err
		}
		e.Count = 0
		e.Detail = cutText(e.Detail, wire.MaxTextLen)
		if e.At.IsZero() {
			e.At = c.store.now()
		}
		if err := c.makeRoom(&e); err != nil {
			return err
		}
		c.counters.Event++
		e.Sequence = c.counters.Event
		if err := c.putIn(e); err != nil {
			return err
		}
	}
	return nil
}

func checkEvent(e wire.Event) error {
	if err := checkName("kind of event", string(e.Kind)); err != nil {
		return err
	}
	if e.Reason != "" && !wire.ValidReason(e.Reason) {
		return fmt.Errorf("reason of event %q is no word; this is a bug, report it", e.Reason)
	}
	for what, name := range map[string]string{"certificate name": e.Certificate, "issuer name": e.Issuer} {
		if name == "" {
			continue
		}
		if err := checkName(what, name); err != nil {
			return err
		}
	}
	return nil
}

// makeRoom keeps the outbox within its limit. The newest fact of e's kind and
// certificate goes into e if there is one: the coordinator learns the latest and
// how many there were. Otherwise the oldest fact of the kind that fills the
// outbox goes, so that a flood of one kind does not wash the others out.
func (c *change) makeRoom(e *wire.Event) error {
	for c.counters.waiting() >= c.store.outboxLimit {
		victim, err := c.newest(e.Kind, e.Certificate)
		if err != nil {
			return err
		}
		coalesced := victim != nil && victim.Sequence > c.store.handedOut.Load() && e.Count == 0
		if coalesced {
			e.Count = max(victim.Count, 1) + 1
		} else if victim, err = c.oldest(c.fullest()); err != nil {
			return err
		}
		if err := c.takeOut(*victim); err != nil {
			return err
		}
		c.counters.Dropped++
		c.dropped = append(c.dropped, Dropped{Kind: victim.Kind, Certificate: victim.Certificate, Coalesced: coalesced})
	}
	return nil
}

// fullest is the most frequent kind in the outbox, the first by name of several.
func (c *change) fullest() wire.EventKind {
	var most wire.EventKind
	for kind, count := range c.counters.Outbox {
		if n := c.counters.Outbox[most]; count > n || count == n && kind < most {
			most = kind
		}
	}
	return most
}

func (c *change) putIn(e wire.Event) error {
	if c.counters.Outbox == nil {
		c.counters.Outbox = map[wire.EventKind]int{}
	}
	c.counters.Outbox[e.Kind]++
	if err := c.putJSON(bucketEvents, numberKey(e.Sequence), e); err != nil {
		return err
	}
	if err := c.put(bucketKinds, kindKey(e.Kind, e.Sequence), nil); err != nil {
		return err
	}
	return c.put(bucketSubjects, subjectKey(e.Kind, e.Certificate), numberKey(e.Sequence))
}

// takeOut is only called for the oldest fact of a kind or the newest of a
// subject: so the entry of its subject is either its own, and goes, or that of a
// newer one.
func (c *change) takeOut(e wire.Event) error {
	if c.counters.Outbox[e.Kind]--; c.counters.Outbox[e.Kind] <= 0 {
		delete(c.counters.Outbox, e.Kind)
	}
	number := numberKey(e.Sequence)
	if err := c.remove(bucketEvents, number); err != nil {
		return err
	}
	if err := c.remove(bucketKinds, kindKey(e.Kind, e.Sequence)); err != nil {
		return err
	}
	subject := subjectKey(e.Kind, e.Certificate)
	if !bytes.Equal(c.get(bucketSubjects, subject), number) {
		return nil
	}
	return c.remove(bucketSubjects, subject)
}

// newest is the newest waiting fact of that kind about that certificate, or nil.
func (c *change) newest(kind wire.EventKind, certificate string) (*wire.Event, error) {
	number := c.get(bucketSubjects, subjectKey(kind, certificate))
	if number == nil {
		return nil, nil
	}
	return c.event(number)
}

// oldest is the oldest waiting fact of that kind, of which there is one.
func (c *change) oldest(kind wire.EventKind) (*wire.Event, error) {
	prefix := kindKey(kind, 0)
	prefix = prefix[:len(prefix)-8]
	key, _ := c.tx.Bucket([]byte(bucketKinds)).Cursor().Seek(prefix)
	if !bytes.HasPrefix(key, prefix) {
		return nil, damage("the outbox counts facts of kind %q that it does not hold", kind)
	}
	return c.event(key[len(prefix):])
}

func (c *change) event(number []byte) (*wire.Event, error) {
	e, err := getJSON[wire.Event](c.tx, bucketEvents, number)
	if err == nil && e == nil {
		err = damage("the outbox lists event %s that it does not hold", quoteKey(number))
	}
	return e, err
}

// Kinds and names hold no control characters, so that a zero octet ends them.
func kindKey(kind wire.EventKind, sequence uint64) []byte {
	return append([]byte(string(kind)+"\x00"), numberKey(sequence)...)
}

func subjectKey(kind wire.EventKind, certificate string) []byte {
	return []byte(string(kind) + "\x00" + certificate)
}

// cutText shortens text to at most limit octets without splitting a character.
func cutText(text string, limit int) string {
	const mark = "..."
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	text = text[:max(0, limit-len(mark))]
	return strings.ToValidUTF8(text, "") + mark
}
