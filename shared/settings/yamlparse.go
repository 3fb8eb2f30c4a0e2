package settings

import (
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// parseTokens gives tokens to the parser in a form that costs it no more than their number.
func parseTokens(tokens token.Tokens) (*ast.File, error) {
	tokens = writeEmptyValues(tokens)
	defer hideKeys(tokens)()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// hideKeys takes the words from keys until the function that it returns is called. The parser gives each node its whole
// path, which nobody reads, and which costs the product of the lengths of keys and the number of nodes below them.
func hideKeys(tokens token.Tokens) (restore func()) {
	type key struct {
		tk    *token.Token
		typ   token.Type
		value string
	}
	var keys []key
	for i := 1; i < len(tokens); i++ {
		if tokens[i].Type != token.MappingValueType {
			continue
		}
		tk := tokens[i-1]
		shown := tk.Type
		switch tk.Type {
		case token.StringType, token.SingleQuoteType, token.DoubleQuoteType:
		case token.IntegerType, token.BinaryIntegerType, token.OctetIntegerType, token.HexIntegerType, token.FloatType, token.BoolType:
			shown = token.StringType
		default:
			continue
		}
		keys = append(keys, key{tk, tk.Type, tk.Value})
		tk.Type, tk.Value = shown, ""
	}
	return func() {
		for _, k := range keys {
			k.tk.Type, k.tk.Value = k.typ, k.value
		}
	}
}

// writeEmptyValues puts a null where a key or a dash of a block has nothing after it, as the parser would, which moves all
// tokens that follow for each.
func writeEmptyValues(tokens token.Tokens) token.Tokens {
	var out token.Tokens // nil as long as nothing was put in
	flow := 0
	for i, tk := range tokens {
		if out != nil {
			out = append(out, tk)
		}
		switch tk.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow = max(flow-1, 0)
		}
		if flow > 0 || !withoutValue(tokens, i) {
			continue
		}
		if out == nil {
			out = append(make(token.Tokens, 0, len(tokens)+len(tokens)/4), tokens[:i+1]...)
		}
		at := *tk.Position
		at.Column++
		null := token.New("null", " null", &at)
		null.Type = token.ImplicitNullType
		out = append(out, null)
	}
	if out == nil {
		return tokens
	}
	return out
}

// withoutValue says whether the token is a colon or dash of a block after which the parser finds no value. At the end of
// the document it finds that out without moving anything.
func withoutValue(tokens token.Tokens, i int) bool {
	tk := tokens[i]
	if tk.Type != token.SequenceEntryType && (tk.Type != token.MappingValueType || i == 0) {
		return false
	}
	next := nextToken(tokens, i)
	if next == nil || next.Type == token.DocumentHeaderType || next.Type == token.DocumentEndType {
		return false
	}
	if tk.Type == token.SequenceEntryType {
		return next.Position.Column < tk.Position.Column ||
			next.Position.Column == tk.Position.Column && next.Type == token.SequenceEntryType
	}
	key := tokens[i-1].Position.Column
	return next.Position.Column < key ||
		next.Position.Column == key && next.Next != nil && next.Next.Type == token.MappingValueType
}
