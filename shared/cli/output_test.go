package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/shared/printable"
)

type sample struct {
	ID    string            `json:"id"`
	Count int               `json:"count"`
	At    time.Time         `json:"at,omitzero"`
	Marks map[string]string `json:"marks"`
	Names []string          `json:"names"`
}

func write(t *testing.T, output Output, document any) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, output.Write(&out, document, func(out io.Writer) error {
		_, err := io.WriteString(out, "for people\n")
		return err
	}))
	return out.String()
}

func TestOneDocumentInEachFormat(t *testing.T) {
	one := sample{ID: "a\x1b<", Count: -1, At: time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC), Marks: map[string]string{"no": "1e3"}, Names: []string{"yes", "=*.x"}}
	for output, want := range map[Output]string{
		OutputTable: "for people\n",
		OutputJSON:  "{\n  \"id\": \"a\\u001b<\",\n  \"count\": -1,\n  \"at\": \"2031-01-02T03:04:05Z\",\n  \"marks\": {\n    \"no\": \"1e3\"\n  },\n  \"names\": [\n    \"yes\",\n    \"=*.x\"\n  ]\n}\n",
		OutputYAML:  "id: \"a\\u001b<\"\ncount: -1\nat: \"2031-01-02T03:04:05Z\"\nmarks:\n  \"no\": \"1e3\"\nnames: [\"yes\", \"=*.x\"]\n",
		OutputCSV:   "id,count,at,marks,names\r\na <,-1,2031-01-02T03:04:05Z,no=1e3,yes;'=*.x\r\n",
	} {
		assert.Equal(t, want, write(t, output, one), output)
	}
}

// A list that is written page by page is the document that it is as a whole.
func TestListsInPages(t *testing.T) {
	type whole struct {
		Items []sample `json:"items"`
		More  bool     `json:"more"`
	}
	for _, count := range []int{0, 1, 5} {
		all := whole{Items: []sample{}, More: count == 5}
		for i := range count {
			all.Items = append(all.Items, sample{ID: fmt.Sprintf("%0*d", 9-i, i), Names: []string{"<\u202e"}})
		}
		for _, output := range []Output{OutputJSON, OutputYAML, OutputCSV, OutputTable} {
			var out bytes.Buffer
			list := List[sample]{Out: &out, Output: output, Header: []string{"ID", "COUNT"}, Cells: func(s *sample) []string { return []string{s.ID, fmt.Sprint(s.Count)} }}
			for i := 0; i < count; i += 2 {
				require.NoError(t, list.Page(all.Items[i:min(i+2, count)]))
			}
			require.NoError(t, list.Page(nil))
			require.NoError(t, list.End(all.More))
			want := write(t, output, all)
			if output == OutputTable {
				want = map[int]string{
					0: "none\n", 1: "ID         COUNT\n000000000  0\n",
					5: "ID         COUNT\n000000000  0\n00000001   0\n0000002    0\n000003     0\n00004      0\n",
				}[count]
			}
			assert.Equal(t, want, out.String(), "%s of %d", output, count)
		}
	}
}

func TestListsWithoutHeaders(t *testing.T) {
	for output, want := range map[Output]string{OutputTable: "x\n", OutputCSV: "x,0,,,\r\n"} {
		var out bytes.Buffer
		list := List[sample]{Out: &out, Output: output, NoHeaders: true, Header: []string{"ID"}, Cells: func(s *sample) []string { return []string{s.ID} }}
		require.NoError(t, list.Page([]sample{{ID: "x"}}))
		require.NoError(t, list.End(false))
		assert.Equal(t, want, out.String())
		out.Reset()
		empty := List[sample]{Out: &out, Output: output, NoHeaders: true}
		require.NoError(t, empty.End(false))
		assert.Empty(t, out.String())
	}
}

// Whatever is in a document, YAML says what JSON says, and neither paints.
func TestYAMLIsTheJSONDocument(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "~", "null", "-", "- a", "a: b", "#", "1e3", "0x1", "1_0", "2031-01-02", "<<", "=", "\U000e0001", "\u2028", "a\nb\n", " a ", "'", "\"", "\\", "!x", "&a", "*a", "%", "@", "`", "12:30", "on"}))
		value := map[string]any{
			"text": texts.Draw(t, "text"), "list": rapid.SliceOf(texts).Draw(t, "list"), "map": rapid.MapOf(texts, texts).Draw(t, "map"),
			"deep": []any{map[string]any{"a": []any{[]any{}, map[string]any{}, nil, true}, "b": texts.Draw(t, "deep")}},
			"n":    rapid.Int32().Draw(t, "n"),
		}
		text := new(bytes.Buffer)
		require.NoError(t, OutputYAML.Write(text, value, nil))
		var got any
		require.NoError(t, yaml.Unmarshal(text.Bytes(), &got), text.String())
		again, err := json.Marshal(got)
		require.NoError(t, err)
		want, err := json.Marshal(value)
		require.NoError(t, err)
		require.JSONEq(t, string(want), string(again), text.String())
		for _, output := range []Output{OutputYAML, OutputJSON, OutputCSV} {
			text.Reset()
			require.NoError(t, output.Write(text, value, nil))
			for _, r := range strings.NewReplacer("\n", "", "\r\n", "").Replace(text.String()) {
				require.False(t, r != '\r' && printable.Paints(r), "%q", text.String())
			}
		}
	})
}
