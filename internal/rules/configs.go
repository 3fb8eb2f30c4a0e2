package rules

import (
	"fmt"
	"go/ast"
	"go/types"
	"maps"
	"slices"
	"strings"
)

// checks are functions that read a configuration to judge it, which is no use of it.
var checks = []string{"validate", "Validate", "withDefaults", "checked"}

// UnusedConfig lists the fields of types named Config in the packages of the module that
// no code reads but what judges them. A setting that was passed on into one of those would
// have no effect.
func UnusedConfig(packages Compiled) ([]string, error) {
	r := newReads(packages)
	declared := map[string]bool{}
	r.naming = func(pkg *types.Package) {
		of := configOf(pkg)
		if of == nil || !packages[pkg.Path()].Module.Main {
			return
		}
		for i := range of.NumFields() {
			if field := of.Field(i); field.Exported() && !field.Embedded() {
				name := pkg.Path() + ".Config." + field.Name()
				r.fields[field], declared[name] = name, true
			}
		}
	}
	r.skip = func(fn *ast.FuncDecl) bool { return slices.Contains(checks, fn.Name.Name) }
	for _, path := range slices.Sorted(maps.Keys(packages)) {
		if packages[path].Module.Main {
			if err := r.read(packages[path]); err != nil {
				return nil, err
			}
		}
	}
	var offences []string
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		if !r.outside.reads[name] {
			offences = append(offences, fmt.Sprintf("%s is used by nobody", strings.TrimPrefix(name, Module+"/")))
		}
	}
	return offences, nil
}

// configOf is the struct Config of a package, nil if it has none.
func configOf(pkg *types.Package) *types.Struct {
	declared, is := pkg.Scope().Lookup("Config").(*types.TypeName)
	if !is {
		return nil
	}
	of, _ := declared.Type().Underlying().(*types.Struct)
	return of
}
