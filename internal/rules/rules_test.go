package rules

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// dependOnSources makes the test depend on every Go file of the module. The
// files are read by go list, a process of its own, so the test cache would not
// know of them and would go on reporting the result of an older tree; it does
// know of directories that the test reads itself.
func dependOnSources(t *testing.T) {
	t.Helper()
	files := 0
	require.NoError(t, filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != "../.." {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			files++
		}
		return err
	}))
	require.NotZero(t, files)
}

func TestModuleKeepsTheRules(t *testing.T) {
	dependOnSources(t)
	for _, goos := range []string{"linux", "windows"} {
		t.Run(goos, func(t *testing.T) {
			packages, err := List(t.Context(), goos)
			require.NoError(t, err)
			for _, top := range []string{"agent", "coordinator", "shared"} {
				assert.True(t, slices.ContainsFunc(packages, func(p Package) bool { return side(p.ImportPath) == top }),
					"no package under %s: the rules about it would hold for nothing", top)
			}
			for _, offence := range Check(packages) {
				t.Error(offence)
			}
		})
	}
}

func TestEachRuleFindsItsOffender(t *testing.T) {
	pkg := func(path string, change func(*Package)) Package {
		name := path[strings.LastIndexByte(path, '/')+1:]
		p := Package{ImportPath: Module + "/" + path, Name: name, Doc: "Package " + name + " is an example."}
		if change != nil {
			change(&p)
		}
		return p
	}
	imports := func(paths ...string) func(*Package) {
		return func(p *Package) { p.Imports, p.Deps = paths, paths }
	}
	deps := func(paths ...string) func(*Package) { return func(p *Package) { p.Deps = paths } }
	doc := func(text string) func(*Package) { return func(p *Package) { p.Doc = text } }

	tests := map[string]struct {
		offender Package
		want     string // empty: no offence
	}{
		"agent imports coordinator":     {pkg("agent/sync", imports(Module+"/coordinator/api")), "agent/sync imports " + Module + "/coordinator/api"},
		"coordinator imports agent":     {pkg("coordinator/api", imports(Module+"/agent/sync")), "coordinator/api imports " + Module + "/agent/sync"},
		"shared imports agent":          {pkg("shared/wire", imports(Module+"/agent/sync")), "shared/wire imports"},
		"shared imports coordinator":    {pkg("shared/wire", imports(Module+"/coordinator/api")), "shared/wire imports"},
		"test imports the other side":   {pkg("agent/sync", func(p *Package) { p.TestImports = []string{Module + "/coordinator/api"} }), "agent/sync imports"},
		"external test imports it":      {pkg("agent/sync", func(p *Package) { p.XTestImports = []string{Module + "/coordinator/api"} }), "agent/sync imports"},
		"through a third package":       {pkg("agent/sync", deps(Module+"/internal/x", Module+"/coordinator/api")), "through another package"},
		"both import shared":            {pkg("agent/sync", imports(Module+"/shared/wire", "net/http")), ""},
		"a test of both, outside":       {pkg("internal/fleet", imports(Module+"/agent/sync", Module+"/coordinator/api")), ""},
		"a name that only starts alike": {pkg("agent/sync", imports(Module+"/coordinators/x", "example.com/coordinator")), ""},
		"agent links raft":              {pkg("agent/cmd/certctl-agent", func(p *Package) { deps("github.com/hashicorp/raft")(p) }), "links github.com/hashicorp/raft:"},
		"agent links raft's log":        {pkg("agent/store", deps("github.com/hashicorp/raft-boltdb/v2")), "links github.com/hashicorp/raft-boltdb/v2:"},
		"agent links Prometheus":        {pkg("agent/metrics", deps("github.com/prometheus/client_golang/prometheus")), "links"},
		"agent links memdb":             {pkg("agent/store", deps("github.com/hashicorp/go-memdb")), "links"},
		"agent links a Postgres driver": {pkg("agent/store", deps("github.com/jackc/pgx/v5/pgxpool")), "links github.com/jackc/pgx/v5/pgxpool:"},
		"coordinator links raft":        {pkg("coordinator/cluster", deps("github.com/hashicorp/raft")), ""},
		"another module's name goes on": {pkg("agent/store", deps("github.com/hashicorp/raftish", "github.com/jackc/pgxother")), ""},
		"vague directory":               {pkg("shared/util/text", nil), `is named "util"`},
		"vague package":                 {pkg("shared/text", func(p *Package) { p.Name, p.Doc = "helpers", "Package helpers is bad." }), `is named "helpers"`},
		"no comment":                    {pkg("shared/pki", doc("")), `begins with "Package pki"`},
		"another package's comment":     {pkg("shared/pki", doc("Package pkix does.")), `begins with "Package pki"`},
		"command without comment":       {pkg("agent/cmd/certctl-agent", func(p *Package) { p.Name, p.Doc = "main", "Package main runs." }), `begins with "Command certctl-agent"`},
		"command":                       {pkg("agent/cmd/certctl-agent", func(p *Package) { p.Name, p.Doc = "main", "Command certctl-agent runs." }), ""},
		"an innocent package":           {pkg("shared/pki", nil), ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			offences := Check([]Package{pkg("shared/innocent", nil), test.offender})
			if test.want == "" {
				assert.Empty(t, offences)
				return
			}
			require.NotEmpty(t, offences)
			for _, offence := range offences {
				assert.Contains(t, offence, test.offender.ImportPath)
			}
			assert.Contains(t, strings.Join(offences, "\n"), test.want)
		})
	}
	for _, vague := range VagueNames {
		assert.Len(t, Check([]Package{pkg("shared/"+vague, nil)}), 1, vague)
	}
}

func TestParseOfGoListOutput(t *testing.T) {
	packages, err := parse(strings.NewReader(`{"ImportPath":"a","Imports":["b"]}` + "\n" + `{"ImportPath":"c"}`))
	require.NoError(t, err)
	assert.Equal(t, []Package{{ImportPath: "a", Imports: []string{"b"}}, {ImportPath: "c"}}, packages)

	// A list that is cut short would hide offenders.
	_, err = parse(strings.NewReader(`{"ImportPath":"a"}{"Impor`))
	assert.Error(t, err)
}

func TestListThatFailsIsNotAnEmptyList(t *testing.T) {
	t.Setenv("GOFLAGS", "-no-such-flag")
	packages, err := List(t.Context(), "linux")
	assert.ErrorContains(t, err, "go list for linux")
	assert.ErrorContains(t, err, "no-such-flag", "the toolchain's own words")
	assert.Nil(t, packages)
}
