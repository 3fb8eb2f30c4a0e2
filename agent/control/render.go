package control

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/certctl/certctl/agent/revocation"
	"github.com/certctl/certctl/shared/wire"
)

// Render writes a status for a person: the verdict first, then what is wrong,
// then the rest. Texts from outside are stripped of control characters, so that
// no error of a remote program can paint on the terminal. It returns the
// verdict, whose ExitCode is what "status" exits with.
func Render(w io.Writer, status *Status) (Verdict, error) {
	v := Judge(status)
	var b strings.Builder
	fmt.Fprintln(&b, plain(v.Line))
	fmt.Fprintln(&b)
	facts(&b, status)
	for _, warning := range status.Warnings {
		fmt.Fprintln(&b, "warning: "+plain(warning))
	}
	if len(status.Certificates) > 0 {
		fmt.Fprintln(&b)
		table(&b, status, v)
	}
	for i := range status.Removed {
		c := &status.Removed[i]
		if i == 0 {
			fmt.Fprintln(&b)
		}
		fmt.Fprintf(&b, "removed:     %s, not in the configuration any more since %s; kept until %s\n", plain(c.Name), Stamp(c.RemovedAt), Stamp(c.KeptUntil))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return v, fmt.Errorf("write the status: %w", err)
	}
	return v, nil
}

func facts(b *strings.Builder, status *Status) {
	program := fmt.Sprintf("%s on %s, running for %s", status.Agent.Build.Version, status.Agent.Hostname, span(status.At.Sub(status.Agent.StartedAt)))
	if mode := status.Agent.Build.FIPSMode(); mode != "" {
		program += ", " + mode
	}
	rows := [][2]string{
		{"agent", program},
		{"identity", identityLine(status)},
		{"coordinator", connectionLine(status)},
	}
	for _, warning := range status.Clock.Warnings {
		rows = append(rows, [2]string{"clock", warning})
	}
	safe := "no certificate is in service"
	switch until := status.SafeUntil; {
	case until == nil && len(status.NotSafe) > 0:
		safe = "NOT SAFE NOW: not in service everywhere: " + some(status.NotSafe)
	case until != nil:
		safe = fmt.Sprintf("%s (%s)", Stamp(*until), span(until.Sub(status.At)))
		if first := firstToExpire(status); first != "" {
			safe += ", " + first + " first"
		}
		if !status.At.Before(*until) {
			safe = fmt.Sprintf("NOT SAFE: an expired or revoked certificate is served since %s", Stamp(*until))
		}
	}
	rows = append(rows, [2]string{"safe until", safe})
	if line := revocationLine(status); line != "" {
		rows = append(rows, [2]string{"revocation", line})
	}
	if n := status.Coordinator.EventsDropped; n > 0 {
		rows = append(rows, [2]string{"outbox", fmt.Sprintf("was full: %s merged or dropped so far", plural(int(min(n, 1<<31)), "fact"))})
	}
	for _, row := range rows {
		fmt.Fprintf(b, "%-12s %s\n", row[0]+":", plain(row[1]))
	}
}

// some names the first few.
func some(names []string) string {
	const few = 5
	if more := len(names) - few; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), more)
	}
	return strings.Join(names, ", ")
}

// revocationLine says what the last checks for revocation came to; "" if there
// were none. That an authority cannot be asked is no fault of a certificate, and
// of no weight for the verdict.
func revocationLine(status *Status) string {
	var good, revoked, unknown, failed, skipped int
	var last time.Time
	var longest *revocation.Check
	for i := range status.Certificates {
		c := status.Certificates[i].RevocationCheck
		if c == nil {
			continue
		}
		if c.CheckedAt.After(last) {
			last = c.CheckedAt
		}
		switch c.Result {
		case revocation.ResultGood:
			good++
		case revocation.ResultRevoked:
			revoked++
		case revocation.ResultUnknown:
			unknown++
		case revocation.ResultSkipped:
			skipped++
		default:
			failed++
			if longest == nil || c.FailingSince.Before(longest.FailingSince) {
				longest = c
			}
		}
	}
	var parts []string
	for _, part := range []struct {
		n    int
		text string
	}{{good, "not revoked"}, {revoked, "REVOKED"}, {unknown, "not known to the responder"}, {skipped, "not to be checked"}, {failed, "without an answer"}} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.text))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	line := strings.Join(parts, ", ") + "; last check " + span(status.At.Sub(last)) + " ago"
	if longest != nil {
		line += fmt.Sprintf("; no answer since %s: %s", Stamp(longest.FailingSince), longest.Detail)
	}
	return line
}

