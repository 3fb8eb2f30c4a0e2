// Command tickers finds bare time.NewTicker, time.Tick and time.Sleep in Go
// source, and timers that are started again and again, under whatever name the
// time package is imported. It reads the names
// of the files from standard input, each ended by NUL and relative to the
// directory that is its argument, and prints one line for each offender.
//
// Tests, shared/jitter and shared/backoff, which is where such tickers and waits
// belong, are left out.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/certctl/certctl/scripts/ci-guards/sources"
)

// bare maps the forbidden functions to what is wrong with them.
var bare = map[string]string{
	"NewTicker": "a ticker without jitter",
	"Tick":      "a ticker without jitter that cannot be stopped",
	"Sleep":     "a wait that ignores its context",
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: tickers ROOT < NUL-separated file names")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "tickers:", err)
		os.Exit(1)
	}
}

func run(root string, names io.Reader, out io.Writer) error {
	return sources.Each(root, names, concerns, func(file string, source []byte) error {
		findings, err := check(file, source)
		for _, finding := range findings {
			fmt.Fprintln(out, finding)
		}
		return err
	})
}

func concerns(file string) bool {
	return !strings.HasSuffix(file, "_test.go") && !strings.HasPrefix(file, "shared/jitter/") &&
		!strings.HasPrefix(file, "shared/backoff/")
}

// check returns a line "file:line: …" for each use, called or not: a function
// value that is passed on sleeps just as well.
func check(file string, source []byte) ([]string, error) {
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	var findings []string
	report := func(at token.Pos, text string) {
		findings = append(findings, fmt.Sprintf("%s:%d: %s", file, fset.Position(at).Line, text))
	}

	// One file may import a package more than once, under different names.
	aliases := make(map[string]bool)
	for _, imported := range parsed.Imports {
		if path, err := strconv.Unquote(imported.Path.Value); err != nil || path != "time" {
			continue
		}
		switch {
		case imported.Name == nil:
			aliases["time"] = true
		case imported.Name.Name == ".":
			report(imported.Pos(), `import . "time" hides its calls: import it by its name`)
		default:
			aliases[imported.Name.Name] = true
		}
	}

	ast.Inspect(parsed, func(node ast.Node) bool {
		selector, ok := node.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		qualifier, ok := selector.X.(*ast.Ident)
		if ok && aliases[qualifier.Name] && bare[selector.Sel.Name] != "" {
			report(selector.Pos(), fmt.Sprintf("time.%s is %s", selector.Sel.Name, bare[selector.Sel.Name]))
		}
		return true
	})
	(&rearmed{aliases: aliases, report: report}).check(parsed)
	return findings, nil
}
