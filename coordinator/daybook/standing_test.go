package daybook

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/report"
)

// Each figure of a report is where it belongs, and what hosts make up can be stored.
func TestStandingIsWhatTheReportSays(t *testing.T) {
	b := newBook(t)
	horizon := b.now.Add(30 * time.Hour)
	f := &report.Fleet{
		Hosts: 31, Connected: 11, CutOff: 12, NotSafeHosts: 13, ClockWrong: 14, FactsDropped: 15, SafeUntil: horizon,
		Risks:    map[report.Risk]int{report.RiskExpired: 1, report.RiskUnserved: 2, report.RiskExpiring: 4, report.RiskCutOff: 8, report.RiskNone: 16},
		Versions: []report.Version{{Version: "v2", Hosts: 7}, {Version: "", Hosts: 6}, {Version: "bad\x01", Hosts: 5}, {Version: strings.Repeat("x", 200), Hosts: 4}},
	}
	c := &f.Certificates
	c.States = report.States{Pending: 1, Valid: 3, Failed: 4, Other: 5}
	c.Health.OK, c.Health.Expired = 21, 22
	c.NeedingAttention = 23
	c.Deployments = report.Deployments{Verified: 31, Unverified: 32, Pending: 33, Failed: 34, Broken: 35}
	c.Expiring.Weeks[0], c.Expiring.Weeks[12] = 41, 42
	s := standingOf(f, b.state.View(), b.now)
	weeks := make([]uint64, report.Weeks)
	weeks[0], weeks[12] = 41, 42
	assert.Equal(t, &fleet.DayStanding{
		CountedAt: b.now, Hosts: 31, Connected: 11, CutOff: 12, Retired: 0, AtRisk: 15, NotSafe: 13, Horizon: &horizon, ClockSkewed: 14, EventsDropped: 15,
		Certificates: 13, Expired: 22, Attention: 23, Verified: 31, Failed: 69, Expiring: weeks,
		States:   []fleet.Count{{Name: "pending", Count: 1}, {Name: "valid", Count: 3}, {Name: "failed", Count: 4}, {Name: fleet.OtherName, Count: 5}},
		Health:   []fleet.Count{{Name: "ok", Count: 21}, {Name: "expired", Count: 22}},
		Versions: []fleet.Count{{Name: "v2", Count: 7}, {Name: fleet.UnknownName, Count: 6}, {Name: fleet.OtherName, Count: 9}},
		Risks: []fleet.Count{{Name: "expired", Count: 1}, {Name: "unserved", Count: 2}, {Name: "expiring", Count: 4}, {Name: "cut_off", Count: 8},
			{Name: "none", Count: 16}},
	}, s)
	require.NoError(t, b.do(b.now, fleet.RecordDay{Day: fleet.Day{Date: "2026-04-30", Final: true, Standing: s}}).Err())
}

// A host is heard of by the leader before the state knows it.
func TestStandingKnowsWhoWasHeardOf(t *testing.T) {
	b := newBook(t)
	b.now = b.now.Add(silence + time.Minute)
	s, err := b.keeper.standing(t.Context(), b.state.View(), b.now)
	require.NoError(t, err)
	assert.Equal(t, []uint64{0, 1, 0}, []uint64{s.Connected, s.CutOff, s.Retired})
	b.keeper.config.Presence = heard(b.now.Add(-time.Minute))
	s, err = b.keeper.standing(t.Context(), b.state.View(), b.now)
	require.NoError(t, err)
	assert.Equal(t, []uint64{1, 0}, []uint64{s.Connected, s.CutOff})
	require.NoError(t, b.do(b.now, fleet.RetireAgent{Actor: "local", AgentID: "a1"}).Err())
	s, err = b.keeper.standing(t.Context(), b.state.View(), b.now)
	require.NoError(t, err)
	assert.Equal(t, []uint64{0, 1}, []uint64{s.Hosts, s.Retired})
}

type heard time.Time

func (h heard) LastSeen(string) (time.Time, bool) { return time.Time(h), true }
