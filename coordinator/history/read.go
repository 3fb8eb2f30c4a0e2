package history

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/certctl/certctl/coordinator/fleet"
)

// Sizes of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// maxScan bounds the facts that one Read looks at, so that a filter that few
// facts pass cannot keep it busy; patience is how many it looks at before it asks
// again whether anybody still waits.
const (
	maxScan  = 50_000
	patience = 1000
)

// ErrCursor says that a cursor did not come from Read.
var ErrCursor = errors.New("the cursor is not one of the history; begin again without a cursor")

// A Reader lists facts, from wherever they are kept: [Journal.Facts] says how. The
// embedded journal is one, and so is the exporter of package postgres.
type Reader interface {
	Facts(ctx context.Context, q Query) (facts []fleet.Fact, next string, err error)
}

var _ Reader = (*Journal)(nil)

// Query says which facts are wanted. What is not set matches all.
type Query struct {
	After       string // cursor: Next of the page before; "" begins
	Limit       int    // 0 is DefaultLimit; more than MaxLimit is MaxLimit
	NewestFirst bool
	Kinds       []fleet.Kind // any of them
	Agent       string
	Object      string
	Actor       string
	// Since and Until bound the facts' own time; Until itself is outside. The order
	// is that of the log all the same, which clocks may disagree with a little.
	Since, Until time.Time
	AuditOnly    bool
	// From leaves the facts of the audit trail from a number on, and no others; 0 is all.
	From uint64
	// Of says whether a fact about an agent is wanted, and nothing that is about none is;
	// nil: any. The journal alone can be asked so.
	Of func(agent string) bool
}

// Limited is the size of a page that the query asks for.
func (q Query) Limited() int {
	if q.Limit <= 0 {
		return DefaultLimit
	}
	return min(q.Limit, MaxLimit)
}

// Read is Facts for a caller who waits for the answer in any case.
func (j *Journal) Read(q Query) (facts []fleet.Fact, next string, err error) {
	return j.Facts(context.Background(), q)
}

// Facts lists facts in the order of the log. next continues the list; it is ""
// at the end, as it is now. A page may be short, or empty, and have a next one.
func (j *Journal) Facts(ctx context.Context, q Query) (facts []fleet.Fact, next string, err error) {
	after, err := readCursor(q.After)
	if err != nil {
		return nil, "", err
	}
	limit := q.Limited()
	err = j.view(func(b buckets) error {
		if q.From > 0 && after == nil && !q.NewestFirst {
			if after, err = b.beforeAudit(q.From); err != nil {
				return err
			}
		}
		walk := newMerge(b, q, after)
		var last []byte
		for scanned := 0; ; scanned++ {
			if scanned%patience == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			k, v := walk.next()
			if k == nil {
				return nil
			}
			if len(facts) == limit || scanned == maxScan {
				next = base64.RawURLEncoding.EncodeToString(last)
				return nil
			}
			fact, err := decodeFact(v)
			if err != nil {
				return err
			}
			last = slices.Clone(k)
			if q.matches(fact) {
				facts = append(facts, fact)
			}
		}
	})
	if err != nil {
		return nil, "", fmt.Errorf("journal %s: read: %w", j.config.Path, err)
	}
	return facts, next, nil
}

