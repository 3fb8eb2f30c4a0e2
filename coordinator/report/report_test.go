package report_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/coordinator/report"
	"github.com/certctl/certctl/shared/wire"
)

// Hosts come by risk, and within one the earliest moment first. Each says what is the
// matter, and all but the last what to do.
func TestHostsAtRiskComeFirst(t *testing.T) {
	w := newWorld(t)
	hour := func(n int) time.Duration { return time.Duration(n) * time.Hour }
	for _, id := range []string{"well", "warned", "clock", "needy", "shared", "gone", "gone-longer", "short", "soon-cut-off", "soon-failing", "unserved", "ended", "ended-first", "since-expired", "revoked"} {
		w.enrol(id)
	}
	// These are not heard of after this.
	w.tell("gone-longer", "www", w.well(60*day), w.safe(60*day))
	w.tell("since-expired", "www", w.well(hour(3)), w.safe(hour(3)))
	w.tell("soon-cut-off", "www", w.well(5*day), w.safe(5*day))
	w.now = w.now.Add(time.Minute)
	w.tell("gone", "www", w.well(60*day), w.safe(60*day))
	w.now = w.now.Add(hour(4))

	w.tell("well", "www", w.well(60*day), w.safe(60*day))
	w.tell("short", "www", w.well(6*day), w.safe(6*day)) // as it should be
	w.tell("warned", "www", w.well(40*day), func(h *wire.HostReport) { w.safe(40 * day)(h); h.Warnings = []string{"disk"} })
	w.tell("clock", "www", w.well(50*day), func(h *wire.HostReport) { w.safe(50 * day)(h); h.ClockSkewSeconds = -61 })
	needy := w.well(30 * day)
	needy.NeedsAttention = "the authority wants to be paid"
	w.tell("needy", "www", needy, w.safe(30*day))
	w.tell("shared", "www", w.well(31*day), w.safe(31*day))
	w.do(fleet.NoteSharedIdentity{AgentID: "shared"})
	failing := w.well(4 * day)
	failing.State, failing.Attempt, failing.LastError = wire.StateFailed, 2, "CAA"
	w.tell("soon-failing", "www", failing, w.safe(4*day))
	unserved := w.well(20 * day)
	unserved.Deployments[0].Fingerprint = ""
	w.tell("unserved", "www", unserved, func(h *wire.HostReport) { h.NotSafe = 1 })
	w.tell("ended", "www", w.well(-hour(1)), func(h *wire.HostReport) { w.safe(-hour(1))(h); h.NotSafe = 1 })
	w.tell("ended-first", "www", w.well(-hour(5)), func(h *wire.HostReport) { w.safe(-hour(5))(h); h.NotSafe = 1 })
	revoked := w.well(20 * day)
	revoked.RevokedAt = w.now.Add(-hour(2))
	w.tell("revoked", "www", revoked, w.safe(20*day))

	answer := w.ask(w.question())
	var got [][3]string
	for _, h := range answer.Hosts {
		got = append(got, [3]string{h.Agent.ID, string(h.Risk), h.Reason()})
		assert.Equal(t, h.Risk == report.RiskNone, h.Mend() == "", h.Agent.ID)
		assert.Equal(t, h.Risk == report.RiskNone, h.Reason() == "", h.Agent.ID)
	}
	assert.Equal(t, [][3]string{
		{"ended-first", "expired", "1 certificate expired"},
		{"revoked", "expired", "1 certificate revoked"},
		{"since-expired", "expired", "1 certificate expired, cut off"},
		{"ended", "expired", "1 certificate expired"},
		{"unserved", "unserved", "1 not in service"},
		{"soon-failing", "expiring", "1 at risk"},
		{"soon-cut-off", "expiring", "cut off"},
		{"gone-longer", "cut_off", "cut off"},
		{"gone", "cut_off", "cut off"},
		{"needy", "attention", "1 at risk, 1 needs a person"},
		{"shared", "attention", "another host uses its identity"},
		{"warned", "warned", "1 warning"},
		{"clock", "warned", "its clock is wrong"},
		{"short", "none", ""},
		{"well", "none", ""},
	}, got)

	f := answer.Fleet
	assert.Equal(t, map[report.Risk]int{
		report.RiskExpired: 4, report.RiskUnserved: 1, report.RiskExpiring: 2, report.RiskCutOff: 2, report.RiskAttention: 2, report.RiskWarned: 2, report.RiskNone: 2,
	}, f.Risks)
	assert.Equal(t, []int{15, 11, 4, 3, 3, 1, 1, 1}, []int{f.Hosts, f.Connected, f.CutOff, f.NotSafe, f.NotSafeHosts, f.Warned, f.ClockWrong, f.Shared})
	assert.Equal(t, int64(-61), f.WorstSkew)
	assert.Equal(t, w.now.Add(-hour(4)-time.Minute), f.CutOffSince.UTC())
	assert.Equal(t, w.now.Add(-hour(5)), f.SafeUntil.UTC(), "what has ended stays")
}

