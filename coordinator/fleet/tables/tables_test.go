package tables_test

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet/tables"
)

type thing struct {
	id, color string
	tags      []string
	number    int
}

func idKey(r any) [][]byte { return [][]byte{[]byte(r.(*thing).id + "\x00\x01")} }

var schema = tables.Schema{
	{Name: "things", Indexes: []tables.Index{
		{Name: "id", Keys: idKey},
		{Name: "color", Keys: func(r any) [][]byte {
			x := r.(*thing)
			if x.color == "" {
				return nil
			}
			return [][]byte{[]byte(x.color + "\x00\x01" + x.id + "\x00\x01")}
		}},
		{Name: "tag", Keys: func(r any) (keys [][]byte) {
			x := r.(*thing)
			for _, tag := range x.tags {
				keys = append(keys, []byte(tag+"\x00\x01"+x.id+"\x00\x01"))
			}
			return keys
		}},
		{Name: "backwards", Whole: true, Keys: func(r any) [][]byte {
			b := []byte(r.(*thing).id)
			slices.Reverse(b)
			return [][]byte{b}
		}},
	}},
	{Name: "others", Indexes: []tables.Index{{Name: "id", Keys: idKey}}},
}

// A model is the records by id, and their keys in order found the slow way.
type model map[string]*thing

func (m model) list(index int, keep func(k string) bool) []any {
	type found struct {
		key    string
		record any
	}
	var all []found
	for _, x := range m {
		for _, k := range schema[0].Indexes[index].Keys(x) {
			if keep(string(k)) {
				all = append(all, found{string(k), x})
			}
		}
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(a.key, b.key) })
	var records []any
	for _, f := range all {
		records = append(records, f.record)
	}
	return records
}

func (m model) clone() model {
	copied := model{}
	for id, x := range m {
		copied[id] = x
	}
	return copied
}

func all(it *tables.Iterator) []any {
	var list []any
	for record := it.Next(); record != nil; record = it.Next() {
		list = append(list, record)
	}
	return list
}

type testingT interface {
	require.TestingT
	Helper()
}

// same compares tables with the model by every way to read them.
func (m model) same(t testingT, x *tables.Txn, probe string) {
	t.Helper()
	for i, index := range schema[0].Indexes {
		require.Equal(t, m.list(i, func(string) bool { return true }), all(x.Scan("things", index.Name, nil)), index.Name)
		prefixed := m.list(i, func(k string) bool { return strings.HasPrefix(k, probe) })
		require.Equal(t, prefixed, all(x.Scan("things", index.Name, []byte(probe))), "%s with prefix %q", index.Name, probe)
		var first any
		if len(prefixed) > 0 {
			first = prefixed[0]
		}
		require.Equal(t, first, x.FirstPrefix("things", index.Name, []byte(probe)))
		require.Equal(t, m.list(i, func(k string) bool { return k >= probe }), all(x.ScanFrom("things", index.Name, []byte(probe))), "%s from %q", index.Name, probe)
		back := m.list(i, func(k string) bool { return k < probe })
		slices.Reverse(back)
		require.Equal(t, back, all(x.ScanBack("things", index.Name, []byte(probe))), "%s below %q", index.Name, probe)
		back = m.list(i, func(string) bool { return true })
		slices.Reverse(back)
		require.Equal(t, back, all(x.ScanBack("things", index.Name, nil)), "%s back", index.Name)
		var exact any
		if list := m.list(i, func(k string) bool { return k == probe }); len(list) > 0 {
			exact = list[0]
		}
		require.Equal(t, exact, x.First("things", index.Name, []byte(probe)))
	}
}

