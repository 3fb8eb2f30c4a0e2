package docs

import (
	"bytes"
	"fmt"
	"io/fs"
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
	certctl "github.com/certctl/certctl/coordinator/cli"
	coordinatorconfig "github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/settings"
)

// variableName is what looks like a variable of certctl's; one that ends with _ is
// the beginning of some.
var variableName = regexp.MustCompile(`\bCERTCTL_[A-Z0-9_]+`)

// madeUp are variables that tests invent, by the files that may: those are about
// names as such.
var madeUp = []struct {
	files *regexp.Regexp
	names *regexp.Regexp
}{
	{regexp.MustCompile(`^shared/settings/(\w+_test\.go|testdata/.*)$`), regexp.MustCompile(``)},
	{regexp.MustCompile(`^shared/settings/(doc|schema|tags)\.go$`), regexp.MustCompile(`^CERTCTL_NAME$`)},
	{regexp.MustCompile(`^agent/issuer/acme/solver_test\.go$`), regexp.MustCompile(`^CERTCTL_SOMETHING_SECRET$`)},
	{regexp.MustCompile(`^internal/docs/variables_test\.go$`), regexp.MustCompile(`^CERTCTL_(MADE_UP.*|LOG_LEVEL2|SOMETHING_SECRET|NAME)$`)},
}

// variables are all that there are.
type variables struct {
	// operators' are settings, those of certctl, and what commands are given.
	operators map[string]bool
	// developers' are those of tests and of the build, by the file that reads each.
	developers map[string]string
}

func knownVariables(t *testing.T) variables {
	t.Helper()
	v := variables{operators: map[string]bool{cli.FileVariable: true}, developers: map[string]string{}}
	for _, ptr := range []any{&agentconfig.Settings{}, &coordinatorconfig.Settings{}} {
		names, err := settings.EnvNames(ptr)
		require.NoError(t, err)
		for _, name := range names {
			v.operators[name] = true
		}
	}
	for _, name := range certctl.Variables() {
		v.operators[name] = true
	}
	for _, g := range givenVariables {
		v.operators[g.name] = true
	}
	text, err := os.ReadFile("../../CONTRIBUTING.md")
	require.NoError(t, err)
	for _, row := range regexp.MustCompile("(?m)^\\| `("+variableName.String()+")` \\| `([^`]+)` \\| .+ \\|$").FindAllStringSubmatch(string(text), -1) {
		require.NotContains(t, v.developers, row[1], "two rows")
		v.developers[row[1]] = row[2]
	}
	require.Greater(t, len(v.developers), 5, "the table of CONTRIBUTING.md")
	return v
}

// strange are the variables in a file that are not known there, each with its line.
// What the programs are made of may know those of operators alone.
func (v variables) strange(file string, text []byte) (found int, problems []string) {
	shipped := strings.HasSuffix(file, ".go") && !strings.HasSuffix(file, "_test.go") &&
		regexp.MustCompile(`^(agent|coordinator|shared|packaging)/`).MatchString(file)
	for number, line := range bytes.Split(text, []byte("\n")) {
		if !bytes.Contains(line, []byte("CERTCTL_")) { // which is far less work than the expression
			continue
		}
	names:
		for _, name := range variableName.FindAllString(string(line), -1) {
			found++
			_, developers := v.developers[name]
			if v.operators[name] || developers && !shipped {
				continue
			}
			for _, made := range madeUp {
				if made.files.MatchString(file) && made.names.MatchString(name) {
					continue names
				}
			}
			what := "is no setting, and in no table of variables"
			if developers {
				what = "is for developers, and this is in a program"
			}
			problems = append(problems, fmt.Sprintf("%s:%d: %s %s", file, number+1, name, what))
		}
	}
	return found, problems
}

// sources are the files of the tree that people write, by path from its root.
func sources(t *testing.T, visit func(file string, text []byte)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if strings.HasPrefix(name, ".") && name != "." && name != ".." && name != ".ci" || path == "../../bin" || path == "../../dist" {
				return filepath.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := filepath.Rel("../..", path)
		if err == nil && bytes.IndexByte(text, 0) < 0 {
			visit(filepath.ToSlash(file), text)
		}
		return err
	}))
}

// Each variable that stands anywhere in the tree, in code, scripts, units or
// documents, is one that there is.
func TestEveryVariableIsKnown(t *testing.T) {
	known := knownVariables(t)
	total := map[string]int{}
	sources(t, func(file string, text []byte) {
		found, problems := known.strange(file, text)
		top, _, _ := strings.Cut(file, "/")
		total[top] += found
		for _, problem := range problems {
			t.Error(problem)
		}
	})
	for _, top := range []string{"agent", "coordinator", "shared", "internal", "scripts", "docs", "packaging", "Makefile", "CONTRIBUTING.md"} {
		assert.NotZero(t, total[top], "no variable in %s: the rule would hold for nothing", top)
	}
}

// And each that there is stands on the page, and each setting in the environment
// file of its program; nothing else does.
func TestVariablesArePublished(t *testing.T) {
	known := knownVariables(t)
	named := func(path string) []string {
		text, err := os.ReadFile(filepath.Join("../..", path))
		require.NoError(t, err)
		names := map[string]bool{}
		for _, name := range variableName.FindAllString(string(text), -1) {
			names[name] = true
		}
		return slices.Sorted(maps.Keys(names))
	}
	assert.Equal(t, slices.Sorted(maps.Keys(known.operators)), named("docs/operator/configuration.md"))
	for file, ptr := range map[string]any{"agent": &agentconfig.Settings{}, "coordinator": &coordinatorconfig.Settings{}} {
		want, err := settings.EnvNames(ptr)
		require.NoError(t, err)
		want = append(want, cli.FileVariable)
		slices.Sort(want)
		assert.Equal(t, want, named("packaging/systemd/"+file+".env"))
	}
}

