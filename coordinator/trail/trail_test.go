package trail_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/trail"
)

var began = time.Date(2026, 5, 1, 12, 0, 0, 123456789, time.UTC)

// whole makes a trail of facts of which the first are of before the chain.
func whole(t require.TestingT, facts, before int) []trail.Record {
	var list []trail.Record
	var prev trail.Hash
	for i := range facts {
		r := trail.Record{
			Number: uint64(i + 1), Index: uint64(10 + i/2), Ordinal: uint32(i % 2), Time: began.Add(time.Duration(i) * time.Second),
			Kind: "assignment.changed", Actor: "api_token:7f3k", Object: fmt.Sprintf("www-%d", i), Agent: "u53n5nbgbmcuo7ob",
			Detail: json.RawMessage(fmt.Sprintf(`{"revision":%d}`, i)),
			Before: json.RawMessage(`{"selector":"env=prod"}`), After: json.RawMessage(`{"selector":"env=test","tags":["a","ü"]}`),
		}
		if i == before {
			r.Kind, r.Before, r.After = trail.KindBegun, nil, nil
		}
		if i >= before {
			r.Prev = prev
			hash, err := r.Sum()
			require.NoError(t, err)
			r.Hash, prev = hash, hash
		}
		list = append(list, r)
	}
	return list
}

func verify(from uint64, facts []trail.Record, anchors ...trail.Anchor) *trail.Report {
	v := trail.NewVerifier(from, anchors...)
	for _, f := range facts {
		v.Add(f)
	}
	return v.End()
}

func anchor(r trail.Record) trail.Anchor {
	return trail.Anchor{Number: r.Number, Hash: r.Hash, From: "a note"}
}

type finding struct {
	fault       trail.Fault
	first, last uint64
}

func findings(r *trail.Report) (list []finding) {
	for _, b := range r.Breaks {
		list = append(list, finding{b.Fault, b.Number, b.Last})
	}
	return list
}

func TestAWholeTrail(t *testing.T) {
	facts := whole(t, 9, 2)
	report := verify(1, facts, anchor(facts[8]), anchor(facts[4]))
	assert.Equal(t, &trail.Report{First: 1, Last: 9, Hash: facts[8].Hash, Facts: 9, NotChained: 2, ChainedFrom: 3, Anchors: []uint64{5, 9}}, report)
	assert.False(t, report.Broken())

	part := verify(0, facts[4:])
	assert.Empty(t, part.Breaks)
	assert.True(t, part.Open, "what was before is not known")
	assert.EqualValues(t, 5, part.ChainedFrom)

	// The state was replaced by one with more facts in its trail.
	later := trail.Record{Number: 20, Index: 99, Time: began, Kind: trail.KindRestored, Prev: facts[8].Hash}
	later.Hash, _ = later.Sum()
	report = verify(1, append(slices.Clone(facts), later), anchor(later))
	assert.Empty(t, report.Breaks)
	assert.Equal(t, []trail.Jump{{After: 9, Number: 20}}, report.Jumps)
	report = verify(1, append(slices.Clone(facts[:8]), later))
	assert.Equal(t, []finding{{trail.FaultMissing, 9, 19}}, findings(report), "the jump was from another fact")

	// Nothing before a restore can be left out, as if the trail began with that.
	later.Before = json.RawMessage(fmt.Sprintf(`{"audit_hash":%q,"audit_number":9,"log_index":98}`, facts[8].Hash))
	later.Hash, _ = later.Sum()
	assert.Equal(t, []finding{{trail.FaultMissing, 1, 19}}, findings(verify(1, []trail.Record{later}, anchor(later))))
	assert.Equal(t, []finding{{trail.FaultMissing, 9, 19}}, findings(verify(9, []trail.Record{later})))
	assert.Empty(t, verify(10, []trail.Record{later}).Breaks, "it follows number 9")

	assert.Zero(t, verify(1, nil).Facts)
	assert.Equal(t, []finding{{trail.FaultMissing, 1, 9}}, findings(verify(1, nil, anchor(facts[8]), anchor(facts[8]))), "told once, whoever knows it")
}

