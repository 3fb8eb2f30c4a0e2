package renewal

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
)

// timed is an authority that cannot work without a server that tells the time.
type timed struct{ *authority }

func (timed) TimeSource() string { return "ca.test" }

// What is due by nothing but a time that nobody confirms waits, and costs
// nothing when the time turns out to be wrong.
func TestRenewalWaitsForTheTime(t *testing.T) {
	w := newWorld(t)
	var asked []string
	var confirm func() bool
	w.issuer = timed{w.ca}
	w.tune = func(cfg *Config) {
		cfg.Confirm = func(_ context.Context, source string) bool {
			asked = append(asked, source)
			return confirm()
		}
	}
	w.open()
	w.settleDown()
	require.Empty(t, asked, "a first certificate is not wanted because of the time")
	right := w.clock.now()

	w.clock.advance(365 * day)
	confirm = func() bool { return false }
	w.tick()
	assert.Equal(t, []string{"ca.test"}, asked)
	assert.Equal(t, 1, w.ca.orders())
	status, err := w.e.Status()
	require.NoError(t, err)
	assert.Contains(t, status[0].Problem, "clock")
	w.tick()
	assert.Len(t, asked, 1, "asked again without a pause")

	w.clock.advance(blockPause + time.Second)
	confirm = func() bool { w.clock.set(right.Add(2 * time.Minute)); return true }
	w.tick()
	w.tick()
	assert.Len(t, asked, 2)
	assert.Equal(t, 1, w.ca.orders(), "it was not due")
	assert.Equal(t, store.PhaseIdle, w.record().Phase)

	confirm = func() bool { return true }
	w.toRenewal()
	w.requireServed(2)
	assert.Len(t, asked, 3)
}

// Issuers without a time of their own are not waited for: the clock knows that
// by the empty name.
func TestIssuerWithoutTime(t *testing.T) {
	w := newWorld(t)
	var asked []string
	w.tune = func(cfg *Config) {
		cfg.Confirm = func(_ context.Context, source string) bool {
			asked = append(asked, source)
			return true
		}
	}
	w.open()
	w.settleDown()
	w.toRenewal()
	w.requireServed(2)
	assert.Equal(t, []string{""}, asked)
}
