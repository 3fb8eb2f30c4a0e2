package rules

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// settingsOf are the structs with the settings of the programs, by package.
var settingsOf = []string{Module + "/agent/config", Module + "/coordinator/config"}

// vocabulary is a package that settings share. What is read in it and in those of
// settingsOf counts only if it is read for somebody else: checks read everything.
const vocabulary = Module + "/shared/managed"

// Compiled are packages with the types that the toolchain has made of them.
type Compiled map[string]compiled

// compiled is what go list says of a package, with the file of its types.
type compiled struct {
	ImportPath, Dir, Export string
	GoFiles, Deps           []string
	Module                  struct{ Main bool }
}

// Compile has the toolchain compile the module in dir with all that it links, most of which
// it has done already where tests run.
func Compile(ctx context.Context, dir string) (Compiled, error) {
	list := exec.CommandContext(ctx, "go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Deps,Module", "./...")
	list.Dir, list.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list -export: %w: %s", err, stderr.Bytes())
	}
	packages := Compiled{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p compiled
		switch err := decoder.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages, nil
		case err != nil:
			return nil, fmt.Errorf("go list's output: %w", err)
		}
		packages[p.ImportPath] = p
	}
}

// reads is what the code of the module reads of settings.
type reads struct {
	set      *token.FileSet
	packages Compiled
	importer types.Importer
	inner    map[string]bool // packages that settings are declared in

	// names are those of fields and functions, package.Type.Field, whichever way their
	// package was read.
	fields map[*types.Var]string
	// of is what a function of an inner package reads and calls; outside is that of all
	// other code.
	of      map[string]*body
	outside *body

	naming func(*types.Package)     // names the fields of a package; nil is those of inner ones
	skip   func(*ast.FuncDecl) bool // functions whose reading does not count; nil is none
}

type body struct{ reads, calls map[string]bool }

func newBody() *body { return &body{reads: map[string]bool{}, calls: map[string]bool{}} }

func newReads(packages Compiled) *reads {
	r := &reads{set: token.NewFileSet(), packages: packages, inner: map[string]bool{}, fields: map[*types.Var]string{}, of: map[string]*body{}, outside: newBody()}
	r.importer = importer.ForCompiler(r.set, "gc", func(path string) (io.ReadCloser, error) {
		p, ok := packages[path]
		if !ok || p.Export == "" {
			return nil, fmt.Errorf("%s was not compiled", path)
		}
		return os.Open(p.Export)
	})
	return r
}

// Unread lists the settings that no code reads, each with its path in the file: whoever
// sets it would wait for an effect that never comes. Checks of settings do not count.
func Unread(packages Compiled, roots ...string) ([]string, error) {
	r := newReads(packages)
	r.inner[vocabulary] = true
	for _, root := range roots {
		r.inner[root] = true
	}
	for _, path := range slices.Sorted(maps.Keys(packages)) {
		p := packages[path]
		concerned := r.inner[path] || slices.ContainsFunc(p.Deps, func(dep string) bool { return r.inner[dep] })
		if !concerned || !p.Module.Main {
			continue
		}
		if err := r.read(p); err != nil {
			return nil, err
		}
	}
	live := r.live()
	var offences []string
	for _, root := range roots {
		pkg, err := r.importer.Import(root)
		if err != nil {
			return nil, err
		}
		declared := pkg.Scope().Lookup("Settings")
		if declared == nil {
			return nil, fmt.Errorf("%s declares no Settings", root)
		}
		r.name(pkg)
		leaves(declared.Type(), "", func(path string, field *types.Var) {
			if name := r.nameOf(field); !live[name] {
				offences = append(offences, fmt.Sprintf("%s: no code reads %s (%s)", strings.TrimPrefix(root, Module+"/"), path, strings.TrimPrefix(name, Module+"/")))
			}
		})
	}
	return offences, nil
}

// leaves visits the settings below a type.
func leaves(of types.Type, path string, visit func(path string, field *types.Var)) {
	switch t := of.Underlying().(type) {
	case *types.Pointer:
		leaves(t.Elem(), path, visit)
	case *types.Slice:
		leaves(t.Elem(), path+"[]", visit)
	case *types.Map:
		leaves(t.Elem(), path+".<name>", visit)
	case *types.Struct:
		for i := range t.NumFields() {
			field := t.Field(i)
			key, tagged := reflect.StructTag(t.Tag(i)).Lookup("yaml")
			switch {
			case !tagged || key == "-":
				continue
			case key == ",inline":
				leaves(field.Type(), path, visit)
				continue
			}
			below := strings.TrimPrefix(path+"."+key, ".")
			if holdsSettings(field.Type()) {
				leaves(field.Type(), below, visit)
			} else {
				visit(below, field)
			}
		}
	}
}

