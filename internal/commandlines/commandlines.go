// Package commandlines holds what documents, help and messages tell people to type
// against the commands that the programs have.
package commandlines

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A Line is a command line that somebody is told to type.
type Line struct {
	Where string // file:line
	Words []string
	// Whole says that it stands there as it is typed, with all its arguments; else it is
	// named in a sentence, where what stands for something may be left out.
	Whole bool
}

func (l Line) String() string { return l.Where + ": " + strings.Join(l.Words, " ") }

// program is the word that a command line begins with.
var program = regexp.MustCompile(`^certctl(?:-agent|-coordinator)?(?:\.exe)?$`)

// signed begins what signatures of trust are over; it is no command line.
const signed = "certctl trust generation v1"

// Program is the name of what the line runs.
func (l Line) Program() string { return strings.TrimSuffix(l.Words[0], ".exe") }

// Collect finds the command lines of the tree at root: in blocks and spans of code of
// its documents, in examples of help, and in quotes of all texts of the programs.
func Collect(root string) ([]Line, error) {
	var lines []Line
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(name, "."):
			return filepath.SkipDir
		case entry.IsDir() || name == "CHANGELOG.md": // which tells of the past
			return nil
		}
		file, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		file = filepath.ToSlash(file)
		switch {
		case strings.HasSuffix(name, ".md"):
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			lines = append(lines, inDocument(file, string(text))...)
		case strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") && !strings.HasPrefix(file, "internal/"):
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			found, err := inSource(file, text)
			if err != nil {
				return err
			}
			lines = append(lines, found...)
		}
		return nil
	})
	return lines, err
}

var (
	fenceMark = regexp.MustCompile("^ *(?:>)? *```")
	codeSpan  = regexp.MustCompile("`([^`\n]+)`")
	quoted    = regexp.MustCompile(`"(certctl(?:-agent|-coordinator)?(?: [^"\n]+)?)"`)
)

// inDocument finds the lines of a Markdown page. A line of a block that ends with a
// backslash goes on in the next.
func inDocument(file, text string) (lines []Line) {
	fenced, typed, begun := false, "", 0
	for number, line := range strings.Split(text, "\n") {
		where := func(at int) string { return fmt.Sprintf("%s:%d", file, at+1) }
		if fenceMark.MatchString(line) {
			fenced = !fenced
			continue
		}
		if !fenced && !strings.HasPrefix(line, "    ") {
			for _, span := range codeSpan.FindAllStringSubmatch(line, -1) {
				lines = append(lines, commands(where(number), span[1], false)...)
			}
			for _, quote := range quoted.FindAllStringSubmatch(line, -1) {
				lines = append(lines, commands(where(number), quote[1], false)...)
			}
			continue
		}
		if typed == "" {
			begun = number
		}
		typed += strings.TrimPrefix(strings.TrimSpace(line), "$ ")
		if rest, goesOn := strings.CutSuffix(typed, `\`); goesOn {
			typed = rest + " "
			continue
		}
		lines = append(lines, commands(where(begun), typed, true)...)
		typed = ""
	}
	return lines
}

// inSource finds the lines in the texts of a source file: those that are indented by two
// spaces, as examples are, and those in quotes.
func inSource(file string, source []byte) (lines []Line, err error) {
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	ast.Inspect(parsed, func(node ast.Node) bool {
		literal, is := node.(*ast.BasicLit)
		if !is || literal.Kind != token.STRING {
			return true
		}
		text, err := strconv.Unquote(literal.Value)
		if err != nil {
			return true
		}
		at := set.Position(literal.Pos()).Line
		for i, line := range strings.Split(strings.ReplaceAll(text, "\\\n", strings.Repeat(" ", 1)), "\n") {
			where := fmt.Sprintf("%s:%d", file, at+i)
			if strings.HasPrefix(line, "  certctl") || strings.HasPrefix(line, "  CERTCTL_") {
				// What a space ends goes on in another text.
				lines = append(lines, commands(where, line, !strings.HasSuffix(line, " "))...)
				continue
			}
			for _, quote := range quoted.FindAllStringSubmatch(line, -1) {
				lines = append(lines, commands(where, quote[1], false)...)
			}
		}
		return true
	})
	return lines, nil
}

// commands are those of a line for a shell that run one of the programs.
func commands(where, text string, whole bool) (lines []Line) {
	for _, words := range split(text) {
		for len(words) > 0 && (words[0] == "sudo" || strings.Contains(words[0], "=")) {
			words = words[1:]
		}
		if len(words) > 0 && program.MatchString(words[0]) && strings.Join(words, " ") != signed {
			lines = append(lines, Line{Where: where, Words: words, Whole: whole})
		}
	}
	return lines
}

// split parts a line into commands, and those into words, as a shell does, without what
// is redirected and remarks.
func split(text string) (list [][]string) {
	var words []string
	var word strings.Builder
	inWord, redirected := false, false
	end := func() {
		if inWord && !redirected {
			words = append(words, word.String())
		}
		if inWord {
			redirected = false
		}
		word.Reset()
		inWord = false
	}
	next := func() {
		end()
		if len(words) > 0 {
			list = append(list, words)
		}
		words, redirected = nil, false
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\'' || c == '"':
			inWord = true
			closing := strings.IndexByte(text[i+1:], c)
			if closing < 0 {
				closing = len(text) - i - 1
			}
			word.WriteString(text[i+1 : i+1+closing])
			i += closing + 1
		case c == ' ' || c == '\t':
			end()
		case c == '#' && !inWord:
			next()
			return list
		case c == '|' || c == ';' || c == '&' || c == '(' || c == ')':
			next()
		case c == '>' || c == '<':
			if n := word.String(); n == "1" || n == "2" {
				word.Reset()
				inWord = false
			}
			end()
			redirected = true
		default:
			inWord = true
			word.WriteByte(c)
		}
	}
	next()
	return list
}

// Check says what is wrong with a line, by the commands of its program.
func (l Line) Check(root *cobra.Command) error {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	args := l.Words[1:]
	if !l.Whole {
		args = shown(args)
	}
	cmd, rest, err := root.Find(args)
	if err != nil {
		return fmt.Errorf("%s: %w", l, err)
	}
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		unknown, _ := errors.AsType[*pflag.NotExistError](err)
		if l.Whole || unknown != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
	}
	words := cmd.Flags().Args()
	switch {
	case cmd.HasSubCommands() && !cmd.Runnable() && len(words) > 0:
		return fmt.Errorf("%s: %q has no command %q", l, cmd.CommandPath(), words[0])
	case !l.Whole, helps(cmd):
		return nil
	case !cmd.Runnable():
		return fmt.Errorf("%s: %q alone does nothing", l, cmd.CommandPath())
	}
	if err := cmd.ValidateArgs(words); err != nil {
		return fmt.Errorf("%s: %w", l, err)
	}
	if err := cmd.ValidateRequiredFlags(); err != nil {
		return fmt.Errorf("%s: %w", l, err)
	}
	return cmd.ValidateFlagGroups()
}

// helps reports whether the line asks for help, or for the version.
func helps(cmd *cobra.Command) bool {
	for _, name := range []string{"help", "version"} {
		if flag := cmd.Flags().Lookup(name); flag != nil && flag.Changed {
			return true
		}
	}
	return false
}

// shown are the words of a sentence that are a command's own: what stands in brackets
// may be left out, and dots are anything.
func shown(words []string) (list []string) {
	for _, word := range words {
		word = strings.Trim(word, "[]")
		if word == "..." || word == "…" || word == "" {
			continue
		}
		list = append(list, word)
	}
	return list
}
