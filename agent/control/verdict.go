package control

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/shared/wire"
)

// Exit codes of "certctl-agent status".
const (
	ExitWell       = 0 // every certificate is in service, and nothing waits for a person
	ExitAttention  = 1 // somebody should look
	ExitNotRunning = 2 // nobody knows
)

// lateLife is the last part of a lifetime, in which a certificate that is not
// renewed yet is at risk.
const lateLife = 10 // a tenth

// Concern is how bad a certificate's state is; more is worse.
type Concern int

// Concerns.
const (
	ConcernNone     Concern = iota // in service, renewal to come
	ConcernRenewing                // in service, being renewed without trouble
	ConcernFormer                  // in service as it was configured before, being replaced
	ConcernFailing                 // in service, the renewal fails or a person has to act
	ConcernAtRisk                  // in service, and about to expire
	ConcernUnserved                // not in service somewhere, or not at all
	ConcernRevoked                 // whoever checks refuses it
	ConcernExpired
)

// Finding is what a person should know first about one certificate.
type Finding struct {
	Concern Concern
	Text    string // one line
}

// Verdict is a Status judged as a whole.
type Verdict struct {
	// ExitCode is ExitWell or ExitAttention.
	ExitCode int
	// Line says it in one line. It never says that all is well while a
	// certificate has expired or is not in service.
	Line string
	// Findings by the name of the certificate.
	Findings map[string]Finding
}

// Judge decides what a status means at its own time.
func Judge(status *Status) Verdict {
	v := Verdict{Findings: make(map[string]Finding, len(status.Certificates))}
	counts := make(map[Concern]int)
	for i := range status.Certificates {
		c := &status.Certificates[i]
		f := judge(c, status.At)
		v.Findings[c.Name] = f
		counts[f.Concern]++
	}
	var worries []string
	for _, w := range []struct {
		concern   Concern
		one, many string
	}{
		{ConcernExpired, "has expired", "have expired"},
		{ConcernRevoked, "is revoked", "are revoked"},
		{ConcernUnserved, "is not in service", "are not in service"},
		{ConcernAtRisk, "is about to expire", "are about to expire"},
		{ConcernFailing, "fails to renew", "fail to renew"},
		{ConcernFormer, "is served as it was configured before", "are served as they were configured before"},
	} {
		switch n := counts[w.concern]; n {
		case 0:
		case 1:
			worries = append(worries, "1 of "+plural(len(status.Certificates), "certificate")+" "+w.one)
		default:
			worries = append(worries, fmt.Sprintf("%d of %s %s", n, plural(len(status.Certificates), "certificate"), w.many))
		}
	}
	worries = append(worries, coordinatorWorries(status)...)
	worries = append(worries, clockWorries(&status.Clock)...)
	if n := len(status.Warnings); n > 0 {
		worries = append(worries, plural(n, "warning"))
	}
	if len(worries) > 0 {
		v.ExitCode, v.Line = ExitAttention, "ATTENTION: "+strings.Join(worries, "; ")
		return v
	}
	v.Line = wellLine(status)
	return v
}

func coordinatorWorries(status *Status) []string {
	var worries []string
	switch status.Coordinator.State {
	case ConnectionRetired:
		worries = append(worries, "the coordinator has retired this agent")
	case ConnectionUnknown:
		worries = append(worries, "the coordinator does not know this agent")
	}
	if e := status.Enrollment; e != nil && e.IdentityProblem != "" {
		worries = append(worries, "the identity of this agent cannot be used")
	}
	if !status.Coordinator.IdentitySharedAt.IsZero() {
		worries = append(worries, `another host uses a copy of this identity: enrol the copy anew with --replace, or, if it was stolen, have this agent retired and enrol this host anew`)
	}
	return worries
}

func clockWorries(c *Clock) []string {
	switch {
	case len(c.Warnings) == 0:
		return nil
	case c.Basis == clock.BasisWall && c.Confirmed:
		return []string{"the servers do not agree on the time"}
	}
	return []string{"the clock of this host is wrong"}
}

func wellLine(status *Status) string {
	n := len(status.Certificates)
	if n == 0 {
		return "no certificates are managed on this host"
	}
	line := plural(n, "certificate") + ", all in service"
	if n == 1 {
		line = "1 certificate, in service"
	}
	if until := status.SafeUntil; until != nil {
		line += fmt.Sprintf("; safe until %s (%s) without coordinator, CA or network", until.UTC().Format(time.DateOnly), span(until.Sub(status.At)))
	}
	return line
}

