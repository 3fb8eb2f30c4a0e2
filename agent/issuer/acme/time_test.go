package acme

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/internal/testca/pebble"
)

// By a clock that is a year off no certificate of the authority's own server
// verifies. The order goes through, and the clock is right afterwards.
func TestIssueWithAClockThatIsAYearOff(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	for name, wrong := range map[string]time.Duration{"ahead": 365 * 24 * time.Hour, "behind": -365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			c, err := clock.New(clock.Config{
				Wall: func() time.Time { return time.Now().Add(wrong) },
				Log:  slog.New(slog.DiscardHandler),
			})
			require.NoError(t, err)
			config := configFor(ca, newDisk())
			config.Clock = c
			i := open(t, config)
			order := newOrder(t, uniqueName())
			issued, err := i.Issue(deadline(t, 60*time.Second), order)
			require.NoError(t, err)
			checkIssued(t, order, issued)
			assert.WithinDuration(t, time.Now(), c.Now(), 10*time.Second)

			// The connection is gone, and the clock is set once more.
			wrong = -wrong
			i.Close()
			again := newOrder(t, uniqueName())
			_, err = i.Issue(deadline(t, 60*time.Second), again)
			require.NoError(t, err)
			assert.WithinDuration(t, time.Now(), c.Now(), 10*time.Second)
		})
	}
}

func TestTimeSource(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	i := open(t, configFor(ca, newDisk()))
	require.Error(t, i.AskTime(t.Context()), "without a clock")
	began := time.Now()
	assert.WithinRange(t, i.now(), began.Add(-time.Second), time.Now().Add(time.Second))
	var keeper issuer.Timekeeper = i
	assert.Contains(t, ca.DirectoryURL, keeper.TimeSource())

	c, err := clock.New(clock.Config{Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	config := configFor(ca, newDisk())
	config.Clock = c
	asked := open(t, config)
	require.NoError(t, asked.AskTime(deadline(t, 60*time.Second)))
	require.Len(t, c.Reading().Sources, 1)
	assert.Equal(t, asked.TimeSource(), c.Reading().Sources[0].Name)
}
