package renewal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestNewNamesWhatIsWrong(t *testing.T) {
	valid := func() Config {
		return Config{
			Store: &faultyStore{}, Keys: &faultyKeys{}, Log: slog.New(slog.DiscardHandler), ScratchDir: t.TempDir(),
			Managed: []Managed{{
				Name: "web", Names: pki.MustParseNames("web.example.com"), KeyAlgorithm: pki.ECDSAP256,
				Issuers: []NamedIssuer{{Name: "ca", Issuer: emptyIssuer{}}}, Deployments: []Deployment{{ID: "a", Target: &place{}}},
			}},
		}
	}
	_, err := New(valid())
	require.NoError(t, err)
	for want, change := range map[string]func(*Config){
		"store, keys and log":   func(c *Config) { c.Store = nil },
		"absolute path":         func(c *Config) { c.ScratchDir = "scratch" },
		"concurrency -1":        func(c *Config) { c.Concurrency = -1 },
		"issue timeout -1s":     func(c *Config) { c.IssueTimeout = -time.Second },
		"name is empty":         func(c *Config) { c.Managed[0].Name = "" },
		"control character":     func(c *Config) { c.Managed[0].Name = "a\nb" },
		"at most 128":           func(c *Config) { c.Managed[0].Name = fmt.Sprintf("%0129d", 1) },
		"no names":              func(c *Config) { c.Managed[0].Names = pki.Names{} },
		"key algorithm \"des\"": func(c *Config) { c.Managed[0].KeyAlgorithm = "des" },
		"name of its issuer":    func(c *Config) { c.Managed[0].Issuers[0].Name = fmt.Sprintf("%0129d", 1) },
		"has 129 octets":        func(c *Config) { c.Managed[0].Deployments[0].ID = fmt.Sprintf("%0129d", 1) },
		"issuer is not set":     func(c *Config) { c.Managed[0].Issuers[0].Issuer = nil },
		"must not be negative":  func(c *Config) { c.Managed[0].Lifetime = -1 },
		"id and a target":       func(c *Config) { c.Managed[0].Deployments[0].Target = nil },
		"used twice": func(c *Config) {
			c.Managed[0].Deployments = append(c.Managed[0].Deployments, c.Managed[0].Deployments[0])
		},
		"listed twice": func(c *Config) { c.Managed = append(c.Managed, c.Managed[0]) },
	} {
		cfg := valid()
		change(&cfg)
		_, err := New(cfg)
		assert.ErrorContains(t, err, want)
	}
}

// The digest is stored with every certificate: another encoding would renew
// all of them.
func TestConfigDigestIsFrozen(t *testing.T) {
	m := Managed{Name: "web", Names: pki.MustParseNames("b.example.com", "a.example.com", "192.0.2.1"), KeyAlgorithm: pki.ECDSAP256,
		Issuers: []NamedIssuer{{Name: "ca"}}, Profile: "short", Lifetime: time.Hour}
	base, err := configDigest(m)
	require.NoError(t, err)
	assert.Equal(t, "v1:a2ce3bf2534587b3b3cc76a1e4915ae265867ef5841fd38ba7b6cca0218f170b", base)
	for name, change := range map[string]func(*Managed){
		"names":    func(m *Managed) { m.Names = pki.MustParseNames("a.example.com") },
		"key":      func(m *Managed) { m.KeyAlgorithm = pki.RSA2048 },
		"issuer":   func(m *Managed) { m.Issuers = []NamedIssuer{{Name: "other"}} },
		"profile":  func(m *Managed) { m.Profile = "" },
		"lifetime": func(m *Managed) { m.Lifetime = 2 * time.Hour },
	} {
		changed := m
		change(&changed)
		got, err := configDigest(changed)
		require.NoError(t, err)
		assert.NotEqual(t, base, got, name)
	}
	m.Name, m.Deployments = "other", []Deployment{{ID: "x"}}
	got, err := configDigest(m)
	require.NoError(t, err)
	assert.Equal(t, base, got, "a deployment is no reason to renew")
}

