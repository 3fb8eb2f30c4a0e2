package trail

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Hash is that of a fact, and of all facts before it.
type Hash [sha256.Size]byte

// IsZero reports whether there is none: a fact of before the chain has no hash, and
// the first one of the chain has none before it.
func (h Hash) IsZero() bool { return h == Hash{} }

// String is lower-case hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(text []byte) error {
	parsed, err := ParseHash(string(text))
	if err == nil {
		*h = parsed
	}
	return err
}

var errHash = errors.New("expected 64 lower-case hexadecimal digits")

// ParseHash reads what String writes.
func ParseHash(text string) (h Hash, err error) {
	if len(text) != 2*len(h) || strings.ToLower(text) != text {
		return Hash{}, errHash
	}
	if _, err := hex.Decode(h[:], []byte(text)); err != nil {
		return Hash{}, errHash
	}
	return h, nil
}

// A Record is a fact of the audit trail as the chain covers it.
type Record struct {
	Number  uint64 // in the trail, from 1
	Index   uint64 // of the log entry
	Ordinal uint32 // within the entry
	Time    time.Time
	Kind    string
	Actor   string
	Object  string
	Agent   string
	// Detail, Before and After are JSON, empty where there is none. Their meaning is
	// covered, and not how it is written down: see [Canonical].
	Detail, Before, After json.RawMessage

	Prev Hash // of the fact before; zero for the first one of the chain
	Hash Hash // zero for a fact of before the chain
}

// prefix begins what is hashed, so that it is nothing else that anybody hashes.
const prefix = "certctl audit 1\n"

// Sum is the hash that the record has to have: SHA-256 over the prefix, the hash of the
// fact before, and each field behind its length in 8 octets, the most significant
// first. An error says that a field has no canonical form.
func (r *Record) Sum() (Hash, error) {
	fields := []string{
		strconv.FormatUint(r.Number, 10), strconv.FormatUint(r.Index, 10), strconv.FormatUint(uint64(r.Ordinal), 10),
		r.Time.UTC().Format(time.RFC3339Nano), r.Kind, r.Actor, r.Object, r.Agent,
	}
	for _, part := range []struct {
		name string
		json json.RawMessage
	}{{"detail", r.Detail}, {"before", r.Before}, {"after", r.After}} {
		text, err := Canonical(part.json)
		if err != nil {
			return Hash{}, fmt.Errorf("%s: %w", part.name, err)
		}
		fields = append(fields, string(text))
	}
	content := append([]byte(prefix), r.Prev[:]...)
	for _, field := range fields {
		content = binary.BigEndian.AppendUint64(content, uint64(len(field)))
		content = append(content, field...)
	}
	return sha256.Sum256(content), nil
}
