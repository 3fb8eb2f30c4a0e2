package service

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestRenderUnitChangesOneLineOnly(t *testing.T) {
	unit := "[Service]\n# ExecStart= is a comment here\nExecStart=/usr/bin/x run\nExecStartPost=/bin/true\nExecReload=/bin/kill -HUP $MAINPID\n"
	got, err := renderUnit(unit, []string{"/opt/my certs/x", "run", "--config", "/etc/100%/x.yaml"})
	require.NoError(t, err)
	assert.Equal(t, strings.Replace(unit, "ExecStart=/usr/bin/x run", `ExecStart="/opt/my certs/x" run --config /etc/100%%/x.yaml`, 1), got)
}

func TestRenderUnitRefusesUnitsWithoutOneCommand(t *testing.T) {
	for _, unit := range []string{"", "[Service]\nType=notify\n", "ExecStart=a\nExecStart=b\n"} {
		_, err := renderUnit(unit, []string{"/usr/bin/x"})
		assert.ErrorContains(t, err, "line ExecStart=", "%q", unit)
	}
}

func TestUnitWordRefusesWhatNeedsEscapes(t *testing.T) {
	for _, word := range []string{"", "/a\nExecStartPre=/evil", `/a"b`, "/a'b", `/a\b`, "/$HOME", "/{{Name}}", "/a;b", "/a\x00", "/\xff"} {
		_, err := renderUnit("ExecStart=x\n", []string{"/usr/bin/x", word})
		assert.Error(t, err, "%q", word)
	}
}

// Whatever a path holds, a unit gets no second command out of it, and nothing
// that systemd or the library would expand.
func TestRenderUnitCannotBeInjected(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.String().Draw(t, "path")
		got, err := renderUnit("[Service]\nExecStart=x\nRestart=always\n", []string{path})
		if err != nil {
			return
		}
		lines := strings.Split(got, "\n")
		require.Len(t, lines, 4)
		assert.Equal(t, []string{"[Service]", "Restart=always", ""}, []string{lines[0], lines[2], lines[3]})
		word := strings.TrimPrefix(lines[1], "ExecStart=")
		assert.NotContains(t, strings.ReplaceAll(word, "%%", ""), "%")
		assert.NotContains(t, word, "{{")
		assert.Equal(t, path, strings.ReplaceAll(strings.Trim(word, `"`), "%%", "%"))
	})
}
