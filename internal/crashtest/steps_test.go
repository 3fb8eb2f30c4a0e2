//go:build unix

package crashtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/crashsteps"
	"github.com/certctl/certctl/shared/durable"
)

// requireEveryStep checks that the enumeration has met every durable step that
// the module knows, but for those that are listed as tested elsewhere.
func (b *bench) requireEveryStep(t *testing.T) {
	t.Helper()
	known, tests := survey(t, "../../agent", "../../shared")
	require.Greater(t, len(known), 60, "the survey of the sources finds the steps")
	for _, step := range slices.Sorted(maps.Keys(known)) {
		_, excused := crashsteps.Elsewhere[string(step)]
		switch met := b.steps[step]; {
		case met == 0 && !excused:
			t.Errorf("the durable step %q (%s) was never met: no crash at it has been tried; add a scenario that comes to it", step, known[step])
		case met > 0 && excused:
			t.Errorf("the durable step %q is met, and need not be excused any more", step)
		}
	}
	for step := range b.steps {
		assert.NotEmptyf(t, known[step], "the step %q was met, and is not a constant of its package", step)
	}
	for step, test := range crashsteps.Elsewhere {
		assert.NotEmptyf(t, known[durable.Step(step)], "the step %q is excused, and no longer exists", step)
		assert.Truef(t, tests[test], "the step %q is said to be covered by %s, which does not exist, or does not call crashsteps.Require", step, test)
	}
}

// survey finds all constants of type durable.Step in the sources, of whatever
// platform, with the files that they are in, and the names of all tests that say
// which steps they were cut off at.
func survey(t *testing.T, roots ...string) (steps map[durable.Step]string, tests map[string]bool) {
	t.Helper()
	steps, tests = map[durable.Step]string{}, map[string]bool{}
	for _, root := range roots {
		require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			for _, decl := range file.Decls {
				switch decl := decl.(type) {
				case *ast.FuncDecl:
					if reports(decl) {
						tests[decl.Name.Name] = true
					}
				case *ast.GenDecl:
					if decl.Tok == token.CONST && !strings.HasSuffix(path, "_test.go") {
						collect(t, steps, file.Name.Name, path, decl)
					}
				}
			}
			return nil
		}))
	}
	return steps, tests
}

// reports tells whether a function calls crashsteps.Require.
func reports(fn *ast.FuncDecl) (calls bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		if selector, is := n.(*ast.SelectorExpr); is && selector.Sel.Name == "Require" {
			x, is := selector.X.(*ast.Ident)
			calls = calls || is && x.Name == "crashsteps"
		}
		return true
	})
	return calls
}

// collect adds the steps of one declaration.
func collect(t *testing.T, steps map[durable.Step]string, pkg, path string, decl *ast.GenDecl) {
	t.Helper()
	for _, spec := range decl.Specs {
		spec := spec.(*ast.ValueSpec)
		for i, value := range spec.Values {
			kind, literal := spec.Type, value
			if call, is := value.(*ast.CallExpr); is && kind == nil && len(call.Args) == 1 {
				kind, literal = call.Fun, call.Args[0]
			}
			if !isStep(kind, pkg) {
				continue
			}
			text, is := literal.(*ast.BasicLit)
			if !is {
				t.Errorf("%s: the step %s is not a plain text, which is what this survey reads", path, spec.Names[i])
				continue
			}
			name, err := strconv.Unquote(text.Value)
			require.NoError(t, err)
			if other, taken := steps[durable.Step(name)]; taken {
				t.Errorf("the step %q is in %s and in %s", name, other, path)
			}
			steps[durable.Step(name)] = path
		}
	}
}

func isStep(kind ast.Expr, pkg string) bool {
	switch kind := kind.(type) {
	case *ast.SelectorExpr:
		x, is := kind.X.(*ast.Ident)
		return is && x.Name == "durable" && kind.Sel.Name == "Step"
	case *ast.Ident:
		return pkg == "durable" && kind.Name == "Step"
	}
	return false
}