// What is wrong is told with its number.
func TestWhatIsWrongIsTold(t *testing.T) {
	const before, n = 2, 9
	facts := whole(t, n, before)
	head := anchor(facts[n-1])
	with := func(at int, change func(r *trail.Record)) []trail.Record {
		list := slices.Clone(facts)
		change(&list[at])
		return list
	}
	without := func(from, to int) []trail.Record { return slices.Delete(slices.Clone(facts), from, to) }
	swapped := slices.Clone(facts)
	swapped[4], swapped[6] = swapped[6], swapped[4]
	resealed := with(4, func(r *trail.Record) { r.Actor = "local"; r.Hash, _ = r.Sum() })
	rewritten := slices.Clone(resealed)
	for i := 5; i < n; i++ {
		rewritten[i].Prev = rewritten[i-1].Hash
		rewritten[i].Hash, _ = rewritten[i].Sum()
	}
	noHash := func(r *trail.Record) { r.Hash, r.Prev = trail.Hash{}, trail.Hash{} }
	bare := slices.Clone(facts)
	for i := range bare[:5] {
		noHash(&bare[i])
	}
	for name, test := range map[string]struct {
		facts []trail.Record
		want  []finding
	}{
		"altered":                {with(4, func(r *trail.Record) { r.Object = "other" }), []finding{{trail.FaultAltered, 5, 5}}},
		"altered to no JSON":     {with(4, func(r *trail.Record) { r.Detail = json.RawMessage(`{`) }), []finding{{trail.FaultAltered, 5, 5}}},
		"a key twice":            {with(4, func(r *trail.Record) { r.Detail = json.RawMessage(`{"revision":7,"revision":4}`) }), []finding{{trail.FaultAltered, 5, 5}}},
		"altered and sealed":     {resealed, []finding{{trail.FaultUnlinked, 6, 6}}},
		"altered up to the end":  {rewritten, []finding{{trail.FaultAnchor, n, n}}},
		"its hash is altered":    {with(4, func(r *trail.Record) { r.Hash[3] ^= 1 }), []finding{{trail.FaultAltered, 5, 5}, {trail.FaultUnlinked, 6, 6}}},
		"one is missing":         {without(4, 5), []finding{{trail.FaultMissing, 5, 5}}},
		"some are missing":       {without(4, 7), []finding{{trail.FaultMissing, 5, 7}}},
		"the first are missing":  {without(0, 1), []finding{{trail.FaultMissing, 1, 1}}},
		"the last are missing":   {without(7, n), []finding{{trail.FaultMissing, 8, n}}},
		"all are missing":        {nil, []finding{{trail.FaultMissing, 1, n}}},
		"two are swapped":        {swapped, []finding{{trail.FaultOrder, 5, 5}, {trail.FaultOrder, 6, 6}}},
		"one is there twice":     {slices.Insert(slices.Clone(facts), 5, facts[4]), []finding{{trail.FaultTwice, 5, 5}}},
		"an old one comes again": {slices.Insert(slices.Clone(facts), 7, facts[3]), []finding{{trail.FaultTwice, 4, 4}}},
		"a hash is gone":         {with(5, noHash), []finding{{trail.FaultNoHash, 6, 6}, {trail.FaultUnlinked, 7, 7}}},
		"the first hash is gone": {with(before, noHash), []finding{{trail.FaultNoHash, before + 1, before + 1}}},
		"the first are bare":     {bare, []finding{{trail.FaultNoHash, 5, 5}}},
		"another log entry":      {with(1, func(r *trail.Record) { r.Index = 1 }), []finding{{trail.FaultOrder, 2, 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			report := verify(1, test.facts, head)
			assert.Equal(t, test.want, findings(report), "%+v", report.Breaks)
			assert.True(t, report.Broken())
			for _, b := range report.Breaks {
				assert.NotEmpty(t, b.Detail)
			}
		})
	}
	assert.Equal(t, []finding{{trail.FaultAnchor, 3, 3}}, findings(verify(0, facts[4:], anchor(facts[2]))), "an anchor that nothing is compared with is no good news")
	assert.Equal(t, []finding{{trail.FaultOrder, 1, 1}}, findings(verify(3, facts)))

	begunTwice := slices.Clone(facts[:5])
	again := trail.Record{Number: 6, Index: 50, Time: began, Kind: trail.KindBegun}
	again.Hash, _ = again.Sum()
	assert.Equal(t, []finding{{trail.FaultUnlinked, 6, 6}}, findings(verify(1, append(begunTwice, again))))
}

// Whatever is changed in a trail, it is found.
func TestEveryChangeIsFound(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		facts := whole(rt, rapid.IntRange(3, 12).Draw(rt, "facts"), 0)
		head := anchor(facts[len(facts)-1])
		changed := slices.Clone(facts)
		at := rapid.IntRange(0, len(facts)-1).Draw(rt, "at")
		switch rapid.SampledFrom([]string{"field", "drop", "swap", "twice", "cut", "turn"}).Draw(rt, "change") {
		case "field":
			flip(rt, &changed[at])
		case "drop":
			changed = slices.Delete(changed, at, at+1)
		case "swap":
			other := rapid.IntRange(0, len(facts)-2).Draw(rt, "other")
			if other >= at {
				other++
			}
			changed[at], changed[other] = changed[other], changed[at]
		case "twice":
			changed = slices.Insert(changed, rapid.IntRange(0, len(changed)).Draw(rt, "to"), changed[at])
		case "cut":
			changed = changed[:at]
		case "turn":
			slices.Reverse(changed)
		}
		require.True(rt, verify(1, changed, head).Broken())
	})
}

