package settings

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
)

// yamlProblem is a problem with the text of a document.
type yamlProblem struct {
	line, column int
	err          error
}

// parseYAML returns the top mapping of a document, nil if it is empty. It checks characters and tokens first, because
// they decide whether the text may be given to the parser at all.
func parseYAML(data []byte) (*ast.MappingNode, []yamlProblem) {
	text := strings.TrimPrefix(string(data), "\ufeff")
	if p := checkCharacters(text); p != nil {
		return nil, []yamlProblem{*p}
	}
	if p := checkText(text); p != nil {
		return nil, []yamlProblem{*p}
	}
	var body *ast.MappingNode
	problems := guardPanic(func() []yamlProblem {
		tokens := lexer.Tokenize(text)
		if problems := checkTokens(tokens); problems != nil {
			return problems
		}
		if p := checkIndentation(text, tokens); p != nil {
			return []yamlProblem{*p}
		}
		file, err := parseTokens(tokens)
		if err != nil {
			return []yamlProblem{syntaxProblem(err)}
		}
		var p *yamlProblem
		if body, p = onlyDocument(file); p != nil {
			return []yamlProblem{*p}
		}
		return nil
	})
	return body, problems
}

// guardPanic turns a panic of the parser into a problem: its input comes from outside.
func guardPanic(parse func() []yamlProblem) (problems []yamlProblem) {
	defer func() {
		if recover() != nil {
			problems = []yamlProblem{{err: errNotYAML}}
		}
	}()
	return parse()
}

// checkCharacters refuses what YAML 1.2.2 section 5.1 excludes, and text that is not UTF-8.
func checkCharacters(text string) *yamlProblem {
	line, column := 1, 1
	for i, r := range text {
		switch {
		case r == '\n':
			line, column = line+1, 0
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd"):
			return &yamlProblem{line, column, fmt.Errorf("byte 0x%02x is not UTF-8; save the file in UTF-8", text[i])}
		case r < ' ' && r != '\t' && r != '\r', r == 0x7f, r >= 0x80 && r < 0xa0 && r != 0x85, r == 0xfeff, r == 0xfffe, r == 0xffff:
			return &yamlProblem{line, column, fmt.Errorf("character %U is not allowed; write it as an escape in double quotes", r)}
		}
		column++
	}
	return nil
}

// checkIndentation refuses tabs before the first token of a line (YAML 1.2.2 section 6.1), some of which the parser would
// take for spaces of a width of its own. Tabs inside texts that span lines are none of its business.
func checkIndentation(text string, tokens token.Tokens) *yamlProblem {
	if !strings.Contains(text, "\t") {
		return nil
	}
	lines := strings.Split(text, "\n")
	last := 0
	for i, tk := range tokens {
		inBlockText := i > 0 && (tokens[i-1].Type == token.LiteralType || tokens[i-1].Type == token.FoldedType)
		line := tk.Position.Line
		if line == last || line < 1 || line > len(lines) || inBlockText {
			continue
		}
		last = line
		rest := strings.TrimLeft(lines[line-1], " \t")
		indent := lines[line-1][:len(lines[line-1])-len(rest)]
		if tab := strings.IndexByte(indent, '\t'); tab >= 0 && rest != "" {
			return &yamlProblem{line, tab + 1, errors.New("a tab is used for indentation; expected spaces")}
		}
	}
	return nil
}

// syntaxProblem takes the place and the words from a parser's error.
func syntaxProblem(err error) yamlProblem {
	var syntax interface {
		error
		GetToken() *token.Token
		GetMessage() string
	}
	if !errors.As(err, &syntax) || syntax.GetToken() == nil || syntax.GetToken().Position == nil {
		return yamlProblem{err: errNotYAML}
	}
	position := syntax.GetToken().Position
	return yamlProblem{position.Line, max(position.Column, 1), fmt.Errorf("the text is not valid YAML: %s", syntax.GetMessage())}
}

var errNotYAML = errors.New(`the text is not valid YAML; expected keys with values, such as "key: value"`)

// onlyDocument returns the mapping of the only document in the file.
func onlyDocument(file *ast.File) (*ast.MappingNode, *yamlProblem) {
	if len(file.Docs) > 1 {
		second := file.Docs[1]
		p := &yamlProblem{err: errors.New(secondDocument)}
		if tk := second.Start; tk != nil {
			p.line, p.column = tk.Position.Line, tk.Position.Column
		} else if second.Body != nil {
			p.line, p.column = place(second.Body)
		}
		return nil, p
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return nil, nil
	}
	switch body := file.Docs[0].Body.(type) {
	case *ast.MappingNode:
		return body, nil
	case *ast.NullNode, *ast.CommentGroupNode:
		return nil, nil
	default:
		line, column := place(body)
		return nil, &yamlProblem{line, column, fmt.Errorf(`cannot use %s; expected keys with values, such as "key: value"`, show(body))}
	}
}