func TestForcedRenewal(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	require.ErrorIs(t, w.e.Renew(t.Context(), "unknown"), ErrUnknown)
	require.NoError(t, w.e.Renew(t.Context(), "web"))
	w.close() // a crash: the wish is stored
	w.open()
	w.requireServed(2)
	assert.False(t, w.record().Forced)

	// A renewal under way is hurried, not doubled.
	w.ca.interfere(func(context.Context, *issuer.Order) error { return errors.New("no route to host") })
	require.NoError(t, w.e.Renew(t.Context(), "web"))
	w.tick()
	require.Equal(t, 1, w.record().Attempt)
	w.ca.interfere(nil)
	w.tick()
	require.Equal(t, 2, w.ca.issuedCount(), "no pause was kept")
	require.ErrorIs(t, w.e.Renew(t.Context(), "web"), ErrUnderWay)
	w.tick()
	w.requireServed(3)
	require.Equal(t, 3, w.ca.orders())
}

func TestForcedRenewalWhoseOrderIsLostIsNotForgotten(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.ca.interfere(func(context.Context, *issuer.Order) error {
		return &issuer.Error{Class: issuer.ClassOrderGone, Err: errors.New("expired")}
	})
	require.NoError(t, w.e.Renew(t.Context(), "web"))
	w.tick()
	w.ca.interfere(nil)
	w.requireServed(2)
}

func TestChangedConfigurationRenewsOnceAndKeepsServing(t *testing.T) {
	w := newWorld(t)
	w.open()
	before := w.settleDown()
	w.close()
	w.dns = []string{"web.example.com", "www.example.com"}
	w.open()
	rec := w.record()
	assert.True(t, rec.RetryAt.After(w.clock.now()) && !rec.RetryAt.After(w.clock.now().Add(changeSpread)), "a fleet must not order in one moment")
	assert.Equal(t, before.Current.Fingerprint, w.places[0].served)
	drawn := rec.RetryAt
	w.reopen()
	assert.Equal(t, drawn, w.record().RetryAt, "drawn again")
	w.clock.advance(changeSpread)
	w.tick()
	w.requireServed(2)
	assert.Equal(t, w.dns, leafOf(w.record().Current).DNSNames)
}

func TestChangedConfigurationAbandonsTheOrderUnderWay(t *testing.T) {
	w := newWorld(t)
	w.ca.interfere(func(context.Context, *issuer.Order) error { return errors.New("no route to host") })
	w.open()
	w.tick()
	old := w.record()
	w.close()
	w.ca.interfere(nil)
	w.dns = []string{"www.example.com"}
	w.open()
	w.requireServed(1)
	assert.NotEqual(t, old.Next.KeyID, w.record().Current.KeyID)
}

func TestCertificateThatIsNotManagedAnyMore(t *testing.T) {
	w := newWorld(t)
	w.open()
	rec := w.settleDown()
	w.close()
	w.names = []string{"other"}
	served := w.places[0].served
	w.open()
	_, found, err := w.store.Certificate("web")
	require.NoError(t, err)
	assert.False(t, found)
	removed := w.events(wire.EventRemoved)
	require.Len(t, removed, 1)
	assert.Equal(t, rec.Current.Serial, removed[0].Serial)
	assert.Equal(t, served, w.places[0].served, "what is deployed stays")
	w.tick()
	_, err = w.keys.Load(rec.Current.KeyID)
	assert.Error(t, err, "its key is removed")
}

func TestConcurrencyAndTickBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.clock.set(time.Now())
		w.names = nil
		for i := range 10 {
			w.names = append(w.names, fmt.Sprintf("c%d", i))
		}
		w.tune = func(c *Config) { c.Concurrency, c.TickBudget = 3, time.Minute }
		var mu sync.Mutex // guards what follows
		running, most, begun := 0, 0, 0
		release := make(chan struct{})
		w.ca.interfere(func(context.Context, *issuer.Order) error {
			mu.Lock()
			begun++
			running++
			most = max(most, running)
			mu.Unlock()
			<-release
			mu.Lock()
			running--
			mu.Unlock()
			return nil
		})
		count := func(n *int) int {
			mu.Lock()
			defer mu.Unlock()
			return *n
		}
		w.open()
		started := time.Now()
		w.e.tick(t.Context())
		assert.Equal(t, time.Minute, time.Since(started), "the tick must end with its budget")
		assert.Equal(t, 3, count(&begun), "nothing new starts past the limit")
		status, err := w.e.Status()
		require.NoError(t, err)
		require.Len(t, status, 10)
		assert.Equal(t, "obtaining", status[0].Doing)
		assert.Empty(t, status[9].Doing)

		w.e.tick(t.Context())
		assert.Equal(t, 3, count(&begun), "one job for each certificate")
		close(release)
		w.e.jobs.Wait()
		w.tick()
		assert.Equal(t, 10, w.ca.issuedCount())
		assert.Equal(t, 3, count(&most))
		w.close()
	})
}

func TestOneJobForEachCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.clock.set(time.Now())
		calls := 0 // by one job at a time
		release := make(chan struct{})
		w.ca.interfere(func(context.Context, *issuer.Order) error { calls++; <-release; return nil })
		w.open()
		w.e.tick(t.Context())
		synctest.Wait()
		w.e.Wake("web")
		w.e.tick(t.Context())
		synctest.Wait()
		close(release)
		w.tick()
		assert.Equal(t, 1, calls)
		w.requireServed(1)
		w.close()
	})
}

func TestAHundredCertificatesAtOnce(t *testing.T) {
	w := newWorld(t)
	w.names = nil
	for i := range 100 {
		w.names = append(w.names, fmt.Sprintf("c%02d", i))
	}
	w.open()
	for range 3 {
		w.tick()
	}
	assert.Equal(t, 100, w.ca.issuedCount())
	assert.Equal(t, 100, w.ca.orders())
	for _, name := range w.names {
		rec, _, err := w.store.Certificate(name)
		require.NoError(t, err)
		assert.EqualValues(t, 1, rec.Renewals, name)
	}
}

func TestRunRenewsAndStopsCleanly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(c *Config) { c.Now = time.Now }
		w.ca.now = time.Now
		w.ca.life = 2 * time.Minute
		w.open()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.e.Run(ctx) }()
		<-time.After(10 * time.Minute)
		synctest.Wait()
		// Ten minutes at a renewal each 54 to 66 seconds and a tick of five.
		assert.InDelta(t, 10, w.ca.issuedCount(), 2)
		assert.Equal(t, w.record().Current.Fingerprint, w.places[0].served)

		// A stop in the middle of an order and of a deployment is no failure.
		w.ca.interfere(func(ctx context.Context, _ *issuer.Order) error { <-ctx.Done(); return ctx.Err() })
		require.NoError(t, w.e.Renew(ctx, "web"))
		synctest.Wait()
		assert.Equal(t, store.PhaseKeyWritten, w.record().Phase)
		cancel()
		require.NoError(t, <-done)
		assert.Zero(t, w.record().Attempt)
		assert.Empty(t, w.events(wire.EventFailed))
		w.close()
	})
}

func TestStopDuringADeploymentKeepsItsState(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.places[0].failWith(func(ctx context.Context, _ *deploy.Task) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	})
	w.open()
	w.e.tick(ctx)
	w.e.jobs.Wait()
	rec := w.record()
	assert.Zero(t, rec.Attempt)
	assert.NotEmpty(t, rec.Deployments["front"].State)
	w.places[0].failWith(nil)
	w.reopen()
	w.requireServed(1)
}

func TestIssuerThatHangsIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.clock.set(time.Now())
		w.ca.interfere(func(ctx context.Context, _ *issuer.Order) error { <-ctx.Done(); return ctx.Err() })
		w.open()
		started := time.Now()
		w.tick()
		assert.Equal(t, DefaultIssueTimeout, time.Since(started))
		assert.Equal(t, 1, w.record().Attempt, "a time limit is a failure")
		w.close()
	})
}

func TestClipKeepsWholeCharacters(t *testing.T) {
	assert.Equal(t, "short", clip("short"))
	long := clip("x" + strings.Repeat("é", wire.MaxTextLen))
	assert.LessOrEqual(t, len(long), wire.MaxTextLen)
	assert.True(t, utf8.ValidString(long))
}
