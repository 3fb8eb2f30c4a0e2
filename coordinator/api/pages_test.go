package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPagesHaveRoom(t *testing.T) {
	now := time.Now()
	k := pages{room: 64 << 10}
	find := func(e edition) *page {
		p, done := k.find(t.Context(), e, now)
		if done != nil {
			done()
		}
		return p
	}
	size := 4<<10 - 256
	for i := range 100 {
		k.put(edition{byte(i)}, newPage(make([]byte, size/2), 0))
		require.LessOrEqual(t, k.taken, k.room)
		require.NotNil(t, find(edition{byte(i)}))
		require.NotNil(t, find(edition{}), "the one that is asked for stays")
	}
	assert.Len(t, k.kept, 16)
	assert.EqualValues(t, 16*4<<10, k.taken)
	assert.Nil(t, find(edition{50}), "the oldest went")
	k.put(edition{200}, newPage(make([]byte, 8<<10), 0))
	assert.Nil(t, find(edition{200}), "one is not to drive out all others")
	k.put(edition{99}, newPage([]byte("x"), 0))
	assert.Len(t, k.kept, 16)
	assert.Equal(t, k.newest.Len(), len(k.kept))
	assert.Empty(t, k.making)

	none := pages{room: -1}
	none.put(edition{}, newPage(nil, 0))
	_, done := none.find(t.Context(), edition{}, now)
	done()
	assert.Empty(t, none.kept)
}

func TestPagesEnd(t *testing.T) {
	now := time.Now()
	k := pages{room: 1 << 20}
	k.put(edition{}, newPage([]byte("x"), now.UnixNano()+1))
	p, _ := k.find(t.Context(), edition{}, now)
	require.NotNil(t, p)
	p, done := k.find(t.Context(), edition{}, now.Add(1))
	require.Nil(t, p)
	done()
	assert.Zero(t, k.taken)
}

// Many who ask for one answer have it made once; who waits in vain makes its own, and
// who goes away does not wait.
func TestPagesAreMadeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := pages{room: 1 << 20}
		var made atomic.Int64
		ask := func(keep bool) {
			p, done := k.find(t.Context(), edition{}, time.Now())
			if p != nil {
				return
			}
			defer done()
			made.Add(1)
			time.Sleep(time.Second)
			if keep {
				k.put(edition{}, newPage([]byte("x"), 0))
			}
		}
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { ask(true) })
		}
		all.Wait()
		assert.EqualValues(t, 1, made.Load())

		k.drop(k.newest.Back())
		made.Store(0)
		for range 10 {
			all.Go(func() { ask(false) })
		}
		all.Wait()
		assert.EqualValues(t, 10, made.Load())
		assert.Empty(t, k.making)

		_, done := k.find(t.Context(), edition{}, time.Now())
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		p, other := k.find(gone, edition{}, time.Now())
		assert.Nil(t, p)
		other()
		done()
		assert.Empty(t, k.making)
	})
}

func TestPagesInAnEncoding(t *testing.T) {
	both := []string{encodingGzip, encodingNone}
	small := newPage([]byte(strings.Repeat("x", worthZipping-1)), 0)
	assert.Equal(t, encodingNone, small.encoding(both))
	large := newPage([]byte(strings.Repeat("x", worthZipping)), 0)
	assert.Equal(t, encodingGzip, large.encoding(both))
	assert.Equal(t, encodingNone, large.encoding([]string{encodingNone}))
	r, err := gzip.NewReader(bytes.NewReader(large.in(encodingGzip)))
	require.NoError(t, err)
	whole, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Equal(t, large.body, whole)
	assert.Less(t, len(large.in(encodingGzip)), 100)
}
