package api

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
)

// A page of encoded items is what encode makes of the page.
func TestEncodePage(t *testing.T) {
	seven := 7
	for _, page := range []resource.Page[string]{
		{Items: []string{}}, {Items: []string{"a"}}, {Items: []string{"<a&b>", "b", "\n"}, NextCursor: "abc"}, {Items: []string{"a"}, Total: &seven, NextCursor: "x"}, {Items: []string{}, Total: &seven},
	} {
		var want bytes.Buffer
		require.NoError(t, encode(&want, page))
		var items [][]byte
		for _, one := range page.Items {
			var data bytes.Buffer
			require.NoError(t, encode(&data, one))
			items = append(items, bytes.TrimSuffix(data.Bytes(), []byte("\n")))
		}
		got, err := encodePage(items, resource.Page[struct{}]{NextCursor: page.NextCursor, Total: page.Total})
		require.NoError(t, err)
		assert.Equal(t, want.String(), string(got))
	}
}

// An item is given again while what it follows from is the same, and no longer.
func TestItemsAreKept(t *testing.T) {
	now := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	state, err := fleet.New()
	require.NoError(t, err)
	summary := well(now)
	data, err := json.Marshal(summary)
	require.NoError(t, err)
	row := &fleet.Certificate{Agent: "a", Name: "www", Data: data}
	kept := new(items)
	ask := func(at time.Time, document bool) (*item, *health.Clock) {
		p := &picture{Clock: health.At(at), view: state.View(), pause: time.Minute, items: kept}
		i, err := p.item(row, document)
		require.NoError(t, err)
		assert.Equal(t, i.until, p.Until, "the page ends with it")
		return i, p.Clock
	}
	health, _ := ask(now, false)
	assert.Nil(t, health.data)
	whole, _ := ask(now, true)
	require.NotNil(t, whole.data)
	assert.Equal(t, health.health, whole.health)
	again, _ := ask(now, false)
	assert.Same(t, whole, again)
	require.False(t, whole.until.IsZero())
	later, _ := ask(whole.until.Add(-1), true)
	assert.Same(t, whole, later)
	ended, _ := ask(whole.until, true)
	assert.NotSame(t, whole, ended)
	before, _ := ask(now, true)
	assert.NotSame(t, ended, before, "it was not made yet")
	assert.Equal(t, whole.data, before.data)

	for _, other := range []itemGiven{{hostname: "h"}, {}, {agent: contact{cutOff: true, seen: now}}, {revoked: new(fleet.Revocation)}} {
		assert.False(t, before.fits(other, now))
	}
	assert.True(t, before.fits(before.given, now))
}

func TestItemsHaveRoom(t *testing.T) {
	kept, first := new(items), new(fleet.Certificate)
	kept.put(first, new(item))
	for range 3 * keptItems {
		kept.put(new(fleet.Certificate), new(item))
		require.LessOrEqual(t, len(kept.young)+len(kept.old), keptItems)
		require.NotNil(t, kept.get(first), "what is asked for stays")
	}
	forgotten := new(fleet.Certificate)
	kept.put(forgotten, new(item))
	for range keptItems {
		kept.put(new(fleet.Certificate), new(item))
	}
	assert.Nil(t, kept.get(forgotten))
	var none *items
	none.put(first, new(item))
	assert.Nil(t, none.get(first))
}
