package api

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/shared/wire"
)

const (
	fingerprintA = "aaaa"
	fingerprintB = "bbbb"
)

// omitted is the id of the entry of deployments that had no room in a report.
const omitted = "..."

// well is a certificate that nothing is wrong with at now.
func well(now time.Time) wire.Summary {
	return wire.Summary{
		State: wire.StateValid, Fingerprint: fingerprintA,
		NotBefore: now.Add(-30 * 24 * time.Hour), NotAfter: now.Add(60 * 24 * time.Hour), RenewAt: now.Add(30 * 24 * time.Hour),
		Deployments: []wire.DeploymentSummary{{ID: "nginx", State: wire.DeploymentVerified, Fingerprint: fingerprintA}},
	}
}

func TestJudge(t *testing.T) {
	now := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	seen := now.Add(-time.Hour)
	for name, c := range map[string]struct {
		change func(*wire.Summary)
		cutOff bool
		health resource.Health
		reason string
	}{
		"in service":           {nil, false, resource.HealthOK, "in service"},
		"in service, cut off":  {nil, true, resource.HealthUnknown, "its agent is cut off since 2031-05-06T06:08:09Z; then it was in service"},
		"nothing to deploy":    {func(s *wire.Summary) { s.Deployments = nil }, false, resource.HealthOK, "kept valid on the host; it has no deployments to verify"},
		"an order waits":       {func(s *wire.Summary) { s.State, s.Waiting = wire.StateRenewing, "slow works on the order" }, false, resource.HealthRenewing, "in service; being renewed: slow works on the order"},
		"being renewed":        {func(s *wire.Summary) { s.State = wire.StateRenewing }, false, resource.HealthRenewing, "in service; being renewed"},
		"renewed, then silent": {func(s *wire.Summary) { s.State = wire.StateRenewing }, true, resource.HealthUnknown, "its agent is cut off since 2031-05-06T06:08:09Z; then it was in service; being renewed"},

		"never obtained":       {func(s *wire.Summary) { *s = wire.Summary{State: wire.StatePending} }, false, resource.HealthUnserved, "no certificate yet"},
		"being obtained":       {func(s *wire.Summary) { *s = wire.Summary{State: wire.StateRenewing} }, false, resource.HealthUnserved, "no certificate yet; the first one is being obtained"},
		"not to be obtained":   {func(s *wire.Summary) { *s = wire.Summary{State: wire.StateFailed, LastError: "CAA"} }, false, resource.HealthUnserved, "no certificate yet: CAA"},
		"valid without one":    {func(s *wire.Summary) { s.Fingerprint = "" }, false, resource.HealthUnserved, "no certificate yet"},
		"no expiry":            {func(s *wire.Summary) { s.NotAfter = time.Time{} }, false, resource.HealthUnserved, "its agent does not say when it expires"},
		"unserved, cut off":    {func(s *wire.Summary) { s.Fingerprint = "" }, true, resource.HealthUnserved, "no certificate yet; its agent is cut off since 2031-05-06T06:08:09Z and may know better"},
		"not valid yet":        {func(s *wire.Summary) { s.NotBefore = now.Add(time.Second) }, false, resource.HealthAtRisk, "not valid before 2031-05-06T07:08:10Z; compare the clocks of host, CA and coordinator"},
		"expires this moment":  {func(s *wire.Summary) { s.NotAfter = now }, false, resource.HealthExpired, "expired at 2031-05-06T07:08:09Z"},
		"expires in a moment":  {func(s *wire.Summary) { s.NotAfter = now.Add(1) }, false, resource.HealthOK, "in service"},
		"expired while silent": {func(s *wire.Summary) { s.NotAfter = now.Add(-time.Minute) }, true, resource.HealthExpired, "expired at 2031-05-06T07:07:09Z; its agent is cut off since 2031-05-06T06:08:09Z and may know better"},
		"expired, renewing":    {func(s *wire.Summary) { s.NotAfter, s.State = now, wire.StateRenewing }, false, resource.HealthExpired, "expired at 2031-05-06T07:08:09Z"},
		"an older one expired": {func(s *wire.Summary) {
			s.State, s.SafeUntil, s.Deployments[0].Fingerprint = wire.StateFailed, now, fingerprintB
		}, false, resource.HealthExpired, "an older certificate is served that expired at 2031-05-06T07:08:09Z"},
		"revoked":          {func(s *wire.Summary) { s.RevokedAt, s.State = now.Add(-time.Minute), wire.StateRenewing }, false, resource.HealthRevoked, "revoked at 2031-05-06T07:07:09Z"},
		"revoked, cut off": {func(s *wire.Summary) { s.RevokedAt = now.Add(-time.Minute) }, true, resource.HealthRevoked, "revoked at 2031-05-06T07:07:09Z; its agent is cut off since 2031-05-06T06:08:09Z and may know better"},
		"expired, unserved": {func(s *wire.Summary) { s.NotAfter, s.Deployments[0].Fingerprint = now, "" },
			false, resource.HealthExpired, "expired at 2031-05-06T07:08:09Z"},

		"a deployment has none":       {func(s *wire.Summary) { s.Deployments[0].Fingerprint = "" }, false, resource.HealthUnserved, "not in service at nginx"},
		"a deployment has another":    {func(s *wire.Summary) { s.Deployments[0].Fingerprint = fingerprintB }, false, resource.HealthUnserved, "not in service at nginx (another certificate is)"},
		"a deployment lags behind":    {func(s *wire.Summary) { s.State, s.Deployments[0].Fingerprint = wire.StateRenewing, fingerprintB }, false, resource.HealthRenewing, "in service; being renewed"},
		"a deployment was put back":   {func(s *wire.Summary) { s.State, s.Deployments[0].Fingerprint = wire.StateFailed, fingerprintB }, false, resource.HealthAtRisk, "in service; its renewal fails and is tried again"},
		"a deployment is broken":      {func(s *wire.Summary) { s.State, s.Deployments[0].State = wire.StateRenewing, wire.DeploymentBroken }, false, resource.HealthUnserved, "not in service at nginx (the previous certificate could not be put back)"},
		"two deployments are without": {func(s *wire.Summary) { s.Deployments = []wire.DeploymentSummary{{ID: "a"}, {ID: "b"}} }, false, resource.HealthUnserved, "not in service at a, b"},
		"those left out went well": {func(s *wire.Summary) {
			s.Deployments = append(s.Deployments, wire.DeploymentSummary{ID: "...", State: wire.DeploymentVerified})
		}, false, resource.HealthOK, "in service"},
		"one left out did not": {func(s *wire.Summary) {
			s.Deployments = append(s.Deployments, wire.DeploymentSummary{ID: "...", State: wire.DeploymentFailed})
		}, false, resource.HealthUnserved, "not in service at ..."},

		"late in life": {func(s *wire.Summary) { s.NotAfter, s.RenewAt = now.Add(time.Hour), now.Add(-time.Hour) }, false, resource.HealthAtRisk, "about to expire and not renewed"},
		"late, renewing": {func(s *wire.Summary) {
			s.State, s.NotAfter, s.RenewAt = wire.StateRenewing, now.Add(time.Hour), now.Add(-time.Hour)
		}, false, resource.HealthAtRisk, "about to expire and not renewed"},
		"late, but as planned":   {func(s *wire.Summary) { s.NotAfter, s.RenewAt = now.Add(time.Hour), now.Add(time.Minute) }, false, resource.HealthOK, "in service"},
		"renewal is overdue":     {func(s *wire.Summary) { s.RenewAt = now.Add(-time.Hour) }, false, resource.HealthOK, "in service"},
		"renewal fails":          {func(s *wire.Summary) { s.State, s.Attempt, s.LastError = wire.StateFailed, 2, "no route" }, false, resource.HealthAtRisk, "in service; its renewal fails and is tried again: no route"},
		"tried again":            {func(s *wire.Summary) { s.State, s.Attempt = wire.StateRenewing, 1 }, false, resource.HealthAtRisk, "in service; its renewal fails and is tried again"},
		"somebody has to act":    {func(s *wire.Summary) { s.NeedsAttention = "give credentials" }, false, resource.HealthAtRisk, "in service; somebody has to act: give credentials"},
		"at risk, cut off":       {func(s *wire.Summary) { s.NeedsAttention = "act" }, true, resource.HealthAtRisk, "in service; somebody has to act: act; its agent is cut off since 2031-05-06T06:08:09Z and may know better"},
		"an old error is over":   {func(s *wire.Summary) { s.LastError = "no route" }, false, resource.HealthOK, "in service"},
		"configured before":      {func(s *wire.Summary) { s.Former = true }, false, resource.HealthAtRisk, "in service as it was configured before; to be replaced"},
		"before, being replaced": {func(s *wire.Summary) { s.Former, s.State = true, wire.StateRenewing }, false, resource.HealthAtRisk, "in service as it was configured before; to be replaced"},
		"before, refused": {func(s *wire.Summary) {
			s.Former, s.State, s.Attempt, s.LastError = true, wire.StateFailed, 1, "names refused"
		}, false, resource.HealthAtRisk, "in service as it was configured before; its renewal fails and is tried again: names refused"},
		"before, cut off":        {func(s *wire.Summary) { s.Former = true }, true, resource.HealthAtRisk, "in service as it was configured before; to be replaced; its agent is cut off since 2031-05-06T06:08:09Z and may know better"},
		"a state of tomorrow":    {func(s *wire.Summary) { s.State = "on_holiday" }, false, resource.HealthUnknown, `its agent reports the state "on_holiday"`},
		"pending with one":       {func(s *wire.Summary) { s.State = wire.StatePending }, false, resource.HealthUnknown, `its agent reports the state "pending"`},
		"unknown state, cut off": {func(s *wire.Summary) { s.State = "x" }, true, resource.HealthUnknown, `its agent reports the state "x"; its agent is cut off since 2031-05-06T06:08:09Z and may know better`},
	} {
		t.Run(name, func(t *testing.T) {
			summary := well(now)
			if c.change != nil {
				c.change(&summary)
			}
			health, reason := judge(&summary, contact{c.cutOff, seen}, health.At(now))
			assert.Equal(t, c.health, health)
			assert.Equal(t, c.reason, reason)
		})
	}
}

