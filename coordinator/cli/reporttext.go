package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/certctl/certctl/coordinator/api/resource"
)

// fleetLine is the fleet on one line.
func fleetLine(f *resource.FleetStanding) string {
	return fmt.Sprintf("%s; at risk %s; certificates %s", hostsText(f), risksText(f), healthText(f.Health))
}

func hostsText(f *resource.FleetStanding) string {
	return fmt.Sprintf("%s: %d connected, %d cut off", counted(f.Hosts, "host", "hosts"), f.Connected, f.CutOff)
}

// risksText counts the hosts at risk.
func risksText(f *resource.FleetStanding) string {
	if f.AtRisk == 0 {
		return "none"
	}
	r := &f.Risks
	return fmt.Sprintf("%d: %s", f.AtRisk, listed(
		count{r.Expired, riskText("expired")}, count{r.Unserved, riskText("unserved")}, count{r.Expiring, "expiring"},
		count{r.CutOff, "cut off"}, count{r.Attention, "need attention"}, count{r.Warned, "warn of something"}))
}

// count is a number of something.
type count struct {
	n    int
	what string
}

// listed are the counts that are not zero.
func listed(counts ...count) string {
	var parts []string
	for _, c := range counts {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return strings.Join(parts, ", ")
}

// fleetFacts are the sums.
func fleetFacts(f *resource.FleetStanding, now time.Time) [][2]string {
	hosts := hostsText(f)
	if f.CutOff > 0 {
		hosts += fmt.Sprintf(" (the longest for %s)", span(now.Sub(f.CutOffSince)))
	}
	safe := first(horizon(f.SafeUntil, now), "no certificate is in service")
	if f.NotSafe > 0 {
		safe = fmt.Sprintf("%s: %s on %s, as last reported", notSafe(f.NotSafe),
			counted(f.NotSafe, "certificate", "certificates"), counted(f.NotSafeHosts, "host", "hosts"))
	}
	pairs := [][2]string{
		{"fleet", hosts},
		{"hosts at risk", risksText(f)},
		{"safe until", safe},
		{"certificates", healthText(f.Health) + attentionText(f.NeedingAttention)},
		{"deployments", deploymentsText(&f.Deployments)},
		{"issuers", first(issuersText(f.Issuers), "none")},
		{"versions", versionsText(f.Versions)},
	}
	if also := alsoText(f); also != "" {
		pairs = append(pairs, [2]string{"also", also})
	}
	return pairs
}

// shownNames is how many issuers and versions are named.
const shownNames = 4

func issuersText(issuers []resource.IssuerStanding) string {
	var parts []string
	for _, i := range issuers {
		text := fmt.Sprintf("%s %d", i.Issuer, i.Certificates)
		if i.Troubled > 0 {
			text += fmt.Sprintf(" (%d in trouble)", i.Troubled)
		}
		parts = append(parts, text)
	}
	return fewOf(parts)
}

func versionsText(versions []resource.VersionHosts) string {
	var parts []string
	for _, v := range versions {
		parts = append(parts, fmt.Sprintf("%s on %d", v.Version, v.Hosts))
	}
	return fewOf(parts)
}

// fewOf are the first of some names.
func fewOf(parts []string) string {
	if len(parts) > shownNames {
		parts = append(parts[:shownNames:shownNames], fmt.Sprintf("%d more", len(parts)-shownNames))
	}
	return strings.Join(parts, ", ")
}

// alsoText is what else there is to say of hosts.
func alsoText(f *resource.FleetStanding) string {
	var parts []string
	if f.ClockWrong > 0 {
		parts = append(parts, fmt.Sprintf("%s (the worst %s)", counted(f.ClockWrong, "clock is wrong", "clocks are wrong"), skewText(f.WorstClockSkewSeconds)))
	}
	if f.IdentityShared > 0 {
		parts = append(parts, counted(f.IdentityShared, "IDENTITY IS USED BY TWO HOSTS", "IDENTITIES ARE USED BY TWO HOSTS"))
	}
	if f.Warned > 0 {
		parts = append(parts, counted(f.Warned, "host warns of something", "hosts warn of something"))
	}
	if f.FactsDropped > 0 {
		parts = append(parts, fmt.Sprintf("%s dropped on %s", plural(f.FactsDropped, "fact", "facts"), counted(f.FactsDroppedHosts, "host", "hosts")))
	}
	return strings.Join(parts, "; ")
}

// renewalsText is what came in within a time, in a few words.
func renewalsText(a *resource.DayActivity) string {
	text := fmt.Sprint(a.Renewed)
	if a.Failed > 0 {
		text += fmt.Sprintf(", %d FAILED", a.Failed)
	}
	if a.RenewedOffline > 0 {
		text += fmt.Sprintf(", %d while cut off", a.RenewedOffline)
	}
	return text
}

// failuresText says where failures were, and why most of them.
func failuresText(a *resource.DayActivity) string {
	var parts []string
	for _, i := range a.Issuers {
		if i.Failed == 0 {
			continue
		}
		text := fmt.Sprintf("%s %d", i.Issuer, i.Failed)
		if len(i.Reasons) > 0 {
			text += fmt.Sprintf(" (%s)", i.Reasons[0].Name)
		}
		parts = append(parts, text)
	}
	return fewOf(parts)
}

func plural(n uint64, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, several)
}

