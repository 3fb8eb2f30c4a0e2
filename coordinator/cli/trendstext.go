package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
)

// A stretch is one line of the trends: a day, or a week.
type stretch struct {
	name     string
	days     int // that have begun
	known    int // of which something is recorded
	looked   int // of which it is known how the fleet stood
	partial  bool
	running  bool
	activity resource.DayActivity
	// The most of them; of the certificates, as they were last.
	hosts, cutOff, atRisk, certificates, expired uint64
}

// stretches are the lines, also those of which nothing is known.
func (t *trends) stretches(now time.Time) []stretch {
	recorded := map[string]*resource.DayReport{}
	for i := range t.days {
		recorded[t.days[i].Date] = &t.days[i]
	}
	today := now.Truncate(24 * time.Hour)
	var stretches []stretch
	for back := t.count - 1; back >= 0; back-- {
		at := today.AddDate(0, 0, -back)
		name := at.Format(time.DateOnly)
		if t.weekly {
			name = at.AddDate(0, 0, -(int(at.Weekday())+6)%7).Format(time.DateOnly)
		}
		if len(stretches) == 0 || stretches[len(stretches)-1].name != name {
			stretches = append(stretches, stretch{name: name})
		}
		s := &stretches[len(stretches)-1]
		s.days++
		day := recorded[at.Format(time.DateOnly)]
		if day != nil {
			s.add(day)
		}
		if back == 0 {
			if day == nil {
				s.known++ // nothing has come in yet
			}
			s.running = true
			s.stand(number(t.fleet.Hosts), number(t.fleet.CutOff), number(t.fleet.AtRisk), number(t.fleet.Certificates), number(t.fleet.Health.Expired))
		}
	}
	return stretches
}

func (s *stretch) add(day *resource.DayReport) {
	s.known++
	s.partial = s.partial || day.Activity.Partial
	s.activity.Renewed += day.Activity.Renewed
	s.activity.RenewedOffline += day.Activity.RenewedOffline
	s.activity.Failed += day.Activity.Failed
	if st := day.Standing; st != nil {
		s.stand(st.Hosts, st.CutOff, st.AtRisk, st.Certificates, st.Expired)
	}
}

func (s *stretch) stand(hosts, cutOff, atRisk, certificates, expired uint64) {
	s.looked++
	s.hosts, s.cutOff, s.atRisk = max(s.hosts, hosts), max(s.cutOff, cutOff), max(s.atRisk, atRisk)
	s.certificates, s.expired = certificates, max(s.expired, expired)
}

func number(n int) uint64 { return uint64(max(n, 0)) } //nolint:gosec // not negative

// cells are the line of a table.
func (s *stretch) cells() []string {
	stood := func(n uint64) string {
		if s.looked == 0 {
			return ""
		}
		return fmt.Sprint(n)
	}
	var notes []string
	if s.running {
		notes = append(notes, "so far")
	}
	switch missing := s.days - s.known; {
	case missing == 1:
		notes = append(notes, "1 day missing")
	case missing > 1:
		notes = append(notes, fmt.Sprintf("%d days missing", missing))
	}
	if s.partial {
		notes = append(notes, "facts missing")
	}
	return []string{
		s.name, stood(s.hosts), stood(s.cutOff), stood(s.atRisk), stood(s.certificates), stood(s.expired),
		fmt.Sprint(s.activity.Renewed), fmt.Sprint(s.activity.RenewedOffline), fmt.Sprint(s.activity.Failed), strings.Join(notes, ", "),
	}
}

// marks writes a line of marks for what people look for.
func (t *trends) marks(out io.Writer, stretches []stretch) error {
	unit := "day"
	if t.weekly {
		unit = "week"
	}
	if _, err := fmt.Fprintf(out, "%d days by %s, %s to %s\n", t.count, unit, stretches[0].name, stretches[len(stretches)-1].name); err != nil {
		return err
	}
	for _, line := range []struct {
		name string
		of   func(s *stretch) (n uint64, known bool)
	}{
		{"cut off", func(s *stretch) (uint64, bool) { return s.cutOff, s.looked > 0 }},
		{"at risk", func(s *stretch) (uint64, bool) { return s.atRisk, s.looked > 0 }},
		{"renewed", func(s *stretch) (uint64, bool) { return s.activity.Renewed, s.known > 0 }},
		{"failed", func(s *stretch) (uint64, bool) { return s.activity.Failed, s.known > 0 }},
	} {
		var most, last uint64
		for i := range stretches {
			n, known := line.of(&stretches[i])
			most = max(most, n)
			if known {
				last = n
			}
		}
		var marks strings.Builder
		for i := range stretches {
			if n, known := line.of(&stretches[i]); known {
				marks.WriteByte(mark(n, most))
			} else {
				marks.WriteByte(' ')
			}
		}
		if _, err := fmt.Fprintf(out, "  %s  %s|  at most %d, last %d\n", line.name+strings.Repeat(" ", len("cut off")-len(line.name)), marks.String(), most, last); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(out)
	return err
}

// ramp are the marks from the least to the most.
const ramp = ".:-=+*#"

// mark is the mark of a number among those of which one is the most.
func mark(n, most uint64) byte {
	if n == 0 {
		return '_'
	}
	steps := uint64(len(ramp))
	return ramp[(n*steps+most-1)/most-1] // rounded up: the least are to be seen too
}

// byIssuer writes what came in on all of the days by issuer.
func (t *trends) byIssuer(out io.Writer) error {
	sums, reasons := map[string]*resource.IssuerActivity{}, map[string]map[string]uint64{}
	for i := range t.days {
		for _, one := range t.days[i].Activity.Issuers {
			sum := sums[one.Issuer]
			if sum == nil {
				sum = &resource.IssuerActivity{Issuer: one.Issuer}
				sums[one.Issuer], reasons[one.Issuer] = sum, map[string]uint64{}
			}
			sum.Renewed += one.Renewed
			sum.RenewedOffline += one.RenewedOffline
			sum.Failed += one.Failed
			for _, reason := range one.Reasons {
				reasons[one.Issuer][reason.Name] += reason.Count
			}
		}
	}
	if len(sums) == 0 {
		return nil
	}
	var issuers []*resource.IssuerActivity
	for _, sum := range sums {
		issuers = append(issuers, sum)
	}
	slices.SortFunc(issuers, func(a, b *resource.IssuerActivity) int {
		return cmp.Or(cmp.Compare(b.Failed, a.Failed), cmp.Compare(b.Renewed, a.Renewed), cmp.Compare(a.Issuer, b.Issuer))
	})
	var rows [][]string
	for _, sum := range issuers {
		rows = append(rows, []string{sum.Issuer, fmt.Sprint(sum.Renewed), fmt.Sprint(sum.RenewedOffline), fmt.Sprint(sum.Failed), reasonsText(reasons[sum.Issuer])})
	}
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	return table(out, []string{"ISSUER", "RENEWED", "OFFLINE", "FAILED", "REASONS"}, rows)
}

// reasonsText is the most frequent reasons first.
func reasonsText(counts map[string]uint64) string {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, counts[name])
	}
	return strings.Join(names, ", ")
}