// TestLikeAModel: whatever is inserted and deleted, tables hold what a plain map
// holds, in order; and what was committed, or is being read, does not change.
func TestLikeAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ids := rapid.IntRange(1, 4).Draw(rt, "digits")
		anID := func() string {
			// Ids that are prefixes of others, and colours that are too.
			n := rapid.IntRange(0, 300).Draw(rt, "id")
			return strings.Repeat("x", n%3) + fmt.Sprintf("%0*d", ids, n/3%100)
		}
		state, now := tables.New(schema), model{}
		type moment struct {
			state *tables.Tables
			model model
		}
		var moments []moment
		for range rapid.IntRange(1, 6).Draw(rt, "transactions") {
			txn, next := state.Write(), now.clone()
			for range rapid.IntRange(0, 80).Draw(rt, "changes") {
				switch rapid.IntRange(0, 9).Draw(rt, "what") {
				case 0, 1, 2:
					victim := &thing{id: anID()}
					if next[victim.id] == nil {
						require.Error(rt, txn.Delete("things", victim))
						continue
					}
					require.NoError(rt, txn.Delete("things", victim))
					delete(next, victim.id)
				case 3:
					// An iterator sees what was there when it was made.
					before, want := txn.Scan("things", "color", []byte("re")), next.list(1, func(k string) bool { return strings.HasPrefix(k, "re") })
					extra := &thing{id: anID(), color: "red"}
					require.NoError(rt, txn.Insert("things", extra))
					next[extra.id] = extra
					require.Equal(rt, want, all(before))
				default:
					x := &thing{
						id: anID(), color: rapid.SampledFrom([]string{"", "r", "red", "redder", "green"}).Draw(rt, "color"), number: len(next),
						tags: rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "ab"}), 0, 3, rapid.ID[string]).Draw(rt, "tags"),
					}
					require.NoError(rt, txn.Insert("things", x))
					next[x.id] = x
				}
			}
			next.same(rt, txn, rapid.SampledFrom([]string{"", "x", "r", "red", "red\x00\x01x", "zz", anID(), anID() + "\x00\x01"}).Draw(rt, "probe"))
			if rapid.Bool().Draw(rt, "thrown away") {
				continue
			}
			moments = append(moments, moment{state, now})
			state, now = txn.Commit(), next
		}
		for _, m := range append(moments, moment{state, now}) {
			m.model.same(rt, m.state.Read(), "red")
		}
	})
}

// TestLoaded: tables that are loaded in order hold what the same records make when
// they are inserted, and can be changed like those.
func TestLoaded(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now := model{}
		for range rapid.IntRange(0, 200).Draw(rt, "records") {
			x := &thing{
				id: fmt.Sprint(rapid.IntRange(0, 500).Draw(rt, "id")), color: rapid.SampledFrom([]string{"", "r", "red", "green"}).Draw(rt, "color"),
				tags: rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "ab"}), 0, 3, rapid.ID[string]).Draw(rt, "tags"),
			}
			now[x.id] = x
		}
		records := now.list(0, func(string) bool { return true })
		loader := tables.NewLoader(schema)
		for rest := records; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
			require.NoError(rt, loader.Add("things", rest[:n]))
			rest = rest[n:]
		}
		state := loader.Tables()
		now.same(rt, state.Read(), "r")
		txn, next := state.Write(), now.clone()
		for id, x := range now {
			if len(id)%2 == 0 {
				require.NoError(rt, txn.Delete("things", x))
				delete(next, id)
			} else {
				next[id] = &thing{id: id, color: "red"}
				require.NoError(rt, txn.Insert("things", next[id]))
			}
		}
		next.same(rt, txn.Commit().Read(), "r")
		now.same(rt, state.Read(), "r")
	})
	loader := tables.NewLoader(schema)
	require.NoError(t, loader.Add("things", []any{&thing{id: "b"}}))
	require.Error(t, loader.Add("things", []any{&thing{id: "a"}, &thing{id: "b"}}), "one id twice")
}

