package renewal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/shared/pki"
)

// hostInNeed is a host whose certificates may have to wait for each other.
type hostInNeed struct {
	certificates int
	life         time.Duration
	oldest       time.Duration // since the oldest one was obtained
	spread       time.Duration // between the oldest and the youngest
	limits       Limits
	concurrency  int
	takes        time.Duration // a call of its authority
	hostDown     time.Duration
	caDown       time.Duration
	span         time.Duration
	standIn      bool          // for every second certificate
	spent        time.Duration // of the budget, when the host is on
}

// needs makes a random host, on which limits and outages often let something
// expire.
func needs(r *rand.Rand) *hostInNeed {
	h := &hostInNeed{certificates: 20 + r.IntN(50), life: time.Duration(6+r.IntN(14)) * time.Hour}
	h.span = h.life * 3 / 2
	h.spread = fraction(h.life, 0.05+0.3*r.Float64())
	h.oldest = fraction(h.life, 0.3+0.3*r.Float64())
	h.limits = Limits{OrdersPerHour: 1 + r.IntN(6), Burst: r.IntN(4)}
	h.concurrency = DefaultConcurrency
	left := h.life - h.oldest
	switch r.IntN(4) {
	case 0, 1:
		h.hostDown = left - time.Duration(1+r.IntN(60))*time.Minute
		h.spread = time.Duration(r.IntN(90)) * time.Minute
	case 2:
		h.caDown = fraction(left, 0.5+0.7*r.Float64())
	default:
		h.hostDown = fraction(left, 0.4*r.Float64())
		h.caDown = fraction(left, 1.2*r.Float64())
	}
	if r.IntN(3) == 0 { // slots bound it, and not turns
		h.limits.OrdersPerHour = 0
		h.concurrency = 1 + r.IntN(2)
		h.takes = time.Duration(60+r.IntN(180)) * time.Second
		h.hostDown, h.caDown = left-time.Duration(2+r.IntN(20))*time.Minute, 0
		if r.IntN(2) == 0 {
			h.limits.Concurrency = 1
		}
	}
	h.standIn = r.IntN(4) == 0
	h.spent = time.Duration(r.IntN(3)) * time.Hour
	return h
}

// watchedStore sees when what is served has expired.
type watchedStore struct {
	Store
	mu      sync.Mutex
	ends    map[string]time.Time // what is served, by certificate
	expired map[string]time.Time
}

func (s *watchedStore) Update(name string, fn func(*store.CertificateTx) error) error {
	var end time.Time
	err := s.Store.Update(name, func(tx *store.CertificateTx) error {
		if err := fn(tx); err != nil {
			return err
		}
		end, _ = tx.Record.Served()
		return nil
	})
	if err == nil {
		s.look(name, end, time.Now())
	}
	return err
}

func (s *watchedStore) look(name string, end, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.ends[name]; !before.IsZero() && before.Before(now) && s.expired[name].IsZero() {
		s.expired[name] = before
	}
	s.ends[name] = end
}

// outcome is what became of a host: what a drill foretells, and what an engine did.
type outcome struct {
	first   time.Time // expired certificate that is served; zero if none is
	expired int
	renewed int // orders that a certificate came of
}

