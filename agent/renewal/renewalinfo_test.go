package renewal

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
)

func TestInfoPause(t *testing.T) {
	for _, c := range []struct{ asked, life, want time.Duration }{
		{0, 90 * day, 6 * time.Hour},
		{6 * time.Hour, 90 * day, 6 * time.Hour},
		{time.Second, 90 * day, time.Minute},
		{-time.Hour, 90 * day, 6 * time.Hour},
		{1000 * time.Hour, 90 * day, day},
		{6 * time.Hour, 8 * time.Hour, time.Hour},
		{6 * time.Hour, 80 * time.Second, 10 * time.Second},
		{6 * time.Hour, 0, time.Second},
	} {
		assert.Equal(t, c.want, infoPause(c.asked, c.life), "%+v", c)
	}
}

func TestApplyRenewalInfo(t *testing.T) {
	window := func(from, to int) *issuer.RenewalInfo {
		return &issuer.RenewalInfo{
			WindowStart: noon.Add(time.Duration(from) * day), WindowEnd: noon.Add(time.Duration(to) * day),
			ExplanationURL: "https://ca.example/why", RetryAfter: 2 * time.Hour,
		}
	}
	fresh := func() *store.Certificate {
		return &store.Certificate{Current: &store.Generation{NotBefore: noon, IssuedAt: noon, NotAfter: noon.Add(90 * day)}}
	}

	rec := fresh()
	moved, err := applyRenewalInfo(rec, window(50, 60), nil, noon, 0.5)
	require.NoError(t, err)
	assert.True(t, moved)
	assert.Equal(t, noon.Add(55*day), rec.RenewalInfo.SelectedAt)
	assert.Equal(t, "https://ca.example/why", rec.RenewalInfo.ExplanationURL)
	assert.WithinDuration(t, noon.Add(2*time.Hour), rec.RenewalInfo.CheckAgainAt, 13*time.Minute)

	// The same window keeps its point, whatever is drawn.
	later := noon.Add(day)
	moved, err = applyRenewalInfo(rec, window(50, 60), nil, later, 0.9)
	require.NoError(t, err)
	assert.False(t, moved)
	assert.Equal(t, noon.Add(55*day), rec.RenewalInfo.SelectedAt)
	assert.True(t, rec.RenewalInfo.CheckAgainAt.After(later))

	// An error, or a window that ends before it starts, keeps it too.
	moved, err = applyRenewalInfo(rec, nil, errors.New("no route"), later, 0)
	require.ErrorContains(t, err, "no route")
	assert.False(t, moved)
	assert.Equal(t, noon.Add(55*day), rec.RenewalInfo.SelectedAt)
	assert.Equal(t, later.Add(6*time.Hour), rec.RenewalInfo.CheckAgainAt)
	for _, bad := range []*issuer.RenewalInfo{window(60, 50), window(60, 60), {}} {
		moved, err = applyRenewalInfo(rec, bad, nil, later, 0)
		require.ErrorIs(t, err, errInvalidWindow)
		assert.False(t, moved)
		assert.Equal(t, noon.Add(55*day), rec.RenewalInfo.SelectedAt)
	}

	// An offset can lead out of the years that a record can hold.
	last := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	for _, bad := range []*issuer.RenewalInfo{
		{WindowStart: last, WindowEnd: last.In(time.FixedZone("", -12*3600)).Add(30 * time.Hour)},
		{WindowStart: time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), WindowEnd: noon},
	} {
		_, err = applyRenewalInfo(rec, bad, nil, later, 0.99)
		require.Error(t, err)
		_, err = json.Marshal(rec.RenewalInfo)
		require.NoError(t, err)
		assert.Equal(t, noon.Add(55*day), rec.RenewalInfo.SelectedAt)
	}

	// Another window is drawn from anew.
	moved, err = applyRenewalInfo(rec, window(-20, -10), nil, later, 0)
	require.NoError(t, err)
	assert.True(t, moved)
	assert.Equal(t, noon.Add(-20*day), rec.RenewalInfo.SelectedAt)

	// No suggestion withdraws the last one.
	moved, err = applyRenewalInfo(rec, nil, nil, later, 0)
	require.NoError(t, err)
	assert.True(t, moved)
	assert.Zero(t, rec.RenewalInfo.SelectedAt)
	assert.False(t, rec.RenewalInfo.CheckAgainAt.IsZero())

	// A first answer that is an error leaves no suggestion.
	rec = fresh()
	_, err = applyRenewalInfo(rec, nil, errors.New("no route"), noon, 0)
	require.Error(t, err)
	assert.Zero(t, rec.RenewalInfo.SelectedAt)
}