// What is no setting is where the tables say.
func TestVariablesAreWhereTheTablesSay(t *testing.T) {
	at := maps.Clone(knownVariables(t).developers)
	for _, g := range givenVariables {
		require.NotContains(t, at, g.name)
		at[g.name] = g.file
	}
	for name, file := range at {
		text, err := os.ReadFile(filepath.Join("../..", file))
		if assert.NoError(t, err, name) {
			assert.Regexp(t, `\b`+name+`\b`, string(text), file)
		}
	}
}

// The files in the tree are those that the structs make. "make generate" rewrites
// them.
func TestEnvironmentFilesAreFresh(t *testing.T) {
	files, err := environmentFiles()
	require.NoError(t, err)
	for path, text := range files {
		path = filepath.Join("../..", path)
		if os.Getenv("CERTCTL_UPDATE_DOCS") != "" {
			require.NoError(t, os.WriteFile(path, text, 0o644))
		}
		require.NoError(t, settings.Check(path, text))
	}
}

// Whoever takes away every # has what the defaults set, and nothing that is refused.
func TestEnvironmentFilesSetTheDefaults(t *testing.T) {
	files, err := environmentFiles()
	require.NoError(t, err)
	for path, fresh := range map[string]func() any{
		"packaging/systemd/agent.env":       func() any { return &agentconfig.Settings{} },
		"packaging/systemd/coordinator.env": func() any { return &coordinatorconfig.Settings{} },
	} {
		defaults, list := map[string]bool{}, 0
		described, err := settings.Describe(fresh())
		require.NoError(t, err)
		for _, s := range described {
			defaults[s.Env] = s.HasDefault
		}
		var all, env []string
		for line := range strings.Lines(string(files[path])) {
			line = strings.TrimSuffix(line, "\n")
			assignment, is := strings.CutPrefix(line, "#")
			if !is || strings.HasPrefix(assignment, "#") {
				assert.True(t, is || line == "", "%s: %s", path, line)
				continue
			}
			list++
			name, value, is := strings.Cut(assignment, "=")
			require.True(t, is, line)
			require.NotContains(t, value, `"`, "a value that has to be read as systemd does")
			if value != "" {
				all = append(all, assignment)
			}
			if defaults[name] {
				env = append(env, assignment)
			}
		}
		require.Greater(t, list, 15)
		want, got := fresh(), fresh()
		_, err = settings.Load(want, settings.Options{})
		require.NoError(t, err)
		report, err := settings.Load(got, settings.Options{Env: env, KnownEnv: []string{cli.FileVariable}})
		require.NoError(t, err)
		assert.Empty(t, report.Warnings())
		assert.Equal(t, want, got, path)
		_, err = settings.Load(fresh(), settings.Options{Env: all})
		require.NoError(t, err)
	}
}

func TestStrangeVariablesAreFound(t *testing.T) {
	known := variables{operators: map[string]bool{"CERTCTL_LOG_LEVEL": true}, developers: map[string]string{"CERTCTL_MADE_UP_TEST": "x"}}
	for _, test := range []struct{ file, line, want string }{
		{"agent/x.go", `os.Getenv("CERTCTL_LOG_LEVEL")`, ""},
		{"agent/x.go", `os.Getenv("CERTCTL_MADE_UP")`, "agent/x.go:2: CERTCTL_MADE_UP is no setting, and in no table of variables"},
		{"docs/x.md", "`CERTCTL_LOG_LEVEL2`", "docs/x.md:2: CERTCTL_LOG_LEVEL2 is no setting, and in no table of variables"},
		{"agent/x.go", "// CERTCTL_MADE_UP_ is the beginning", "agent/x.go:2: CERTCTL_MADE_UP_ is no setting, and in no table of variables"},
		{"scripts/x.sh", "X=${CERTCTL_MADE_UP9:-}", "scripts/x.sh:2: CERTCTL_MADE_UP9 is no setting, and in no table of variables"},
		{"packaging/x.env", "CERTCTL_MADE_UP=1", "packaging/x.env:2: CERTCTL_MADE_UP is no setting, and in no table of variables"},
		{"agent/x_test.go", "CERTCTL_MADE_UP_TEST", ""},
		{"internal/x/x.go", "CERTCTL_MADE_UP_TEST", ""},
		{"coordinator/x.go", "CERTCTL_MADE_UP_TEST", "coordinator/x.go:2: CERTCTL_MADE_UP_TEST is for developers, and this is in a program"},
		{"shared/settings/x_test.go", "CERTCTL_MADE_UP", ""},
		{"shared/settings/x.go", "CERTCTL_MADE_UP", "shared/settings/x.go:2: CERTCTL_MADE_UP is no setting, and in no table of variables"},
	} {
		_, problems := known.strange(test.file, []byte("\n"+test.line))
		if test.want == "" {
			assert.Empty(t, problems, test.line)
		} else {
			assert.Equal(t, []string{test.want}, problems, test.line)
		}
	}
}