// Each field makes another hash, and what stands in one is not the same in the next.
func TestEveryFieldIsCovered(t *testing.T) {
	whole := whole(t, 3, 0)[2]
	sums := map[trail.Hash]string{whole.Hash: "as it is"}
	for name, change := range map[string]func(r *trail.Record){
		"number": func(r *trail.Record) { r.Number++ }, "index": func(r *trail.Record) { r.Index++ }, "ordinal": func(r *trail.Record) { r.Ordinal++ },
		"time": func(r *trail.Record) { r.Time = r.Time.Add(1) }, "kind": func(r *trail.Record) { r.Kind += "x" }, "actor": func(r *trail.Record) { r.Actor += "x" },
		"object": func(r *trail.Record) { r.Object += "x" }, "agent": func(r *trail.Record) { r.Agent += "x" }, "detail": func(r *trail.Record) { r.Detail = nil },
		"before": func(r *trail.Record) { r.Before = json.RawMessage(`1`) }, "after": func(r *trail.Record) { r.After = json.RawMessage(`2`) }, "prev": func(r *trail.Record) { r.Prev[0]++ },
		"moved":       func(r *trail.Record) { r.Actor, r.Object = r.Actor+r.Object[:1], r.Object[1:] },
		"swapped":     func(r *trail.Record) { r.Before, r.After = r.After, r.Before },
		"other names": func(r *trail.Record) { r.Actor, r.Object = r.Object, r.Actor },
	} {
		r := whole
		change(&r)
		sum, err := r.Sum()
		require.NoError(t, err)
		assert.Empty(t, sums[sum], name)
		sums[sum] = name
	}
}