// holdsSettings reports whether a type is a section, or a list or map of such.
func holdsSettings(of types.Type) bool {
	switch t := of.Underlying().(type) {
	case *types.Pointer:
		return holdsSettings(t.Elem())
	case *types.Slice:
		return holdsSettings(t.Elem())
	case *types.Map:
		return holdsSettings(t.Elem())
	case *types.Struct:
		for i := range t.NumFields() {
			if _, tagged := reflect.StructTag(t.Tag(i)).Lookup("yaml"); tagged {
				return true
			}
		}
	}
	return false
}

// read takes down what a package reads and calls.
func (r *reads) read(p compiled) error {
	var files []*ast.File
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(r.set, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, file)
	}
	info := &types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}, Uses: map[*ast.Ident]types.Object{}}
	pkg, err := (&types.Config{Importer: r.importer}).Check(p.ImportPath, r.set, files, info)
	if err != nil {
		return fmt.Errorf("types of %s: %w", p.ImportPath, err)
	}
	r.name(pkg)
	for _, imported := range pkg.Imports() {
		r.name(imported)
	}
	for _, file := range files {
		for _, decl := range file.Decls {
			into := r.outside
			if fn, is := decl.(*ast.FuncDecl); is {
				if r.skip != nil && r.skip(fn) {
					continue
				}
				if r.inner[p.ImportPath] {
					into = r.bodyOf(p.ImportPath + "." + declaredAs(fn))
				}
			}
			r.walk(decl, info, into)
		}
	}
	return nil
}

func (r *reads) bodyOf(function string) *body {
	if r.of[function] == nil {
		r.of[function] = newBody()
	}
	return r.of[function]
}

// walk takes down what a declaration reads and calls. What stands on the left of an
// assignment is not read.
func (r *reads) walk(decl ast.Decl, info *types.Info, into *body) {
	written := map[ast.Expr]bool{}
	ast.Inspect(decl, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.AssignStmt:
			if n.Tok == token.ASSIGN {
				for _, left := range n.Lhs {
					written[left] = true
				}
			}
		case *ast.SelectorExpr:
			if s, is := info.Selections[n]; is && s.Kind() == types.FieldVal && !written[n] {
				into.reads[r.nameOf(s.Obj().(*types.Var))] = true
			}
		case *ast.Ident:
			if fn, is := info.Uses[n].(*types.Func); is && fn.Pkg() != nil {
				into.calls[calledAs(fn)] = true
			}
		}
		return true
	})
}

// live are the fields that are read by code outside the inner packages, or by functions
// of those that it calls, however far.
func (r *reads) live() map[string]bool {
	live, seen := maps.Clone(r.outside.reads), map[string]bool{}
	next := slices.Collect(maps.Keys(r.outside.calls))
	for len(next) > 0 {
		function := next[len(next)-1]
		next = next[:len(next)-1]
		if b, inner := r.of[function]; inner && !seen[function] {
			seen[function] = true
			maps.Copy(live, b.reads)
			next = slices.AppendSeq(next, maps.Keys(b.calls))
		}
	}
	return live
}

// name names the fields of the types of an inner package: the same type has other
// objects when its package is checked than when it is imported.
func (r *reads) name(pkg *types.Package) {
	if r.naming != nil {
		r.naming(pkg)
		return
	}
	if !r.inner[pkg.Path()] {
		return
	}
	for _, name := range pkg.Scope().Names() {
		declared, is := pkg.Scope().Lookup(name).(*types.TypeName)
		if !is {
			continue
		}
		if of, is := declared.Type().Underlying().(*types.Struct); is {
			for i := range of.NumFields() {
				r.fields[of.Field(i)] = pkg.Path() + "." + name + "." + of.Field(i).Name()
			}
		}
	}
}

func (r *reads) nameOf(field *types.Var) string { return r.fields[field.Origin()] }

// declaredAs is a function's name, Type.Method for a method.
func declaredAs(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	of := fn.Recv.List[0].Type
	if star, is := of.(*ast.StarExpr); is {
		of = star.X
	}
	if index, is := of.(*ast.IndexExpr); is {
		of = index.X
	}
	return of.(*ast.Ident).Name + "." + fn.Name.Name
}

// calledAs is the same of a function that is used, behind its package.
func calledAs(fn *types.Func) string {
	name := fn.Pkg().Path() + "."
	if recv := fn.Signature().Recv(); recv != nil {
		of := recv.Type()
		if pointer, is := of.(*types.Pointer); is {
			of = pointer.Elem()
		}
		if named, is := of.(*types.Named); is {
			name += named.Obj().Name() + "."
		}
	}
	return name + fn.Name()
}
