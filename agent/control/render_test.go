package control

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/revocation"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

var noon = time.Date(2026, time.November, 24, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// sample is a host on which all is well.
func sample(now time.Time) *Status {
	until := now.Add(39*day + 12*time.Hour)
	s := &Status{
		At: now, Agent: Agent{Build: buildinfo.Info{Version: "v1.0.0"}, Hostname: "web1", StartedAt: now.Add(-3 * day)}, SafeUntil: &until,
		Enrollment:  &Enrollment{AgentID: "agent-1", Servers: []string{"https://pki"}, IdentityNotAfter: now.Add(20 * day)},
		Coordinator: Connection{State: ConnectionConnected, Server: "https://pki", LastSuccess: now.Add(-20 * time.Second)},
	}
	for _, name := range []string{"api", "mail", "web / ü"} {
		s.Certificates = append(s.Certificates, Certificate{Name: name, Phase: store.PhaseIdle, Summary: wire.Summary{
			Names: pki.MustParseNames("x.example.com"), State: wire.StateValid, Issuer: "le", IssuerKind: "acme",
			Fingerprint: "f1", NotBefore: now.Add(-50 * day), NotAfter: until, RenewAt: now.Add(10 * day), SafeUntil: until,
			Deployments: []wire.DeploymentSummary{{ID: "1", State: wire.DeploymentVerified, Fingerprint: "f1"}},
		}})
	}
	return s
}

func TestAllIsWell(t *testing.T) {
	var out bytes.Buffer
	v, err := Render(&out, sample(noon))
	require.NoError(t, err)
	assert.Equal(t, ExitWell, v.ExitCode)
	assert.Equal(t, `3 certificates, all in service; safe until 2027-01-03 (39 days) without coordinator, CA or network

agent:       v1.0.0 on web1, running for 3 days
identity:    agent-1, valid until 2026-12-14 12:00 UTC
coordinator: connected (https://pki), last sync 20 seconds ago
safe until:  2027-01-03 00:00 UTC (39 days)

CERTIFICATE  EXPIRES     RENEWS      ISSUER  STATE
api          in 39 days  in 10 days  le      in service
mail         in 39 days  in 10 days  le      in service
web / ü      in 39 days  in 10 days  le      in service
`, out.String())
}

// Of a cluster the node is shown that answers at present.
func TestTheNodeIsShown(t *testing.T) {
	s := sample(noon)
	s.Enrollment.Nodes = []string{"https://a", "https://b", "https://c"}
	s.Coordinator.Server = "https://b"
	var out bytes.Buffer
	_, err := Render(&out, s)
	require.NoError(t, err)
	assert.Contains(t, out.String(), "coordinator: connected (https://b, one of 3 nodes), last sync 20 seconds ago\n")
}

func TestWhatNeedsAttention(t *testing.T) {
	for want, c := range map[string]struct {
		spoil func(*Status, *Certificate)
		state string
	}{
		"ATTENTION: 1 of 3 certificates has expired": {func(_ *Status, c *Certificate) { c.NotAfter = noon.Add(-3 * day) }, "EXPIRED 3 days ago"},
		"ATTENTION: 1 of 3 certificates is not in service": {func(_ *Status, c *Certificate) {
			c.Deployments[0] = wire.DeploymentSummary{ID: "nginx", State: wire.DeploymentFailed}
			c.Attempt, c.LastError = 2, "reload failed"
		}, "not in service at nginx: reload failed"},
		"1 of 3 certificates has expired": {func(_ *Status, c *Certificate) {
			c.State, c.Attempt, c.LastError = wire.StateFailed, 3, "reload failed"
			c.Deployments[0] = wire.DeploymentSummary{ID: "nginx", State: wire.DeploymentFailed, Fingerprint: "f0"}
			c.SafeUntil = noon.Add(-3 * time.Hour)
		}, "an older certificate is served that EXPIRED 3 hours ago: reload failed"},
		"1 of 3 certificates is not in service": {func(_ *Status, c *Certificate) {
			c.Deployments[0] = wire.DeploymentSummary{ID: "nginx", State: wire.DeploymentBroken, Fingerprint: "f1"}
		}, "could not be put back"},
		"of 3 certificates is not in service": {func(_ *Status, c *Certificate) { c.Summary = wire.Summary{State: wire.StatePending} }, "no certificate yet"},
		"3 certificates is not in service": {func(_ *Status, c *Certificate) {
			c.Deployments[0].Fingerprint = "f0"
		}, "it has another certificate"},
		"1 of 3 certificates is about to expire": {func(_ *Status, c *Certificate) {
			c.NotAfter, c.RenewAt = noon.Add(2*day), noon.Add(-20*day)
		}, "expires in 2 days and is not renewed"},
		"1 of 3 certificates fails to renew": {func(_ *Status, c *Certificate) {
			c.State, c.Attempt, c.NeedsAttention = wire.StateFailed, 4, "names refused"
		}, "its renewal fails: names refused"},
		"another host uses a copy of this identity": {func(s *Status, _ *Certificate) { s.Coordinator.IdentitySharedAt = s.At }, ""},
		"the coordinator has retired this agent":    {func(s *Status, _ *Certificate) { s.Coordinator.State = ConnectionRetired }, ""},
		"the coordinator does not know this agent":  {func(s *Status, _ *Certificate) { s.Coordinator.State = ConnectionUnknown }, ""},
		"the clock of this host is wrong": {func(s *Status, _ *Certificate) {
			s.Clock = ClockOf(clock.Reading{Skew: 2 * time.Hour, Basis: clock.BasisObserved, Confirmed: true})
		}, ""},
		"the servers do not agree on the time": {func(s *Status, _ *Certificate) {
			s.Clock = ClockOf(clock.Reading{Basis: clock.BasisWall, Confirmed: true, Disputed: true, Sources: []clock.Observation{{Name: "coordinator"}}})
		}, ""},
		"1 of 3 certificates is revoked": {func(_ *Status, c *Certificate) {
			c.State, c.RevokedAt, c.SafeUntil = wire.StateRenewing, noon.Add(-3*time.Hour), noon.Add(-3*time.Hour)
			c.NeedsAttention = "revoked: it is being replaced"
		}, "REVOKED 3 hours ago: revoked: it is being replaced"},
		"ATTENTION: the identity of this agent cannot be used": {func(s *Status, _ *Certificate) {
			s.Enrollment.IdentityProblem = "key file gone; enrol again"
		}, ""},
		"ATTENTION: 1 of 3 certificates is served as it was configured before": {func(_ *Status, c *Certificate) {
			c.Former, c.State = true, wire.StateRenewing
		}, "in service as it was configured before; being replaced"},
		"ATTENTION: 1 warning": {func(s *Status, _ *Certificate) { s.Warnings = []string{"the disk is nearly full"} }, ""},
	} {
		t.Run(want, func(t *testing.T) {
			status := sample(noon)
			c.spoil(status, &status.Certificates[1])
			var out bytes.Buffer
			v, err := Render(&out, status)
			require.NoError(t, err)
			assert.Equal(t, ExitAttention, v.ExitCode)
			assert.Contains(t, v.Line, want)
			assert.True(t, strings.HasPrefix(out.String(), "ATTENTION: "))
			if c.state != "" {
				rows := strings.Split(out.String()[strings.Index(out.String(), "CERTIFICATE"):], "\n")
				assert.Contains(t, rows[1], "mail", "the worst comes first")
				assert.Contains(t, rows[1], c.state)
			}
		})
	}
}

// A host of which a certificate is not safe now is safe until no moment.
func TestNotSafeNow(t *testing.T) {
	render := func(status *Status) string {
		var out bytes.Buffer
		_, err := Render(&out, status)
		require.NoError(t, err)
		return out.String()
	}
	status := sample(noon)
	c := &status.Certificates[1]
	c.Deployments[0].Fingerprint, c.SafeUntil = "", time.Time{}
	status.SafeUntil, status.NotSafe = nil, []string{"mail"}
	assert.Contains(t, render(status), "safe until:  NOT SAFE NOW: not in service everywhere: mail\n")

	// What is past already is the worse news.
	past := noon.Add(-day)
	status.Certificates[0].SafeUntil = past
	status.SafeUntil, status.NotSafe = &past, []string{"api", "mail"}
	assert.Contains(t, render(status), "safe until:  NOT SAFE: an expired or revoked certificate is served since 2026-11-23 12:00 UTC\n")

	status.Certificates, status.SafeUntil, status.NotSafe = nil, nil, nil
	assert.Contains(t, render(status), "safe until:  no certificate is in service\n")
}

// What the checks for revocation came to is shown, and an authority that cannot be
// asked is no reason to wake somebody.
func TestRevocationChecks(t *testing.T) {
	status := sample(noon)
	var out bytes.Buffer
	_, err := Render(&out, status)
	require.NoError(t, err)
	assert.NotContains(t, out.String(), "revocation:")

	checked := noon.Add(-time.Hour)
	status.Certificates[0].RevocationCheck = &revocation.Check{Result: revocation.ResultGood, CheckedAt: checked}
	status.Certificates[1].RevocationCheck = &revocation.Check{
		Result: revocation.ResultFailed, CheckedAt: checked.Add(-time.Hour), FailingSince: noon.Add(-3 * day), Detail: "OCSP responder http://ocsp: no route\x1b[2J",
	}
	status.Certificates[2].RevocationCheck = &revocation.Check{Result: revocation.ResultSkipped, CheckedAt: checked}
	v, err := Render(&out, status)
	require.NoError(t, err)
	assert.Equal(t, ExitWell, v.ExitCode)
	assert.Contains(t, out.String(), "revocation:  1 not revoked, 1 not to be checked, 1 without an answer; last check 60 minutes ago; no answer since 2026-11-21 12:00 UTC: OCSP responder http://ocsp: no route [2J\n")
}

// Who waits for a turn is seen to wait, and nobody is woken for it.
func TestATurnThatIsWaitedFor(t *testing.T) {
	status := sample(noon)
	c := &status.Certificates[1]
	c.RenewAt, c.WaitsFor, c.WaitsUntil = noon.Add(-time.Hour), "le", noon.Add(3*time.Hour)
	var out bytes.Buffer
	v, err := Render(&out, status)
	require.NoError(t, err)
	assert.Equal(t, ExitWell, v.ExitCode)
	assert.Contains(t, out.String(), "mail         in 39 days  in 3 hours  le      in service; waits for a turn at issuer le until 2026-11-24 15:00 UTC")

	c.Fingerprint, c.State = "", wire.StatePending
	v, err = Render(&out, status)
	require.NoError(t, err)
	assert.Equal(t, ExitAttention, v.ExitCode)
	assert.Equal(t, "no certificate yet; waits for a turn at issuer le until 2026-11-24 15:00 UTC", v.Findings["mail"].Text)

	// Where it does harm, it is said what to do.
	mend := "; waits for a turn at issuer le until 2026-11-24 15:00 UTC (raise issuers.le.limits, or give it fallback_issuers)"
	c.Fingerprint, c.NotAfter = "f1", noon.Add(4*time.Minute)
	assert.Equal(t, "expires in 4 minutes and is not renewed"+mend, Judge(status).Findings["mail"].Text)
	c.NotAfter = noon.Add(-4 * time.Minute)
	assert.Equal(t, "EXPIRED 4 minutes ago"+mend, Judge(status).Findings["mail"].Text)
	c.NotAfter, c.RevokedAt = noon.Add(day), noon.Add(-4*time.Minute)
	assert.Equal(t, "REVOKED 4 minutes ago"+mend, Judge(status).Findings["mail"].Text)
}

// What an order waits for at an authority is shown; it needs somebody only where it is
// for a person.
func TestWhatAnOrderWaitsForIsShown(t *testing.T) {
	status := sample(noon)
	c := &status.Certificates[0]
	c.State, c.Waiting = wire.StateRenewing, "slow works on the order"
	v := Judge(status)
	assert.Equal(t, ExitWell, v.ExitCode)
	assert.Equal(t, "in service; being renewed: slow works on the order", v.Findings[c.Name].Text)
	var out bytes.Buffer
	require.NoError(t, RenderCertificate(&out, c, noon))
	assert.Contains(t, out.String(), "waits:       slow works on the order\n")

	c.Waiting, c.NeedsAttention = "the order at slow waits for a person; approve it", "the order at slow waits for a person; approve it"
	v = Judge(status)
	assert.Equal(t, ExitAttention, v.ExitCode)
	assert.Equal(t, "in service; its renewal waits: the order at slow waits for a person; approve it", v.Findings[c.Name].Text)
	out.Reset()
	require.NoError(t, RenderCertificate(&out, c, noon))
	assert.Equal(t, 1, strings.Count(out.String(), "approve it"), out.String())

	c.Fingerprint, c.NeedsAttention, c.Waiting = "", "", "slow works on the order"
	assert.Equal(t, "no certificate yet; the first one is being obtained: slow works on the order", Judge(status).Findings[c.Name].Text)
	c.Attempt, c.LastError, c.NeedsAttention = 1, "the order waits to be placed at slow", "the order waits to be placed at slow"
	assert.Equal(t, "no certificate yet; the first one is being obtained: slow works on the order", Judge(status).Findings[c.Name].Text, "what was said before is over")
}

// What an authority has to say about a renewal is shown (RFC 9773, section 4.2:
// clients "SHOULD provide this URL to their operator").
func TestTheExplanationOfASuggestionIsShown(t *testing.T) {
	status := sample(noon)
	status.Certificates[0].Suggestion = &RenewHint{SelectedAt: noon.Add(day), ExplanationURL: "https://ca.example/incident"}
	v := Judge(status)
	assert.Equal(t, ExitWell, v.ExitCode)
	assert.Contains(t, v.Findings["api"].Text, "https://ca.example/incident")
}

// Being cut off, alone or at the start is no reason to wake somebody.
func TestNormalStates(t *testing.T) {
	for want, spoil := range map[string]func(*Status){
		"cut off since 2026-11-21 12:00 UTC, last sync 3 days ago; renewals at direct issuers go on: no route": func(s *Status) {
			s.Coordinator = Connection{State: ConnectionCutOff, CutOffSince: noon.Add(-3 * day), LastSuccess: noon.Add(-3 * day), LastError: "no route"}
		},
		"none; this agent works alone": func(s *Status) { s.Enrollment, s.Coordinator = nil, Connection{State: ConnectionNotEnrolled} },
		"connecting (https://pki), last sync never": func(s *Status) {
			s.Coordinator = Connection{State: ConnectionStarting, Server: "https://pki"}
		},
		"in service; being renewed":   func(s *Status) { s.Certificates[0].State = wire.StateRenewing },
		"no certificates are managed": func(s *Status) { s.Certificates, s.SafeUntil = nil, nil },
		"expired since":               func(s *Status) { s.Enrollment.IdentityNotAfter = noon.Add(-day) },
		"was full: 7 facts":           func(s *Status) { s.Coordinator.EventsDropped = 7 },
	} {
		status := sample(noon)
		spoil(status)
		var out bytes.Buffer
		v, err := Render(&out, status)
		require.NoError(t, err)
		assert.Equal(t, ExitWell, v.ExitCode, want)
		assert.Contains(t, out.String(), want)
	}
}

func TestWhenItRenews(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Certificate)
		want  string
	}{
		"as planned":                    {func(*Certificate) {}, "in 10 days"},
		"the time has passed":           {func(c *Certificate) { c.RenewAt = noon }, "now"},
		"an operator's request":         {func(c *Certificate) { c.Forced = true }, "now"},
		"after a failure":               {func(c *Certificate) { c.Attempt, c.NextAttempt = 1, noon.Add(time.Hour) }, "in 60 minutes"},
		"a request, and then a failure": {func(c *Certificate) { c.Forced, c.Attempt, c.NextAttempt = true, 1, noon.Add(time.Hour) }, "in 60 minutes"},
	} {
		certificate := sample(noon).Certificates[0]
		c.spoil(&certificate)
		assert.Equal(t, c.want, renews(&certificate, noon), name)
	}
}

