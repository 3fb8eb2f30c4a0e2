// Package rules holds the rules about packages that no compiler knows: which
// may import which, what must not get into the agent's binary, how a package is
// named and that it says what it is for. Its test applies them to the module.
//
// The checks are pure functions of the package list, so that the test can also
// show that each of them finds an offender.
package rules

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Module is the path of the module that the rules are about.
const Module = "github.com/certctl/certctl"

// VagueNames are package names that say nothing about their contents.
var VagueNames = []string{
	"util", "utils", "common", "helper", "helpers", "type", "types", "model", "models",
	"manager", "managers", "misc", "base",
}

// centralOnly are modules that only the coordinator may link: the agent has to
// stay small, and needs no consensus and no database server to do its work.
var centralOnly = []string{
	"github.com/hashicorp/raft",
	"github.com/hashicorp/raft-autopilot",
	"github.com/hashicorp/raft-boltdb",
	"github.com/hashicorp/raft-wal",
	"github.com/hashicorp/go-memdb",
	"github.com/jackc/pgx",
	"github.com/jackc/tern",
	"github.com/lib/pq",
	"github.com/prometheus/client_golang",
}

// A Package is what the rules need of one entry of go list's JSON output.
type Package struct {
	ImportPath   string
	Name         string
	Doc          string   // first sentence of the package comment
	Imports      []string // direct, without tests
	TestImports  []string // of tests in the package
	XTestImports []string // of tests in the package name_test
	Deps         []string // everything that Imports lead to
}

// List returns the module's packages as the toolchain sees them for goos, an
// operating system in GOOS's spelling: files for other systems do not count.
func List(ctx context.Context, goos string) ([]Package, error) {
	list := exec.CommandContext(ctx, "go", "list", "-json=ImportPath,Name,Doc,Imports,TestImports,XTestImports,Deps", Module+"/...")
	list.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list for %s: %w: %s", goos, err, stderr.Bytes())
	}
	return parse(bytes.NewReader(out))
}

// parse reads go list's output: JSON objects one after the other.
func parse(r io.Reader) ([]Package, error) {
	var packages []Package
	decoder := json.NewDecoder(r)
	for {
		var p Package
		switch err := decoder.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages, nil
		case err != nil:
			return nil, fmt.Errorf("go list's output: %w", err)
		}
		packages = append(packages, p)
	}
}

// Check applies every rule and returns one line for each offence.
func Check(packages []Package) []string {
	var offences []string
	for _, p := range packages {
		offences = append(offences, checkSides(p)...)
		offences = append(offences, checkAgentSize(p)...)
		offences = append(offences, checkName(p)...)
		offences = append(offences, checkComment(p)...)
	}
	return offences
}

// checkSides keeps agent and coordinator apart and shared below both. Tests
// count: one that needs both sides belongs to neither and lives outside them.
func checkSides(p Package) []string {
	var foreign []string
	switch side(p.ImportPath) {
	case "agent":
		foreign = []string{"coordinator"}
	case "coordinator":
		foreign = []string{"agent"}
	case "shared":
		foreign = []string{"agent", "coordinator"}
	}
	var offences []string
	direct := slices.Concat(p.Imports, p.TestImports, p.XTestImports)
	for _, imported := range distinct(direct) {
		if slices.Contains(foreign, side(imported)) {
			offences = append(offences, fmt.Sprintf("%s imports %s: what both sides need goes to shared", p.ImportPath, imported))
		}
	}
	// Whatever leads there through a third package, such as one in internal.
	for _, dep := range p.Deps {
		if slices.Contains(foreign, side(dep)) && !slices.Contains(direct, dep) {
			offences = append(offences, fmt.Sprintf("%s depends on %s through another package: what both sides need goes to shared", p.ImportPath, dep))
		}
	}
	return offences
}

// checkAgentSize looks at all of the agent's packages and not at its main
// alone, so that the offence names the package that brought the module in.
func checkAgentSize(p Package) []string {
	if side(p.ImportPath) != "agent" {
		return nil
	}
	var offences []string
	for _, dep := range p.Deps {
		for _, module := range centralOnly {
			if within(dep, module) {
				offences = append(offences, fmt.Sprintf("%s links %s: only the coordinator may", p.ImportPath, dep))
			}
		}
	}
	return offences
}

func checkName(p Package) []string {
	var offences []string
	path := strings.TrimPrefix(p.ImportPath, Module+"/")
	for _, element := range append(strings.Split(path, "/"), p.Name) {
		if slices.Contains(VagueNames, element) {
			offences = append(offences, fmt.Sprintf("%s (package %s) is named %q: name it after what it is about", p.ImportPath, p.Name, element))
			break
		}
	}
	return offences
}

func checkComment(p Package) []string {
	want := "Package " + p.Name
	if p.Name == "main" {
		want = "Command " + p.ImportPath[strings.LastIndexByte(p.ImportPath, '/')+1:]
	}
	if p.Doc == want || strings.HasPrefix(p.Doc, want+" ") {
		return nil
	}
	return []string{fmt.Sprintf("%s has no package comment that begins with %q: say what it is for", p.ImportPath, want)}
}

// side is the module's top-level directory that path lies in, or empty.
func side(path string) string {
	rest, ok := strings.CutPrefix(path, Module+"/")
	if !ok {
		return ""
	}
	top, _, _ := strings.Cut(rest, "/")
	return top
}

// within reports whether the package at path belongs to module, whose major
// version suffix, a further path element, does not matter.
func within(path, module string) bool {
	rest, ok := strings.CutPrefix(path, module)
	return ok && (rest == "" || rest[0] == '/')
}

func distinct(list []string) []string {
	sorted := slices.Sorted(slices.Values(list))
	return slices.Compact(sorted)
}
