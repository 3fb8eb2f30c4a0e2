// Package effects shows that settings do something: a program is put together with
// each setting at its default and at another value, once from the file and once from
// the environment, and what has become of it is looked up in the program's parts.
package effects

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/settings"
)

// An Effect is what a setting does.
type Effect struct {
	// Setting is its path, as settings.Describe has it.
	Setting string
	// Value is another one than its default, as the environment has it. It is empty for
	// settings below lists and named sections, which stand in Program.Other.
	Value string
	// Base, when set, is its value in the other runs, where its default would be in the
	// way of other programs of this machine.
	Base string
	// YAML is the value in the file of a list that the setting, which has [] in its path,
	// is in the elements of.
	YAML string
	// Alone has it set without the others, which it would hide.
	Alone bool
	// At is where it is seen in the program; see [Read]. See, when set, looks instead.
	At  string
	See func(program any) string
	// Default is what is seen there without the setting, and Want with it. $DIR is the
	// directory of the run. An empty Default is anything but Want.
	Default, Want string
	// Refused, instead of At, is said of Value, or of YAML as a whole file: what makes no
	// program of its own has at least to be looked at.
	Refused string
}

// A Program is put together for its effects.
type Program struct {
	// Settings points to its settings.
	Settings any
	// Base is YAML of the runs whose file has defaults, and Other that of the run whose
	// settings all differ; both may have $DIR in them. What Effects have a value for
	// stands in neither.
	Base, Other string
	// Assemble puts the program together as it puts itself together when it starts.
	// Variables of the environment are set, and cleaned up, by then.
	Assemble func(t *testing.T, configuration string) any
	Effects  []Effect
	// Elsewhere are settings, by the beginning of their path, whose effects a test shows
	// that is named here as package.Test.
	Elsewhere map[string]string
}

// Check fails for each setting that has no effect, and for each without an entry.
func (p Program) Check(t *testing.T) {
	described, err := settings.Describe(p.Settings)
	require.NoError(t, err)
	byPath := map[string]settings.Setting{}
	for _, s := range described {
		byPath[s.Path] = s
	}
	for _, problem := range p.uncovered(byPath) {
		t.Error(problem)
	}
	for prefix, test := range p.Elsewhere {
		assert.True(t, there(t, test), "%s: there is no test %s", prefix, test)
	}
	if t.Failed() {
		return
	}
	bases, others, variables := map[string]string{}, map[string]string{}, map[string]string{}
	for _, e := range p.Effects {
		s := byPath[e.Setting]
		if e.Base != "" {
			bases[e.Setting] = inYAML(s, e.Base)
			others[e.Setting] = bases[e.Setting]
		}
		if e.Refused != "" || e.Alone {
			continue
		}
		e.set(s, others, variables)
	}
	was := p.run(t, "default", nested(bases)+p.Base, nil)
	byFile := p.run(t, "file", nested(others)+p.Other, nil)
	byEnvironment := p.run(t, "environment", nested(bases)+p.Base, variables)
	bySecretFile := p.run(t, "secret files", nested(bases)+p.Base, inFiles(t, byPath, variables))
	for i, e := range p.Effects {
		if e.Refused != "" {
			continue
		}
		if e.Alone {
			alone, variable := maps.Clone(bases), map[string]string{}
			e.set(byPath[e.Setting], alone, variable)
			byFile[i] = p.run(t, "file, "+e.Setting, nested(alone)+p.Base, nil)[i]
			byEnvironment[i] = p.run(t, "environment, "+e.Setting, nested(bases)+p.Base, variable)[i]
		}
		if s := byPath[e.Setting]; s.EnvFile != "" && byEnvironment[i].seen == byEnvironment[i].want {
			assert.Equal(t, bySecretFile[i].want, bySecretFile[i].seen, "%s, of %s", e.Setting, s.EnvFile)
		}
		for _, problem := range e.problems(byPath[e.Setting].Env, was[i], byFile[i], byEnvironment[i]) {
			t.Error(problem)
		}
	}
	for _, e := range p.Effects {
		if e.Refused != "" {
			p.refuses(t, byPath[e.Setting], e)
		}
	}
}

// inFiles are the variables with secrets moved into files, which other variables name.
func inFiles(t *testing.T, byPath map[string]settings.Setting, variables map[string]string) map[string]string {
	dir := t.TempDir()
	moved := maps.Clone(variables)
	for _, s := range byPath {
		if value, set := variables[s.Env]; set && s.EnvFile != "" {
			path := filepath.Join(dir, s.EnvFile)
			require.NoError(t, os.WriteFile(path, []byte(value+"\n"), 0o600))
			delete(moved, s.Env)
			moved[s.EnvFile] = path
		}
	}
	return moved
}

