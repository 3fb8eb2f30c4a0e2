package assignmentfile

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/wire"
)

func TestSplit(t *testing.T) {
	for text, want := range map[string][]textDocument{
		"":                            nil,
		"a: 1":                        {{"a: 1", 0}},
		"a: 1\n---\nb: 2\n":           {{"a: 1\n", 0}, {"   \nb: 2\n", 1}},
		"\ufeff---\na: 1\n...\n# x\n": {{"   \na: 1\n", 0}},
		"--- {a: 1}\n---\n":           {{"    {a: 1}\n", 0}},
		"a: |\n  ---\n  b\n---x: 1":   {{"a: |\n  ---\n  b\n---x: 1", 0}},
		"a: 1\r\n---\r\nb: 2\r\n":     {{"a: 1\r\n", 0}, {"   \r\nb: 2\r\n", 1}},
	} {
		assert.Equal(t, want, split(text), "%q", text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("# x\n---\nname: www\nselector: role=web\ncertificate:\n  names: [\"${hostname}\"]\n  lifetime: 30d\n---\nname: db\nselector: role in (db)\ncertificate: {names: [a.example]}\n")
	f.Add("---\n...\n--- {}\n")
	f.Add("name: x\nselector: env in (a)\nrevision: 3\ncertificate: {names: [a.example]}\n")
	f.Fuzz(func(t *testing.T, text string) {
		given, err := Parse("f.yaml", text)
		if err != nil {
			assert.NotEmpty(t, err.Error())
			return
		}
		for _, g := range given {
			require.True(t, wire.ValidName(g.Name))
			// What is read is written, and read as the same.
			written, err := Write(&resource.Assignment{Name: g.Name, Selector: g.Selector, Certificate: g.Certificate}, false)
			require.NoError(t, err)
			again, err := Parse("again.yaml", string(written))
			require.NoError(t, err, string(written))
			require.Len(t, again, 1)
			require.Equal(t, g.Name, again[0].Name)
			require.Equal(t, g.Selector, again[0].Selector)
			require.Equal(t, string(g.Certificate), string(again[0].Certificate))
		}
	})
}
