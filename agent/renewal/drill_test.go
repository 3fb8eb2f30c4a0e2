package renewal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

var drillStart = time.Date(2031, 3, 1, 10, 30, 0, 0, time.UTC)

// inService is a subject whose certificate of the given lifetime was obtained
// age ago and is served at two places.
func inServiceSubject(name string, life, age time.Duration) *Subject {
	issuedAt := drillStart.Add(-age)
	g := &store.Generation{
		Number: 1, KeyID: "k", KeyAlgorithm: pki.ECDSAP256, ChainPEM: omitted, Serial: "1", Fingerprint: "f1",
		NotBefore: issuedAt.Add(-time.Hour), NotAfter: issuedAt.Add(life), IssuedAt: issuedAt, ConfigDigest: "d",
	}
	start, end := lifetime(g)
	rec := &store.Certificate{
		Name: name, Names: pki.MustParseNames(name + ".example.com"), Issuer: "ca", IssuerKind: "acme", ConfigDigest: "d",
		Phase: store.PhaseIdle, Current: g, RenewAt: drawRenewAt(start, end, 0.5), Renewals: 1,
		Deployments: map[string]store.Deployment{},
	}
	for _, id := range []string{"front", "back"} {
		rec.Deployments[id] = store.Deployment{Generation: 1, Outcome: wire.DeploymentVerified, Fingerprint: "f1", NotAfter: g.NotAfter}
	}
	return &Subject{
		Record: rec, Issuers: []SubjectIssuer{{Name: "ca", Kind: "acme"}}, ConfigDigest: "d", KeyAlgorithm: pki.ECDSAP256,
		Places: []Place{{ID: "front", Probed: true}, {ID: "back"}},
	}
}

func scenarioOf(span time.Duration, iss SimulatedIssuer) Scenario {
	return Scenario{From: drillStart, Span: span, Issuers: map[string]SimulatedIssuer{"ca": iss}, Seed: 1}
}

func rehearse(t *testing.T, s *Subject, scenario Scenario) (*Forecast, Prospect) {
	t.Helper()
	before, err := json.Marshal(s)
	require.NoError(t, err)
	f, err := Drill([]*Subject{s}, scenario)
	require.NoError(t, err)
	after, err := json.Marshal(s)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after), "a drill changes nothing")
	require.Len(t, f.Certificates, 1)
	return f, f.Certificates[0]
}

func TestDrill(t *testing.T) {
	const life = 90 * day
	for name, c := range map[string]struct {
		change   func(*Subject)
		scenario Scenario
		// expires is when the first expired certificate is served, from the start;
		// 0 if none is.
		expires  time.Duration
		why      string
		renewals bool
	}{
		"nothing is down": {nil, scenarioOf(400*day, SimulatedIssuer{}), 0, "", true},
		// Obtained 30 days ago: due within days 25 to 35, expired on day 60.
		"down for less than the rest of the lifetime": {nil, scenarioOf(400*day, SimulatedIssuer{Down: 59 * day, Why: "it is down"}), 0, "", true},
		"down for more":                    {nil, scenarioOf(400*day, SimulatedIssuer{Down: 61 * day, Why: "the network is down"}), 60 * day, "its issuer ca cannot be reached until 2031-05-01T10:30:00Z: the network is down", true},
		"down for more, but nobody looks":  {nil, scenarioOf(59*day, SimulatedIssuer{Down: 400 * day, Why: "it is down"}), 0, "", false},
		"brokered and down for less":       {nil, scenarioOf(400*day, SimulatedIssuer{Down: 59 * day, Why: "it is down", Brokered: true}), 0, "", true},
		"brokered and down for more":       {nil, scenarioOf(400*day, SimulatedIssuer{Down: 61 * day, Why: "it is down", Brokered: true}), 60 * day, "it is down", true},
		"slow":                             {nil, scenarioOf(400*day, SimulatedIssuer{Delay: 5 * day}), 0, "", true},
		"slower than any renewal can wait": {nil, scenarioOf(400*day, SimulatedIssuer{Delay: 40 * day}), 60 * day, "its issuer ca takes 960h0m0s to issue", true},
		"the host is off": {nil, func() Scenario {
			s := scenarioOf(400*day, SimulatedIssuer{Down: 90 * day, Why: "it is down"})
			s.HostDown = 80 * day
			return s
		}(), 80 * day, "its issuer ca cannot be reached", true},
		"a place that fails": {func(s *Subject) {
			d := s.Record.Deployments["back"]
			d.Outcome, d.Attempt, d.Fingerprint, d.NotAfter = wire.DeploymentFailed, 3, "f0", drillStart.Add(10*day)
			s.Record.Deployments["back"] = d
		}, scenarioOf(400*day, SimulatedIssuer{}), 10 * day, "the deployment back fails now", false},
		"a pair that waits to be deployed": {func(s *Subject) {
			next := *s.Record.Current
			next.Number, next.Fingerprint, next.IssuedAt = 2, "f2", drillStart
			next.NotBefore, next.NotAfter = drillStart, drillStart.Add(life)
			s.Record.Next, s.Record.Phase, s.Record.OrderID = &next, store.PhaseIssued, "o"
		}, scenarioOf(89*day, SimulatedIssuer{Down: 400 * day, Why: "it is down"}), 0, "", true},
		"an order that is under way": {func(s *Subject) {
			s.Record.Next = &store.Generation{Number: 2, KeyID: "k2", KeyAlgorithm: pki.ECDSAP256, ConfigDigest: "d"}
			s.Record.Phase, s.Record.OrderID, s.Record.OrderState = store.PhaseOrderPlaced, "o", json.RawMessage(omitted)
		}, scenarioOf(59*day, SimulatedIssuer{}), 0, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := inServiceSubject("web", life, 30*day)
			if c.change != nil {
				c.change(s)
			}
			f, p := rehearse(t, s, c.scenario)
			assert.Equal(t, c.renewals, p.Renewals > 0, "%+v", p)
			if c.expires == 0 {
				assert.Nil(t, f.First)
				assert.Zero(t, p.ExpiredAt)
				assert.Empty(t, p.Unserved)
				return
			}
			require.NotNil(t, f.First, "%+v", p)
			assert.Equal(t, drillStart.Add(c.expires), f.First.At)
			assert.Contains(t, f.First.Why, c.why)
			assert.Positive(t, p.ExpiredFor)
			assert.NotZero(t, p.AttentionAt)
			expired := 0
			for _, d := range f.Days {
				expired += d.Expired
			}
			assert.Equal(t, 1, expired, "%+v", f.Days)
		})
	}
}

