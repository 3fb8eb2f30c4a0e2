package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/buildinfo"
)

// A source is what the answers of a read follow from, besides its path and query and
// the time: where none of it has changed, the answer has not. Entity tags are made of
// it before anything is looked up.
type source struct {
	tables []fleet.Table
	// contact says that answers tell which hosts are cut off.
	contact bool
	// journal says that answers are facts of the journal: of the audit trail alone
	// with this query, or all.
	journal func(query func(name string) string) (auditOnly bool)
}

const (
	sourceKey   = "source"
	untaggedKey = "untagged"
)

// shows marks a read whose answers have entity tags with the tables that they are made
// from.
func shows(op huma.Operation, tables ...fleet.Table) huma.Operation {
	op.Metadata[sourceKey] = &source{tables: tables}
	return op
}

// showsContact is shows for answers that also tell which hosts are cut off.
func showsContact(op huma.Operation, tables ...fleet.Table) huma.Operation {
	op.Metadata[sourceKey] = &source{tables: tables, contact: true}
	return op
}

// showsJournal marks a read whose answers are facts of the journal.
func showsJournal(op huma.Operation, auditOnly func(query func(name string) string) bool) huma.Operation {
	op.Metadata[sourceKey] = &source{journal: auditOnly}
	return op
}

// untagged marks a read whose answers have no entity tags, and says why.
func untagged(op huma.Operation, why string) huma.Operation {
	op.Metadata[untaggedKey] = why
	return op
}

func sourceOf(op *huma.Operation) *source {
	src, _ := op.Metadata[sourceKey].(*source)
	return src
}

// edition names everything that an answer follows from, but for the time, and for
// what the answer is encoded as.
type edition [sha256.Size]byte

// within is the source of answers to a token with a scope: which hosts are in it stands
// in the agents.
func (src *source) within(scope fleet.Scope) *source {
	if scope.IsZero() {
		return src
	}
	narrowed := *src
	narrowed.tables = append(slices.Clone(src.tables), fleet.TableAgents)
	return &narrowed
}

// editionOf makes the name. Of the token its scope is part of it: what an operation
// answers, it answers to everyone who may use it, and has the same scope.
func (s *server) editionOf(ctx *indexed, view *fleet.View, a *asked) edition {
	var buffer [1024]byte
	name := buffer[:0]
	text := func(text string) {
		name = binary.BigEndian.AppendUint32(name, uint32(len(text))) //nolint:gosec // of a request's header
		name = append(name, text...)
	}
	number := func(n uint64) { name = binary.BigEndian.AppendUint64(name, n) }
	// Another version of this program may show the same in other words; another
	// cluster may have come to the same index by another way.
	text(buildinfo.Version())
	text(buildinfo.Commit())
	text(s.Authority.ClusterID())
	if own, ok := view.ClusterCA(); ok {
		number(uint64(own.CreatedAt.UnixNano())) //nolint:gosec // a bit pattern, not a number
	}
	u := ctx.humaContext.URL()
	text(a.operation)
	text(u.Path)
	text(ctx.query.Encode()) // sorted by name
	if a.csv {
		text("csv")
	}
	number(view.Version(a.source.tables...))
	if a.source.contact {
		number(uint64(a.pause)) //nolint:gosec // a bit pattern, not a number
		hosts := s.connections.of(view, a.pause, a.Now)
		name = append(name, hosts[:]...)
	}
	text(a.journal)
	text(a.scope.String())
	return sha256.Sum256(name)
}

// A tag is so many octets: the moment up to which it is good, and as much of a
// hash.
const (
	tagMoment = 8
	tagHash   = 16
)

// tag is the entity tag of an answer. It holds the moment at which the answer will be
// another one although nothing is changed, so that whoever gets it back need not look
// for it: 0 is never.
func (e edition) tag(until int64, encoding string) string {
	sealed := binary.BigEndian.AppendUint64(make([]byte, 0, 128), uint64(until)) //nolint:gosec // a bit pattern, not a number
	sealed = append(append(sealed, e[:]...), encoding...)
	sum := sha256.Sum256(sealed)
	return `"` + base64.RawURLEncoding.EncodeToString(append(sealed[:tagMoment:tagMoment], sum[:tagHash]...)) + `"`
}

// good reports whether a tag that a client gives is that of the answer that it would
// get now, in one of the encodings.
func (e edition) good(tag string, now time.Time, encodings []string) bool {
	if len(tag) != 2+base64.RawURLEncoding.EncodedLen(tagMoment+tagHash) {
		return false
	}
	var raw [tagMoment + tagHash]byte
	if n, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(tag[1:len(tag)-1])); err != nil || n != len(raw) {
		return false
	}
	until := int64(binary.BigEndian.Uint64(raw[:])) //nolint:gosec // the bit pattern of tag
	if !goodAt(until, now) {
		return false
	}
	for _, encoding := range encodings {
		if e.tag(until, encoding) == tag {
			return true
		}
	}
	return false
}

// momentOf is a moment as tags hold it.
func momentOf(until time.Time) int64 {
	if until.IsZero() || until.Year() > 2200 {
		return 0 // not in this life
	}
	return until.UnixNano()
}

// goodAt reports whether an answer that is good until a moment is so now.
func goodAt(until int64, now time.Time) bool { return until == 0 || now.UnixNano() < until }

// check says whether an answer was made from its source alone.
func (src *source) check(p *picture) error {
	if table, ok := p.view.ReadOnly(src.tables); !ok {
		return fmt.Errorf("the answer was made from the table %s too", table)
	}
	if p.askedContact && !src.contact {
		return fmt.Errorf("the answer tells who is cut off")
	}
	return nil
}
