package docs

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cli"
)

const connectorsPage = "../../docs/reference/connectors.md"

// connectorPackages are what the page calls packages, and where they are.
var connectorPackages = map[string]string{
	"config": "coordinator/config", "connector": "coordinator/connector", "connectortest": "coordinator/connector/connectortest", "fakeca": "internal/fakeca",
	"vault": "coordinator/connector/vault",
}

// connectors is the page that shows how to add an authority, held against the tree.
type connectors struct {
	t *testing.T
	// packages are names of packages, each with what it declares: X, and X.Y for
	// fields and methods.
	packages map[string]map[string]string
	seen     map[string]int
	problems []string
}

func newConnectors(t *testing.T) *connectors {
	c := &connectors{t: t, packages: map[string]map[string]string{}, seen: map[string]int{}}
	for name, dir := range connectorPackages {
		c.packages[name] = declarations(t, filepath.Join("../..", dir))
	}
	return c
}

// declarations are what a package has that others see, and of what kind: "interface",
// the type of a constant, or "".
func declarations(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	add := func(name, kind string) {
		if ast.IsExported(name[strings.LastIndexByte(name, '.')+1:]) {
			found[name] = kind
		}
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					add(d.Name.Name, "")
					continue
				}
				of := d.Recv.List[0].Type
				if star, is := of.(*ast.StarExpr); is {
					of = star.X
				}
				if name, is := of.(*ast.Ident); is {
					add(name.Name+"."+d.Name.Name, "")
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					specified(spec, add)
				}
			}
		}
	}
	return found
}

// specified adds the types with their members, and the constants and variables.
func specified(spec ast.Spec, add func(name, kind string)) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		kind := ""
		if of, is := s.Type.(*ast.Ident); is {
			kind = of.Name
		}
		for _, name := range s.Names {
			add(name.Name, kind)
		}
	case *ast.TypeSpec:
		var fields *ast.FieldList
		kind := ""
		switch of := s.Type.(type) {
		case *ast.StructType:
			fields = of.Fields
		case *ast.InterfaceType:
			fields, kind = of.Methods, "interface"
		}
		add(s.Name.Name, kind)
		if fields == nil {
			return
		}
		for _, field := range fields.List {
			for _, name := range field.Names {
				add(s.Name.Name+"."+name.Name, "")
			}
		}
	}
}

var (
	codeSpan   = regexp.MustCompile("`([^`\n]+)`")
	codeFence  = regexp.MustCompile("(?ms)^( *)```(\\w*)\n(.*?)^ *```$")
	treePath   = regexp.MustCompile(`^(?:agent|coordinator|docs|internal|scripts|shared)/[\w./-]+$`)
	treeTest   = regexp.MustCompile(`^([\w/]+)\.((?:Test|Fuzz)\w+)$`)
	packagedAs = regexp.MustCompile(`^([a-z]+)\.([A-Z]\w*(?:\.[A-Z]\w*)?)$`)
	goFlag     = regexp.MustCompile(`^-(\w+)$`)
)

func (c *connectors) problem(parts ...string) {
	c.problems = append(c.problems, strings.Join(parts, " "))
}

// check finds what a page shows and the tree does not have.
func (c *connectors) check(page string) {
	for _, fence := range codeFence.FindAllStringSubmatch(page, -1) {
		switch fence[2] {
		case "go":
			c.source(strings.ReplaceAll("\n"+fence[3], "\n"+fence[1], "\n")[1:])
		case "sh":
			for line := range strings.Lines(fence[3]) {
				c.command(strings.Fields(line))
			}
		default:
			c.problem("a block of code of the kind", strconv.Quote(fence[2]))
		}
	}
	for _, span := range codeSpan.FindAllStringSubmatch(codeFence.ReplaceAllString(page, ""), -1) {
		c.span(span[1])
	}
}

func (c *connectors) span(text string) {
	if rest, is := strings.CutPrefix(text, "certctl "); is {
		c.seen["certctl"]++
		words := strings.Fields(rest)
		if at := slices.IndexFunc(words, func(word string) bool { return strings.ToLower(word) != word }); at >= 0 {
			words = words[:at] // what stands for something else
		}
		var help bytes.Buffer
		cli.Execute(append(words, "--help"), &help, &help)
		if !strings.Contains(help.String(), "\n  certctl "+strings.Join(words, " ")+" ") {
			c.problem("there is no", text)
		}
		return
	}
	if match := treeTest.FindStringSubmatch(text); match != nil {
		c.seen["test"]++
		if !declared(c.t, filepath.Join("../..", match[1]), match[2]) {
			c.problem("there is no test", text)
		}
		return
	}
	if match := packagedAs.FindStringSubmatch(text); match != nil {
		c.seen["name"]++
		if names, known := c.packages[match[1]]; !known {
			c.problem("no package is known as", match[1])
		} else if _, there := names[match[2]]; !there {
			c.problem("there is no", text)
		}
		return
	}
	if treePath.MatchString(text) {
		c.seen["path"]++
		if _, err := os.Stat(filepath.Join("../..", text)); err != nil {
			c.problem("there is no", text)
		}
	}
}

// source is a block that begins with where it is from.
func (c *connectors) source(block string) {
	c.seen["source"]++
	first, rest, _ := strings.Cut(block, "\n")
	path := strings.TrimPrefix(first, "// ")
	text, err := os.ReadFile(filepath.Join("../..", path))
	if err != nil || strings.TrimSpace(rest) == "" || !strings.Contains(string(text), rest) {
		c.problem(path, "does not have", strconv.Quote(rest))
	}
}