// flip changes one bit of one field, so that the field still means something.
func flip(t *rapid.T, r *trail.Record) {
	bit := func(label string, n int) int { return rapid.IntRange(0, n-1).Draw(t, label) }
	octet := func(text string) string {
		if text == "" {
			return "x"
		}
		b := []byte(text)
		b[bit("octet", len(b))] ^= 1 << bit("bit", 7)
		return string(b)
	}
	raw := func(text json.RawMessage) json.RawMessage { return json.RawMessage(octet(string(text))) }
	switch rapid.IntRange(0, 12).Draw(t, "field") {
	case 0:
		r.Number ^= 1 << bit("bit", 64)
	case 1:
		r.Index ^= 1 << bit("bit", 64)
	case 2:
		r.Ordinal ^= 1 << bit("bit", 32)
	case 3:
		r.Time = r.Time.Add(1 << bit("bit", 62))
	case 4:
		r.Kind = octet(r.Kind)
	case 5:
		r.Actor = octet(r.Actor)
	case 6:
		r.Object = octet(r.Object)
	case 7:
		r.Agent = octet(r.Agent)
	case 8:
		r.Detail = raw(r.Detail)
	case 9:
		r.Before = raw(r.Before)
	case 10:
		r.After = raw(r.After)
	case 11:
		r.Prev[bit("octet", len(r.Prev))] ^= 1 << bit("bit", 8)
	case 12:
		r.Hash[bit("octet", len(r.Hash))] ^= 1 << bit("bit", 8)
	}
}

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		``:                       ``,
		` { "b" : 1 , "a":[ ] }`: `{"a":[],"b":1}`,
		`{"aa":{"z":null,"y":[true,false,{}]},"a":-10}`: `{"a":-10,"aa":{"y":[true,false,{}],"z":null}}`,
		`"\u003c\u00e9\/\u2028\ud83d\ude00"`:            "\"<é/\u2028😀\"",
		`"\"\\\b\t\n\f\r\u0000\u001F\u007f"`:            `"\"\\\b\t\n\f\r\u0000\u001f` + "\x7f\"",
		`[18446744073709551615,1.50,1E3]`:               `[18446744073709551615,1.50,1E3]`,
		"{\"\uFF5E\":1,\"\U0001F600\":2,\"\\u007a\":3}": "{\"z\":3,\"\uFF5E\":1,\"\U0001F600\":2}",
	} {
		got, err := trail.Canonical([]byte(in))
		require.NoError(t, err, in)
		assert.Equal(t, want, string(got))
		again, err := trail.Canonical(got)
		require.NoError(t, err)
		assert.Equal(t, string(got), string(again))
	}
	deep := ""
	for range 65 {
		deep += "["
	}
	for _, bad := range []string{"{", "nope", `{"a":1,"a":1}`, `{} {}`, "\"\xff\"", deep, `{"a":{"b":[{"c":1,"\u0063":2}]}}`, `[1 2]`} {
		_, err := trail.Canonical([]byte(bad))
		assert.Error(t, err, bad)
	}
}

func FuzzCanonical(f *testing.F) {
	f.Add([]byte(`{"b":[1,2.5e3,"\u003c"],"a":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		form, err := trail.Canonical(text)
		if err != nil {
			return
		}
		again, err := trail.Canonical(form)
		require.NoError(t, err)
		require.Equal(t, string(form), string(again))
		if len(text) > 0 {
			var a, b any
			require.NoError(t, json.Unmarshal(text, &a))
			require.NoError(t, json.Unmarshal(form, &b))
			require.Equal(t, a, b, "the meaning is kept")
		}
	})
}

// A hostile trail does not fill the memory.
func TestWhatIsToldHasABound(t *testing.T) {
	v := trail.NewVerifier(1)
	for range 1000 {
		v.Add(trail.Record{Number: rand.Uint64N(1 << 40), Hash: trail.Hash{1}})
	}
	report := v.End()
	assert.Len(t, report.Breaks, 100)
	assert.Greater(t, report.MoreBreaks, uint64(500))
}

func TestHashes(t *testing.T) {
	h := trail.Hash{0xab, 1}
	parsed, err := trail.ParseHash(h.String())
	require.NoError(t, err)
	assert.Equal(t, h, parsed)
	for _, bad := range []string{"", "ab", h.String() + "0", h.String()[:62] + "zz", strings.ToUpper(h.String())} {
		_, err := trail.ParseHash(bad)
		assert.Error(t, err)
	}
	text, err := json.Marshal(struct {
		None trail.Hash `json:"none,omitzero"`
		Hash trail.Hash `json:"hash"`
	}{Hash: h})
	require.NoError(t, err)
	assert.JSONEq(t, `{"hash":"`+h.String()+`"}`, string(text))
}
