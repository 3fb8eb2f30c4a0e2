package settings

import (
	"errors"
	"fmt"

	"github.com/goccy/go-yaml/token"
)

// The scanner and the parser take time in proportion to the text, about a second of a processor for a million tokens and a
// kilobyte of memory for two of them, but for a few forms in which they take the square of it. Those are bounded each by
// itself, so that the two bounds on the whole can be as high as an honest file needs: 10,000 certificates with files,
// check, reload, verify and fallback issuers are 6 MiB and 700,000 tokens.
const (
	maxFileSize = 12 << 20
	maxTokens   = 1_500_000
	// maxDepth bounds nesting, because the parser is recursive and a goroutine's stack overflow cannot be recovered from.
	maxDepth = 32
	// maxKeys bounds a block section, for each key of which the parser calls itself and copies all that follow; maxKeySteps
	// bounds these copies in all sections together: two of the longest, or many of a usual length.
	maxKeys     = 10_000
	maxKeySteps = maxKeys * maxKeys
	// maxFlowEmpty bounds the keys without a value in braces and brackets: for each the parser moves all tokens that follow.
	maxFlowEmpty = 1000
	// maxScanSteps bounds what the scanner does more than once with the same characters.
	maxScanSteps = 1 << 28
	// fewEmptyLines end a block text without being counted.
	fewEmptyLines = 16
)

// checkText refuses texts on which the scanner takes the square of their size: before each "<" it counts those that follow,
// at a tab in quotes it reads the rest of the line, and it takes the empty lines off the end of a block text one by one,
// copying the text for each.
func checkText(text string) *yamlProblem {
	steps, line, lineBegin, tabs, angles, empty := 0, 1, 0, 0, 0, 0
	refuse := func(at int, what string) *yamlProblem {
		return &yamlProblem{line, max(len([]rune(text[lineBegin:at])), 1), errors.New(what)}
	}
	for i := range len(text) {
		c := text[i]
		if c == '<' {
			angles++
			if steps += angles; steps > maxScanSteps {
				return refuse(i, "too many < in a row; expected an ordinary text")
			}
			continue
		}
		angles = 0
		switch c {
		case '\t':
			tabs++
		case '\r':
			if i+1 < len(text) && text[i+1] == '\n' {
				continue // one line's end
			}
			fallthrough
		case '\n':
			if empty++; empty > fewEmptyLines {
				if steps += i; steps > maxScanSteps {
					return refuse(i, "too many empty lines in a row for a file of this size; remove some")
				}
			}
			if steps += tabs * (i - lineBegin); steps > maxScanSteps {
				return refuse(i, "too many tabs in a long line; use spaces, or break the line")
			}
			tabs = 0
			if c == '\n' {
				line, lineBegin = line+1, i+1
			}
		case ' ':
		default:
			empty = 0
		}
	}
	if steps += tabs * (len(text) - lineBegin); steps > maxScanSteps {
		return refuse(len(text), "too many tabs in a long line; use spaces, or break the line")
	}
	return nil
}

// checkTokens refuses what makes a configuration hard to read or costly to parse.
func checkTokens(tokens token.Tokens) []yamlProblem {
	if len(tokens) > maxTokens {
		at := tokens[maxTokens].Position
		return []yamlProblem{{at.Line, at.Column, fmt.Errorf("the file has too many values; expected a configuration of at most %d words and marks", maxTokens)}}
	}
	var c tokenChecker
	for i, tk := range tokens {
		if c.check(tokens, i, tk); c.ended || len(c.problems) == maxProblems {
			break
		}
	}
	return c.problems
}

// tokenChecker is the state of checkTokens.
type tokenChecker struct {
	problems []yamlProblem
	ended    bool // nothing after this is worth looking at

	documents, documentEnds int
	block                   []blockLevel
	flow                    []flowLevel
	keySteps, flowEmpty     int
}

// blockLevel is a section or list that is open, by the column of its keys or dashes.
type blockLevel struct{ column, keys int }

// flowLevel is an open bracket or brace, and what stands there since the last comma.
type flowLevel struct {
	braces, colon bool
	keys          int
}

func (c *tokenChecker) refuse(tk *token.Token, text string) {
	c.problems = append(c.problems, yamlProblem{tk.Position.Line, tk.Position.Column, errors.New(text)})
}

// end refuses what stands at a token, and all that follows.
func (c *tokenChecker) end(tk *token.Token, text string) {
	c.refuse(tk, text)
	c.ended = true
}