// Sums are of the hosts that are asked about, and of nothing else.
func TestTheFleetInSums(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"a", "b", "c", "gone", "retired"} {
		w.enrol(id)
	}
	w.tell("gone", "www", w.well(60*day), nil)
	w.tell("retired", "www", w.well(60*day), nil)
	w.do(fleet.RetireAgent{AgentID: "retired"})
	w.now = w.now.Add(time.Hour)
	w.touch("c")
	// The Wednesday's week, the next one, the twelfth after it and the one beyond.
	w.tell("a", "soon", w.well(3*day), nil)
	w.tell("a", "next", w.well(7*day), nil)
	w.tell("a", "last", w.well(12*7*day+4*day), nil)
	w.tell("a", "later", w.well(12*7*day+5*day), nil)
	w.tell("a", "ended", w.well(-time.Second), func(h *wire.HostReport) { h.NotSafe, h.EventsDropped, h.Version = 1, 7, "1.1" })
	other := w.well(10 * day)
	other.Issuer, other.State, other.Fingerprint, other.NotAfter = "digicert", wire.StatePending, "", time.Time{}
	other.Deployments = []wire.DeploymentSummary{{ID: "1", State: wire.DeploymentPending}, {ID: "2", State: wire.DeploymentBroken}, {ID: "3", State: wire.DeploymentFailed}, {ID: "4", State: wire.DeploymentUnverified}}
	w.tell("b", "pending", other, w.safe(9*day))

	f := w.ask(w.question()).Fleet
	assert.Equal(t, []int{4, 3, 1}, []int{f.Hosts, f.Connected, f.CutOff})
	assert.Equal(t, report.States{Valid: 6, Pending: 1}, f.Certificates.States)
	assert.Equal(t, report.Deployments{Verified: 6, Pending: 1, Broken: 1, Failed: 1, Unverified: 1}, f.Certificates.Deployments)
	c := f.Certificates.Health
	assert.Equal(t, []int{4, 1, 1, 1, 7}, []int{c.OK, c.Unknown, c.Expired, c.Unserved, c.Total()}, "of who is gone nothing is well")
	assert.Equal(t, time.Date(2031, 5, 5, 0, 0, 0, 0, time.UTC), f.Week)
	want := report.Expiring{Later: 1}
	want.Weeks[0], want.Weeks[1], want.Weeks[8], want.Weeks[12] = 1, 1, 1, 1
	assert.Equal(t, want, f.Certificates.Expiring)
	assert.Equal(t, w.now.Add(3*day), f.Certificates.NextExpiry.UTC())
	assert.Equal(t, []report.Issued{{Issuer: "acme", Total: 6, Troubled: 1}, {Issuer: "digicert", Total: 1, Troubled: 1}}, f.Issuers)
	assert.Equal(t, []report.Version{{Version: "1.0", Hosts: 3}, {Version: "1.1", Hosts: 1}}, f.Versions)
	assert.Equal(t, []uint64{7, 1}, []uint64{f.FactsDropped, uint64(f.FactsDroppedHosts)})
	assert.Zero(t, f.SafeUntil, "something is not safe now")

	q := w.question()
	q.Of = func(a *fleet.Agent) bool { return a.ID == "b" }
	f = w.ask(q).Fleet
	assert.Equal(t, []int{1, 1, 0, 1}, []int{f.Hosts, f.Connected, f.CutOff, f.Certificates.States.Total()})
	assert.Equal(t, w.now.Add(9*day), f.SafeUntil.UTC())
}

// However many versions and issuers hosts claim to have, the report tells a bounded number.
func TestNamesFromOutsideAreBounded(t *testing.T) {
	w := newWorld(t)
	for i := range report.MaxVersions + 6 {
		id := fmt.Sprintf("h%03d", i)
		w.enrol(id)
		certificate := w.well(60 * day)
		certificate.Issuer = id
		w.tell(id, "www", certificate, func(h *wire.HostReport) { h.Version = id })
	}
	f := w.ask(w.question()).Fleet
	require.Len(t, f.Versions, report.MaxVersions)
	require.Len(t, f.Issuers, report.MaxIssuers)
	assert.Equal(t, report.Version{Version: report.Rest, Hosts: 7}, f.Versions[report.MaxVersions-1])
	assert.Equal(t, report.Issued{Issuer: report.Rest, Total: 7}, f.Issuers[report.MaxIssuers-1])
}

