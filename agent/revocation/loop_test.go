package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/internal/testca/statusca"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// host is what a loop works for, with an authority that answers what it is told.
type host struct {
	loop *Loop

	mu      sync.Mutex // guards what follows
	names   []string
	records map[string]*store.Certificate
	answers func(name string) finding
	checked []checkedAt
	running int
	most    int
	told    []string
	events  []wire.Event
	refuse  error // what Revoked returns
}

type checkedAt struct {
	name string
	at   time.Time
}

// newHost has n certificates, which share one chain: what tells them apart is
// their fingerprint in the record.
func newHost(t *testing.T, n int, chain []*x509.Certificate, change func(*Config)) *host {
	t.Helper()
	h := &host{records: map[string]*store.Certificate{}, answers: func(string) finding { return good() }}
	text := string(pki.EncodeChainPEM(chain))
	for i := range n {
		name := fmt.Sprintf("web%d", i)
		h.names = append(h.names, name)
		h.records[name] = &store.Certificate{Name: name, Current: &store.Generation{Serial: "0a", Fingerprint: name, ChainPEM: text}}
	}
	config := Config{
		Names: func() []string {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.names
		},
		Certificate: func(name string) (*store.Certificate, bool, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.records[name] == nil {
				return nil, false, nil
			}
			copied := *h.records[name]
			generation := *copied.Current
			copied.Current = &generation
			return &copied, true, nil
		},
		Revoked: func(name, serial string, _ time.Time, reason int) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.told = append(h.told, fmt.Sprintf("%s %s %d", name, serial, reason))
			return h.refuse
		},
		Report: func(e wire.Event) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.events = append(h.events, e)
			return nil
		},
		Key: "host", Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&config)
	}
	var err error
	h.loop, err = New(config)
	require.NoError(t, err)
	return h
}

func good() finding {
	return finding{answer: answer{result: ResultGood}, source: "http://ocsp.example.com"}
}

// run lets the loop work for a while. A check takes a second.
func (h *host) run(d time.Duration) {
	h.loop.check = func(ctx context.Context, name string, _ []*x509.Certificate) finding {
		h.mu.Lock()
		h.running++
		h.most = max(h.most, h.running)
		h.checked = append(h.checked, checkedAt{name, time.Now()})
		h.mu.Unlock()
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.running--
		return h.answers(name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	_ = h.loop.Run(ctx)
}

func (h *host) times() map[string]int {
	times := map[string]int{}
	for _, c := range h.checked {
		times[c.name]++
	}
	return times
}

// chainOf makes a chain outside of a bubble: statusca listens on a real port.
func chainOf(t *testing.T) []*x509.Certificate {
	t.Helper()
	ca := statusca.New(t)
	return []*x509.Certificate{ca.Leaf(nil), ca.Cert}
}

// Each certificate has its turn once in an interval, and a thousand are spread
// over it.
func TestChecksAreSpread(t *testing.T) {
	chain := chainOf(t)
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, 1000, chain, nil)
		began := time.Now()
		h.run(24 * time.Hour)
		times := h.times()
		require.Len(t, times, 1000)
		for name, n := range times {
			// Four intervals, each up to a tenth longer or shorter.
			assert.GreaterOrEqual(t, n, 3, name)
			assert.LessOrEqual(t, n, 5, name)
		}
		byHour := map[int]int{}
		for _, c := range h.checked {
			byHour[int(c.at.Sub(began)/time.Hour)]++
		}
		for hour, n := range byHour {
			assert.Less(t, n, 300, "hour %d", hour)
		}
		assert.LessOrEqual(t, h.most, concurrency)
		check, ok := h.loop.Result("web1", "web1")
		require.True(t, ok)
		assert.Equal(t, ResultGood, check.Result)
		assert.Equal(t, check.CheckedAt, check.GoodAt)
		assert.True(t, check.NextAt.After(check.CheckedAt))
		_, ok = h.loop.Result("web1", "another")
		assert.False(t, ok, "that was another certificate")
	})
}