// judge finds the worst about one certificate.
func judge(c *Certificate, now time.Time) Finding {
	if c.Fingerprint == "" {
		text := "no certificate yet"
		if c.State == wire.StateRenewing {
			text = "no certificate yet; the first one is being obtained"
		}
		return Finding{ConcernUnserved, because(waiting(text, c), c)}
	}
	if !now.Before(c.NotAfter) {
		return Finding{ConcernExpired, because(delayed("EXPIRED "+span(now.Sub(c.NotAfter))+" ago", c), c)}
	}
	if !c.RevokedAt.IsZero() {
		return Finding{ConcernRevoked, because(delayed("REVOKED "+span(now.Sub(c.RevokedAt))+" ago", c), c)}
	}
	if !c.SafeUntil.IsZero() && !now.Before(c.SafeUntil) {
		return Finding{ConcernExpired, because("an older certificate is served that EXPIRED "+span(now.Sub(c.SafeUntil))+" ago", c)}
	}
	if text := unserved(c); text != "" {
		return Finding{ConcernUnserved, because(text, c)}
	}
	left := c.NotAfter.Sub(now)
	if left < c.NotAfter.Sub(c.NotBefore)/lateLife && c.RenewAt.Before(now) {
		return Finding{ConcernAtRisk, because(delayed("expires in "+span(left)+" and is not renewed", c), c)}
	}
	switch {
	case c.Waiting != "" && c.Attempt == 0 && c.NeedsAttention != "":
		return Finding{ConcernFailing, because("in service; its renewal waits", c)}
	case c.NeedsAttention != "" || c.State == wire.StateFailed || c.Attempt > 0:
		return Finding{ConcernFailing, because(waiting("in service; its renewal fails", c), c)}
	case c.Former:
		return Finding{ConcernFormer, waiting("in service as it was configured before; being replaced", c)}
	case c.State == wire.StateRenewing:
		return Finding{ConcernRenewing, because("in service; being renewed", c)}
	case c.WaitsFor != "":
		return Finding{ConcernRenewing, waiting("in service", c)}
	}
	if s := c.Suggestion; s != nil && s.ExplanationURL != "" {
		return Finding{ConcernNone, "in service; its authority explains when to renew it at " + s.ExplanationURL}
	}
	return Finding{ConcernNone, "in service"}
}

// unserved says where the current certificate is not what a program reads.
func unserved(c *Certificate) string {
	var where []string
	for _, d := range c.Deployments {
		switch {
		case d.State == wire.DeploymentBroken:
			where = append(where, d.ID+" (broken: the previous certificate could not be put back)")
		case d.Fingerprint == "":
			where = append(where, d.ID)
		case d.Fingerprint != c.Fingerprint && c.Phase != "deployed" && c.State != wire.StateRenewing && c.State != wire.StateFailed:
			where = append(where, d.ID+" (it has another certificate)")
		}
	}
	if len(where) == 0 {
		return ""
	}
	return "not in service at " + strings.Join(where, ", ")
}

// waiting adds that a renewal waits for its turn.
func waiting(text string, c *Certificate) string {
	if c.WaitsFor == "" {
		return text
	}
	return fmt.Sprintf("%s; waits for a turn at issuer %s until %s", text, c.WaitsFor, Stamp(c.WaitsUntil))
}

// delayed is waiting where that does harm: it says what to do about it.
func delayed(text string, c *Certificate) string {
	if c.WaitsFor == "" {
		return text
	}
	return waiting(text, c) + fmt.Sprintf(" (raise issuers.%s.limits, or give it fallback_issuers)", c.WaitsFor)
}

// because adds what is known about the reason. What an order waits for is there only
// if the last look at it said so: it is newer than whatever failed before.
func because(text string, c *Certificate) string {
	switch {
	case c.Waiting != "":
		text += ": " + c.Waiting
	case c.NeedsAttention != "":
		text += ": " + c.NeedsAttention
	case c.LastError != "" && c.Attempt > 0:
		text += ": " + c.LastError
	}
	return text
}

// worstFirst orders the certificates for a person: by concern, then by expiry,
// then by name.
func worstFirst(status *Status, v Verdict) []Certificate {
	list := slices.Clone(status.Certificates)
	slices.SortStableFunc(list, func(a, b Certificate) int {
		if d := int(v.Findings[b.Name].Concern) - int(v.Findings[a.Name].Concern); d != 0 {
			return d
		}
		if d := a.NotAfter.Compare(b.NotAfter); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// span writes a duration as a person would say it.
func span(d time.Duration) string {
	d = d.Abs()
	switch {
	case int(d.Seconds()) == 1:
		return "1 second"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d seconds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