// Bounds are the oldest and newest log index that the journal has facts of,
// both 0 if it has none.
func (j *Journal) Bounds() (first, last uint64, err error) {
	err = j.view(func(b buckets) error {
		for _, bucket := range []*bbolt.Bucket{b.routine, b.audit} {
			cursor := bucket.Cursor()
			if k, _ := cursor.First(); len(k) == factKeyLen {
				index := binary.BigEndian.Uint64(k)
				if first == 0 || index < first {
					first = index
				}
			}
			if k, _ := cursor.Last(); len(k) == factKeyLen {
				last = max(last, binary.BigEndian.Uint64(k))
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("journal %s: bounds: %w", j.config.Path, err)
	}
	return first, last, nil
}

func (q Query) matches(f fleet.Fact) bool {
	return (len(q.Kinds) == 0 || slices.Contains(q.Kinds, f.Kind)) &&
		(q.Agent == "" || f.Agent == q.Agent) &&
		(q.Of == nil || f.Agent != "" && q.Of(f.Agent)) &&
		(q.Object == "" || f.Object == q.Object) &&
		(q.Actor == "" || f.Actor == q.Actor) &&
		(q.Since.IsZero() || !f.Time.Before(q.Since)) &&
		(q.Until.IsZero() || f.Time.Before(q.Until)) &&
		(q.From == 0 || f.Audit >= q.From)
}

// Cursor is what continues a list after a fact, in every place that keeps history.
func Cursor(f fleet.Fact) string { return base64.RawURLEncoding.EncodeToString(factKey(f)) }

// Position is where a cursor continues: after the fact of this index and ordinal.
func Position(cursor string) (index uint64, ordinal uint32, err error) {
	key, err := readCursor(cursor)
	if err != nil || key == nil {
		return 0, 0, err
	}
	return binary.BigEndian.Uint64(key), binary.BigEndian.Uint32(key[8:]), nil
}

func readCursor(cursor string) ([]byte, error) {
	if cursor == "" {
		return nil, nil
	}
	key, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(key) != factKeyLen {
		return nil, ErrCursor
	}
	return key, nil
}

// A merge goes along several buckets at once, in the order of their keys.
type merge struct {
	arms    []*arm
	reverse bool
}

type arm struct {
	cursor *bbolt.Cursor
	k, v   []byte
}

func newMerge(b buckets, q Query, after []byte) *merge {
	m := &merge{reverse: q.NewestFirst}
	sources := []*bbolt.Bucket{b.audit}
	if !q.AuditOnly {
		sources = append(sources, b.routine)
	}
	for _, bucket := range sources {
		a := &arm{cursor: bucket.Cursor()}
		a.k, a.v = a.begin(after, m.reverse)
		m.arms = append(m.arms, a)
	}
	return m
}

// beforeAudit is a place before the first fact of the audit trail that has a number or a
// later one, and behind nearly all others: their numbers go along with their keys.
func (b buckets) beforeAudit(number uint64) ([]byte, error) {
	cursor := b.audit.Cursor()
	k, _ := cursor.Last()
	if len(k) != factKeyLen {
		return nil, nil
	}
	// The first log index from which on there are only such, if any.
	low, high := uint64(0), binary.BigEndian.Uint64(k)
	for low < high {
		middle := low + (high-low)/2
		_, v := cursor.Seek(indexKey(middle))
		fact, err := decodeFact(v)
		if err != nil {
			return nil, err
		}
		if fact.Audit < number {
			low = middle + 1
		} else {
			high = middle
		}
	}
	// Facts of one entry are together: those before the number are looked at.
	if low == 0 {
		return nil, nil
	}
	return indexEnd(low - 1), nil
}

// begin goes to the first key beyond after.
func (a *arm) begin(after []byte, reverse bool) (k, v []byte) {
	switch {
	case after == nil && reverse:
		return a.cursor.Last()
	case after == nil:
		return a.cursor.First()
	}
	k, v = a.cursor.Seek(after) // the first key not below after
	switch {
	case reverse && k == nil:
		return a.cursor.Last()
	case reverse:
		return a.cursor.Prev()
	case string(k) == string(after):
		return a.cursor.Next()
	}
	return k, v
}

// next takes the next fact of all arms; k is nil at the end.
func (m *merge) next() (k, v []byte) {
	var first *arm
	for _, a := range m.arms {
		if a.k == nil {
			continue
		}
		if first == nil || (string(a.k) < string(first.k)) != m.reverse {
			first = a
		}
	}
	if first == nil {
		return nil, nil
	}
	k, v = first.k, first.v
	if m.reverse {
		first.k, first.v = first.cursor.Prev()
	} else {
		first.k, first.v = first.cursor.Next()
	}
	return k, v
}