func TestWeeksBeginOnMonday(t *testing.T) {
	monday := time.Date(2031, 5, 5, 0, 0, 0, 0, time.UTC)
	for at, want := range map[time.Time]time.Time{
		monday: monday, monday.Add(-1): monday.AddDate(0, 0, -7), monday.Add(7*day - 1): monday, monday.Add(7 * day): monday.AddDate(0, 0, 7),
		monday.In(time.FixedZone("west", -8*3600)): monday,
	} {
		assert.Equal(t, want, report.WeekOf(at), "%s", at)
	}
}

// Pages of whichever size have all hosts, each of them once, in one order, though
// hosts change between them that are on none of the pages yet, or on one already.
func TestPagesHaveEachHostOnce(t *testing.T) {
	w := newWorld(t)
	for i := range 30 {
		id := fmt.Sprintf("h%02d", i)
		w.enrol(id)
		left := time.Duration(i%7-1) * 3 * day
		if left == 0 {
			continue // it serves nothing
		}
		w.tell(id, "www", w.well(left), w.safe(left))
	}
	var whole []string
	for _, h := range w.ask(w.question()).Hosts {
		whole = append(whole, h.Agent.ID)
	}
	require.Len(t, whole, 30)
	for size := 1; size <= 31; size++ {
		var got []string
		q := w.question()
		for q.Limit = size; ; {
			require.Less(t, len(got), 2*len(whole), "it does not end")
			answer := w.ask(q)
			require.LessOrEqual(t, len(answer.Hosts), size)
			for _, h := range answer.Hosts {
				got = append(got, h.Agent.ID)
			}
			if q.After = answer.Next; q.After == "" {
				break
			}
			require.Len(t, answer.Hosts, size)
		}
		require.Equal(t, whole, got, "pages of %d", size)
	}
	q := w.question()
	q.Limit = 10
	first := w.ask(q)
	w.enrol("new")
	w.tell(first.Hosts[9].Agent.ID, "www", w.well(90*day), w.safe(90*day)) // goes to the end
	q = w.question()
	q.Limit, q.After = 30, first.Next
	assert.Equal(t, whole[10], w.ask(q).Hosts[0].Agent.ID)
}

func TestCursorsOfOthersAreRefused(t *testing.T) {
	w := newWorld(t)
	code := base64.RawURLEncoding.EncodeToString
	for _, cursor := range []string{"!", code([]byte("id\x00x")), code([]byte("risk\x01")), code([]byte("risk\x01\x0099999999")), code([]byte("risk\x01\x0912345678x")), code([]byte("risk\x01\x0012345678x")) + "="} {
		q := w.question()
		q.After = cursor
		_, err := new(report.Counter).Report(q)
		assert.ErrorIs(t, err, report.ErrCursor, cursor)
	}
}

