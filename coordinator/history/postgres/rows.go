package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/trail"
)

// columns of certctl.facts, in the order of row and readRow.
var columns = []string{"log_index", "ordinal", "audited", "time", "nanos", "kind", "actor", "object", "agent", "detail", "audit",
	"before", "after", "prev", "hash"}

// factRows gives facts to COPY.
type factRows struct {
	facts []fleet.Fact
	next  int
	row   [15]any
}

func (r *factRows) Next() bool { r.next++; return r.next <= len(r.facts) }
func (r *factRows) Err() error { return nil }

func (r *factRows) Values() ([]any, error) {
	f := &r.facts[r.next-1]
	at, nanos := instant(f.Time)
	r.row = [15]any{
		int64(f.Index), int32(f.Ordinal), f.Audit > 0, at, nanos,
		text(string(f.Kind)), text(f.Actor), text(f.Object), text(f.Agent), detail(f.Detail), int64(f.Audit),
		detail(f.Before), detail(f.After), nil, nil,
	}
	if !f.Hash.IsZero() {
		r.row[13], r.row[14] = f.Prev[:], f.Hash[:]
	}
	return r.row[:], nil
}

// instant is a time as the table has it, in two columns.
func instant(t time.Time) (at time.Time, nanos int16) {
	nanos = int16(t.Nanosecond() % 1000)
	return t.UTC().Add(-time.Duration(nanos)), nanos
}

// text is a string as PostgreSQL can have it: all of UTF-8 but the zero octet.
func text(s string) string {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// maxDepth is how deep a detail may be nested to be stored as it is: the server's
// parser has a stack that ends.
const maxDepth = 100

// detail is the text of a fact's detail, nil for none. One that the server would
// refuse is stored as a JSON string with that text: no fact holds up the others.
func detail(raw json.RawMessage) any {
	if len(raw) == 0 {
		return nil
	}
	if json.Valid(raw) && depth(raw) <= maxDepth && bytes.IndexByte(raw, 0) < 0 {
		return string(raw)
	}
	quoted, err := json.Marshal(text(string(raw)))
	if err != nil {
		return `"it cannot be shown"` // text is valid UTF-8, which can always be quoted
	}
	return string(quoted)
}

// depth is how deep valid JSON is nested.
func depth(raw []byte) (deepest int) {
	level, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}', c == ']':
			level--
		}
	}
	return deepest
}

// readRow reads one row of a query for columns.
func readRow(row pgx.CollectableRow) (fleet.Fact, error) {
	var (
		f       fleet.Fact
		index   int64
		ordinal int32
		audited bool
		nanos   int16
		kind    string
		texts   [3]*string
		audit   int64
		hashes  [2][]byte
	)
	if err := row.Scan(&index, &ordinal, &audited, &f.Time, &nanos, &kind, &f.Actor, &f.Object, &f.Agent, &texts[0], &audit,
		&texts[1], &texts[2], &hashes[0], &hashes[1]); err != nil {
		return f, err
	}
	if index < 0 || ordinal < 0 || audit < 0 || nanos < 0 {
		return f, fmt.Errorf("%w: a number of fact %d.%d is negative", ErrForeign, index, ordinal)
	}
	f.Index, f.Ordinal, f.Kind, f.Audit = uint64(index), uint32(ordinal), fleet.Kind(kind), uint64(audit)
	f.Time = f.Time.UTC().Add(time.Duration(nanos))
	for i, part := range []*json.RawMessage{&f.Detail, &f.Before, &f.After} {
		if texts[i] != nil {
			*part = json.RawMessage(*texts[i])
		}
	}
	for i, hash := range []*trail.Hash{&f.Prev, &f.Hash} {
		if len(hashes[i]) != 0 && len(hashes[i]) != len(hash) {
			return f, fmt.Errorf("%w: a hash of fact %d.%d has %d octets", ErrForeign, index, ordinal, len(hashes[i]))
		}
		copy(hash[:], hashes[i])
	}
	return f, nil
}

// digest tells a fact from another one at the same place of another log. Every
// version of certctl makes the same; therefore the detail, which grows, is not in it.
func digest(f *fleet.Fact) []byte {
	sum := sha256.New()
	number := func(n uint64) { _, _ = sum.Write(binary.BigEndian.AppendUint64(nil, n)) } // never fails
	number(f.Index)
	number(uint64(f.Ordinal))
	number(uint64(f.Time.UnixNano()))
	number(f.Audit)
	for _, s := range []string{string(f.Kind), f.Actor, f.Object, f.Agent} {
		number(uint64(len(s)))
		_, _ = sum.Write([]byte(s))
	}
	return sum.Sum(nil)
}
