package recovery

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// sheet writes lines of a name and a value, and keeps the first error.
type sheet struct {
	out *tabwriter.Writer
	err error
}

func newSheet(w io.Writer) *sheet { return &sheet{out: tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)} }

func (s *sheet) line(name, format string, args ...any) {
	if s.err == nil {
		_, s.err = fmt.Fprintf(s.out, "%s\t%s\n", name, plain(fmt.Sprintf(format, args...)))
	}
}

func (s *sheet) text(format string, args ...any) {
	if s.err == nil {
		_, s.err = fmt.Fprintln(s.out, plain(fmt.Sprintf(format, args...)))
	}
}

func (s *sheet) end() error {
	if s.err != nil {
		return s.err
	}
	return s.out.Flush()
}

// plain keeps what a report says from moving the cursor.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}

func (r *Report) write(w io.Writer) error {
	s := newSheet(w)
	s.line("node", "%s", r.NodeID)
	s.line("cluster", "%s", orUnknown(r.ClusterID))
	s.line("data directory", "%s", r.DataDir)
	s.line("last entry", "%d of term %d", r.LastIndex, r.LastTerm)
	s.line("committed at least", "%d", r.Committed)
	s.line("log", "from entry %d; %s", r.FirstIndex, termsText(r))
	if r.DamagedEntries > 0 {
		s.line("damaged", "%d entries that a snapshot covers: nothing is lost with them", r.DamagedEntries)
	}
	s.line("term", "%d, last vote for %s", r.CurrentTerm, orUnknown(r.VotedFor))
	s.line("journal", "%s", orElse(r.JournalProblem, fmt.Sprintf("through entry %d", r.JournalThrough)))
	for _, snapshot := range r.Snapshots {
		s.line("snapshot", "entry %d of term %d, %d octets, %s%s", snapshot.Index, snapshot.Term, snapshot.Size, moment(snapshot.Time), problemText(snapshot.Problem))
	}
	for _, server := range r.Configuration {
		role := "voter"
		if !server.Voter {
			role = "no voter"
		}
		s.line("member", "%s at %s, %s", server.ID, server.Address, role)
	}
	s.line("state", "%s", orElse(r.StateProblem, rowsText(r.Rows)))
	s.line("seal key", "%s", orElse(r.SealKeyProblem, "opens the CA"))
	return s.end()
}

func problemText(problem string) string {
	if problem == "" {
		return ""
	}
	return "; NOT USABLE: " + problem
}

func termsText(r *Report) string {
	if len(r.Terms) == 0 {
		return "it is empty"
	}
	return fmt.Sprintf("its last entries are of term %d, from %d on", r.Terms[len(r.Terms)-1].Term, r.Terms[len(r.Terms)-1].From)
}

func rowsText(rows map[string]int) string {
	var parts []string
	for _, table := range slices.Sorted(maps.Keys(rows)) {
		if rows[table] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", table, rows[table]))
		}
	}
	return orElse(strings.Join(parts, ", "), "empty")
}

