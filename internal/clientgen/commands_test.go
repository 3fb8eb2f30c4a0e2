package clientgen

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api"
)

// notCommands are operations, and parameters of operations, that no command of certctl
// uses, and why.
var notCommands = map[string]string{
	"LeaveCluster":              `"certctl-coordinator leave" uses it, on the node that leaves`,
	"PutAssignment.Selector":    "files give it, see coordinator/assignmentfile",
	"PutAssignment.Certificate": "files give it, see coordinator/assignmentfile",
	"PutAssignment.Revision":    "files give it, see coordinator/assignmentfile",
}

// used is what the source of the command line uses of the client and of its documents.
type used struct {
	names map[string]bool // every name after a dot
	// fields are those that are set or read in files that name the type of what has them.
	fields map[string]map[string]bool
}

func (u *used) read(t *testing.T, path string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	types, names := map[string]bool{}, map[string]bool{}
	ast.Inspect(file, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.SelectorExpr:
			names[node.Sel.Name], u.names[node.Sel.Name] = true, true
			if of, ok := node.X.(*ast.Ident); ok && (of.Name == "client" || of.Name == "resource") {
				types[of.Name+"."+node.Sel.Name] = true
			}
		case *ast.KeyValueExpr:
			if key, ok := node.Key.(*ast.Ident); ok {
				names[key.Name] = true
			}
		case *ast.BasicLit:
			if text, err := strconv.Unquote(node.Value); node.Kind == token.STRING && err == nil {
				assert.NotContains(t, text, "/api/v1", "%s: the client has a method for every operation; a path is no matter of a command", path)
			}
		}
		return true
	})
	for name := range types {
		if u.fields[name] == nil {
			u.fields[name] = map[string]bool{}
		}
		for field := range names {
			u.fields[name][field] = true
		}
	}
}

// What the API can do, a person can do with certctl: each operation is used by a
// command, each of its parameters and each field of what it is sent can be given, and
// nothing is asked for in another way.
func TestCommandsUseEveryOperation(t *testing.T) {
	t.Parallel()
	directory := filepath.Join("..", "..", "coordinator", "cli")
	entries, err := os.ReadDir(directory)
	require.NoError(t, err)
	commands := &used{names: map[string]bool{}, fields: map[string]map[string]bool{}}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".go") && !strings.HasSuffix(entry.Name(), "_test.go") {
			commands.read(t, filepath.Join(directory, entry.Name()))
		}
	}
	document, err := api.OpenAPI()
	require.NoError(t, err)
	operations, err := Read(document)
	require.NoError(t, err)
	require.NotEmpty(t, operations)
	excused := map[string]bool{}
	missing := func(name string) bool {
		_, ok := notCommands[name]
		excused[name] = excused[name] || ok
		return !ok
	}
	for _, op := range operations {
		if op.Name != op.ParamsOf {
			continue // another form of the same answer
		}
		list := op.List && (commands.names["All"+strings.TrimPrefix(op.Name, "List")] || commands.fields["client."+op.Name+"Params"] != nil)
		if !commands.names[op.Name] && !list {
			if missing(op.Name) {
				t.Errorf("no command uses %s (%s %s): add one, or say in notCommands why there is none", op.ID, op.Method, op.Path)
			}
			continue
		}
		for _, p := range op.Params {
			if !slices.Contains([]string{"Cursor", "Limit"}, p.Name) && !commands.fields["client."+op.ParamsOf+"Params"][p.Name] && missing(op.Name+"."+p.Name) {
				t.Errorf("no command gives %s its parameter %s: add a flag, or say in notCommands why there is none", op.ID, p.Parameter)
			}
		}
		for _, field := range fieldsOf(t, op.Body) {
			if !commands.fields[op.Body][field] && missing(op.Name+"."+field) {
				t.Errorf("no command gives %s its field %s: add a flag, or say in notCommands why there is none", op.ID, field)
			}
		}
	}
	for name := range notCommands {
		assert.True(t, excused[name], "notCommands: %s needs no reason any more", name)
	}
}

// fieldsOf are the fields of a document that is sent, by its name.
func fieldsOf(t *testing.T, document string) []string {
	t.Helper()
	if document == "" {
		return nil
	}
	directory := filepath.Join("..", "..", "coordinator", "api", "resource")
	entries, err := os.ReadDir(directory)
	require.NoError(t, err)
	for _, entry := range entries {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(directory, entry.Name()), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, declaration := range file.Decls {
			group, ok := declaration.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range group.Specs {
				if named, ok := spec.(*ast.TypeSpec); ok && "resource."+named.Name.Name == document {
					return namesOf(named.Type)
				}
			}
		}
	}
	require.FailNow(t, "no such document", document)
	return nil
}

func namesOf(of ast.Expr) (names []string) {
	structure, ok := of.(*ast.StructType)
	if !ok {
		return nil
	}
	for _, field := range structure.Fields.List {
		for _, name := range field.Names {
			if tag, _ := strconv.Unquote(field.Tag.Value); reflect.StructTag(tag).Get("json") != "-" {
				names = append(names, name.Name)
			}
		}
	}
	return names
}