// firstToExpire names the certificate that the host's horizon comes from; "" if
// it is the only one, or several share the moment.
func firstToExpire(status *Status) string {
	var name string
	if len(status.Certificates) < 2 {
		return ""
	}
	for i := range status.Certificates {
		if c := &status.Certificates[i]; c.SafeUntil.Equal(*status.SafeUntil) {
			if name != "" {
				return ""
			}
			name = c.Name
		}
	}
	return name
}

func identityLine(status *Status) string {
	e := status.Enrollment
	if e == nil {
		return "not enrolled; \"certctl-agent enroll\" does it"
	}
	line := e.AgentID
	switch {
	case e.IdentityProblem != "":
		line += ", cannot be used: " + e.IdentityProblem
	case e.IdentityNotAfter.IsZero():
	case !status.At.Before(e.IdentityNotAfter):
		line += fmt.Sprintf(", expired since %s; it is renewed at the next contact", Stamp(e.IdentityNotAfter))
	default:
		line += fmt.Sprintf(", valid until %s", Stamp(e.IdentityNotAfter))
	}
	return line
}

func connectionLine(status *Status) string {
	c := status.Coordinator
	last := "never"
	if !c.LastSuccess.IsZero() {
		last = span(status.At.Sub(c.LastSuccess)) + " ago"
	}
	switch c.State {
	case ConnectionNotEnrolled:
		return "none; this agent works alone"
	case ConnectionStarting:
		return fmt.Sprintf("connecting (%s), last sync %s", c.Server, last)
	case ConnectionConnected:
		of := ""
		if e := status.Enrollment; e != nil && len(e.Nodes) > 1 {
			of = fmt.Sprintf(", one of %d nodes", len(e.Nodes))
		}
		return fmt.Sprintf("connected (%s%s), last sync %s", c.Server, of, last)
	case ConnectionCutOff:
		return fmt.Sprintf("cut off since %s, last sync %s; renewals at direct issuers go on: %s", Stamp(c.CutOffSince), last, c.LastError)
	case ConnectionRetired:
		return "has retired this agent; renewals at direct issuers go on; enrol with a new token if the host is wanted again"
	case ConnectionUnknown:
		return fmt.Sprintf("does not know this agent (%s); renewals at direct issuers go on; enrol with a new token", c.LastError)
	}
	return string(c.State)
}

func table(b *strings.Builder, status *Status, v Verdict) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	// Where none is the centre's, they are all this host's own.
	assigned := slices.ContainsFunc(status.Certificates, func(c Certificate) bool { return c.Source == SourceAssigned })
	source := func(text string) string {
		if assigned {
			return "\t" + text
		}
		return ""
	}
	fmt.Fprintf(t, "CERTIFICATE%s\tEXPIRES\tRENEWS\tISSUER\tSTATE\n", source("SOURCE"))
	for _, c := range worstFirst(status, v) {
		fmt.Fprintf(t, "%s%s\t%s\t%s\t%s\t%s\n", plain(c.Name), source(c.Source), until(c.NotAfter, status.At), renews(&c, status.At), plain(c.Issuer), plain(v.Findings[c.Name].Text))
	}
	// A strings.Builder takes everything.
	_ = t.Flush()
}