// A chart of the weeks has a column for each.
const (
	chartHeight = 3
	chartColumn = 6 // thirteen of them fit 80 letters
)

// expiringChart shows how many certificates expire in which week.
func expiringChart(f *resource.FleetStanding) string {
	most, sum := 0, 0
	for _, week := range f.Expiring {
		most, sum = max(most, week.Certificates), sum+week.Certificates
	}
	if sum == 0 {
		return fmt.Sprintf("expiring within %d weeks: none; later: %d\n", len(f.Expiring), f.ExpiringLater)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "expiring by week: %d within %d weeks, %d later\n", sum, len(f.Expiring), f.ExpiringLater)
	row := func(cell func(week resource.ExpiringWeek) string) {
		var line strings.Builder
		for _, week := range f.Expiring {
			fmt.Fprintf(&line, "%*s", chartColumn, cell(week))
		}
		text.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	row(func(week resource.ExpiringWeek) string {
		if week.Certificates == 0 {
			return "-"
		}
		return short(week.Certificates)
	})
	for level := chartHeight; level > 0; level-- {
		row(func(week resource.ExpiringWeek) string {
			// The least of them is to be seen too.
			if week.Certificates > 0 && (week.Certificates*chartHeight+most-1)/most >= level {
				return "###"
			}
			return ""
		})
	}
	row(func(week resource.ExpiringWeek) string { return week.Week[min(len("2031-"), len(week.Week)):] })
	return text.String()
}

// short is a number of five letters at most.
func short(n int) string {
	switch {
	case n < 100_000:
		return fmt.Sprint(n)
	case n < 10_000_000:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprintf("%dM", n/1_000_000)
}

// hostText is what is the matter with a host.
func hostText(h *resource.HostStanding, now time.Time) string {
	var parts []string
	ended := !h.SafeUntil.IsZero() && !now.Before(h.SafeUntil)
	add := func(n int, text string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, text))
		}
	}
	add(h.Health.Expired, "expired")
	add(h.Health.Revoked, "revoked")
	switch {
	case ended && len(parts) > 0:
		parts[0] += " since " + span(now.Sub(h.SafeUntil))
	case ended:
		parts = append(parts, "horizon passed "+distance(h.SafeUntil, now))
	}
	add(max(h.Health.Unserved, h.NotSafe-h.Health.Expired-h.Health.Revoked), "not in service")
	inService := len(parts) == 0
	if !h.Connected {
		parts = append(parts, "cut off "+span(now.Sub(h.CutOffSince)))
	}
	if inService && !h.SafeUntil.IsZero() {
		parts = append(parts, "safe "+span(h.SafeUntil.Sub(now)))
	}
	if h.NeedingAttention > 0 {
		add(h.NeedingAttention, "for a person")
	} else {
		add(h.Health.AtRisk, "at risk")
	}
	if h.IdentityShared {
		parts = append(parts, "TWO HOSTS USE ITS IDENTITY")
	}
	if text := skewText(h.ClockSkewSeconds); text != "" {
		parts = append(parts, "clock "+text)
	}
	if n := len(h.Warnings); n > 0 {
		text := "warns: " + clipped(h.Warnings[0], 60)
		if n > 1 {
			text += fmt.Sprintf(" (and %d more)", n-1)
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 && h.Certificates == 0 {
		return "no certificates"
	}
	return strings.Join(parts, ", ")
}

// clipped is a text that is not too long.
func clipped(text string, most int) string {
	if letters := []rune(text); len(letters) > most {
		return string(letters[:most-3]) + "..."
	}
	return text
}

// wrapped is a text in lines of so many letters, unless a word has more; 0 is any number.
func wrapped(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case width > 0 && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// wrapLast is a row as several, with its last cell in lines of so many letters. The
// others are blank below the first.
func wrapLast(row []string, width int) [][]string {
	var rows [][]string
	last := len(row) - 1
	for i, line := range wrapped(row[last], width) {
		one := slices.Clone(row)
		if i > 0 {
			for cell := range last {
				one[cell] = " "
			}
		}
		one[last] = line
		rows = append(rows, one)
	}
	return rows
}

// terminalWidth is how many letters go on a line of what is written to; 0 if it is no
// terminal, where a line may have any number of them.
func terminalWidth(out io.Writer) int {
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return 0
}

func deploymentsText(d *resource.DeploymentStates) string {
	return first(listed(count{d.Broken, "BROKEN"}, count{d.Failed, "FAILED"}, count{d.Pending, "pending"}, count{d.Unverified, "not verified"}, count{d.Verified, "verified"}), "none")
}
