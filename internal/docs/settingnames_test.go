package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentconfig "github.com/certctl/certctl/agent/config"
	coordinatorconfig "github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/shared/settings"
)

// A text that tells somebody to set something names a setting that there is.
func TestTextsNameSettingsThatExist(t *testing.T) {
	for side, config := range map[string]any{"agent": (*agentconfig.Settings)(nil), "coordinator": (*coordinatorconfig.Settings)(nil)} {
		known := settingNames(t, config)
		texts := 0
		require.NoError(t, filepath.WalkDir(filepath.Join("../..", side), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			file := filepath.ToSlash(strings.TrimPrefix(path, filepath.Join("../..")+string(filepath.Separator)))
			found, problems := madeUpSettings(file, source, known)
			texts += found
			for _, problem := range problems {
				t.Error(problem)
			}
			return nil
		}))
		assert.NotZero(t, texts, "no text of the %s names a setting: the rule would hold for nothing", side)
	}
}

func TestMadeUpSettingsAreFound(t *testing.T) {
	known := settingNames(t, (*agentconfig.Settings)(nil))
	for text, want := range map[string]string{
		"set root_cas to the root":               "root_cas",
		"correct directory_url":                  "directory_url",
		"correct contact: it is refused":         "contact",
		"or set create directories for it":       "create",
		"tsig.secret: change tsig.secret there":  "tsig.secret",
		"check it, or raise propagation_timeout": "propagation_timeout",
		"directory_url %q: want an https URL":    "directory_url",

		"set ca_file to a file with the root":         "",
		"set eab.hmac_key, or eab.hmac_key_file":      "",
		"set acme.dns_01 as it shall be":              "",
		"set the clock of this host":                  "",
		"raise renewal.issue_timeout, or lower these": "",
	} {
		source := fmt.Sprintf("package x\n\nvar mend = %q\n", text)
		_, problems := madeUpSettings("agent/issuer/x.go", []byte(source), known)
		if want == "" {
			assert.Empty(t, problems, text)
			continue
		}
		require.NotEmpty(t, problems, text)
		assert.Equal(t, fmt.Sprintf("agent/issuer/x.go:3: there is no setting %q", want), problems[0])
	}
}

// settingNames are the ways in which a text may name a setting or a section: any
// run of the steps of its path.
func settingNames(t *testing.T, config any) map[string]bool {
	t.Helper()
	list, err := settings.Describe(config)
	require.NoError(t, err)
	known := make(map[string]bool)
	for _, setting := range list {
		steps := strings.Split(strings.ReplaceAll(setting.Path, "[]", ""), ".")
		for from := range steps {
			for to := from + 1; to <= len(steps); to++ {
				known[strings.Join(steps[from:to], ".")] = true
			}
			if setting.Secret {
				known[strings.Join(steps[from:], ".")+"_file"] = true
			}
		}
	}
	return known
}

var (
	// told is what somebody is told to set.
	told = regexp.MustCompile(`\b(?:[Ss]et|[Cc]orrect|[Rr]aise|[Ll]ower|[Cc]hange) ([a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*)`)
	// plain are the words after such a verb that name nothing.
	plain = regexp.MustCompile(`^(?:a|again|an|another|assignments|at|back|by|has|if|is|it|nothing|of|on|one|owner|schema|that|the|these|this|up|was|yet)$`)
	// snakes are words that can only be names, in packages whose texts are about settings.
	snakes  = regexp.MustCompile(`\b[a-z][a-z0-9]*(?:\.[a-z0-9_]+|_[a-z0-9]+)*_[a-z0-9]+(?:\.[a-z0-9_]+)*\b`)
	judging = regexp.MustCompile(`^(?:agent/(?:issuer|deploy|config|assignment)|coordinator/config)/`)
	// programs have such names too.
	programs = regexp.MustCompile(`^node_exporter$`)
)

// madeUpSettings reports the texts of a source file that name a setting which is
// not known, and counts those that name one.
func madeUpSettings(file string, source []byte, known map[string]bool) (found int, problems []string) {
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, source, parser.SkipObjectResolution)
	if err != nil {
		return 0, []string{err.Error()}
	}
	ast.Inspect(parsed, func(node ast.Node) bool {
		if field, ok := node.(*ast.Field); ok && field.Tag != nil {
			return false // what a tag says is about the setting that it declares
		}
		literal, ok := node.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return true
		}
		text, err := strconv.Unquote(literal.Value)
		if err != nil || !strings.Contains(text, " ") && !strings.Contains(text, ":") {
			return true // no sentence
		}
		var names []string
		for _, match := range told.FindAllStringSubmatch(text, -1) {
			if !plain.MatchString(match[1]) {
				names = append(names, match[1])
			}
		}
		if judging.MatchString(file) {
			for _, name := range snakes.FindAllString(text, -1) {
				if !programs.MatchString(name) {
					names = append(names, name)
				}
			}
		}
		for _, name := range names {
			if known[name] {
				found++
			} else {
				problems = append(problems, fmt.Sprintf("%s:%d: there is no setting %q", file, set.Position(literal.Pos()).Line, name))
			}
		}
		return true
	})
	return found, problems
}
