package rules

import (
	"fmt"
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
func (r *Reads) UnusedConfig() (offences []string) {
	for _, name := range slices.Sorted(maps.Keys(r.configs)) {
		if !r.outside.reads[name] {
			offences = append(offences, fmt.Sprintf("%s is used by nobody", strings.TrimPrefix(name, Module+"/")))
		}
	}
	return offences
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