// command is a line for a shell.
func (c *connectors) command(words []string) {
	c.seen["command"]++
	line := strings.Join(words, " ")
	switch {
	case words[0] == "make" && len(words) == 2:
		text, err := os.ReadFile("../../Makefile")
		require.NoError(c.t, err)
		if !strings.Contains(string(text), "\n"+words[1]+":") {
			c.problem("make has no", words[1])
		}
	case words[0] == "go" && words[1] == "run":
		text, err := os.ReadFile(filepath.Join("../..", words[2], "main.go"))
		if err != nil {
			c.problem(line, "runs nothing")
			return
		}
		for _, word := range words[3:] {
			if flag := goFlag.FindStringSubmatch(word); flag != nil && !strings.Contains(string(text), `, "`+flag[1]+`", `) {
				c.problem(words[2], "has no flag", word)
			}
		}
	case words[0] == "go" && words[1] == "test":
		var dirs, tests []string
		for i, word := range words {
			switch {
			case strings.HasPrefix(word, "./"):
				dirs = append(dirs, filepath.Join("../..", word))
			case words[i-min(i, 1)] == "-run" || words[i-min(i, 1)] == "-fuzz":
				tests = append(tests, word)
			}
		}
		for _, dir := range dirs {
			if found, _ := filepath.Glob(filepath.Join(dir, "*_test.go")); len(found) == 0 {
				c.problem("no tests are in", dir)
			}
		}
		for _, test := range tests {
			if !declared(c.t, dirs[0], test) {
				c.problem(dirs[0], "has no test", test)
			}
		}
	default:
		c.problem("nobody knows the command", line)
	}
}

// What the page shows is in the tree: files, names, tests, commands and source.
func TestThePageOfConnectorsShowsWhatThereIs(t *testing.T) {
	page, err := os.ReadFile(connectorsPage)
	require.NoError(t, err)
	c := newConnectors(t)
	c.check(string(page))
	assert.Empty(t, c.problems)
	for kind, least := range map[string]int{"test": 2, "name": 50, "path": 10, "source": 2, "command": 6, "certctl": 2} {
		assert.GreaterOrEqual(t, c.seen[kind], least, kind)
	}
}

// And what whoever writes a connector has to know of is on the page: every state, every
// class of failures, everything that an authority may be able to do, and each case of
// the contract, no more and no fewer.
func TestThePageOfConnectorsLeavesNothingOut(t *testing.T) {
	text, err := os.ReadFile(connectorsPage)
	require.NoError(t, err)
	page := string(text)
	counts := map[string]int{}
	for name, kind := range declarations(t, filepath.Join("../..", connectorPackages["connector"])) {
		switch kind {
		case "State", "Class", "interface":
			counts[kind]++
			row := "\n| `connector." + name + "` |"
			assert.True(t, strings.Contains(page, row) || name == "Connector", "no row tells of connector.%s", name)
		}
	}
	assert.Equal(t, map[string]int{"State": 8, "Class": 9, "interface": 9}, counts)

	suite, err := os.ReadFile(filepath.Join("../..", connectorPackages["connectortest"], "connectortest.go"))
	require.NoError(t, err)
	var cases, rows []string
	for _, match := range regexp.MustCompile(`\tt\.Run\("(\w+)", s\.\w+\)`).FindAllStringSubmatch(string(suite), -1) {
		cases = append(cases, match[1])
	}
	_, table, found := strings.Cut(page, "| case | what it proves |\n| --- | --- |\n")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	for line := range strings.Lines(table) {
		rows = append(rows, codeSpan.FindStringSubmatch(line)[1])
	}
	assert.NotEmpty(t, cases)
	assert.Equal(t, cases, rows)
}

func TestWhatIsNotInTheTreeIsFound(t *testing.T) {
	for text, want := range map[string]string{
		"`connector.Connector`, `connector.Connector.Place`, `connector.Error.NotPlaced`, `connector.ClassRetry`": "",
		"`connector.Connector.Pay`":                          "there is no connector.Connector.Pay",
		"`connector.Gone`":                                   "there is no connector.Gone",
		"`elsewhere.Thing`":                                  "no package is known as elsewhere",
		"`coordinator/connector/vault`":                      "",
		"`coordinator/connector/gone.go`":                    "there is no coordinator/connector/gone.go",
		"`coordinator/connector/vault.TestContract`":         "",
		"`coordinator/connector/vault.TestGone`":             "there is no test coordinator/connector/vault.TestGone",
		"```go\n// internal/docs/docs.go\npackage docs\n```": "",
		"```go\n// internal/docs/docs.go\npackage odd\n```":  `internal/docs/docs.go does not have "package odd\n"`,
		"```go\npackage docs\n```":                           `package docs does not have ""`,
		"```sh\nmake generate\n```":                          "",
		"```sh\nmake gone\n```":                              "make has no gone",
		"```sh\ngo run ./scripts/fakeca -vendor x\n```":      "",
		"```sh\ngo run ./scripts/fakeca -gone x\n```":        "./scripts/fakeca has no flag -gone",
		"```sh\ngo run ./scripts/gone\n```":                  "go run ./scripts/gone runs nothing",
		"```sh\ngo test ./internal/docs -run TestGone\n```":  "../../internal/docs has no test TestGone",
		"```sh\ngo test ./docs\n```":                         "no tests are in ../../docs",
		"```sh\nrm -r x\n```":                                "nobody knows the command rm -r x",
		"`certctl agents list`":                              "",
		"`certctl agents gone ID`":                           "there is no certctl agents gone ID",
		"```yaml\na: b\n```":                                 `a block of code of the kind "yaml"`,
	} {
		c := newConnectors(t)
		c.check(text + "\n")
		if want == "" {
			assert.Empty(t, c.problems, text)
		} else {
			assert.Equal(t, []string{want}, c.problems, text)
		}
	}
}
