package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every promise of the page names tests, and each of them is in the tree.
func TestGuaranteesAreProven(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/guarantees.md")
	require.NoError(t, err)
	claims, problems := proofs(string(page), func(pkg, test string) bool { return declared(t, filepath.Join("../..", pkg), test) })
	assert.Empty(t, problems)
	assert.Greater(t, claims, 10)
}

// The faults that the design begins with, by words of their rows: none may be
// left out, also where little is promised.
func TestEveryFaultOfTheDesignHasARow(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/guarantees.md")
	require.NoError(t, err)
	var rows []string
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(line, "|"); len(cells) > 2 && strings.HasPrefix(line, "| ") {
			rows = append(rows, strings.ToLower(strings.TrimSpace(cells[1])))
		}
	}
	for _, fault := range []string{
		"coordinator or the network is gone", "agent is killed", "disk with the agent's state is full", "clock is wrong",
		"answers 429 or 5xx, hangs", "does not take the new certificate", "leader is killed, partitioned or paused",
		"postgres is gone", "whole fleet returns at once", "bad input",
	} {
		assert.True(t, slices.ContainsFunc(rows, func(row string) bool { return strings.Contains(row, fault) }), fault)
	}
}

// proofs checks the tables of a page: the last cell of each row holds names of
// tests, and nothing else does.
func proofs(page string, exists func(pkg, test string) bool) (claims int, problems []string) {
	name := regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`")
	for number, line := range strings.Split(page, "\n") {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| fault |") || strings.HasPrefix(line, "| --- ") {
			continue
		}
		where := fmt.Sprintf("line %d: ", number+1)
		if len(cells) != 5 {
			problems = append(problems, where+"a row has five cells")
			continue
		}
		claims++
		last := cells[4]
		for _, match := range name.FindAllStringSubmatch(last, -1) {
			if !exists(match[1], match[2]) {
				problems = append(problems, where+match[1]+" has no test "+match[2])
			}
		}
		if rest := strings.Trim(name.ReplaceAllString(last, ""), " ,"); rest != "" || !name.MatchString(last) {
			problems = append(problems, where+"the last cell lists tests as `package.Test`, and nothing else")
		}
	}
	return claims, problems
}

// declared reports whether a directory has a test of that name, for whatever
// platform.
func declared(t *testing.T, dir, test string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	require.NoError(t, err)
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			if fn, is := decl.(*ast.FuncDecl); is && fn.Recv == nil && fn.Name.Name == test {
				return true
			}
		}
	}
	return false
}

func TestProofsFindsWhatIsMissing(t *testing.T) {
	there := func(pkg, test string) bool { return pkg == "agent/store" && test == "TestIt" }
	for row, want := range map[string]string{
		"| a | b | c | d | `agent/store.TestIt` |":                             "",
		"| a | b | c | d | `agent/store.TestIt`, `agent/store.TestGone` |":     "has no test TestGone",
		"| a | b | c | d | – |":                                                "lists tests",
		"| a | b | c | d | `agent/store.TestIt`, and somebody looked at it |":  "lists tests",
		"| a | b | `agent/store.TestIt` |":                                     "five cells",
		"| fault | what is promised | what it costs | where it ends | proof |": "",
	} {
		_, problems := proofs(row, there)
		if want == "" {
			assert.Empty(t, problems, row)
			continue
		}
		if assert.Len(t, problems, 1, row) {
			assert.Contains(t, problems[0], want)
		}
	}
}