// foretoldAndSeen holds a drill on a host and lets the real engine live through
// the same, in the time of the bubble.
func (h *hostInNeed) foretoldAndSeen(t *testing.T, dir string) (f *Forecast, foretold, seen outcome) {
	from := time.Now().UTC()
	half := func() float64 { return 0.5 }
	file, err := store.Open(filepath.Join(dir, "state.db"), store.Options{})
	require.NoError(t, err)
	defer func() { assert.NoError(t, file.Close()) }()
	k, err := keys.OpenDir(filepath.Join(dir, "keys"))
	require.NoError(t, err)
	keyID, _, err := k.Create(pki.ECDSAP256)
	require.NoError(t, err)

	ca, second := newAuthority(t, time.Now), newAuthority(t, time.Now)
	for _, a := range []*authority{ca, second} {
		a.life, a.backdate = h.life, 0
		down := from.Add(h.caDown)
		a.interfere(func(ctx context.Context, _ *issuer.Order) error {
			if h.takes > 0 {
				select {
				case <-time.After(h.takes):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if time.Now().Before(down) {
				return &issuer.Error{Class: issuer.ClassRetry, Err: errors.New("no route to host")}
			}
			return nil
		})
	}
	var list []Managed
	names := make([]string, h.certificates)
	for i := range names {
		names[i] = fmt.Sprintf("c%02d", i)
		m := Managed{
			Name: names[i], Names: pki.MustParseNames(names[i] + ".example.com"), KeyAlgorithm: pki.ECDSAP256,
			Issuers: []NamedIssuer{{Name: "ca", Issuer: ca, Limits: h.limits}},
		}
		if h.standIn && i%2 == 0 {
			m.Issuers = append(m.Issuers, NamedIssuer{Name: "second", Issuer: second, Limits: h.limits})
		}
		list = append(list, m)
	}
	watched := &watchedStore{Store: roomy{file}, ends: make(map[string]time.Time), expired: make(map[string]time.Time)}
	number := 0
	require.NoError(t, file.UpdateAll(names, func(tx *store.CertificateTx) error {
		age := h.oldest - time.Duration(number)*h.spread/time.Duration(h.certificates)
		m, err := newManaged(list[number])
		if err != nil {
			return err
		}
		number++
		*tx.Record = *inServiceSubject(m.Name, h.life, age).Record
		rec := tx.Record
		rec.Deployments, rec.ConfigDigest = nil, m.digest
		g := rec.Current
		g.KeyID, g.ConfigDigest = keyID, m.digest
		g.IssuedAt = from.Add(-age)
		g.NotBefore, g.NotAfter = g.IssuedAt, g.IssuedAt.Add(h.life)
		rec.RenewAt = drawRenewAt(g.NotBefore, g.NotAfter, half())
		rec.NextAction = rec.RenewAt
		watched.ends[m.Name] = g.NotAfter
		return nil
	}))
	if h.spent > 0 {
		require.NoError(t, file.SaveTurns(map[string]store.Turns{"ca": {EarnedAt: from.Add(h.hostDown + h.spent)}}))
	}

	records, err := file.Certificates()
	require.NoError(t, err)
	used, err := file.Turns()
	require.NoError(t, err)
	subjects, err := SubjectsOf(list, Rest{Records: records, Turns: used}, h.concurrency, from)
	require.NoError(t, err)
	simulated := SimulatedIssuer{Down: h.caDown, Why: "no route to host", Takes: h.takes, Lifetime: h.life}
	f, err = Drill(subjects, Scenario{
		From: from, Span: h.span, HostDown: h.hostDown, draw: half,
		Issuers: map[string]SimulatedIssuer{"ca": simulated, "second": simulated},
	})
	require.NoError(t, err)
	for _, p := range f.Certificates {
		foretold.renewed += p.Renewals
		if !p.ExpiredAt.IsZero() {
			foretold.expired++
		}
	}
	if f.First != nil {
		foretold.first = f.First.At
	}

	<-time.After(h.hostDown)
	on := time.Now()
	e, err := New(Config{
		Store: watched, Keys: k, Managed: list, ScratchDir: filepath.Join(dir, "scratch"), Log: slog.New(slog.DiscardHandler),
		Pace: Pace{Concurrency: h.concurrency}, Rand: half,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithDeadline(t.Context(), from.Add(h.span))
	defer cancel()
	require.NoError(t, e.Run(ctx))
	for name, end := range watched.ends {
		watched.look(name, end, from.Add(h.span))
	}
	for _, at := range watched.expired {
		if at = later(at, on); seen.first.IsZero() || at.Before(seen.first) {
			seen.first = at
		}
	}
	seen.expired = len(watched.expired)
	seen.renewed = ca.issuedCount() + second.issuedCount()
	return f, foretold, seen
}

// What a drill says of a host whose certificates wait for each other is what the
// real engine does, which draws the same but looks at its schedule at moments of
// its own, jittered around every five seconds, and works on several at a time. A
// certificate that is renewed within moments of its expiry can therefore go either
// way. What is tolerated: as many as a twentieth of those that expire, two at
// least, may expire in one of them alone, and where more expire than that the
// first one may be another one that expires within ten minutes of it.
func TestDrillForetellsWhatLimitsLetExpire(t *testing.T) {
	worlds := uint64(10)
	if os.Getenv("CERTCTL_SOAK") != "" {
		worlds = 300
	}
	const near = 10 * time.Minute
	limits, exact, expired := make(map[string]int), 0, 0
	for seed := range worlds {
		h := needs(rand.New(rand.NewPCG(seed, 1)))
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := ramDir(t)
			synctest.Test(t, func(t *testing.T) {
				f, foretold, seen := h.foretoldAndSeen(t, dir)
				what := fmt.Sprintf("%+v: foretold %+v, seen %+v, shortages %+v", *h, foretold, seen, f.Shortages)
				t.Log(what)
				tolerated := max(2, seen.expired/20)
				assert.InDelta(t, seen.expired, foretold.expired, float64(tolerated), what)
				assert.InDelta(t, seen.renewed, foretold.renewed, float64(max(2, seen.renewed/10)), what)
				if min(seen.expired, foretold.expired) > tolerated {
					assert.WithinDuration(t, seen.first, foretold.first, near, what)
				}
				assert.Equal(t, foretold.expired == 0, f.Well(), what)
				for _, s := range f.Shortages {
					limits[s.Limit]++
				}
				expired += seen.expired
				if seen.expired == foretold.expired && seen.first.Equal(foretold.first) {
					exact++
				}
			})
		})
	}
	for _, limit := range []string{"issuers.ca.limits.orders_per_hour", "issuers.ca.limits.concurrency", "renewal.concurrency"} {
		assert.Positive(t, limits[limit], "no world was short of %s", limit)
	}
	counts.Report(t, "drill-worlds", int(worlds), "random hosts with limits and outages, on which a drill was compared with the real engine")
	counts.Report(t, "drill-exact", exact, "of them on which both let as many certificates expire, and the first at the same moment")
	counts.Report(t, "drill-expired", expired, "certificates that expired on them")
}

// Sixty certificates, two orders at once and one an hour, and a host that is off
// until an hour before they expire: both let as many expire, the drill says for
// want of what, and with what it says is enough nothing expires.
func TestDrillNamesTheLimitThatLetsCertificatesExpire(t *testing.T) {
	h := &hostInNeed{
		certificates: 60, life: 12 * time.Hour, oldest: 4 * time.Hour, limits: Limits{OrdersPerHour: 1}, concurrency: DefaultConcurrency,
		hostDown: 7*time.Hour + time.Minute, span: 14 * time.Hour,
	}
	dir := ramDir(t)
	synctest.Test(t, func(t *testing.T) {
		from := time.Now().UTC()
		f, foretold, seen := h.foretoldAndSeen(t, dir)
		t.Logf("foretold %+v, seen %+v", foretold, seen)
		assert.Equal(t, 60-2-20-19, seen.expired, "two of the budget, twenty beyond it, and one of these every three minutes")
		assert.Equal(t, seen.expired, foretold.expired)
		assert.Equal(t, from.Add(8*time.Hour), foretold.first)
		assert.Equal(t, foretold.first, seen.first)
		require.Len(t, f.Shortages, 1)
		s := f.Shortages[0]
		assert.Equal(t, ordersLimit("ca"), s.Limit)
		assert.Equal(t, 1, s.Now)
		assert.Equal(t, foretold.expired, s.Certificates)
		assert.Equal(t, foretold.first, s.First.At)
		assert.Contains(t, f.First.Why, "its turn comes too late: issuers.ca.limits.orders_per_hour is 1")
		assert.Equal(t, []Raise{{Limit: ordersLimit("ca"), From: 1, To: 8}}, f.Raises)
		h.limits.OrdersPerHour = f.Raises[0].To
	})
	require.False(t, t.Failed())
	dir = ramDir(t)
	synctest.Test(t, func(t *testing.T) {
		f, _, seen := h.foretoldAndSeen(t, dir)
		assert.True(t, f.Well())
		assert.Zero(t, seen.expired)
	})
}

// What no limit helps does not hide what one does. The host comes back two hours
// before most of its certificates expire and has turns for a part of them. Twenty
// expire within a minute, while as many as can be worked on at the same time are
// before them.
func TestDrillMendsWhatCanBeMended(t *testing.T) {
	var subjects []*Subject
	for i := range 4000 {
		age := 60 * day
		if i >= 3980 {
			age += 119 * time.Minute
		}
		s := inServiceSubject(fmt.Sprintf("c%04d", i), 90*day, age)
		s.Issuers[0].Limits, s.Concurrency = Limits{OrdersPerHour: 600}, maxConcurrency
		subjects = append(subjects, s)
	}
	scenario := scenarioOf(31*day, SimulatedIssuer{Takes: 2 * time.Minute})
	scenario.HostDown = 30*day - 2*time.Hour
	f, err := Drill(subjects, scenario)
	require.NoError(t, err)
	require.Len(t, f.Shortages, 2)
	assert.Equal(t, ordersLimit("ca"), f.Shortages[0].Limit)
	assert.InDelta(t, 3980-2*600-2*600-20-2*20, f.Shortages[0].Certificates, 50)
	assert.Equal(t, hostConcurrency, f.Shortages[1].Limit)
	assert.Equal(t, 20, f.Shortages[1].Certificates)
	assert.Equal(t, []Raise{{Limit: ordersLimit("ca"), From: 600, To: 1200}}, f.Raises)
	assert.Equal(t, 20, f.StillShort)
}