// A host that is restarted each hour checks each certificate about once in an
// interval all the same, and never all of them at a start.
func TestRestartsBringNoBurst(t *testing.T) {
	chain := chainOf(t)
	synctest.Test(t, func(t *testing.T) {
		times := map[string]int{}
		for range 24 {
			h := newHost(t, 300, chain, nil)
			h.run(time.Hour)
			assert.Less(t, len(h.checked), 120)
			for name, n := range h.times() {
				times[name] += n
			}
		}
		require.Len(t, times, 300)
		for name, n := range times {
			assert.GreaterOrEqual(t, n, 3, name)
			assert.LessOrEqual(t, n, 9, "%s: twice where its moment is that of the restart", name)
		}
	})
}

func TestHostsDiffer(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	one := firstTurn("host1/www", time.Hour, now)
	assert.NotEqual(t, one, firstTurn("host2/www", time.Hour, now))
	assert.Equal(t, one, firstTurn("host1/www", time.Hour, one), "its moment is its turn")
	assert.Equal(t, one.Add(time.Second), firstTurn("host1/www", time.Hour, one.Add(time.Second)), "nobody may have looked")
	assert.Equal(t, one.Add(time.Hour), firstTurn("host1/www", time.Hour, one.Add(2*time.Minute)))
	assert.Equal(t, one, firstTurn("host1/www", time.Hour, now.Add(time.Nanosecond)))
}

// A revoked certificate is told of until it is replaced, and not checked again
// while its replacement is on its way.
func TestARevokedCertificateIsToldOf(t *testing.T) {
	chain := chainOf(t)
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, 1, chain, nil)
		h.answers = func(string) finding {
			return finding{answer: answer{result: ResultRevoked, revokedAt: time.Now().Add(-time.Hour), reason: 1}, source: "x"}
		}
		h.refuse = errors.New("disk full")
		h.run(7 * time.Hour)
		told := len(h.told)
		assert.GreaterOrEqual(t, told, 2, "again, since it could not be recorded")
		assert.Equal(t, "web0 0a 1", h.told[0])
		assert.Equal(t, "web0 0a 1", h.told[told-1])

		h.refuse = nil
		h.records["web0"].Current.Revoked = &store.Revocation{At: time.Now(), Reason: 1}
		checked := len(h.checked)
		h.run(24 * time.Hour)
		assert.Len(t, h.told, told)
		assert.Len(t, h.checked, checked, "it is known")
		check, _ := h.loop.Result("web0", "web0")
		assert.Equal(t, ResultRevoked, check.Result)
	})
}

// An odd reason does not keep a revocation from being recorded, and unknown is
// not revoked.
func TestWhatIsNotSaidClearly(t *testing.T) {
	chain := chainOf(t)
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, 1, chain, nil)
		h.answers = func(string) finding {
			return finding{answer: answer{result: ResultRevoked, reason: 77}, source: "x"}
		}
		h.run(7 * time.Hour)
		require.NotEmpty(t, h.told)
		assert.Equal(t, "web0 0a 0", h.told[0])

		other := newHost(t, 1, chain, nil)
		other.answers = func(string) finding { return finding{answer: answer{result: ResultUnknown}, source: "x"} }
		other.run(24 * time.Hour)
		assert.Empty(t, other.told)
		assert.Empty(t, other.events)
	})
}

// An authority that cannot be asked is asked again soon, then less often; it is
// reported after a day, once, and never held against the certificate.
func TestFailuresAreSoft(t *testing.T) {
	chain := chainOf(t)
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, 3, chain, nil)
		failing := true
		h.answers = func(string) finding {
			if failing {
				return finding{answer: answer{result: ResultFailed}, source: "http://ocsp.example.com", detail: "no route to host"}
			}
			return good()
		}
		began := time.Now()
		h.run(20 * time.Hour)
		assert.Empty(t, h.events, "not yet")
		check, ok := h.loop.Result("web0", "web0")
		require.True(t, ok)
		assert.Equal(t, ResultFailed, check.Result)
		assert.Equal(t, "no route to host", check.Detail)
		assert.WithinRange(t, check.FailingSince, began, began.Add(7*time.Hour))
		assert.Greater(t, h.times()["web0"], 5)
		assert.Less(t, h.times()["web0"], 12)
		h.run(48 * time.Hour)
		require.Len(t, h.events, 1)
		assert.Equal(t, wire.EventRevocationUnknown, h.events[0].Kind)
		assert.Contains(t, h.events[0].Detail, "http://ocsp.example.com")
		assert.Empty(t, h.told)

		failing = false
		h.run(7 * time.Hour)
		check, _ = h.loop.Result("web0", "web0")
		assert.Equal(t, ResultGood, check.Result)
		assert.Zero(t, check.FailingSince)
		failing = true
		h.run(48 * time.Hour)
		assert.Len(t, h.events, 2, "a new failure is news")
	})
}

