package renewal

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/agent/store"
)

const day = 24 * time.Hour

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestDrawRenewAt(t *testing.T) {
	for _, c := range []struct {
		life        time.Duration
		first, last float64 // of the window, as fractions of the lifetime
	}{
		{90 * day, 37.0 / 60, 43.0 / 60},
		{10 * day, 37.0 / 60, 43.0 / 60},
		{10*day - time.Second, 0.45, 0.55},
		{6 * day, 0.45, 0.55},
		{time.Minute, 0.45, 0.55},
	} {
		end := noon.Add(c.life)
		assert.WithinDuration(t, noon.Add(fraction(c.life, c.first)), drawRenewAt(noon, end, 0), time.Microsecond, "%v", c.life)
		assert.WithinDuration(t, noon.Add(fraction(c.life, c.last)), drawRenewAt(noon, end, 1), time.Microsecond, "%v", c.life)
	}
	assert.Equal(t, noon, drawRenewAt(noon, noon, 0.5), "no lifetime")
	assert.Equal(t, noon, drawRenewAt(noon.Add(day), noon, 0.5), "ends before it starts")
}

func TestDrawRenewAtIsInTheLifetimeAndGrowsWithU(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		life := time.Duration(rapid.Int64Range(1, int64(10*365*day)).Draw(t, "life"))
		u := rapid.Float64Range(0, 0.999).Draw(t, "u")
		v := rapid.Float64Range(u, 0.999).Draw(t, "v")
		at, later := drawRenewAt(noon, noon.Add(life), u), drawRenewAt(noon, noon.Add(life), v)
		if at.Before(noon.Add(life/3)) || at.After(noon.Add(fraction(life, 0.75))) {
			t.Fatalf("drawn at %v of %v", at.Sub(noon), life)
		}
		if later.Before(at) {
			t.Fatalf("a larger u gave an earlier moment: %v, %v", at, later)
		}
	})
}

func TestDrawRenewAtSpreadsEvenly(t *testing.T) {
	var buckets [10]int
	window := fraction(90*day, 2*windowHalf)
	first := drawRenewAt(noon, noon.Add(90*day), 0)
	for i := range 1000 {
		at := drawRenewAt(noon, noon.Add(90*day), (float64(i)+0.5)/1000)
		buckets[min(int(10*float64(at.Sub(first))/float64(window)), 9)]++
	}
	for i, n := range buckets {
		assert.InDelta(t, 100, n, 1, "tenth %d", i)
	}
}

func TestLifetimeBeginsWhenTheCertificateWasObtained(t *testing.T) {
	for name, c := range map[string]struct {
		notBefore, issuedAt time.Time
		start               time.Time
	}{
		"backdated":    {noon.Add(-time.Hour), noon, noon},
		"exact":        {noon, noon, noon},
		"slow clock":   {noon.Add(time.Minute), noon, noon.Add(time.Minute)},
		"not recorded": {noon, time.Time{}, noon},
	} {
		start, end := lifetime(&store.Generation{NotBefore: c.notBefore, IssuedAt: c.issuedAt, NotAfter: noon.Add(2 * time.Minute)})
		assert.Equal(t, c.start, start, name)
		assert.Equal(t, noon.Add(2*time.Minute), end, name)
	}
	assert.Zero(t, usable(nil))
	assert.Zero(t, usable(&store.Generation{IssuedAt: noon, NotAfter: noon.Add(-time.Hour)}))
}

func TestRenewalTime(t *testing.T) {
	cur := &store.Generation{NotBefore: noon, IssuedAt: noon, NotAfter: noon.Add(100 * day)}
	selected := func(at time.Time) *store.RenewalInfo { return &store.RenewalInfo{SelectedAt: at} }
	drawn := noon.Add(66 * day)
	for name, c := range map[string]struct {
		info     *store.RenewalInfo
		informed bool
		want     time.Time
	}{
		"no suggestion":                     {nil, true, drawn},
		"asked, none given":                 {&store.RenewalInfo{CheckAgainAt: noon}, true, drawn},
		"earlier":                           {selected(noon.Add(10 * day)), true, noon.Add(10 * day)},
		"later":                             {selected(noon.Add(80 * day)), true, noon.Add(80 * day)},
		"issuer is no informer any more":    {selected(noon.Add(10 * day)), false, drawn},
		"expiry wins in the last twentieth": {selected(noon.Add(99 * day)), true, noon.Add(95 * day)},
		"after expiry":                      {selected(noon.Add(500 * day)), true, noon.Add(95 * day)},
		"past before it was issued":         {selected(noon.Add(-day)), true, noon.Add(time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &store.Certificate{Current: cur, RenewAt: drawn, RenewalInfo: c.info}
			assert.Equal(t, c.want, renewalTime(rec, c.informed))
		})
	}
	assert.WithinDuration(t, windowEnd(cur), renewalTime(&store.Certificate{Current: cur}, true), 0, "nothing drawn")
}