// No status ever says that all is well about a certificate that has expired or
// that nobody serves, and nothing from outside paints on the terminal.
func TestNeverSaysWellWrongly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		status := sample(noon)
		bad := false
		text := rapid.StringOf(rapid.Rune())
		for i := range status.Certificates {
			c := &status.Certificates[i]
			c.State = rapid.SampledFrom([]wire.State{wire.StatePending, wire.StateRenewing, wire.StateValid, wire.StateFailed}).Draw(t, "state")
			c.NotAfter = noon.Add(time.Duration(rapid.Int64Range(-int64(day), int64(60*day)).Draw(t, "left")))
			c.Fingerprint = rapid.SampledFrom([]string{"", "f1"}).Draw(t, "fingerprint")
			c.Deployments[0].Fingerprint = rapid.SampledFrom([]string{"", "f1"}).Draw(t, "deployed")
			c.LastError, c.NeedsAttention, c.Waiting = text.Draw(t, "error"), text.Draw(t, "attention"), text.Draw(t, "waiting")
			c.Attempt = rapid.IntRange(0, 3).Draw(t, "attempt")
			bad = bad || !noon.Before(c.NotAfter) || c.Fingerprint == "" || c.Deployments[0].Fingerprint == ""
		}
		status.Coordinator.LastError = text.Draw(t, "last error")
		status.Warnings = nil
		var out bytes.Buffer
		v, err := Render(&out, status)
		if err != nil {
			t.Fatal(err)
		}
		if bad && (v.ExitCode != ExitAttention || strings.Contains(v.Line, "all in service")) {
			t.Fatalf("says %q", v.Line)
		}
		if i := strings.IndexFunc(out.String(), func(r rune) bool { return r != '\n' && unwanted(r) }); i >= 0 {
			t.Fatalf("an unwanted character at %d of %q", i, out.String())
		}
	})
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestWriteError(t *testing.T) {
	_, err := Render(full{}, sample(noon))
	assert.ErrorContains(t, err, "no space left")
}

