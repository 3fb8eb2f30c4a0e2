package settings

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Markdown renders the reference page: the same bytes for the same structs, on every operating system.
func Markdown(title, intro string, sections ...Section) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "# %s\n", title)
	if intro != "" {
		fmt.Fprintf(&out, "\n%s\n", strings.TrimSpace(intro))
	}
	for _, section := range sections {
		fmt.Fprintf(&out, "\n%s %s\n", strings.Repeat("#", max(section.Level, 2)), section.Heading)
		if section.Doc != "" {
			fmt.Fprintf(&out, "\n%s\n", strings.TrimSpace(section.Doc))
		}
		if len(section.Settings) == 0 {
			continue
		}
		out.WriteString("\n| Setting | Type | Default | Meaning |\n| --- | --- | --- | --- |\n")
		for _, s := range section.Settings {
			fmt.Fprintf(&out, "| %s | %s | %s | %s |\n", s.nameCell(), s.typeCell(), s.defaultCell(), cell(s.Doc))
		}
	}
	return out.Bytes()
}

func (s Setting) nameCell() string {
	text := code(s.Path)
	if s.Env != "" {
		text += "<br>" + code(s.Env)
	}
	if s.EnvFile != "" {
		text += "<br>" + code(s.EnvFile)
	}
	return text
}

func (s Setting) typeCell() string {
	text := cell(s.Type)
	if len(s.OneOf) > 0 {
		choices := make([]string, len(s.OneOf))
		for i, choice := range s.OneOf {
			choices[i] = code(choice)
		}
		text += ": " + orList(choices)
	}
	if s.Range != "" {
		text += ", " + cell(s.Range)
	}
	return text
}

func (s Setting) defaultCell() string {
	switch {
	case s.Required:
		return "required"
	case !s.HasDefault:
		return ""
	case s.Default == "":
		return "empty"
	case s.DefaultWindows != "":
		return code(s.Default) + "<br>Windows: " + code(s.DefaultWindows)
	default:
		return code(s.Default)
	}
}

// cell keeps a text inside its table cell.
func cell(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}

// code is an inline code span; GitHub's tables take a pipe inside it only with a backslash.
func code(text string) string {
	if strings.Contains(text, "`") {
		return "`` " + cell(text) + " ``"
	}
	return "`" + cell(text) + "`"
}

// Check compares a generated page with the file that is kept in the repository, for a test. Line endings are not
// compared, since Git may change them.
func Check(path string, generated []byte) error {
	kept, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the generated page: %w", err)
	}
	want, got := pageLines(generated), pageLines(kept)
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(want):
			return fmt.Errorf("%s:%d: %q is not in the settings any more; generate the page again", path, i+1, got[i])
		case i >= len(got):
			return fmt.Errorf("%s:%d: %q is missing; generate the page again", path, i+1, want[i])
		case want[i] != got[i]:
			return fmt.Errorf("%s:%d: has %q, but the settings say %q; generate the page again", path, i+1, got[i], want[i])
		}
	}
	if len(want) == 0 {
		return errors.New("the generated page is empty")
	}
	return nil
}

func pageLines(page []byte) []string {
	text := strings.TrimRight(strings.ReplaceAll(string(page), "\r\n", "\n"), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}
