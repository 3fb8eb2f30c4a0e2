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
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
