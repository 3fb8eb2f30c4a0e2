package settings_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/shared/settings"
)

func TestYAML(t *testing.T) {
	for document, want := range map[string]string{
		`{"names":["a.example","${hostname}"],"lifetime":"30d","count":7,"yes":true,"none":null}`: "names: [a.example, \"${hostname}\"]\nlifetime: 30d\ncount: 7\n\"yes\": true\nnone: null\n",
		`{"deployments":[{"id":"1","files":{"key_mode":"0640"},"check":[]},{}]}`:                  "deployments:\n  - id: \"1\"\n    files:\n      key_mode: \"0640\"\n    check: []\n  - {}\n",
		`{}`:    "{}\n",
		`[[1]]`: "- [1]\n",
		`"x y"`: "\"x y\"\n",
	} {
		got, err := settings.YAML(json.RawMessage(document))
		require.NoError(t, err)
		assert.Equal(t, want, string(got), document)
	}
	for _, document := range []string{``, `{`, `{"a":1} 2`, `nope`, strings.Repeat("[", 40) + strings.Repeat("]", 40)} {
		_, err := settings.YAML(json.RawMessage(document))
		assert.Error(t, err, document)
	}
}

// What Given gives away comes back through YAML, whatever its texts are.
func TestYAMLIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		drawn := drawProperty(t)
		text, err := settings.Effective(&drawn)
		require.NoError(t, err)
		var first property
		report, err := settings.Load(&first, settings.Options{Text: text})
		require.NoError(t, err)
		given, err := report.Given(&first)
		require.NoError(t, err)

		written, err := settings.YAML(given)
		require.NoError(t, err)
		var again property
		report, err = settings.Load(&again, settings.Options{Text: written})
		require.NoError(t, err, string(written))
		require.Equal(t, first, again)
		twice, err := report.Given(&again)
		require.NoError(t, err)
		require.Equal(t, string(given), string(twice))
	})
}