func orUnknown(text string) string { return orElse(text, "unknown") }

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func (c *Comparison) write(w io.Writer) error {
	s := newSheet(w)
	s.line("cluster", "%s", orUnknown(c.ClusterID))
	s.line("voters", "%s; a majority is %d", strings.Join(c.Voters, ", "), c.Majority)
	s.line("missing", "%s", orElse(strings.Join(c.Missing, ", "), "none"))
	if c.Quorum {
		s.text("A majority has survived. Start these nodes: the cluster goes on by itself, and nothing is lost.")
		return s.end()
	}
	s.line("newest log", "%s", c.Newest)
	s.line("recover from", "%s", orElse(c.Choose, "NONE OF THESE"))
	if c.Choose != "" {
		s.line("known to be committed", "up to entry %d", c.KnownCommitted)
		s.line("kept behind that", "%s", c.Kept)
		for _, other := range c.Others {
			s.line("against "+other.NodeID, "%s, both have entries up to %d", relationText(other.Relation), other.Common)
			s.line("  only "+c.Choose, "%s", other.OnlyChosen)
			s.line("  only "+other.NodeID+", and lost", "%s", other.OnlyOther)
		}
		if c.Lost.Possible {
			s.line("LOST", "what was acknowledged after entry %d (%s), if anything: %s", c.Lost.After, moment(c.Lost.Since), c.Lost.Why)
			if c.Lost.Sure < c.Lost.After {
				s.line("PERHAPS LOST", "what was acknowledged after entry %d, if the missing nodes had a leader of their own meanwhile: its entries were others than those that are kept", c.Lost.Sure)
			}
		} else {
			s.line("lost", "nothing that was acknowledged: %s", c.Lost.Why)
		}
	}
	for _, warning := range c.Warnings {
		s.line("WARNING", "%s", warning)
	}
	return s.end()
}

func relationText(relation string) string {
	switch relation {
	case RelationSame:
		return "the same log"
	case RelationPrefix:
		return "all of its log is in the chosen one"
	case RelationExtends:
		return "it has all of the chosen log, and more"
	}
	return "the logs differ"
}

// String says what is in a range.
func (r Range) String() string {
	if r.Entries == 0 {
		return "nothing"
	}
	text := fmt.Sprintf("%d entries, %d to %d", r.Entries, r.From, r.To)
	if !r.Oldest.IsZero() {
		text += fmt.Sprintf(", of %s to %s", moment(r.Oldest), moment(r.Newest))
	}
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(r.Kinds)) {
		kinds = append(kinds, fmt.Sprintf("%s %d", kind, r.Kinds[kind]))
	}
	if len(kinds) > 0 {
		text += ": " + strings.Join(kinds, ", ")
	}
	if len(r.Agents) > 0 {
		text += "; agents " + strings.Join(r.Agents[:min(len(r.Agents), shownAgents)], ", ")
		if more := len(r.Agents) - shownAgents; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
	}
	if r.Undescribed > 0 {
		text += fmt.Sprintf("; %d of them are not described", r.Undescribed)
	}
	return text
}

const shownAgents = 10

func (o *outcome) write(w io.Writer, dir string) error {
	s := newSheet(w)
	if o.Already {
		s.text("This node was recovered at %s and is a cluster of its own: there is nothing to do.", moment(o.Recovery.Time))
		s.text("Start the coordinator here.")
		return s.end()
	}
	switch {
	case o.DryRun:
		s.text("Nothing was changed. recover run --yes would do this:")
	case o.Continued:
		s.text("A recovery that was cut off is finished:")
	default:
		s.text("This node is a cluster of its own now:")
	}
	s.line("node", "%s", o.Recovery.NodeID)
	if o.Before != nil {
		var gone []string
		for _, server := range o.Before.Configuration {
			if server.ID != o.Recovery.NodeID {
				gone = append(gone, server.ID)
			}
		}
		s.line("members that go", "%s", orElse(strings.Join(gone, ", "), "none"))
		s.line("state", "%s", rowsText(o.Before.Rows))
		if o.Before.JournalThrough < o.Before.LastIndex {
			s.line("facts to write", "those of entries %d to %d into the journal", o.Before.JournalThrough+1, o.Before.LastIndex)
		}
		s.line("of unknown fate, kept", "%s", o.Undecided)
	}
	s.line("log ends", "entry %d of term %d; what only other nodes had behind it is lost", o.Recovery.LastIndex, o.Recovery.LastTerm)
	s.line("old state", "%s/%s, until you remove it", dir, o.Recovery.Kept)
	if !o.DryRun {
		s.text("Start the coordinator here. New nodes join it with empty data directories.")
		s.text("Never start a lost node with its old data: such nodes may be a majority among themselves.")
	}
	return s.end()
}
