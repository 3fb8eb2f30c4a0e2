package docs

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentconfig "github.com/certctl/certctl/agent/config"
	coordinatorconfig "github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/shared/settings"
)

const scalePage = "../../docs/operator/scale.md"

// figures hold a page about sizes to its rule: each figure has a command that measures
// it, or is marked as extrapolated, with its formula.
type figures struct {
	// commands are the lines of the table of commands, by their letter.
	commands map[string]string
	used     map[string]bool
	settings map[string]string // defaults, by path and by variable
	measured int
	problems []string
}

var (
	// figure is a number with a unit that somebody has to have measured.
	figure = regexp.MustCompile(`(?:^|[\s(|~])\d[\d,.]*(?: to \d[\d,.]*)?\s?(?:ms|µs|s|min|h|MiB|GiB|KiB|MB|GB|B|%|[a-z]+/s|times|connections|(?:bytes|octets|facts|syncs|requests|pages|questions|certificates|entries)(?: (?:a|in|each)\b)?)(?:[\s).,;|:]|$)`)
	// byCommand names a command of the table: (A), or (A, B).
	byCommand = regexp.MustCompile(`\(([A-Z](?:, [A-Z])*)\)`)
	formula   = regexp.MustCompile(`\*extrapolated\*[^|]*[=×÷]`)
	// asSet is a value that is set, and not measured.
	asSet      = regexp.MustCompile("`(CERTCTL_[A-Z0-9_]+|[a-z_]+(?:\\.(?:<name>\\.)?[a-z0-9_]+)+)` \\(([^()]+)\\)")
	commandRow = regexp.MustCompile("^\\| ([A-Z]) \\| `([^`]+)` \\| (\\d{4}-\\d\\d-\\d\\d) \\| (.+) \\|$")
)

// check looks at each paragraph, and at each row of a table.
func (f *figures) check(page string) {
	for number, line := range strings.Split(page, "\n") {
		if row := commandRow.FindStringSubmatch(line); row != nil {
			if f.commands[row[1]] != "" {
				f.problem(number, "two commands have the letter %s", row[1])
			}
			f.commands[row[1]] = row[2]
		}
	}
	_, introduced, _ := strings.Cut(page, "\n## ") // what comes before has no figures but those of the machine
	at := strings.Count(page[:len(page)-len(introduced)], "\n")
	for _, block := range strings.Split(introduced, "\n\n") {
		parts := []string{block}
		if strings.HasPrefix(block, "|") {
			parts = strings.Split(block, "\n")
		}
		loops := strings.HasPrefix(block, "| loop |") // which another test is about
		for i, part := range parts {
			if commandRow.MatchString(part) || strings.HasPrefix(part, "#") {
				continue
			}
			f.part(at+i, part, loops)
		}
		at += strings.Count(block, "\n") + 2
	}
	for _, letter := range slices.Sorted(maps.Keys(f.commands)) {
		if !f.used[letter] {
			f.problem(0, "nothing is measured by %s", letter)
		}
	}
}

// part is a paragraph or a row. The intervals of loops are no figures.
func (f *figures) part(number int, part string, loop bool) {
	for _, set := range asSet.FindAllStringSubmatch(part, -1) {
		switch is, known := f.settings[set[1]]; {
		case !known:
			f.problem(number, "there is no setting %s", set[1])
		case sameValue(is, set[2]):
		default:
			f.problem(number, "%s is %s, and the page says %s", set[1], is, set[2])
		}
	}
	rest := asSet.ReplaceAllString(part, " ")
	for _, letters := range byCommand.FindAllStringSubmatch(rest, -1) {
		for letter := range strings.SplitSeq(letters[1], ", ") {
			f.used[letter] = true
			if f.commands[letter] == "" {
				f.problem(number, "the table has no command %s", letter)
			}
		}
	}
	if loop || !figure.MatchString(rest) {
		return
	}
	f.measured++
	if strings.Contains(rest, "*extrapolated*") && !formula.MatchString(strings.ReplaceAll(rest, "\n", " ")) {
		f.problem(number, "what is extrapolated has no formula")
	}
	if !byCommand.MatchString(rest) && !formula.MatchString(strings.ReplaceAll(rest, "\n", " ")) {
		f.problem(number, "%q has neither a command nor a formula", strings.TrimSpace(figure.FindString(rest)))
	}
}

func sameValue(a, b string) bool {
	was, err := settings.ParseDuration(a)
	is, err2 := settings.ParseDuration(b)
	return a == b || err == nil && err2 == nil && was == is
}

func (f *figures) problem(line int, format string, args ...any) {
	f.problems = append(f.problems, fmt.Sprintf("line %d: ", line+1)+fmt.Sprintf(format, args...))
}

