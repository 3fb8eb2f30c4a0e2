package cluster

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A question answers those who came before it was asked: whoever comes while one
// is under way gets the next one's answer, together with all that do.
func TestCallersShareTheNextQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c coalescer
		answers := make(chan uint64)
		ask := func() (uint64, error) { return <-answers, nil }
		start := func(fn func()) bool { go fn(); return true }
		get := func() (uint64, error) { return c.get(t.Context(), start, ask) }

		var wg sync.WaitGroup
		wg.Go(func() {
			index, err := get()
			assert.NoError(t, err)
			assert.EqualValues(t, 1, index)
		})
		synctest.Wait()
		for range 1000 {
			wg.Go(func() {
				index, err := get()
				assert.NoError(t, err)
				assert.EqualValues(t, 2, index, "the question that was under way began before this caller")
			})
		}
		// One that gives up leaves the others alone.
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := c.get(ctx, start, ask)
			gone <- err
		}()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-gone, context.Canceled)
		answers <- 1
		answers <- 2
		wg.Wait()
		synctest.Wait()
		assert.EqualValues(t, 2, c.asked())

		_, err := c.get(t.Context(), func(func()) bool { return false }, ask)
		require.ErrorIs(t, err, ErrStopped)
		go func() { answers <- 3 }()
		index, err := get()
		require.NoError(t, err)
		assert.EqualValues(t, 3, index)
	})
}