// A counter that keeps what it has counted says what one does that keeps nothing,
// whatever happens; and until the moment that it tells, time alone changes nothing.
func TestKeptCountsAreFresh(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		counter := new(report.Counter)
		ids := []string{"a", "b", "c"}
		for _, id := range ids {
			w.enrol(id)
		}
		made := 0
		var last *report.Answer
		var until time.Time
		var index uint64
		anyHost := rapid.SampledFrom(ids)
		soon := rapid.SampledFrom([]time.Duration{-day, time.Second, time.Hour, day, 6 * day, 8 * day, 30 * day})
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				q := w.question()
				kept, err := counter.Report(q)
				require.NoError(t, err)
				again := w.question()
				fresh := w.ask(again)
				require.Equal(t, fresh, kept)
				require.Equal(t, again.Clock.Until, q.Clock.Until, "until when it is good")
				if last != nil && index == w.index && w.now.Before(until) && !last.Fleet.CutOffSince.IsZero() == !kept.Fleet.CutOffSince.IsZero() && last.Fleet.CutOff == kept.Fleet.CutOff {
					require.Equal(t, last, kept, "before the moment")
				}
				last, until, index = kept, q.Clock.Until, w.index
			},
			"report": func(t *rapid.T) {
				summary := w.well(soon.Draw(t, "left"))
				summary.Serial = "5e" + fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "serial"))
				summary.State = rapid.SampledFrom([]wire.State{wire.StateValid, wire.StateFailed, wire.StateRenewing, wire.StatePending}).Draw(t, "state")
				summary.RenewAt, summary.SafeUntil = w.now.Add(soon.Draw(t, "renew")), w.now.Add(soon.Draw(t, "safe"))
				w.tell(anyHost.Draw(t, "host"), rapid.SampledFrom([]string{"www", "api"}).Draw(t, "name"), summary, w.safe(soon.Draw(t, "host safe")))
			},
			"remove": func(t *rapid.T) { w.tell(anyHost.Draw(t, "host"), "www", nil, nil) },
			"touch":  func(t *rapid.T) { w.touch(anyHost.Draw(t, "host")) },
			"share":  func(t *rapid.T) { w.do(fleet.NoteSharedIdentity{AgentID: anyHost.Draw(t, "host")}) },
			"issue": func(t *rapid.T) {
				made++
				id, host := fmt.Sprint("order", made), anyHost.Draw(t, "host")
				w.sequences[host]++
				w.do(fleet.SyncAgent{
					AgentID: host, BootID: "boot", Sequence: w.sequences[host], BaseRevision: w.revisions[host], Revision: w.revisions[host], HeadRevision: w.revisions[host],
					Orders: []fleet.OrderPlacement{{ID: id, Certificate: "www", Issuer: "builtin", CSR: []byte(id), Names: w.well(day).Names}},
				})
				w.try(fleet.CompleteOrder{Agent: host, ID: id, ChainPEM: "chain", Serial: fmt.Sprintf("5e%d", made%3), Fingerprint: "f0", NotAfter: w.now.Add(9 * day)})
			},
			"revoke": func(t *rapid.T) {
				w.try(fleet.RevokeCertificate{Serial: fmt.Sprintf("5e%d", rapid.IntRange(0, 2).Draw(t, "serial")), Reason: 4})
			},
			"drop": func(t *rapid.T) { // what was revoked and has expired
				w.do(fleet.PublishRevocations{ThisUpdate: w.now, NextUpdate: w.now.Add(day)})
			},
			"time": func(t *rapid.T) {
				w.now = w.now.Add(rapid.SampledFrom([]time.Duration{1, time.Second, time.Minute, 4 * time.Minute, time.Hour, day, 7 * day}).Draw(t, "passed"))
			},
			"older": func(t *rapid.T) { // a picture of before, which is asked about late
				view, now := w.state.View(), w.now
				w.tell(anyHost.Draw(t, "host"), "www", w.well(soon.Draw(t, "left")), nil)
				_, err := counter.Report(w.question())
				require.NoError(t, err)
				question := func() *report.Question {
					return &report.Question{View: view, Clock: health.At(now), Pause: pause}
				}
				kept, err := counter.Report(question())
				require.NoError(t, err)
				require.Equal(t, w.ask(question()), kept)
			},
		})
	})
}

// A report is made from the tables that it says, and signs of life.
func TestTables(t *testing.T) {
	w := newWorld(t)
	w.enrol("a")
	w.tell("a", "www", w.well(day), nil)
	q := w.question()
	q.View = q.View.Watched()
	w.ask(q)
	other, ok := q.View.ReadOnly(append([]fleet.Table{fleet.TablePresence, "position"}, report.Tables...))
	assert.True(t, ok, other)
	for _, table := range report.Tables {
		_, ok := q.View.ReadOnly(append([]fleet.Table{fleet.TablePresence, "position"}, without(report.Tables, table)...))
		assert.False(t, ok, table)
	}
}

func without(tables []fleet.Table, one fleet.Table) []fleet.Table {
	return slices.DeleteFunc(slices.Clone(tables), func(table fleet.Table) bool { return table == one })
}

// A counter takes no other state for the one that it has counted, though it has come to
// the same index.
func TestAnotherStateOfTheSameIndex(t *testing.T) {
	one, other := newWorld(t), newWorld(t)
	for _, w := range []*world{one, other} {
		w.enrol("a")
	}
	one.tell("a", "www", one.well(day), nil)
	other.tell("a", "www", other.well(-day), nil)
	require.Equal(t, one.state.View().Index(), other.state.View().Index())
	counter := new(report.Counter)
	for _, w := range []*world{one, other, one} {
		answer, err := counter.Report(w.question())
		require.NoError(t, err)
		require.Equal(t, w.ask(w.question()), answer)
	}
}

// However many hosts are counted at once, they are counted as one by one.
func TestManyHostsAreCountedAtOnce(t *testing.T) {
	w := large(t, 200, 3)
	whole := w.ask(w.question())
	require.Len(t, whole.Hosts, 200)
	assert.Equal(t, 600, whole.Fleet.Certificates.States.Valid)
	for _, host := range whole.Hosts {
		require.Equal(t, 3, host.Certificates.States.Total(), host.Agent.ID)
		require.Equal(t, []report.Issued{{Issuer: "coordinator", Total: 3, Troubled: host.Certificates.Health.AtRisk + host.Certificates.Health.Expired}}, host.Issuers)
	}
	w.now = w.now.Add(-30 * day) // before any of it: those 29 days old are not valid yet
	q := w.question()
	q.Of = func(a *fleet.Agent) bool { return a.ID == "u000000000000007" }
	assert.Equal(t, 3, w.ask(q).Fleet.Certificates.Health.AtRisk)
}