func newFigures(t *testing.T) *figures {
	t.Helper()
	f := &figures{commands: map[string]string{}, used: map[string]bool{}, settings: map[string]string{}}
	for _, ptr := range []any{&agentconfig.Settings{}, &coordinatorconfig.Settings{}} {
		list, err := settings.Describe(ptr)
		require.NoError(t, err)
		for _, s := range list {
			f.settings[s.Path] = s.Default
			if s.Env != "" {
				f.settings[s.Env] = s.Default
			}
		}
	}
	return f
}

// Each figure of the page has a command or a formula, and each command names tests that
// are in the tree.
func TestFiguresAreMeasured(t *testing.T) {
	text, err := os.ReadFile(scalePage)
	require.NoError(t, err)
	f := newFigures(t)
	f.check(string(text))
	assert.Empty(t, f.problems)
	assert.Greater(t, f.measured, 20)
	assert.Greater(t, len(f.commands), 5)
	for letter, command := range f.commands {
		assert.NoError(t, measures(t, command), letter)
	}
}

// measures says what is wrong with a command that is to measure something.
func measures(t *testing.T, command string) error {
	words := strings.Fields(command)
	for len(words) > 0 && strings.Contains(words[0], "=") {
		words = words[1:]
	}
	if len(words) < 3 || words[0] != "go" || words[1] != "test" {
		return fmt.Errorf("%q is no go test", command)
	}
	dir, kind, pattern := "", "", ""
	for i := 2; i < len(words); i++ {
		switch word := words[i]; {
		case strings.HasPrefix(word, "./"):
			dir = word
		case (word == "-run" || word == "-bench") && i+1 < len(words):
			if value := strings.Trim(words[i+1], "'"); value != "^$" {
				kind, pattern = map[string]string{"-run": "Test", "-bench": "Benchmark"}[word], value
			}
			i++
		}
	}
	if dir == "" || pattern == "" {
		return fmt.Errorf("%q does not say what to run and where", command)
	}
	for name := range strings.SplitSeq(pattern, "|") {
		name, _, _ = strings.Cut(strings.Trim(name, "^$"), "/")
		if name = kind + strings.TrimPrefix(name, kind); !declared(t, filepath.Join("../..", dir), name) {
			return fmt.Errorf("%s has no %s", dir, name)
		}
	}
	return nil
}

func TestFiguresWithoutACommandAreFound(t *testing.T) {
	const table = "\n\n| A | `go test -run '^$' -bench Export ./coordinator/history/postgres` | 2026-11-27 | x |\n"
	for text, want := range map[string][]string{
		"It exports 29,000 facts/s (A).":                                    nil,
		"It exports 29,000 facts/s.\nMore (A).":                             nil,
		"It exports 29,000 facts/s.\n\nMore (A).":                           {`line 5: "29,000 facts/s." has neither a command nor a formula`},
		"A: (A). It takes *extrapolated* 2 × 3 s = 6 s.":                    nil,
		"A: (A).\n\nIt takes *extrapolated* 6 s.":                           {"line 7: what is extrapolated has no formula", `line 7: "6 s." has neither a command nor a formula`},
		"| a | 3 ms (A) |\n| b | 4 ms |":                                    {`line 6: "4 ms" has neither a command nor a formula`},
		"Nothing.":                                                          {"line 1: nothing is measured by A"},
		"It is 3 ms (A, B).":                                                {"line 5: the table has no command B"},
		"(A) `renewal.tick_interval` (5s) and `CERTCTL_SYNC_INTERVAL` (1m)": nil,
		"(A) `renewal.tick_interval` (6s)":                                  {"line 5: renewal.tick_interval is 5s, and the page says 6s"},
		"(A) `renewal.gone` (6s)":                                           {"line 5: there is no setting renewal.gone"},
	} {
		f := newFigures(t)
		f.check("# Scale\n\n## S\n\n" + text + table)
		assert.Equal(t, want, f.problems, text)
	}
	for command, want := range map[string]string{
		"CERTCTL_SOAK=1 go test -v -run 'TestScale$' ./coordinator/fleet": "",
		"go test -run '^$' -bench 'Due|Horizon' ./agent/store":            "",
		"go test -run '^$' -bench 'Due|Gone' ./agent/store":               "./agent/store has no BenchmarkGone",
		"go test -run TestGone ./agent/store":                             "./agent/store has no TestGone",
		"go test ./agent/store":                                           `"go test ./agent/store" does not say what to run and where`,
		"make bench":                                                      `"make bench" is no go test`,
	} {
		err := measures(t, command)
		if want == "" {
			assert.NoError(t, err, command)
		} else {
			assert.EqualError(t, err, want)
		}
	}
}