// A newer answer is asked for when there is one, but not without end.
func TestNextUpdateBringsTheNextTurnForward(t *testing.T) {
	chain := chainOf(t)
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, 1, chain, nil)
		h.answers = func(string) finding {
			f := good()
			f.nextUpdate = time.Now().Add(time.Hour)
			return f
		}
		h.run(24 * time.Hour)
		assert.Greater(t, len(h.checked), 14)
		assert.Less(t, len(h.checked), 25)

		past := newHost(t, 1, chain, nil)
		past.answers = func(string) finding {
			f := good()
			f.nextUpdate = time.Now().Add(-time.Minute)
			return f
		}
		past.run(24 * time.Hour)
		assert.LessOrEqual(t, len(past.checked), int(24*time.Hour/soonest)+1)
	})
}

func TestTheListOfCertificatesChanges(t *testing.T) {
	chain := chainOf(t)
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, 3, chain, nil)
		delete(h.records, "web2") // not issued yet
		h.run(7 * time.Hour)
		assert.Len(t, h.times(), 2)
		h.names = h.names[:1]
		h.run(time.Minute)
		_, ok := h.loop.Result("web1", "web1")
		assert.False(t, ok)
		assert.Len(t, h.loop.queue, 1)
		assert.Len(t, h.loop.queued, 1)
	})
}

// The clock was set back by a year: nothing waits for a year.
func TestTheClockIsSetBack(t *testing.T) {
	chain := chainOf(t)
	synctest.Test(t, func(t *testing.T) {
		var skew time.Duration
		h := newHost(t, 1, chain, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(skew) } })
		skew = 365 * 24 * time.Hour
		h.run(time.Minute)
		skew = 0
		h.run(8 * time.Hour)
		assert.NotEmpty(t, h.checked)
	})
}

func TestOff(t *testing.T) {
	chain := chainOf(t)
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, 1, chain, func(c *Config) { c.Interval = -1 })
		h.run(100 * time.Hour)
		assert.Empty(t, h.checked)
	})
	_, err := New(Config{})
	require.Error(t, err)
}

func TestAStopIsNoOutcome(t *testing.T) {
	h := newHost(t, 1, chainOf(t), nil)
	ctx, cancel := context.WithCancel(t.Context())
	h.loop.check = func(context.Context, string, []*x509.Certificate) finding {
		cancel()
		return finding{answer: answer{result: ResultFailed}, source: "x", detail: "context canceled"}
	}
	h.loop.one(ctx, "web0")
	_, ok := h.loop.Result("web0", "web0")
	assert.False(t, ok)
	assert.Empty(t, h.loop.sources)
}

// Ten thousand certificates cost a look at the queue no more than what is due.
func BenchmarkRoundOfTenThousand(b *testing.B) {
	var names []string
	for i := range 10_000 {
		names = append(names, fmt.Sprintf("web%d", i))
	}
	loop, err := New(Config{
		Names:       func() []string { return names },
		Certificate: func(string) (*store.Certificate, bool, error) { return nil, false, nil },
		Revoked:     func(string, string, time.Time, int) error { return nil },
		Report:      func(wire.Event) error { return nil }, Key: "host", Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(b, err)
	loop.round(b.Context())
	for b.Loop() {
		loop.round(b.Context())
	}
}