// A stand-in is asked in a drill as it would be, and one that is down too does
// not help.
func TestDrillWithStandIn(t *testing.T) {
	s := inServiceSubject("web", 90*day, 30*day)
	s.Issuers = append(s.Issuers, SubjectIssuer{Name: "spare", Kind: "acme"})
	scenario := scenarioOf(100*day, SimulatedIssuer{Down: 100 * day, Why: "it is down"})
	scenario.Issuers["spare"] = SimulatedIssuer{}
	f, p := rehearse(t, s, scenario)
	assert.Nil(t, f.First)
	assert.Positive(t, p.Renewals)
	assert.Positive(t, p.Failures)

	scenario.Issuers["spare"] = SimulatedIssuer{Down: 100 * day, Why: "every CA is down"}
	f, _ = rehearse(t, s, scenario)
	require.NotNil(t, f.First)
	assert.Equal(t, drillStart.Add(60*day), f.First.At)
}

func TestDrillOfACertificateThatIsNotThereYet(t *testing.T) {
	s := &Subject{
		Record:  &store.Certificate{Name: "new", Phase: store.PhaseIdle, Deployments: map[string]store.Deployment{"front": {}}},
		Issuers: []SubjectIssuer{{Name: "ca", Kind: "acme"}}, ConfigDigest: "d", KeyAlgorithm: pki.ECDSAP256, Places: []Place{{ID: "front"}},
	}
	f, p := rehearse(t, s, scenarioOf(10*day, SimulatedIssuer{Down: 5 * day, Why: "it is down"}))
	assert.Nil(t, f.First, "what is not served has not expired")
	assert.Empty(t, p.Unserved)
	assert.Equal(t, "front", p.UnservedNow)
	assert.WithinDuration(t, drillStart.Add(5*day), p.RenewedAt, unservedPause*2)
	assert.Positive(t, p.Failures)

	_, p = rehearse(t, s, scenarioOf(10*day, SimulatedIssuer{Down: 50 * day, Why: "it is down"}))
	assert.Equal(t, "front", p.Unserved)
	assert.NotEmpty(t, p.Attention)
}