// RenderCertificate writes all that a person may want to know of one
// certificate, which is more than a row of the table can hold.
func RenderCertificate(w io.Writer, c *Certificate, now time.Time) error {
	moment := func(at time.Time) string {
		if at.IsZero() {
			return ""
		}
		return Stamp(at)
	}
	expires := moment(c.NotAfter)
	if expires != "" {
		expires += " (" + until(c.NotAfter, now) + ")"
	}
	safe := moment(c.SafeUntil)
	if safe == "" && c.KeptUntil.IsZero() {
		safe = "NOT SAFE: it is not in service everywhere"
	}
	rows := [][2]string{
		{"certificate", c.Name}, {"source", c.Source}, {"names", strings.Join(c.Names.Strings(), ", ")}, {"state", string(c.State)},
		{"issuer", c.Issuer + " (" + c.IssuerKind + ")"}, {"stand-in", c.IssuedBy}, {"issued by", c.IssuerDN},
		{"serial", c.Serial}, {"fingerprint", c.Fingerprint}, {"key", c.KeyAlgorithm},
		{"valid from", moment(c.NotBefore)}, {"expires", expires}, {"renews", renews(c, now)}, {"safe until", safe},
		{"removed", moment(c.RemovedAt)}, {"kept until", moment(c.KeptUntil)}, {"REVOKED", moment(c.RevokedAt)},
	}
	if check := c.RevocationCheck; check != nil {
		rows = append(rows, [2]string{"revocation", strings.TrimSpace(string(check.Result) + ", asked " + Stamp(check.CheckedAt) + " " + check.Detail)})
	}
	for _, d := range c.Deployments {
		rows = append(rows, [2]string{"deployed", strings.TrimSpace(d.ID + ": " + string(d.State) + " " + d.Detail)})
	}
	if c.LastError != "" {
		rows = append(rows, [2]string{"last error", fmt.Sprintf("%s (%s, attempt %d)", c.LastError, Stamp(c.LastErrorAt), c.Attempt)})
	}
	if c.Waiting != c.NeedsAttention {
		rows = append(rows, [2]string{"waits", c.Waiting})
	}
	rows = append(rows, [2]string{"ATTENTION", c.NeedsAttention})
	for _, row := range rows {
		if row[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%-12s %s\n", row[0]+":", plain(row[1])); err != nil {
			return fmt.Errorf("write the certificate: %w", err)
		}
	}
	return nil
}

// RenderAssignments writes those that are not managed, each with its mend.
func RenderAssignments(w io.Writer, assignments []Assignment) error {
	for i := range assignments {
		a := &assignments[i]
		if a.State == wire.AssignmentActive {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s: %s: %s\n", plain(a.Name), a.State, plain(a.Detail)); err != nil {
			return fmt.Errorf("write the assignments: %w", err)
		}
	}
	return nil
}

func until(at, now time.Time) string {
	switch {
	case at.IsZero():
		return "-"
	case !now.Before(at):
		return "EXPIRED"
	}
	return "in " + span(at.Sub(now))
}

func renews(c *Certificate, now time.Time) string {
	// An operator's request is kept until it has succeeded; after a failure it
	// waits like any other.
	at, forced := c.RenewAt, c.Forced
	if c.Attempt > 0 {
		at, forced = c.NextAttempt, false
	}
	if c.WaitsFor != "" {
		at, forced = c.WaitsUntil, false
	}
	switch {
	case forced || at.IsZero() && c.Fingerprint == "" || !at.IsZero() && !now.Before(at):
		return "now"
	case at.IsZero():
		return "-"
	}
	return "in " + span(at.Sub(now))
}

// Stamp writes a moment as every command of the agent does.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// plain makes one harmless line of a text.
func plain(s string) string {
	if !strings.ContainsFunc(s, unwanted) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if unwanted(r) {
			return ' '
		}
		return r
	}, s)
}

// Format characters (Cf) include those that reverse the direction of writing.
func unwanted(r rune) bool {
	return unicode.IsControl(r) || slices.Contains([]rune{0x2028, 0x2029, unicode.ReplacementChar}, r) || unicode.Is(unicode.Cf, r)
}