// problems are what is wrong with what was seen of it in the three kinds of runs; there is
// no variable if its name is empty.
func (e Effect) problems(variable string, was, byFile, byEnvironment outcome) (list []string) {
	say := func(format string, args ...any) { list = append(list, e.Setting+": "+fmt.Sprintf(format, args...)) }
	if was.seen == byFile.want {
		say("%q is seen without it too", was.seen)
	}
	if e.Default != "" && was.seen != e.Default {
		say("%q is seen by default, and %q was expected", was.seen, e.Default)
	}
	if byFile.seen != byFile.want {
		say("set in the file, %q is seen, and %q was expected", byFile.seen, byFile.want)
	}
	if variable != "" && byEnvironment.seen != byEnvironment.want {
		say("set by %s, %q is seen, and %q was expected", variable, byEnvironment.seen, byEnvironment.want)
	}
	return list
}

// set adds the value to those of a file, and of the environment.
func (e Effect) set(s settings.Setting, file, variables map[string]string) {
	switch {
	case e.YAML != "":
		list, _, _ := strings.Cut(e.Setting, "[]")
		file[list] = e.YAML
	case e.Value != "":
		file[e.Setting] = inYAML(s, e.Value)
	}
	if s.Env != "" {
		variables[s.Env] = e.Value
	}
}

// uncovered are the settings without an entry, and entries without a setting.
func (p Program) uncovered(byPath map[string]settings.Setting) (problems []string) {
	shown := map[string]bool{}
	for _, e := range p.Effects {
		shown[e.Setting] = true
		s, known := byPath[e.Setting]
		switch {
		case !known:
			problems = append(problems, fmt.Sprintf("%s: there is no such setting", e.Setting))
		case s.Env != "" && e.Value == "":
			problems = append(problems, fmt.Sprintf("%s: it has a variable, and the table no value for it", e.Setting))
		case s.HasDefault && e.Value == s.Default && e.Value != "":
			problems = append(problems, fmt.Sprintf("%s: %s is its default", e.Setting, e.Value))
		case e.At == "" && e.See == nil && e.Refused == "":
			problems = append(problems, fmt.Sprintf("%s: the table does not say where it is seen", e.Setting))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(byPath)) {
		elsewhere := false
		for prefix := range p.Elsewhere {
			elsewhere = elsewhere || strings.HasPrefix(path, prefix)
		}
		if !shown[path] && !elsewhere {
			problems = append(problems, fmt.Sprintf("%s: no test shows what it does: add it to the table of effects", path))
		}
	}
	return problems
}

// outcome is what is seen of one effect.
type outcome struct{ seen, want string }

// run puts the program together in a directory of its own and looks at all effects.
func (p Program) run(t *testing.T, name, yaml string, variables map[string]string) (outcomes []outcome) {
	ok := t.Run(name, func(t *testing.T) {
		program, in := p.assemble(t, yaml, variables)
		for _, e := range p.Effects {
			o := outcome{want: in.Replace(e.Want)}
			switch {
			case e.Refused != "":
			case e.See != nil:
				o.seen = e.See(program)
			default:
				var err error
				o.seen, err = Read(program, in.Replace(e.At))
				require.NoError(t, err, e.Setting)
			}
			outcomes = append(outcomes, o)
		}
	})
	require.True(t, ok, "the program was not put together")
	return outcomes
}

func (p Program) assemble(t *testing.T, yaml string, variables map[string]string) (any, *strings.Replacer) {
	dir := t.TempDir()
	in := strings.NewReplacer("$DIR", dir)
	names, err := settings.EnvNames(p.Settings)
	require.NoError(t, err)
	for _, name := range names { // whoever runs the test may have some
		t.Setenv(name, "")
		require.NoError(t, os.Unsetenv(name))
	}
	for name, value := range variables {
		t.Setenv(name, in.Replace(value))
	}
	file := filepath.Join(dir, "configuration.yaml")
	require.NoError(t, os.WriteFile(file, []byte(in.Replace(yaml)), 0o600))
	return p.Assemble(t, file), in
}

// refuses shows that a value is looked at, from the file and from the environment.
func (p Program) refuses(t *testing.T, s settings.Setting, e Effect) {
	load := func(options settings.Options) {
		t.Helper()
		fresh := newOf(p.Settings)
		_, err := settings.Load(fresh, options)
		assert.ErrorContains(t, err, e.Refused, e.Setting)
	}
	file := e.YAML
	if file == "" {
		file = nested(map[string]string{e.Setting: inYAML(s, e.Value)})
	}
	load(settings.Options{Text: []byte(file)})
	if s.Env != "" {
		load(settings.Options{Env: []string{s.Env + "=" + e.Value}})
	}
}

// there reports whether the tree has a test, package.Test.
func there(t *testing.T, test string) bool {
	pkg, name, _ := strings.Cut(test, ".")
	root, err := filepath.Abs(".")
	require.NoError(t, err)
	for ; ; root = filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		require.NotEqual(t, root, filepath.Dir(root), "no go.mod above")
	}
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pkg), "*_test.go"))
	require.NoError(t, err)
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		return strings.Contains(string(text), "\nfunc "+name+"(t *testing.T) {")
	})
}