// An issuer that is known to issue nothing to this host issues nothing later, and
// the drill says so with its own words.
func TestDrillOfAnIssuerThatRefusesForGood(t *testing.T) {
	for _, class := range []issuer.Class{issuer.ClassReenrol, issuer.ClassConfig, issuer.ClassPending} {
		refuses := &issuer.Error{Class: class, Err: errors.New("the coordinator has retired this agent"), Committed: class == issuer.ClassPending}
		f, p := rehearse(t, inServiceSubject("web", 90*day, 30*day), scenarioOf(400*day, SimulatedIssuer{Refuses: refuses, Brokered: true}))
		require.NotNil(t, f.First, class)
		assert.Equal(t, drillStart.Add(60*day), f.First.At)
		assert.Equal(t, "its issuer ca issues nothing to this host: the coordinator has retired this agent", f.First.Why)
		assert.Zero(t, p.Renewals)
		assert.NotEmpty(t, p.Attention)
		assert.False(t, f.Well())
	}
	s := inServiceSubject("web", 90*day, 30*day)
	s.Issuers = append(s.Issuers, SubjectIssuer{Name: "stand-in", Kind: "acme"})
	scenario := scenarioOf(400*day, SimulatedIssuer{Refuses: &issuer.Error{Class: issuer.ClassReenrol, Err: errors.New("retired")}, Brokered: true})
	scenario.Issuers["stand-in"] = SimulatedIssuer{}
	f, p := rehearse(t, s, scenario)
	assert.Nil(t, f.First, "the stand-in issues")
	assert.Positive(t, p.Renewals)
}

func TestDrillRefusesWhatItCannotKnow(t *testing.T) {
	s := inServiceSubject("web", 90*day, day)
	for want, scenario := range map[string]Scenario{
		"span 0s: must be above zero":                                     {Issuers: map[string]SimulatedIssuer{"ca": {}}},
		`certificate "web": the scenario says nothing of its issuer "ca"`: {Span: day},
		`issuer "ca": times must not be negative`:                         scenarioOf(day, SimulatedIssuer{Down: -1}),
		"host down for -1ns: must not be negative":                        {Span: day, HostDown: -1, Issuers: map[string]SimulatedIssuer{"ca": {}}},
	} {
		_, err := Drill([]*Subject{s}, scenario)
		require.ErrorContains(t, err, want)
	}
}

// A drill knows every step that the engine has.
func TestDrillKnowsEveryStep(t *testing.T) {
	for s := range stepNames {
		subject := inServiceSubject("web", 90*day, 30*day)
		subject.Record.Next = &store.Generation{Number: 2, KeyID: "k2", KeyAlgorithm: pki.ECDSAP256, ConfigDigest: "d"}
		subject.Record.RenewalInfo = &store.RenewalInfo{}
		scenario := scenarioOf(day, SimulatedIssuer{})
		tl, err := newTimeline([]*Subject{subject}, &scenario, nil, capacityOf([]*Subject{subject}))
		require.NoError(t, err)
		r := tl.all[0]
		if err := r.do(action{step: s}); err != nil {
			require.NotContains(t, err.Error(), "does not know", "step %s", s)
		}
	}
}

// What a drill says is what the engine does: the same draws, the same authority,
// the real engine on the real store, its clock set from one due moment to the
// next.
func TestDrillForetellsTheEngine(t *testing.T) {
	for _, down := range []time.Duration{0, 35 * day, 41 * day} {
		t.Run(fmt.Sprint(down), func(t *testing.T) {
			w := newWorld(t)
			draws := func() float64 { return 0.5 }
			w.tune = func(c *Config) { c.Rand, c.VerifyInterval = draws, 10*365*day }
			w.open()
			w.settleDown()
			w.toRenewal()
			w.clock.advance(-10 * day)

			var subjects []*Subject
			require.NoError(t, w.e.Subjects(func(s *Subject) error {
				text, err := json.Marshal(s) // as it crosses the socket
				require.NoError(t, err)
				copied := new(Subject)
				require.NoError(t, json.Unmarshal(text, copied))
				require.NotContains(t, string(text), "BEGIN")
				subjects = append(subjects, copied)
				return nil
			}))
			from, span := w.clock.now(), 130*day
			scenario := Scenario{From: from, Span: span, Issuers: map[string]SimulatedIssuer{"ca": {Down: down, Why: "no route to host"}}, draw: draws}
			f, err := Drill(subjects, scenario)
			require.NoError(t, err)
			foretold := f.Certificates[0]

			back := from.Add(down)
			w.ca.intf = func(context.Context, *issuer.Order) error {
				if w.clock.now().Before(back) {
					return &issuer.Error{Class: issuer.ClassRetry, Err: errors.New("no route to host")}
				}
				return nil
			}
			seen := Prospect{Name: foretold.Name, Issuer: "ca", SafeUntil: foretold.SafeUntil}
			failures := len(w.events(wire.EventFailed))
			renewals := w.record().Renewals
			for now := from; now.Before(from.Add(span)); {
				w.clock.set(now)
				w.tick()
				rec := w.record()
				if rec.Renewals > renewals && seen.RenewedAt.IsZero() {
					seen.RenewedAt = now
				}
				if rec.NeedsAttention != "" && seen.AttentionAt.IsZero() {
					seen.AttentionAt = now
				}
				next := rec.NextAction
				if earliest := now.Add(rehearsalTick); next.Before(earliest) {
					next = earliest
				}
				if end := rec.Current.NotAfter; end.Before(next) && seen.ExpiredAt.IsZero() {
					seen.ExpiredAt = end
					if end.Before(now) {
						seen.ExpiredAt = now
					}
				}
				now = next
			}
			assert.Equal(t, int(w.record().Renewals-renewals), foretold.Renewals)
			assert.Equal(t, len(w.events(wire.EventFailed))-failures, foretold.Failures)
			assert.Equal(t, seen.RenewedAt, foretold.RenewedAt)
			assert.Equal(t, seen.AttentionAt, foretold.AttentionAt)
			assert.Equal(t, seen.ExpiredAt, foretold.ExpiredAt)
			assert.Equal(t, down == 41*day, !foretold.ExpiredAt.IsZero())
			assert.Positive(t, foretold.Renewals)
		})
	}
}

