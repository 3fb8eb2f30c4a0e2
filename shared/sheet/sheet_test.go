package sheet_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/printable"
	"github.com/certctl/certctl/shared/sheet"
)

type level string

type part struct {
	A int  `json:"a"`
	B bool `json:"b,omitempty"`
}

type base struct {
	ID    string `json:"id"`
	Title string `json:"title"`
}

type item struct {
	base
	Title  string            `json:"title"` // goes before that of base
	Level  level             `json:"level"`
	Skew   int64             `json:"skew"`
	Share  float64           `json:"share"`
	At     time.Time         `json:"at,omitzero"`
	Took   time.Duration     `json:"took"`
	Labels map[string]string `json:"labels"`
	Names  []string          `json:"names"`
	Part   part              `json:"part"`
	Maybe  *part             `json:"maybe,omitempty"`
	Many   []part            `json:"many"`
	Detail json.RawMessage   `json:"detail,omitempty"`
	Any    any               `json:"any,omitempty"`
	Secret string            `json:"-"`
	hidden string
}

type listed struct {
	Items []item `json:"items"`
	More  bool   `json:"more"`
}

type rower struct{ Others []part }

func (r rower) Rows() any { return r.Others }

// written is what a program for CSV reads of a document.
func written(t *testing.T, document any) [][]string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, sheet.Write(&out, document, true))
	assert.Equal(t, strings.Count(out.String(), "\n"), strings.Count(out.String(), "\r\n"), "RFC 4180 ends lines with CRLF")
	rows, err := csv.NewReader(&out).ReadAll()
	require.NoError(t, err)
	return rows
}

func TestFieldsHaveColumns(t *testing.T) {
	at := time.Date(2031, 2, 3, 4, 5, 6, 700, time.FixedZone("", 3600))
	full := item{
		base: base{ID: "a,\"b\"", Title: "no"}, Title: "yes", Level: "=high", Skew: -5, Share: -0.5, At: at, Took: time.Second,
		Labels: map[string]string{"b": "2", "a": "1"}, Names: []string{"x", "=*.y"}, Part: part{A: 1, B: true}, Maybe: &part{A: 2},
		Many: []part{{A: 3}}, Detail: json.RawMessage(`{"a": "\u202e<"}`), Any: "@x", Secret: "no", hidden: "no",
	}
	header := []string{"id", "title", "level", "skew", "share", "at", "took", "labels", "names", "part.a", "part.b", "maybe.a", "maybe.b", "many", "detail", "any"}
	assert.Equal(t, [][]string{
		header,
		{`a,"b"`, "yes", "'=high", "-5", "-0.5", "2031-02-03T03:05:06Z", "1000000000", "a=1;b=2", "x;'=*.y", "1", "true", "2", "", `[{"a":3}]`, `{"a":"\u202e<"}`, "'@x"},
		{"", "", "", "0", "0", "", "0", "", "", "0", "", "", "", "", "", ""},
	}, written(t, listed{Items: []item{full, {}}}))
	assert.Equal(t, [][]string{header}, written(t, &listed{}), "a list without items has its header")
	assert.Equal(t, [][]string{{"a", "b"}, {"1", ""}}, written(t, &part{A: 1}))
	assert.Equal(t, [][]string{{"a", "b"}, {"1", ""}, {"2", "true"}}, written(t, []part{{A: 1}, {A: 2, B: true}}))
	assert.Equal(t, [][]string{{"a", "b"}, {"1", ""}}, written(t, rower{[]part{{A: 1}}}))
	assert.Equal(t, [][]string{{"value"}, {"x"}, {"'=y"}}, written(t, []string{"x", "=y"}))
}

func TestNoHeader(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, sheet.Write(&out, part{A: 1}, false))
	assert.Equal(t, "1,\r\n", out.String())
	require.ErrorContains(t, sheet.NewWriter(&out, reflect.TypeFor[part]()).Row(item{}), "a row of sheet_test.item in a sheet of sheet_test.part")
}

func TestCell(t *testing.T) {
	for text, want := range map[string]string{
		"": "", " ": " ", "a=b": "a=b", "=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@SUM(A1)": "'@SUM(A1)", "\t=1": "' =1", "\r@x": "' @x",
		"\x1b[31m=1": " [31m=1", "＝1": "'＝1", "  =1": "'  =1", "a\r\nb": "a  b", "\u00a0=1": "'\u00a0=1", "'=1": "'=1", "\u202e=1": "' =1",
	} {
		assert.Equal(t, want, sheet.Cell(text), "%q", text)
	}
}

// Whatever hosts report, no cell is taken for a formula, and each line has its cells.
func FuzzCell(f *testing.F) {
	f.Add("=cmd|' /C calc'!A0", "\t@x")
	f.Add("a;=b", "\"\r\n=c")
	f.Add("\ufeff=1", "\x00=1")
	f.Fuzz(func(t *testing.T, text, other string) {
		document := []item{{Title: text, Names: []string{text, other}, Labels: map[string]string{other: text}, Any: other}}
		var out bytes.Buffer
		require.NoError(t, sheet.Write(&out, document, true))
		rows, err := csv.NewReader(&out).ReadAll()
		require.NoError(t, err)
		require.Len(t, rows, 2)
		for i, cell := range rows[1] {
			for _, r := range cell {
				require.False(t, printable.Paints(r), "%q", cell)
			}
			switch rows[0][i] {
			case "skew", "share": // numbers, whose sign is no formula
				continue
			}
			if first := strings.TrimSpace(cell); first != "" {
				require.NotContains(t, "=+-@\t\r", first[:1], "%q", cell)
			}
		}
	})
}
