package connector_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
)

// Whoever comes while somebody asks gets that answer; what has ended, failed or was
// dropped is asked for anew.
func TestWhatIsCachedIsAskedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, asked := connector.NewCached[string](time.Now), 0
		ask := func(context.Context) (string, time.Duration, error) {
			asked++
			time.Sleep(time.Second)
			if asked == 1 {
				return "", 0, errors.New("not now")
			}
			return "token", time.Minute, nil
		}
		_, err := cache.Get(t.Context(), ask)
		require.Error(t, err)
		_, good := cache.Fresh()
		assert.False(t, good)
		for range 5 {
			go func() {
				value, err := cache.Get(t.Context(), ask)
				assert.NoError(t, err)
				assert.Equal(t, "token", value)
			}()
		}
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		synctest.Wait()
		_, err = cache.Get(short, ask)
		assert.True(t, connector.Classify(err).NotPlaced, "waiting for another's question sends nothing")
		time.Sleep(2 * time.Second)
		assert.Equal(t, 2, asked)
		cache.Drop(func(held string) bool { return held != "token" })
		_, good = cache.Fresh()
		assert.True(t, good)
		cache.Drop(func(held string) bool { return held == "token" })
		_, err = cache.Get(t.Context(), ask)
		require.NoError(t, err)
		assert.Equal(t, 3, asked)
		time.Sleep(time.Minute)
		_, good = cache.Fresh()
		assert.False(t, good)
	})
}