// Where some of the certificates are the centre's, it is said of each.
func TestAssignmentsAreShown(t *testing.T) {
	s := sample(noon)
	for i := range s.Certificates {
		s.Certificates[i].Source = SourceLocal
	}
	var out bytes.Buffer
	_, err := Render(&out, s)
	require.NoError(t, err)
	assert.NotContains(t, out.String(), "SOURCE")

	s.Certificates[1].Source = SourceAssigned
	out.Reset()
	_, err = Render(&out, s)
	require.NoError(t, err)
	assert.Contains(t, out.String(), `
CERTIFICATE  SOURCE    EXPIRES     RENEWS      ISSUER  STATE
api          local     in 39 days  in 10 days  le      in service
mail         assigned  in 39 days  in 10 days  le      in service
`)

	out.Reset()
	require.NoError(t, RenderAssignments(&out, []Assignment{
		{Name: "mail", State: wire.AssignmentActive},
		{Name: "db", State: wire.AssignmentRefused, Detail: "not\x1b[31m allowed"},
		{Name: "api", State: wire.AssignmentShadowed, Detail: "the host's own wins"},
	}))
	assert.Equal(t, "db: refused: not [31m allowed\napi: shadowed: the host's own wins\n", out.String())
}

func TestCertificateOf(t *testing.T) {
	record := &store.Certificate{
		Name: "web", Phase: store.PhaseIdle, Current: &store.Generation{Number: 3, Fingerprint: "f", NotAfter: noon}, NextAction: noon,
		RenewalInfo: &store.RenewalInfo{SelectedAt: noon, ExplanationURL: "https://x"},
	}
	c := CertificateOf(record, managed.KeyReuse)
	assert.EqualValues(t, 3, c.Generation)
	assert.Equal(t, managed.KeyReuse, c.KeyPolicy)
	assert.Equal(t, "f", c.Fingerprint)
	assert.Equal(t, "https://x", c.Suggestion.ExplanationURL)
	assert.Nil(t, EnrollmentOf(&store.Identity{Enrolling: &store.Enrolling{}}, noon))
	assert.Nil(t, EnrollmentOf(nil, noon))
	assert.Equal(t, "a", EnrollmentOf(&store.Identity{AgentID: "a"}, noon).AgentID)
}

func TestSpansAreInWholeWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 seconds", time.Second: "1 second", -1900 * time.Millisecond: "1 second", 90 * time.Second: "90 seconds", 2 * time.Minute: "2 minutes",
		3 * time.Hour: "3 hours", 48 * time.Hour: "2 days",
	} {
		assert.Equal(t, want, span(d), d)
	}
}
