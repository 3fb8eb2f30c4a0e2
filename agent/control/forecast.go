package control

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/certctl/certctl/agent/renewal"
)

// maxDayRows is how many days a table shows one by one; more are shown by month.
const maxDayRows = 31

// RenderForecast writes the outcome of a drill for a person: what matters first,
// then what happens when, then each certificate, the worst first.
func RenderForecast(w io.Writer, f *renewal.Forecast) error {
	var b strings.Builder
	switch {
	case len(f.Certificates) == 0:
		fmt.Fprintln(&b, "no certificates are managed on this host")
	case f.First != nil:
		fmt.Fprintf(&b, "EXPIRED: the first expired certificate would be served from %s on (in %s): %s\n",
			Stamp(f.First.At), span(f.First.At.Sub(f.From)), plain(f.First.Certificate))
		fmt.Fprintf(&b, "Why: %s\n", plain(f.First.Why))
		shortages(&b, f)
	case f.Well():
		fmt.Fprintf(&b, "nothing expires until %s (%s), and everything is in service then\n", Stamp(f.Until), span(f.Until.Sub(f.From)))
	default:
		fmt.Fprintf(&b, "ATTENTION: nothing expires until %s, but not everything is in service then\n", Stamp(f.Until))
	}
	if len(f.Days) > 0 {
		fmt.Fprintln(&b)
		daysTable(&b, f.Days)
	}
	if len(f.Certificates) > 0 {
		fmt.Fprintln(&b)
		prospectsTable(&b, f)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write the outcome of the drill: %w", err)
	}
	return nil
}

// shortages says what expires for want of this host's own limits, and what helps.
func shortages(b *strings.Builder, f *renewal.Forecast) {
	if len(f.Shortages) == 0 {
		return
	}
	fmt.Fprintln(b)
	for _, s := range f.Shortages {
		some := "certificates expire"
		if s.Certificates == 1 {
			some = "certificate expires"
		}
		fmt.Fprintf(b, "LIMIT: %d %s waiting for a turn (%s is %d), the first from %s on: %s\n",
			s.Certificates, some, plain(s.Limit), s.Now, Stamp(s.First.At), plain(s.First.Certificate))
	}
	const instead = "renew before it comes to that (certctl-agent renew NAME), or configure fallback_issuers"
	if len(f.Raises) == 0 {
		fmt.Fprintln(b, "Mend: no limit that can be configured is enough; "+instead)
		return
	}
	raises := make([]string, len(f.Raises))
	for i, r := range f.Raises {
		raises[i] = fmt.Sprintf("%s from %d to %d", plain(r.Limit), r.From, r.To)
	}
	left := "nothing expires waiting (less may do)"
	if f.StillShort > 0 {
		left = fmt.Sprintf("%d still expire waiting (nothing is enough for all of these)", f.StillShort)
	}
	fmt.Fprintf(b, "Mend: raise %s, with which %s; or %s\n", strings.Join(raises, " and "), left, instead)
}

func daysTable(b *strings.Builder, days []renewal.Day) {
	head := "DAY"
	if len(days) > maxDayRows {
		head = "MONTH"
		var months []renewal.Day
		for _, day := range days {
			month := day.Date[:len("2006-01")]
			if len(months) == 0 || months[len(months)-1].Date != month {
				months = append(months, renewal.Day{Date: month})
			}
			last := &months[len(months)-1]
			last.Renewed += day.Renewed
			last.Failures += day.Failures
			last.Attention += day.Attention
			last.Expired += day.Expired
		}
		days = months
	}
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, head+"\tRENEWED\tFAILED ATTEMPTS\tNEED ATTENTION\tEXPIRE")
	for _, day := range days {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\n", day.Date, day.Renewed, day.Failures, day.Attention, day.Expired)
	}
	_ = t.Flush() // a strings.Builder takes everything
}

func prospectsTable(b *strings.Builder, f *renewal.Forecast) {
	list := slices.Clone(f.Certificates)
	never := f.Until.Add(1)
	rank := func(p *renewal.Prospect) time.Time {
		if p.ExpiredAt.IsZero() {
			return never
		}
		return p.ExpiredAt
	}
	slices.SortStableFunc(list, func(a, b renewal.Prospect) int {
		return cmp.Or(
			rank(&a).Compare(rank(&b)),
			strings.Compare(b.Unserved, a.Unserved),
			strings.Compare(b.Attention, a.Attention),
			a.SafeUntil.Compare(b.SafeUntil),
		)
	})
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CERTIFICATE\tISSUER\tSAFE UNTIL\tFIRST RENEWED\tRENEWALS\tFAILED ATTEMPTS\tOUTCOME")
	for i := range list {
		p := &list[i]
		safe := "NOT SAFE"
		if !p.SafeUntil.IsZero() {
			safe = date(p.SafeUntil)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", plain(p.Name), plain(p.Issuer), safe, date(p.RenewedAt), p.Renewals, p.Failures, plain(outcome(p)))
	}
	_ = t.Flush()
}

// outcome says in words what becomes of a certificate.
func outcome(p *renewal.Prospect) string {
	var parts []string
	if !p.ExpiredAt.IsZero() {
		parts = append(parts, fmt.Sprintf("EXPIRED from %s on, for %s", date(p.ExpiredAt), span(time.Duration(p.ExpiredFor*float64(time.Second)))))
	}
	if p.UnservedNow != "" && p.UnservedNow != p.Unserved {
		parts = append(parts, "not in service now: "+p.UnservedNow)
	}
	if p.Unserved != "" {
		parts = append(parts, "NOT IN SERVICE at the end: "+p.Unserved)
	}
	if p.Attention != "" {
		parts = append(parts, fmt.Sprintf("asks for a person on %s: %s", date(p.AttentionAt), p.Attention))
	}
	if len(parts) == 0 {
		return "in service throughout"
	}
	return strings.Join(parts, "; ")
}

func date(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return at.UTC().Format(time.DateOnly)
}
