package manpage

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// timed are the names of flags that are a length of time or a moment.
var timed = regexp.MustCompile(`^(ttl|interval|wait|over|since|until|before|for|timeout|every|takes)$|-(within|takes|down|delay|interval|timeout)$`)

// Offences are what a person would miss in the help of a program's commands, and so on
// their pages: what a command does in a sentence and in full, an example that can be
// typed, and what its flags take.
func Offences(root *cobra.Command) []string {
	var found []string
	say := func(cmd *cobra.Command, format string, args ...any) {
		found = append(found, cmd.CommandPath()+": "+fmt.Sprintf(format, args...))
	}
	var look func(*cobra.Command)
	look = func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			say(cmd, "Short %q: a sentence without its full stop says what it does", cmd.Short)
		}
		if !strings.ContainsRune(cmd.Long, ' ') {
			say(cmd, "Long is empty: say in full what it does, and what becomes of it")
		}
		if !strings.Contains(cmd.Example, cmd.CommandPath()) {
			say(cmd, "Example does not show %q", cmd.CommandPath())
		}
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			if cmd.Example != "" && !strings.HasPrefix(line, "  ") {
				say(cmd, "Example: the line %q is not indented by two spaces", line)
			}
		}
		cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			if problem := flagOffence(flag); problem != "" && !flag.Hidden {
				say(cmd, "flag --%s: %s", flag.Name, problem)
			}
		})
		for _, sub := range shown(cmd) {
			look(sub)
		}
	}
	look(root)
	return found
}

func flagOffence(flag *pflag.Flag) string {
	switch {
	case flag.Usage == "":
		return "it says nothing"
	case unicode.IsUpper([]rune(flag.Usage)[0]) && !regexp.MustCompile(`^[A-Z]{2}`).MatchString(flag.Usage), strings.HasSuffix(flag.Usage, "."):
		return fmt.Sprintf("%q: begin small, and end without a full stop", flag.Usage)
	case timed.MatchString(flag.Name) && !regexp.MustCompile(`[0-9](ms|s|m|h|d)\b`).MatchString(flag.Usage+" "+flag.DefValue):
		return fmt.Sprintf("%q does not show in which unit it is given, such as 12h", flag.Usage)
	}
	return ""
}

// Write writes pages into a directory, by the sections of the manual: man1 and so on.
func Write(directory string, pages map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		section := filepath.Join(directory, "man"+strings.TrimPrefix(filepath.Ext(name), "."))
		if err := os.MkdirAll(section, 0o755); err != nil { //nolint:gosec // for everybody to read
			return err
		}
		if err := os.WriteFile(filepath.Join(section, name), []byte(pages[name]), 0o644); err != nil { //nolint:gosec // for everybody to read
			return err
		}
	}
	return nil
}

// WriteCompletions writes the scripts for the shells into a directory as their packages
// are laid out.
func WriteCompletions(directory string, root *cobra.Command) error {
	name := root.Name()
	for path, write := range map[string]func(string) error{
		filepath.Join("bash-completion", "completions", name):       func(path string) error { return root.GenBashCompletionFileV2(path, true) },
		filepath.Join("zsh", "site-functions", "_"+name):            root.GenZshCompletionFile,
		filepath.Join("fish", "vendor_completions.d", name+".fish"): func(path string) error { return root.GenFishCompletionFile(path, true) },
	} {
		path = filepath.Join(directory, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // for everybody to read
			return err
		}
		if err := write(path); err != nil {
			return err
		}
	}
	return nil
}
