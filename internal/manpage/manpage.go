// Package manpage writes the manual pages of a program from its command line: one for
// each command, of what --help says. The programs do not contain it: their tests write
// the pages ("make man"), and hold every command to say what a page needs.
package manpage

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A Manual is a program's.
type Manual struct {
	Root *cobra.Command
	// Section is 1 for a program of people, 8 for a daemon.
	Section int
	// Environment and Files are what its page tells beside the command line.
	Environment, Files []Entry
	// SeeAlso are pages of other programs, such as certctl(1).
	SeeAlso []string
}

// An Entry is a name and what is to be said of it.
type Entry struct{ Name, Text string }

// Pages are the pages by the names of their files, such as certctl-agents-list.1. They
// are the same whenever and wherever they are made; SOURCE_DATE_EPOCH dates them.
func (m Manual) Pages() map[string]string {
	pages := make(map[string]string)
	var add func(*cobra.Command)
	add = func(cmd *cobra.Command) {
		pages[pageName(cmd)+"."+strconv.Itoa(m.Section)] = m.page(cmd)
		for _, sub := range shown(cmd) {
			add(sub)
		}
	}
	add(m.Root)
	return pages
}

// shown are the commands below one that --help shows.
func shown(cmd *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(cmd.Commands()), func(sub *cobra.Command) bool {
		return sub.Hidden || sub.Name() == "help"
	})
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// reference is how another page names the page of a command.
func (m Manual) reference(cmd *cobra.Command) string {
	return fmt.Sprintf(`\fB%s\fR(%d)`, escape(pageName(cmd)), m.Section)
}

func (m Manual) page(cmd *cobra.Command) string {
	var w writer
	root := m.Root.Name()
	// cobra gives a command the flags of those above it when somebody looks at them.
	local, inherited := cmd.LocalFlags(), cmd.InheritedFlags()
	w.line(`.TH "%s" "%d" "%s" "%s" "%s"`, strings.ToUpper(escape(pageName(cmd))), m.Section, date(), root, "Manual of "+root)
	w.section("NAME")
	w.line(`%s \- %s`, escape(pageName(cmd)), escape(cmd.Short))
	w.section("SYNOPSIS")
	w.line(`\fB%s\fR`, escape(cmd.CommandPath()))
	usage := strings.TrimPrefix(cmd.UseLine(), cmd.CommandPath())
	if len(shown(cmd)) > 0 {
		usage += " COMMAND ..."
	}
	w.text(usage)
	description, exit := apart(cmd.Long, "Exit status: ")
	w.section("DESCRIPTION")
	w.paragraphs(description)
	if len(cmd.Aliases) > 0 {
		w.paragraphs("\nIt is also called " + strings.Join(cmd.Aliases, " or ") + ".")
	}
	m.commands(&w, cmd)
	w.flags("OPTIONS", local)
	w.flags("OPTIONS OF ALL COMMANDS", inherited)
	if exit != "" {
		w.section("EXIT STATUS")
		w.paragraphs(upperFirst(exit))
	}
	if cmd == m.Root {
		w.entries("ENVIRONMENT", m.Environment)
		w.entries("FILES", m.Files)
	}
	if cmd.Example != "" {
		w.section("EXAMPLES")
		w.literal(cmd.Example)
	}
	m.seeAlso(&w, cmd)
	return w.String()
}

func (m Manual) commands(w *writer, cmd *cobra.Command) {
	subs := shown(cmd)
	if len(subs) == 0 {
		return
	}
	w.section("COMMANDS")
	for _, sub := range subs {
		w.line(".TP")
		w.line("%s", m.reference(sub))
		w.text(sub.Short)
	}
}

func (m Manual) seeAlso(w *writer, cmd *cobra.Command) {
	var names []string
	if cmd.HasParent() {
		names = append(names, m.reference(cmd.Parent()))
		for _, other := range shown(cmd.Parent()) {
			if other != cmd && cmd.Parent() != m.Root {
				names = append(names, m.reference(other))
			}
		}
	} else {
		for _, other := range m.SeeAlso {
			name, section, _ := strings.Cut(other, "(")
			names = append(names, fmt.Sprintf(`\fB%s\fR(%s`, escape(name), section))
		}
	}
	if len(names) > 0 {
		w.section("SEE ALSO")
		w.line("%s", strings.Join(names, ",\n"))
	}
}

// date is that of SOURCE_DATE_EPOCH, if somebody wants one.
func date() string {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return ""
	}
	return time.Unix(seconds, 0).UTC().Format(time.DateOnly)
}

// apart takes the paragraph that begins with some words out of a text.
func apart(text, begins string) (rest, paragraph string) {
	var others []string
	for part := range strings.SplitSeq(text, "\n\n") {
		if found, ok := strings.CutPrefix(part, begins); ok {
			paragraph = found
			continue
		}
		others = append(others, part)
	}
	return strings.Join(others, "\n\n"), paragraph
}

func upperFirst(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// flagName is how a flag is typed.
func flagName(flag *pflag.Flag) string {
	name := `\fB` + escape("--"+flag.Name) + `\fR`
	if flag.Shorthand != "" {
		name = `\fB` + escape("-"+flag.Shorthand) + `\fR, ` + name
	}
	kind, _ := pflag.UnquoteUsage(flag)
	switch kind { // the names of types are for programmers
	case "":
		return name
	case "string", "strings", "stringArray":
		kind = "text"
	case "stringToString":
		kind = "key=value"
	case "int", "uint", "uint32", "uint64":
		kind = "number"
	}
	return name + ` \fI` + escape(kind) + `\fR`
}

// defaultOf is what a flag is when it is not given; "" if that is nothing.
func defaultOf(flag *pflag.Flag) string {
	switch flag.DefValue {
	case "", "false", "0", "0s", "[]", "<nil>":
		return ""
	}
	return flag.DefValue
}
