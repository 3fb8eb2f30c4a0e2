package printable_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/printable"
)

func TestNothingPaints(t *testing.T) {
	assert.Equal(t, "a [31m b  gpj", printable.Text("a\x1b[31m\tb\u202e\u009bgpj"))
	assert.Equal(t, "a\n\tb c\n d", printable.Lines("a\n\tb\tc\n\x07d"))
	assert.Equal(t, "{\n\"a\": \"\\u202e\\udb40\\udc01\"\n}", printable.JSON("{\n\"a\": \"\u202e\U000e0001\"\n}"))
	assert.Equal(t, "a: \"\\u202e\\U000e0001\"\n", printable.YAML("a: \"\u202e\U000e0001\"\n"))
	assert.Equal(t, "ü", printable.JSON("ü"))
}

// Whatever a text holds, it moves no cursor, and JSON means the same as before.
func FuzzText(f *testing.F) {
	f.Add("\x1b[2J\x9b\u202e")
	f.Add("a\r\nb\t\U000e0001")
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ToValidUTF8(text, "")
		document, err := json.Marshal(text)
		require.NoError(t, err)
		safe := printable.JSON(string(document))
		for _, r := range printable.Text(text) + safe {
			require.False(t, printable.Paints(r), "%q", r)
		}
		var back string
		require.NoError(t, json.Unmarshal([]byte(safe), &back))
		require.Equal(t, text, back)
		require.Equal(t, strings.Count(text, "\n"), strings.Count(printable.Lines(text), "\n"))
	})
}
