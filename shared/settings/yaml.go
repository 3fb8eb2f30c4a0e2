package settings

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxDepth bounds nesting that costs no indentation, because the parser is recursive and a goroutine's stack overflow
	// cannot be recovered from. Nesting by indentation is bounded by the size of the file.
	maxDepth = 32
	// maxTokens and maxKeys bound the parser's time, which grows with the square of the elements of one list and of the
	// keys of one section: both bounds together keep the worst file to seconds.
	maxTokens = 300_000
	maxKeys   = 10_000
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
	var body *ast.MappingNode
	problems := guardPanic(func() []yamlProblem {
		tokens := lexer.Tokenize(text)
		if problems := checkTokens(tokens); problems != nil {
			return problems
		}
		if p := checkIndentation(text, tokens); p != nil {
			return []yamlProblem{*p}
		}
		file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
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

// checkTokens refuses what makes a configuration hard to read or costly to parse.
func checkTokens(tokens token.Tokens) []yamlProblem {
	var problems []yamlProblem
	refuse := func(tk *token.Token, text string) {
		problems = append(problems, yamlProblem{tk.Position.Line, tk.Position.Column, errors.New(text)})
	}
	if len(tokens) > maxTokens {
		refuse(tokens[maxTokens], "the file has too many values; expected a configuration of at most "+strconv.Itoa(maxTokens)+" words and marks")
		return problems
	}
	flow, entries, entryLine := 0, 0, 0
	var counter keyCounter
	for i, tk := range tokens {
		if len(problems) == maxProblems {
			break
		}
		switch tk.Type {
		case token.AnchorType:
			refuse(tk, "anchors are not supported; write the value where it is used")
		case token.AliasType:
			refuse(tk, "aliases are not supported; write the value where it is used, and put a text that begins with * in quotes")
		case token.MergeKeyType:
			refuse(tk, "merge keys are not supported; write the keys where they are used")
		case token.TagType:
			refuse(tk, "tags are not supported; put a text that begins with ! in quotes")
		case token.MappingKeyType:
			refuse(tk, `"? " keys are not supported; write "key: value"`)
		case token.DirectiveType:
			refuse(tk, "directives are not supported; remove the line")
		case token.SequenceStartType, token.MappingStartType:
			if flow++; flow > maxDepth {
				refuse(tk, fmt.Sprintf("nested deeper than %d levels", maxDepth))
				return problems
			}
		case token.SequenceEndType, token.MappingEndType:
			flow = max(flow-1, 0)
		case token.MappingValueType:
			if i > 0 && flow == 0 && counter.key(tokens[i-1].Position.Column) > maxKeys {
				refuse(tk, fmt.Sprintf("more than %d keys in one section", maxKeys))
				return problems
			}
		case token.SequenceEntryType:
			counter.close(tk.Position.Column)
			if entryLine != tk.Position.Line {
				entries, entryLine = 0, tk.Position.Line
			}
			if entries++; entries > maxDepth {
				refuse(tk, fmt.Sprintf("nested deeper than %d levels", maxDepth))
				return problems
			}
		}
	}
	return problems
}

// keyCounter counts the keys of each block mapping that is open, by the column of its keys.
type keyCounter struct{ columns, counts []int }

// close ends the mappings whose keys stand to the right of column.
func (c *keyCounter) close(column int) {
	for n := len(c.columns); n > 0 && c.columns[n-1] > column; n-- {
		c.columns, c.counts = c.columns[:n-1], c.counts[:n-1]
	}
}

// key counts a key and returns how many its mapping has.
func (c *keyCounter) key(column int) int {
	c.close(column)
	if n := len(c.columns); n == 0 || c.columns[n-1] < column {
		c.columns, c.counts = append(c.columns, column), append(c.counts, 0)
	}
	c.counts[len(c.counts)-1]++
	return c.counts[len(c.counts)-1]
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
		p := &yamlProblem{err: errors.New("a second document begins here; expected only one, so remove the --- line")}
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