// TestManyRecords goes through all splits and joins: in order, backwards and in
// any order, in one transaction and in many.
func TestManyRecords(t *testing.T) {
	const count = 20_000
	for name, order := range map[string]func(i int) int{
		"in order": func(i int) int { return i }, "backwards": func(i int) int { return count - 1 - i }, "mixed": func(i int) int { return i * 7919 % count },
	} {
		t.Run(name, func(t *testing.T) {
			state, now := tables.New(schema), model{}
			check := func(state *tables.Tables) {
				for i, index := range schema[0].Indexes {
					got := all(state.Read().Scan("things", index.Name, nil))
					require.Len(t, got, len(now))
					require.True(t, sort.SliceIsSorted(got, func(a, b int) bool {
						return bytes.Compare(schema[0].Indexes[i].Keys(got[a])[0], schema[0].Indexes[i].Keys(got[b])[0]) < 0
					}), index.Name)
				}
			}
			txn := state.Write()
			for i := range count {
				x := &thing{id: fmt.Sprintf("%08d", order(i)), color: "red", tags: []string{fmt.Sprint(i)}, number: i}
				require.NoError(t, txn.Insert("things", x))
				now[x.id] = x
				if i%997 == 0 {
					state = txn.Commit()
					txn = state.Write()
				}
			}
			full := txn.Commit()
			check(full)
			for id, x := range now {
				require.Same(t, x, full.Read().First("things", "id", []byte(id+"\x00\x01")))
			}
			state = full
			kept := now.clone()
			for i := range count {
				txn := state.Write()
				id := fmt.Sprintf("%08d", order(i))
				require.NoError(t, txn.Delete("things", now[id]))
				delete(now, id)
				state = txn.Commit()
				if i%1999 == 0 {
					check(state)
				}
			}
			check(state)
			assert.Empty(t, all(state.Read().Scan("things", "id", nil)))
			now = kept
			check(full)
		})
	}
}

// TestReadersWhileWriting: readers see one moment each, without locks.
func TestReadersWhileWriting(t *testing.T) {
	state := tables.New(schema)
	states := make(chan *tables.Tables, 64)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for state := range states {
				read := state.Read()
				list := all(read.Scan("things", "id", nil))
				for _, record := range list {
					assert.Equal(t, record, read.First("things", "id", idKey(record)[0]))
				}
				assert.Len(t, all(read.Scan("things", "color", []byte("red"))), len(list))
			}
		})
	}
	for i := range 400 {
		txn := state.Write()
		for j := range 5 {
			assert.NoError(t, txn.Insert("things", &thing{id: fmt.Sprint(i * j % 300), color: "red"}))
		}
		state = txn.Commit()
		states <- state
	}
	close(states)
	readers.Wait()
}

func TestMistakesAreFound(t *testing.T) {
	state := tables.New(tables.Schema{{Name: "things", Indexes: []tables.Index{
		{Name: "id", Keys: idKey}, {Name: "color", Keys: func(r any) [][]byte { return [][]byte{[]byte(r.(*thing).color)} }},
	}}})
	require.ErrorContains(t, state.Write().Insert("things", &thing{id: "a", color: "red"}), "index color of things")
	assert.Panics(t, func() { state.Read().First("things", "none", nil) })
	assert.Panics(t, func() { state.Read().First("none", "id", nil) })
	assert.Panics(t, func() { _ = state.Read().Insert("things", &thing{}) })
}

// TestWritersThatAreThrownAway: any number of transactions may write on top of the
// same tables, while they are read; none sees what another has written, nor does
// who reads.
func TestWritersThatAreThrownAway(t *testing.T) {
	txn := tables.New(schema).Write()
	const count = 500
	for i := range count {
		require.NoError(t, txn.Insert("things", &thing{id: fmt.Sprint(i), color: "red"}))
	}
	state := txn.Commit()
	var running sync.WaitGroup
	for writer := range 4 {
		running.Go(func() {
			for range 20 {
				txn, mine := state.Write(), fmt.Sprint("writer", writer)
				for i := writer; i < count; i += 4 {
					assert.NoError(t, txn.Insert("things", &thing{id: fmt.Sprint(i), color: mine}))
				}
				assert.Len(t, all(txn.Scan("things", "color", []byte(mine))), count/4)
				assert.Len(t, all(txn.Scan("things", "color", []byte("red"))), count*3/4)
				assert.Len(t, all(state.Read().Scan("things", "color", []byte("red"))), count)
			}
		})
	}
	running.Wait()
}
