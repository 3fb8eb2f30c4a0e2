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

// Reads is what the code of the module reads of settings and of parts' configurations.
type Reads struct {
	set      *token.FileSet
	packages Compiled
	roots    []string // with Settings
	importer types.Importer
	inner    map[string]bool // packages that settings are declared in

	// names are those of fields and functions, package.Type.Field, whichever way their
	// package was read.
	fields map[*types.Var]string
	// of is what a function of an inner package reads and calls; outside is that of all
	// other code.
	of      map[string]*body
	outside *body
	configs map[string]bool // fields of parts' configurations, by name
}

type body struct{ reads, calls map[string]bool }

func newBody() *body { return &body{reads: map[string]bool{}, calls: map[string]bool{}} }

// Read reads all code of the programs. roots are the packages whose Settings are to be
// looked at.
func Read(packages Compiled, roots ...string) (*Reads, error) {
	r := &Reads{
		set: token.NewFileSet(), packages: packages, roots: roots, inner: map[string]bool{vocabulary: true},
		fields: map[*types.Var]string{}, of: map[string]*body{}, outside: newBody(), configs: map[string]bool{},
	}
	for _, root := range roots {
		r.inner[root] = true
	}
	r.importer = importer.ForCompiler(r.set, "gc", func(path string) (io.ReadCloser, error) {
		p, ok := packages[path]
		if !ok || p.Export == "" {
			return nil, fmt.Errorf("%s was not compiled", path)
		}
		return os.Open(p.Export)
	})
	for _, path := range slices.Sorted(maps.Keys(packages)) {
		if !shipped(packages[path]) {
			continue
		}
		if err := r.read(packages[path]); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// shipped reports whether a package is of the module, and of its programs: what tests alone
// use is used by nobody.
func shipped(p compiled) bool {
	return p.Module.Main && !within(p.ImportPath, Module+"/internal") && !within(p.ImportPath, Module+"/scripts")
}

// UnreadSettings lists the settings that no code reads, each with its path in the file:
// whoever sets it would wait for an effect that never comes. Checks of settings do not count.
func (r *Reads) UnreadSettings() ([]string, error) {
	live := r.live()
	var offences []string
	for _, root := range r.roots {
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
func (r *Reads) read(p compiled) error {
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
				if slices.Contains(checks, fn.Name.Name) && !r.inner[p.ImportPath] {
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

func (r *Reads) bodyOf(function string) *body {
	if r.of[function] == nil {
		r.of[function] = newBody()
	}
	return r.of[function]
}

// walk takes down what a declaration reads and calls. What stands on the left of an
// assignment is not read.
func (r *Reads) walk(decl ast.Decl, info *types.Info, into *body) {
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
func (r *Reads) live() map[string]bool {
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

// name names the fields of the types of an inner package, and of the configuration of any:
// the same type has other objects when its package is checked than when it is imported.
func (r *Reads) name(pkg *types.Package) {
	if of := configOf(pkg); of != nil && shipped(r.packages[pkg.Path()]) {
		for i := range of.NumFields() {
			if field := of.Field(i); field.Exported() && !field.Embedded() {
				r.fields[field] = pkg.Path() + ".Config." + field.Name()
				r.configs[r.fields[field]] = true
			}
		}
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

func (r *Reads) nameOf(field *types.Var) string { return r.fields[field.Origin()] }

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
