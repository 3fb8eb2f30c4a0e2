// Command writes finds what the agent, and what it shares with the coordinator,
// does to a disk outside of a durable step (shared/durable, Hook.Around): a file
// written, named, removed or synced where no enumeration of crashes can cut it
// off. It reads the names of the files from standard input, each ended by NUL and
// relative to the directory that is its argument, and prints one line for each
// offender.
//
// Tests, and shared/durable, which is what steps are made of, are left out. A
// function that is written out as an argument of a call of Around is a step. All
// else is in a list, with its reason; an entry that nothing needs is an offender
// too.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/certctl/certctl/scripts/ci-guards/sources"
)

// writers are the functions that change what is on a disk, by import path.
var writers = map[string][]string{
	"os": {
		"Chmod", "Chown", "Create", "CreateTemp", "Lchown", "Link", "Mkdir", "MkdirAll", "MkdirTemp", "OpenFile", "OpenRoot",
		"Remove", "RemoveAll", "Rename", "Symlink", "Truncate", "WriteFile",
	},
	"io/ioutil": {"TempDir", "TempFile", "WriteFile"},
	"syscall":   {"Ftruncate", "Link", "Mkdir", "Open", "Rename", "Rmdir", "Symlink", "Truncate", "Unlink"},
	"golang.org/x/sys/unix": {
		"Link", "Linkat", "Mkdir", "Mkdirat", "Open", "Openat", "Rename", "Renameat", "Renameat2", "Rmdir", "Symlink", "Truncate", "Unlink", "Unlinkat",
	},
	"golang.org/x/sys/windows": {"CreateDirectory", "CreateFile", "DeleteFile", "MoveFile", "MoveFileEx", "RemoveDirectory", "Rename"},
	durablePath: {
		"EnsurePrivateDir", "MkdirAll", "Remove", "RemoveAll", "RemoveStaleTemp", "Rename", "Sync", "SyncDir", "WriteFile", "WriteFileOwned",
	},
}

const durablePath = "github.com/certctl/certctl/shared/durable"

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: writes ROOT < NUL-separated file names")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "writes:", err)
		os.Exit(1)
	}
}

func run(root string, names io.Reader, out io.Writer) error {
	looked, used := map[string]bool{}, map[place]bool{}
	err := sources.Each(root, names, concerns, func(file string, source []byte) error {
		found, err := check(file, source)
		looked[file] = true
		for _, f := range found {
			used[f.place] = true
			if _, is := allowed[f.place]; !is {
				fmt.Fprintf(out, "%s:%d: %s in %s is no part of a durable step\n", file, f.line, f.call, f.function)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	var stale []string
	for p := range allowed {
		if looked[p.file] && !used[p] {
			stale = append(stale, fmt.Sprintf("%s:1: %s in %s is allowed, and is not there", p.file, p.call, p.function))
		}
	}
	slices.Sort(stale)
	for _, line := range stale {
		fmt.Fprintln(out, line)
	}
	return nil
}

func concerns(file string) bool {
	return (strings.HasPrefix(file, "agent/") || strings.HasPrefix(file, "shared/")) && strings.HasSuffix(file, ".go") &&
		!strings.HasSuffix(file, "_test.go") && !strings.HasPrefix(file, "shared/durable/")
}

// place is a function that uses another one; which of its uses it is does not
// matter.
type place struct{ file, function, call string }

type finding struct {
	place
	line int
}

// check returns every use outside of a step, called or not: a function value that
// is passed on writes just as well.
func check(file string, source []byte) ([]finding, error) {
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	var found []finding
	function := "the file itself"
	report := func(at token.Pos, call string) {
		found = append(found, finding{place{file, function, call}, fset.Position(at).Line})
	}
	packages := map[string]string{} // import paths by the name that they go by
	for _, imported := range parsed.Imports {
		path, err := strconv.Unquote(imported.Path.Value)
		if err != nil || writers[path] == nil {
			continue
		}
		switch {
		case imported.Name == nil:
			packages[path[strings.LastIndexByte(path, '/')+1:]] = path
		case imported.Name.Name == ".":
			report(imported.Pos(), "import . "+strconv.Quote(path))
		default:
			packages[imported.Name.Name] = path
		}
	}
	look := func(node ast.Node) {
		ast.Inspect(node, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.CallExpr:
				return !isStep(node)
			case *ast.SelectorExpr:
				qualifier, is := node.X.(*ast.Ident)
				switch {
				case is && packages[qualifier.Name] != "":
					if path := packages[qualifier.Name]; slices.Contains(writers[path], node.Sel.Name) {
						report(node.Pos(), path[strings.LastIndexByte(path, '/')+1:]+"."+node.Sel.Name)
					}
				case node.Sel.Name == "Sync":
					report(node.Pos(), "a Sync that durable.Sync does not know of")
				}
			}
			return true
		})
	}
	for _, decl := range parsed.Decls {
		function = "the file itself"
		if fn, is := decl.(*ast.FuncDecl); is {
			function = fn.Name.Name
		}
		look(decl)
		for _, lit := range stepsIn(decl) {
			// A file in a step is synced through the one seam, too.
			ast.Inspect(lit, func(node ast.Node) bool {
				selector, is := node.(*ast.SelectorExpr)
				if !is || selector.Sel.Name != "Sync" {
					return true
				}
				if x, is := selector.X.(*ast.Ident); !is || packages[x.Name] != durablePath {
					report(selector.Pos(), "a Sync that durable.Sync does not know of")
				}
				return true
			})
		}
	}
	return found, nil
}

// isStep reports whether a call does a durable step that is written out in it.
func isStep(call *ast.CallExpr) bool {
	name := ""
	switch fun := call.Fun.(type) {
	case *ast.Ident:
		name = fun.Name
	case *ast.SelectorExpr:
		name = fun.Sel.Name
	}
	if name != "Around" && name != "around" || len(call.Args) == 0 {
		return false
	}
	_, written := call.Args[len(call.Args)-1].(*ast.FuncLit)
	return written
}

// stepsIn are the steps that are written out in a declaration.
func stepsIn(decl ast.Decl) (steps []ast.Node) {
	ast.Inspect(decl, func(node ast.Node) bool {
		call, is := node.(*ast.CallExpr)
		if is && isStep(call) {
			steps = append(steps, call)
			return false
		}
		return true
	})
	return steps
}
