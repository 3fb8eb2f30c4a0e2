package manpage

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// A writer writes the language of man(7).
type writer struct{ strings.Builder }

// escape makes a text stand as it is.
func escape(text string) string { return strings.NewReplacer(`\`, `\e`, `-`, `\-`).Replace(text) }

// line writes a line of the language.
func (w *writer) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

// text writes a line of text, none of which is a request.
func (w *writer) text(line string) {
	if line = escape(strings.TrimSpace(line)); line == "" {
		return
	}
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		line = `\&` + line
	}
	w.line("%s", line)
}

func (w *writer) section(name string) { w.line(".SH %q", name) }

// paragraphs writes a text that is parted by empty lines. What is indented, such as a
// table or a file, stands as it is.
func (w *writer) paragraphs(text string) {
	begun := !strings.HasPrefix(text, "\n") // behind a heading no break is wanted
	for part := range strings.SplitSeq(strings.Trim(text, "\n"), "\n\n") {
		if !begun {
			w.line(".PP")
		}
		begun = false
		var asItIs []string
		for line := range strings.SplitSeq(part, "\n") {
			if strings.HasPrefix(line, " ") {
				asItIs = append(asItIs, line)
				continue
			}
			w.literal(strings.Join(asItIs, "\n"))
			asItIs = nil
			w.text(line)
		}
		w.literal(strings.Join(asItIs, "\n"))
	}
}

// literal writes lines as they stand.
func (w *writer) literal(text string) {
	if text == "" {
		return
	}
	w.line(".PP")
	w.line(".RS 4")
	w.line(".nf")
	for line := range strings.SplitSeq(text, "\n") {
		line = escape(strings.TrimPrefix(line, "  "))
		if line == "" || strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		w.line("%s", line)
	}
	w.line(".fi")
	w.line(".RE")
}

func (w *writer) flags(heading string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	w.section(heading)
	flags.VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden || flag.Deprecated != "" {
			return
		}
		w.line(".TP")
		w.line("%s", flagName(flag))
		_, usage := pflag.UnquoteUsage(flag)
		if value := defaultOf(flag); value != "" && !strings.Contains(usage, "(default") {
			usage += " (default " + value + ")"
		}
		w.text(usage)
	})
}

func (w *writer) entries(heading string, entries []Entry) {
	if len(entries) == 0 {
		return
	}
	w.section(heading)
	for _, entry := range entries {
		w.line(".TP")
		w.line(`\fB%s\fR`, escape(entry.Name))
		w.text(entry.Text)
	}
}
