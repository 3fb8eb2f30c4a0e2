package backoff

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		assert.NoError(t, Wait(t.Context(), time.Hour))
		assert.Equal(t, time.Hour, time.Since(began))

		assert.NoError(t, Wait(t.Context(), 0))
		assert.NoError(t, Wait(t.Context(), -time.Hour))
		assert.Equal(t, time.Hour, time.Since(began))
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		assert.ErrorIs(t, Wait(ctx, time.Hour), context.DeadlineExceeded)
		assert.Equal(t, time.Minute, time.Since(began))

		assert.ErrorIs(t, Wait(ctx, time.Hour), context.DeadlineExceeded)
		assert.ErrorIs(t, Wait(ctx, 0), context.DeadlineExceeded, "or a loop whose delay is 0 would never end")
		assert.Equal(t, time.Minute, time.Since(began))
	})
}
