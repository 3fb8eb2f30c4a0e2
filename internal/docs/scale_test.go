package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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
	at := 0
	_, introduced, _ := strings.Cut(page, "\n## ") // what comes before has no figures but those of the machine
	at = strings.Count(page[:len(page)-len(introduced)], "\n")
	loops := false
	for _, block := range strings.Split(introduced, "\n\n") {
		parts := []string{block}
		if strings.HasPrefix(block, "|") {
			parts = strings.Split(block, "\n")
			loops = strings.HasPrefix(block, "| loop |") // which another test is about
		} else {
			loops = false
		}
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

// A loop is a call of shared/jitter in the programs.
type loop struct {
	where    string // package.Function
	interval string // as a duration, if the code says so
	text     string // the expression
	pkg      string
}

// loopsOf finds them, with the intervals that constants give.
func loopsOf(t *testing.T) (loops []loop, constants map[string]time.Duration) {
	t.Helper()
	constants = map[string]time.Duration{} // package.name
	for _, side := range []string{"agent", "coordinator", "shared"} {
		require.NoError(t, filepath.WalkDir(filepath.Join("../..", side), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(filepath.Dir(path), "shared/jitter") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			pkg := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), "../../"))
			for _, decl := range file.Decls {
				if gen, is := decl.(*ast.GenDecl); is && gen.Tok == token.CONST {
					for _, spec := range gen.Specs {
						value := spec.(*ast.ValueSpec)
						for i, name := range value.Names {
							if i < len(value.Values) {
								if d, ok := duration(value.Values[i]); ok {
									constants[pkg+"."+name.Name] = d
								}
							}
						}
					}
				}
				fn, is := decl.(*ast.FuncDecl)
				if !is || fn.Body == nil {
					continue
				}
				ast.Inspect(fn.Body, func(node ast.Node) bool {
					call, is := node.(*ast.CallExpr)
					if !is {
						return true
					}
					callee, is := call.Fun.(*ast.SelectorExpr)
					if !is {
						return true
					}
					if of, is := callee.X.(*ast.Ident); !is || of.Name != "jitter" {
						return true
					}
					at := slices.Index([]string{"NewJitteredTicker", "Loop"}, callee.Sel.Name)
					if at < 0 {
						return true
					}
					one := loop{where: pkg + "." + function(fn), pkg: pkg}
					switch interval := call.Args[at].(type) {
					case *ast.Ident:
						one.text = interval.Name
					default:
						if d, ok := duration(interval); ok {
							one.interval = d.String()
						}
					}
					loops = append(loops, one)
					return true
				})
			}
			return nil
		}))
	}
	for i, one := range loops {
		if d, known := constants[one.pkg+"."+one.text]; known {
			loops[i].interval = d.String()
		}
	}
	return loops, constants
}

// function is the name of a function, Type.Method for a method.
func function(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	of := fn.Recv.List[0].Type
	if star, is := of.(*ast.StarExpr); is {
		of = star.X
	}
	return of.(*ast.Ident).Name + "." + fn.Name.Name
}

// duration evaluates 5 * time.Second and the like.
func duration(expr ast.Expr) (time.Duration, bool) {
	units := map[string]time.Duration{"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour}
	switch e := expr.(type) {
	case *ast.SelectorExpr:
		of, is := e.X.(*ast.Ident)
		unit, known := units[e.Sel.Name]
		return unit, is && known && of.Name == "time"
	case *ast.BinaryExpr:
		number, is := e.X.(*ast.BasicLit)
		unit, known := duration(e.Y)
		if !is || !known || e.Op != token.MUL {
			return 0, false
		}
		n, err := strconv.Atoi(number.Value)
		return time.Duration(n) * unit, err == nil
	}
	return 0, false
}

var (
	loopRow  = regexp.MustCompile("(?m)^\\| `([\\w/-]+)\\.([\\w.]+)` \\| ([^|]+) \\| ([^|]+) \\| ([^|]+) \\| ([^|]+) \\|$")
	constant = regexp.MustCompile("([\\dhms.]+) \\(`(\\w+)`\\)")
	// givenBy is a flag, or a line of a unit.
	givenBy = regexp.MustCompile("`(?:--[a-z]+|[A-Z][A-Za-z]+=)`")
)

// Every loop of the programs has a row on the page, with the interval that it has in the
// code or by a setting, and no row is of a loop that is gone.
func TestLoopsAreOnThePage(t *testing.T) {
	text, err := os.ReadFile(scalePage)
	require.NoError(t, err)
	loops, constants := loopsOf(t)
	require.Greater(t, len(loops), 20)
	f := newFigures(t)
	rows := map[string]string{}
	for _, row := range loopRow.FindAllStringSubmatch(string(text), -1) {
		where := row[1] + "." + row[2]
		assert.NotContains(t, rows, where, "two rows")
		rows[where] = strings.TrimSpace(row[4])
	}
	in := map[string]bool{}
	for _, one := range loops {
		in[one.where] = true
		interval, there := rows[one.where]
		if !assert.True(t, there, "%s: add a row for this loop to docs/operator/scale.md: | `%s` | what it does | interval | what bounds one pass | what it costs |", one.where, one.where) {
			continue
		}
		if problem := judged(one, interval, constants, f.settings); problem != "" {
			t.Errorf("%s: %s", one.where, problem)
		}
	}
	for where := range rows {
		assert.True(t, in[where], "docs/operator/scale.md: there is no loop in %s any more", where)
	}
}

// judged says what is wrong with the interval of a row.
func judged(one loop, interval string, constants map[string]time.Duration, known map[string]string) string {
	if one.interval != "" {
		if d, err := time.ParseDuration(interval); err != nil || d.String() != one.interval {
			return fmt.Sprintf("its interval is %s, and the page says %s", one.interval, interval)
		}
		return ""
	}
	// A field of a configuration: its default is a constant, or a setting's.
	if plain := constant.FindStringSubmatch(interval); plain != nil {
		d, err := time.ParseDuration(plain[1])
		if is, there := constants[one.pkg+"."+plain[2]]; err != nil || !there || is != d {
			return fmt.Sprintf("%s is %s, and the page says %s", plain[2], is, interval)
		}
		return ""
	}
	if givenBy.MatchString(interval) {
		return ""
	}
	set := asSet.FindAllStringSubmatch(interval, -1)
	if len(set) == 0 {
		return fmt.Sprintf("the page says %s: name the setting with its default in brackets, or the constant", interval)
	}
	for _, one := range set {
		if is, there := known[one[1]]; !there || !sameValue(is, one[2]) {
			return fmt.Sprintf("the default of %s is %q, and the page says %s", one[1], is, one[2])
		}
	}
	return ""
}

func TestWrongIntervalsAreFound(t *testing.T) {
	constants := map[string]time.Duration{"a.every": 2 * time.Second}
	known := map[string]string{"x.every": "60s"}
	for _, test := range []struct{ code, page, want string }{
		{"10s", "10s", ""},
		{"10s", "11s", "its interval is 10s, and the page says 11s"},
		{"", "2s (`every`)", ""},
		{"", "3s (`every`)", "every is 2s, and the page says 3s (`every`)"},
		{"", "2s (`gone`)", "gone is 0s, and the page says 2s (`gone`)"},
		{"", "5 × `x.every` (1m)", ""},
		{"", "`x.every` (2m)", `the default of x.every is "60s", and the page says 2m`},
		{"", "often", "the page says often: name the setting with its default in brackets, or the constant"},
	} {
		assert.Equal(t, test.want, judged(loop{interval: test.code, pkg: "a"}, test.page, constants, known), test.page)
	}
}