// Whatever lifetime certificates have: an outage that ends before the last
// renewal window closes expires nothing.
func TestDrillOfShortOutages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		life := time.Duration(rapid.Int64Range(int64(time.Hour), int64(400*day)).Draw(t, "life"))
		s := inServiceSubject("web", life, time.Duration(float64(life)*rapid.Float64Range(0, 0.4).Draw(t, "age")))
		part := 1.0 / 4 // of a lifetime, from the end of the window at 0.717 to the end
		if life < shortLifetime {
			part = 2.0 / 5
		}
		scenario := scenarioOf(3*life, SimulatedIssuer{Why: "it is down", Brokered: rapid.Bool().Draw(t, "brokered")})
		scenario.Issuers["ca"] = SimulatedIssuer{Down: fraction(life, part), Why: "it is down", Brokered: scenario.Issuers["ca"].Brokered}
		scenario.Seed = rapid.Uint64().Draw(t, "seed")
		f, err := Drill([]*Subject{s}, scenario)
		if err != nil {
			t.Fatal(err)
		}
		if f.First != nil {
			t.Fatalf("%+v", f.Certificates[0])
		}
		if f.Certificates[0].Renewals == 0 {
			t.Fatal("nothing was renewed")
		}
	})
}

// BenchmarkDrill is ten thousand certificates over four hundred days: with an
// outage of a month, and with a host that is off until shortly before all of them
// expire within three days, so that many do for want of turns, and of slots.
func BenchmarkDrill(b *testing.B) {
	off := scenarioOf(400*day, SimulatedIssuer{Takes: 30 * time.Second})
	off.HostDown = 29 * day
	for _, c := range []struct {
		name     string
		youngest time.Duration // the oldest is 60 days old
		limits   Limits
		slots    int
		scenario Scenario
	}{
		{"brokered and down", 0, Limits{}, 25, scenarioOf(400*day, SimulatedIssuer{Down: 30 * day, Why: "it is down", Brokered: true})},
		{"down", 0, Limits{OrdersPerHour: 100}, 25, scenarioOf(400*day, SimulatedIssuer{Down: 30 * day, Why: "it is down", Takes: 30 * time.Second})},
		{"short of turns", 58 * day, Limits{OrdersPerHour: 50}, 25, off},
		{"short of slots", 58 * day, Limits{}, 1, off},
	} {
		b.Run(c.name, func(b *testing.B) {
			var subjects []*Subject
			for i := range 10_000 {
				s := inServiceSubject(fmt.Sprintf("c%05d", i), 90*day, c.youngest+time.Duration(i)*(60*day-c.youngest)/10_000)
				s.Issuers[0].Informed, s.Issuers[0].Limits, s.Concurrency = true, c.limits, c.slots
				s.Record.RenewalInfo = &store.RenewalInfo{CheckAgainAt: drillStart}
				subjects = append(subjects, s)
			}
			for b.Loop() {
				f, err := Drill(subjects, c.scenario)
				if err != nil || len(f.Certificates) != len(subjects) {
					b.Fatal(err)
				}
				b.Logf("shortages %+v, raises %+v", f.Shortages, f.Raises)
			}
		})
	}
}
