package history

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestGapsAreSets compares the arithmetic of ranges with that of sets.
func TestGapsAreSets(t *testing.T) {
	const most = 40
	ranges := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) Gap {
		return Gap{rapid.Uint64Range(0, most).Draw(rt, "from"), rapid.Uint64Range(0, most).Draw(rt, "to")}
	}), 0, 8)
	within := func(list []Gap, index uint64) bool {
		for _, g := range list {
			if g.From <= index && index <= g.To {
				return true
			}
		}
		return false
	}
	rapid.Check(t, func(rt *rapid.T) {
		one, two := ranges.Draw(rt, "one"), ranges.Draw(rt, "two")
		a, b := Union(one...), Union(two...)
		count := uint64(0)
		for index := range uint64(most + 2) {
			inA, inB := within(one, index), within(two, index)
			if inA {
				count++
			}
			require.Equal(rt, inA, within(a, index), "union at %d", index)
			require.Equal(rt, inA && inB, within(a.And(b), index), "intersection at %d", index)
			require.Equal(rt, inA && !inB, within(a.Minus(b), index), "difference at %d", index)
		}
		require.Equal(rt, count, a.Count())
		for _, made := range []Gaps{a, a.And(b), a.Minus(b)} {
			for i, g := range made {
				require.LessOrEqual(rt, g.From, g.To)
				require.True(rt, i == 0 || made[i-1].To < g.From, "in order, and apart: %v", made)
			}
			require.Equal(rt, made.Count(), Union(made...).Count())
		}
		require.Equal(rt, a, Union(a...))
	})
}

func TestGapsAtTheEndsOfTheNumbers(t *testing.T) {
	all := Union(Gap{0, math.MaxUint64 - 1}, Gap{math.MaxUint64, math.MaxUint64})
	assert.Equal(t, Gaps{{0, math.MaxUint64}}, all)
	assert.Empty(t, all.Minus(all))
	assert.Equal(t, Gaps{{0, 4}, {6, math.MaxUint64}}, all.Minus(Gaps{{5, 5}}))
	assert.Equal(t, Gaps{{5, 5}}, all.And(Gaps{{5, 5}}))
}
