// Package historytest has the tests that everything has to pass which keeps history:
// the embedded journal, and a database.
package historytest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/trail"
)

// Start is the time of the first of Facts: the last minutes of a month.
var Start = time.Date(2026, 4, 30, 23, 30, 0, 0, time.UTC)

// Facts are some of a small log, with all that a fact may have in it, over the end of
// a month. Every entry has none to three.
func Facts(entries uint64) (facts []fleet.Fact) {
	audit, prev := uint64(0), trail.Hash{}
	for index := uint64(1); index <= entries; index++ {
		for ordinal := range uint32(index % 4) {
			f := fleet.Fact{
				Index: index, Ordinal: ordinal, Kind: fleet.Kind(fmt.Sprintf("k%d", index%5)), Actor: fmt.Sprintf("api_token:t%d", index%2),
				// Clocks of leaders differ: time does not always go on with the log.
				Time:  Start.Add(time.Duration(index)*time.Minute - time.Duration(index%3)*90*time.Second + 123456789),
				Agent: fmt.Sprintf("a%d", index%3), Object: fmt.Sprintf("o%d ❤ \"'\\\t\n", ordinal),
			}
			if ordinal > 0 {
				f.Detail = json.RawMessage(fmt.Sprintf(`{"z":%d,"a":[1,2, {"b":"\u00e9 \u0000 é\n\\"}],"z":1e400}`, index))
			}
			if (index+uint64(ordinal))%3 == 0 {
				audit++
				f.Audit = audit
				if audit > 5 { // of after the chain was begun
					f.Detail, f.Before = json.RawMessage(`{"why":"\"❤\""}`), json.RawMessage(fmt.Sprintf(`{"revision":%d}`, audit))
					if audit%2 == 0 {
						f.After = json.RawMessage(`{"x":null}`)
					}
					if f.Prev = prev; prev.IsZero() {
						f.Kind = fleet.KindAuditChainBegun
					}
					record := f.Record()
					hash, err := record.Sum()
					if err != nil {
						panic(err)
					}
					f.Hash, prev = hash, hash
				}
			}
			facts = append(facts, f)
		}
	}
	return facts
}

// TestReader checks that facts are read back as they were kept, in both directions,
// page by page, with any filter. keep makes a reader of facts, which is asked until
// the end of the test.
func TestReader(t *testing.T, keep func(t *testing.T, facts []fleet.Fact) history.Reader) {
	all := Facts(80)
	reader := keep(t, all)
	ctx := t.Context()

	t.Run("nothing", func(t *testing.T) {
		facts, next, err := reader.Facts(ctx, history.Query{Agent: "none"})
		require.NoError(t, err)
		assert.Empty(t, facts)
		assert.Empty(t, next)
	})
	t.Run("all", func(t *testing.T) {
		require.Equal(t, all, ReadAll(ctx, t, reader, history.Query{}))
	})
	t.Run("limits", func(t *testing.T) {
		facts, next, err := reader.Facts(ctx, history.Query{})
		require.NoError(t, err)
		require.Len(t, facts, history.DefaultLimit)
		require.Equal(t, history.Cursor(facts[history.DefaultLimit-1]), next, "cursors are the same everywhere")
		facts, next, err = reader.Facts(ctx, history.Query{Limit: len(all)})
		require.NoError(t, err)
		require.Len(t, facts, len(all))
		require.Empty(t, next, "nothing comes after the last one")
	})
	t.Run("a bound of time is exact", func(t *testing.T) {
		at := all[10].Time
		for _, q := range []history.Query{{Since: at}, {Since: at.Add(1)}, {Until: at}, {Until: at.Add(1)}, {Since: at, Until: at.Add(1)}, {Since: at, Until: at}} {
			require.Equal(t, filter(all, q), ReadAll(ctx, t, reader, q), "%+v", q)
		}
	})
	t.Run("cursors that are none", func(t *testing.T) {
		for _, cursor := range []string{"!!", "YWJj", strings.Repeat("A", 400), "////////////////"} {
			_, _, err := reader.Facts(ctx, history.Query{After: cursor})
			require.ErrorIs(t, err, history.ErrCursor, cursor)
		}
	})
	t.Run("filters", rapid.MakeCheck(func(t *rapid.T) {
		when := func(label string) time.Time {
			if rapid.Bool().Draw(t, "no "+label) {
				return time.Time{}
			}
			return Start.Add(time.Duration(rapid.IntRange(-5, 90).Draw(t, label)) * time.Minute)
		}
		q := history.Query{
			Limit: rapid.IntRange(1, 40).Draw(t, "limit"), NewestFirst: rapid.Bool().Draw(t, "newest first"), AuditOnly: rapid.Bool().Draw(t, "audit"),
			Agent:  rapid.SampledFrom([]string{"", "", "a1", "none"}).Draw(t, "agent"),
			Object: rapid.SampledFrom([]string{"", "", all[1].Object, "o1"}).Draw(t, "object"),
			Actor:  rapid.SampledFrom([]string{"", "", "api_token:t1"}).Draw(t, "actor"),
			Kinds:  rapid.SampledFrom([][]fleet.Kind{nil, nil, {"k1"}, {"k1", "k4", "none"}}).Draw(t, "kinds"),
			Since:  when("since"), Until: when("until"),
			From: rapid.SampledFrom([]uint64{0, 0, 0, 1, 2, 7, 8, 30, 100}).Draw(t, "from"),
		}
		require.Equal(t, filter(all, q), ReadAll(ctx, t, reader, q))
	}))
	t.Run("who does not wait gets nothing", func(t *testing.T) {
		gone, cancel := context.WithCancel(ctx)
		cancel()
		_, _, err := reader.Facts(gone, history.Query{})
		require.Error(t, err)
	})
}

// ReadAll reads page by page.
func ReadAll(ctx context.Context, t require.TestingT, reader history.Reader, q history.Query) (all []fleet.Fact) {
	for {
		page, next, err := reader.Facts(ctx, q)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), q.Limited())
		all = append(all, page...)
		if next == "" {
			return all
		}
		q.After = next
	}
}

// filter is what a query means.
func filter(all []fleet.Fact, q history.Query) (out []fleet.Fact) {
	for _, f := range all {
		if (!q.AuditOnly || f.Audit > 0) && (q.Agent == "" || f.Agent == q.Agent) && (q.Object == "" || f.Object == q.Object) &&
			(q.Actor == "" || f.Actor == q.Actor) && (q.Kinds == nil || slices.Contains(q.Kinds, f.Kind)) &&
			(q.Since.IsZero() || !f.Time.Before(q.Since)) && (q.Until.IsZero() || f.Time.Before(q.Until)) && (q.From == 0 || f.Audit >= q.From) {
			out = append(out, f)
		}
	}
	if q.NewestFirst {
		slices.Reverse(out)
	}
	return out
}
