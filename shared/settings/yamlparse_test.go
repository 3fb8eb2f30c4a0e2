package settings

import (
	"fmt"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

// outline writes what the decoder sees of a document: shapes, texts and places.
func outline(out *strings.Builder, node ast.Node) {
	if node == nil {
		out.WriteString("nothing")
		return
	}
	line, column := place(node)
	fmt.Fprintf(out, "%d:%d ", line, column)
	switch node := node.(type) {
	case *ast.MappingNode:
		out.WriteString("{")
		for _, pair := range node.Values {
			line, column := place(pair.Key)
			fmt.Fprintf(out, "%d:%d %s %q: ", line, column, pair.Key.GetToken().Type, pair.Key.GetToken().Value)
			outline(out, pair.Value)
			out.WriteString(", ")
		}
		out.WriteString("}")
	case *ast.SequenceNode:
		out.WriteString("[")
		for _, element := range node.Values {
			outline(out, element)
			out.WriteString(", ")
		}
		out.WriteString("]")
	default:
		text, style := scalarText(node)
		fmt.Fprintf(out, "%T %q %v", node, text, style)
	}
}

func outlineFile(file *ast.File, err error) string {
	if err != nil {
		p := syntaxProblem(err)
		return fmt.Sprintf("%d:%d %v", p.line, p.column, p.err)
	}
	var out strings.Builder
	for _, doc := range file.Docs {
		outline(&out, doc.Body)
	}
	return out.String()
}

// What is done to the tokens makes the parser quicker, and changes nothing of what it finds.
func TestParserFindsTheSame(t *testing.T) {
	words := []string{
		"a:", "b: 1", "c: x", `"d": y`, "7: z", "true: x", "1.5:", "'e':", "-", "- -", "- a:", "- b: c", "- x", "- {a: b, c}", "[a, b]", "{a: , b: [1, ~]}",
		"[", "]", "{", "}", "a: {b: c}", "a: [x, y]", "# note", "a: # note", "- # note", "a: |", "- >", "text", "'quoted'", `"more"`, "a: b: c", "~:", "", ",",
	}
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			return strings.Repeat(" ", rapid.IntRange(0, 6).Draw(t, "indent")) + rapid.SampledFrom(words).Draw(t, "words")
		}), 1, 12).Draw(t, "lines")
		text := strings.Join(lines, "\n") + "\n"
		read := func(parse func() (*ast.File, error)) (found string) {
			defer func() {
				if recover() != nil {
					found = "panic"
				}
			}()
			return outlineFile(parse())
		}
		if checkTokens(lexer.Tokenize(text)) != nil {
			return
		}
		plain := read(func() (*ast.File, error) { return parser.Parse(lexer.Tokenize(text), 0, parser.AllowDuplicateMapKey()) })
		assert.Equal(t, plain, read(func() (*ast.File, error) { return parseTokens(lexer.Tokenize(text)) }), text)
	})
}

// The parser moves all tokens that follow when it finds a block's key or dash without a value. It finds none.
func TestEmptyValuesAreWritten(t *testing.T) {
	for text, want := range map[string]int{
		"a:\n" + strings.Repeat("-\n", 1000):              999, // after the last one nothing has to be moved
		strings.Repeat("a:\n", 1000):                      999,
		"a:\n" + strings.Repeat("- b:\n", 1000):           999,
		"a:\n" + strings.Repeat("- b:\n  c: # d\n", 1000): 1999,
		"a:\n- b\nc: [d]\n":                               0,
	} {
		tokens := lexer.Tokenize(text)
		nulls := 0
		for _, tk := range writeEmptyValues(tokens) {
			if tk.Type == token.ImplicitNullType {
				nulls++
			}
		}
		assert.Equal(t, want, nulls, text[:min(len(text), 20)])
	}
}