func (c *tokenChecker) check(tokens token.Tokens, i int, tk *token.Token) {
	switch tk.Type {
	case token.AnchorType:
		c.refuse(tk, "anchors are not supported; write the value where it is used")
	case token.AliasType:
		c.refuse(tk, "aliases are not supported; write the value where it is used, and put a text that begins with * in quotes")
	case token.MergeKeyType:
		c.refuse(tk, "merge keys are not supported; write the keys where they are used")
	case token.TagType:
		c.refuse(tk, "tags are not supported; put a text that begins with ! in quotes")
	case token.MappingKeyType:
		c.refuse(tk, `"? " keys are not supported; write "key: value"`)
	case token.DirectiveType:
		c.refuse(tk, "directives are not supported; remove the line")
	case token.DocumentHeaderType:
		if c.documents++; c.documents > 1 {
			c.end(tk, secondDocument)
		}
	case token.DocumentEndType:
		if c.documentEnds++; c.documentEnds > 1 {
			c.end(tk, "the document ends a second time here; expected only one, so remove the ... line")
		}
	case token.SequenceStartType, token.MappingStartType:
		if c.flow = append(c.flow, flowLevel{braces: tk.Type == token.MappingStartType}); len(c.flow) > maxDepth {
			c.end(tk, tooDeep)
		}
	case token.SequenceEndType, token.MappingEndType, token.CollectEntryType:
		c.flowDelimiter(tokens, i, tk)
	case token.MappingValueType:
		if i > 0 {
			c.key(tokens, i, tk)
		}
	case token.SequenceEntryType:
		if len(c.flow) == 0 {
			c.open(tk, tk.Position.Column)
		}
	}
}

const (
	secondDocument = "a second document begins here; expected only one, so remove the --- line"
	tooManyEmpty   = "more than 1000 keys without a value in braces and brackets; remove them"
)

var (
	tooDeep     = fmt.Sprintf("nested deeper than %d levels", maxDepth)
	tooManyKeys = fmt.Sprintf("more than %d keys in one section", maxKeys)
)

// open makes the block level of a key or dash at a column the innermost, and returns it.
func (c *tokenChecker) open(tk *token.Token, column int) *blockLevel {
	n := len(c.block)
	for n > 0 && c.block[n-1].column > column {
		n--
	}
	c.block = c.block[:n]
	if n == 0 || c.block[n-1].column < column {
		c.block = append(c.block, blockLevel{column: column})
	}
	if len(c.block) > maxDepth {
		c.end(tk, tooDeep)
	}
	return &c.block[len(c.block)-1]
}

// key counts a key by its colon.
func (c *tokenChecker) key(tokens token.Tokens, i int, colon *token.Token) {
	column := tokens[i-1].Position.Column
	if n := len(c.flow); n > 0 {
		level := &c.flow[n-1]
		level.colon = true
		// Keys without commas between them are a block section within brackets to the parser.
		if level.keys++; level.keys > maxKeys {
			c.end(colon, tooManyKeys)
		}
		c.keySteps += level.keys
		if next := nextToken(tokens, i); next != nil && next.Position.Column <= column && next.Position.Line != colon.Position.Line {
			c.flowWithoutValue(colon)
		}
	} else {
		level := c.open(colon, column)
		if level.keys++; level.keys > maxKeys {
			c.end(colon, tooManyKeys)
		}
		c.keySteps += level.keys
	}
	if c.keySteps > maxKeySteps && !c.ended {
		c.end(colon, fmt.Sprintf("too many sections of thousands of keys; expected at most two of %d, or more that are shorter", maxKeys))
	}
}

// flowDelimiter looks at a comma or closing bracket.
func (c *tokenChecker) flowDelimiter(tokens token.Tokens, i int, tk *token.Token) {
	n := len(c.flow)
	if n == 0 {
		return
	}
	level := &c.flow[n-1]
	if level.braces && i > 0 {
		switch before := tokens[i-1].Type; {
		case before == token.MappingValueType:
			c.flowWithoutValue(tk)
		case !level.colon && before != token.MappingStartType && before != token.CollectEntryType:
			c.flowWithoutValue(tk)
		}
	}
	if tk.Type == token.CollectEntryType {
		level.colon, level.keys = false, 0
	} else {
		c.flow = c.flow[:n-1]
	}
}

func (c *tokenChecker) flowWithoutValue(tk *token.Token) {
	if c.flowEmpty++; c.flowEmpty > maxFlowEmpty && !c.ended {
		c.end(tk, tooManyEmpty)
	}
}

// nextToken is the first token after i that is no comment.
func nextToken(tokens token.Tokens, i int) *token.Token {
	for _, tk := range tokens[i+1:] {
		if tk.Type != token.CommentType {
			return tk
		}
	}
	return nil
}
