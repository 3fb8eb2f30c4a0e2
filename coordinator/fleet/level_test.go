package fleet_test

import (
	"cmp"
	"encoding"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestLevels keeps a level from changing its meaning: nodes of other versions
// go by what it meant when they were built.
func TestLevels(t *testing.T) {
	var lines []string
	for _, typ := range fleet.RegisteredTypes() {
		for version, level := range fleet.Understood(typ) {
			require.LessOrEqual(t, level, fleet.Level, "command %d:%d needs a level beyond fleet.Level: raise it", typ, version)
			lines = append(lines, fmt.Sprintf("%d %d:%d", level, typ, version))
		}
	}
	slices.SortFunc(lines, func(a, b string) int {
		var x, y [3]int
		for line, numbers := range map[string]*[3]int{a: &x, b: &y} {
			_, err := fmt.Sscanf(line, "%d %d:%d", &numbers[0], &numbers[1], &numbers[2])
			require.NoError(t, err)
		}
		return slices.Compare(x[:], y[:])
	})
	got := "# level type:version, of every command that a node of a level understands. Lines are added, never changed.\n" +
		strings.Join(lines, "\n") + "\n"
	golden(t, "levels.golden", got,
		"the commands that nodes understand were changed. A command type or version that no release has yet must have a level of its own: "+
			"raise fleet.Level once for the release, list the type and version in levels (level.go), and add the lines with: go test ./coordinator/fleet -run TestLevels -update")
}

// TestTheShapeOfCommands keeps a command from getting a field that nodes of
// other versions, which decode it strictly, would stop at.
func TestTheShapeOfCommands(t *testing.T) {
	var lines []string
	for _, typ := range fleet.RegisteredTypes() {
		lines = append(lines, fmt.Sprintf("%d:%d %s", typ, len(fleet.Understood(typ)), shape(reflect.TypeOf(example(typ, 1)), 0)))
	}
	golden(t, "commands.golden", "# type:version of every command, and the shape of its payload.\n"+strings.Join(lines, "\n")+"\n",
		"the payload of a command was changed. Nodes stop at a field that they do not know: give the command the next version in state.go (and that a level of its own), "+
			"unless no release has it yet, and write the file anew with: go test ./coordinator/fleet -run TestTheShapeOfCommands -update")
}

// shape describes how values of a type are encoded.
func shape(typ reflect.Type, depth int) string {
	switch {
	case depth > 8:
		return typ.String()
	case typ.Kind() == reflect.Pointer:
		return "?" + shape(typ.Elem(), depth+1)
	case typ.Implements(reflect.TypeFor[cbor.Marshaler]()), typ.Implements(reflect.TypeFor[encoding.TextMarshaler]()), typ == reflect.TypeFor[time.Time]():
		return typ.String()
	}
	switch typ.Kind() {
	case reflect.Struct:
		var fields []string
		for i := range typ.NumField() {
			field := typ.Field(i)
			tag := cmp.Or(field.Tag.Get("cbor"), field.Tag.Get("json"))
			if !field.IsExported() || tag == "-" {
				continue
			}
			number, _, _ := strings.Cut(tag, ",")
			fields = append(fields, cmp.Or(number, field.Name)+" "+shape(field.Type, depth+1))
		}
		return typ.Name() + "{" + strings.Join(fields, " ") + "}"
	case reflect.Slice, reflect.Array:
		return "[]" + shape(typ.Elem(), depth+1)
	case reflect.Map:
		return "map[" + shape(typ.Key(), depth+1) + "]" + shape(typ.Elem(), depth+1)
	default:
		return typ.Kind().String()
	}
}

// golden compares with a file of testdata, which -update writes.
func golden(t *testing.T, name, got, mend string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, strings.ReplaceAll(string(want), "\r\n", "\n"), got, mend)
}

func TestRequiredLevel(t *testing.T) {
	assert.EqualValues(t, 1, fleet.RequiredLevel(fleet.Command{Type: fleet.TypeSyncAgent, Version: 4}))
	assert.EqualValues(t, 2, fleet.RequiredLevel(fleet.Command{Type: fleet.TypeAnnounceNode, Version: 1}))
	assert.Equal(t, fleet.Level+1, fleet.RequiredLevel(fleet.Command{Type: fleet.TypeAnnounceNode, Version: 99}), "a later version of the program made it")
	assert.Equal(t, fleet.Level+1, fleet.RequiredLevel(fleet.Command{Type: 250, Version: 1}))
	assert.EqualValues(t, 1, fleet.RequiredLevel(fleet.Command{Type: 250, Version: 1, Ignorable: true}))
}

// A restore needs nodes that read what its proposer has read.
func TestARestoreNeedsNodesOfItsProposersLevel(t *testing.T) {
	b := newBench(t)
	command := b.command(fleet.ApplyRestore{ID: "r", Pieces: 1})
	assert.Equal(t, fleet.Level, fleet.RequiredLevel(command))
	later := fleet.ApplyRestore{ID: "r", Pieces: 1, Level: fleet.Level + 1}
	payload, err := cbor.Marshal(later)
	require.NoError(t, err)
	command.Payload = payload
	assert.Equal(t, fleet.Level+1, fleet.RequiredLevel(command))
	entry, err := fleet.EncodeEntry([]fleet.Command{command})
	require.NoError(t, err)
	_, _, err = b.state.Apply(1, entry)
	require.ErrorIs(t, err, fleet.ErrUnknownCommand)
	assert.Zero(t, b.state.Index())
}