// Whatever an agent reports: what has expired, or is nowhere in service, or is
// known from an agent that is cut off, is never called well.
func TestNothingIsCalledWellByMistake(t *testing.T) {
	now := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	moment := rapid.Custom(func(t *rapid.T) time.Time {
		return now.Add(time.Duration(rapid.Int64Range(-1000, 1000).Draw(t, "hours")) * time.Hour)
	})
	fingerprint := rapid.SampledFrom([]string{"", fingerprintA, fingerprintB})
	deployment := rapid.Custom(func(t *rapid.T) wire.DeploymentSummary {
		return wire.DeploymentSummary{
			ID: rapid.SampledFrom([]string{"a", "b", omitted}).Draw(t, "id"), Fingerprint: fingerprint.Draw(t, "served"),
			State: rapid.SampledFrom([]wire.DeploymentState{wire.DeploymentPending, wire.DeploymentVerified, wire.DeploymentUnverified,
				wire.DeploymentFailed, wire.DeploymentBroken, "other"}).Draw(t, "deployment state"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		s := wire.Summary{
			State:       rapid.SampledFrom([]wire.State{wire.StatePending, wire.StateRenewing, wire.StateValid, wire.StateFailed, "other", ""}).Draw(t, "state"),
			Fingerprint: fingerprint.Draw(t, "fingerprint"), NotBefore: moment.Draw(t, "not before"), NotAfter: moment.Draw(t, "not after"),
			RenewAt: moment.Draw(t, "renew at"), Attempt: rapid.IntRange(0, 2).Draw(t, "attempt"),
			NeedsAttention: rapid.SampledFrom([]string{"", "act"}).Draw(t, "attention"),
			Former:         rapid.Bool().Draw(t, "former"),
			Deployments:    rapid.SliceOfN(deployment, 0, 3).Draw(t, "deployments"),
		}
		cutOff := rapid.Bool().Draw(t, "cut off")
		health, reason := judge(&s, contact{cutOff, now}, health.At(now))
		assert.NotEmpty(t, reason)
		assert.Contains(t, resource.Healths, health)
		if !health.Well() {
			return
		}
		assert.False(t, cutOff)
		assert.NotEmpty(t, s.Fingerprint)
		assert.True(t, now.Before(s.NotAfter) && !now.Before(s.NotBefore), "it is valid")
		assert.Zero(t, s.Attempt)
		assert.Empty(t, s.NeedsAttention)
		assert.False(t, s.Former)
		for _, d := range s.Deployments {
			assert.NotEqual(t, wire.DeploymentBroken, d.State)
			if d.ID != omitted {
				assert.NotEmpty(t, d.Fingerprint)
			}
			if s.State == wire.StateValid && d.Fingerprint != "" && d.ID != omitted {
				assert.Equal(t, s.Fingerprint, d.Fingerprint)
			}
		}
	})
}

// What counting costs is limited, however often it is asked for.
func TestACountThatTookAMomentIsKept(t *testing.T) {
	assert.Zero(t, keepFor(10*time.Millisecond))
	assert.Equal(t, 20*time.Second, keepFor(time.Second))
}

// Three syncs may be missed, and a moment more.
func TestCutOff(t *testing.T) {
	seen := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	last := seen.Add(3*time.Minute + 10*time.Second)
	assert.False(t, health.CutOff(time.Minute, seen, last))
	assert.True(t, health.CutOff(time.Minute, seen, last.Add(1)))
}

func TestHealthCounts(t *testing.T) {
	var counts resource.HealthCounts
	assert.Equal(t, resource.HealthOK, counts.Worst(), "nothing is not bad")
	for i, health := range resource.Healths {
		counts.Add(health)
		assert.Equal(t, health, counts.Worst(), "healths are listed from good to bad")
		assert.Equal(t, i+1, counts.Total())
	}
	counts.Add("a health of tomorrow")
	assert.Equal(t, 2, counts.Unknown)
	assert.True(t, resource.HealthRenewing.Well())
	assert.False(t, resource.HealthUnknown.Well())
}
