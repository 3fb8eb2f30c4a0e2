package settings

import (
	"fmt"
	"reflect"
	"strings"
)

// exampleWidth is the column at which prose in the example file is wrapped.
const exampleWidth = 100

// Example writes a configuration file in which every setting is a comment and shows its default, or its example if it
// has none. Removing the first # of every line gives a valid file that sets what the defaults set, but for sections that
// exclude each other: prose begins with ##.
// It shows the defaults of Linux on every operating system.
func Example(ptr any) ([]byte, error) {
	schema, err := schemaOf(ptr)
	if err != nil {
		return nil, err
	}
	w := yamlWriter{}
	w.exampleSection(schema, 0)
	return w.out.Bytes(), nil
}

// setting writes a line that becomes active without its first #.
func (w *yamlWriter) setting(depth int, text string) {
	w.out.WriteString("#" + strings.Repeat("  ", depth) + text + "\n")
}

// prose writes a text as comments, wrapped.
func (w *yamlWriter) prose(depth int, text string) {
	indent := "##" + strings.Repeat("  ", depth)
	line := indent
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > exampleWidth && line != indent {
			w.out.WriteString(line + "\n")
			line = indent
		}
		line += " " + word
	}
	w.out.WriteString(line + "\n")
}

func (w *yamlWriter) exampleSection(section *field, depth int) {
	for i, f := range section.children {
		if i > 0 || depth == 0 {
			if w.out.Len() > 0 {
				w.out.WriteByte('\n')
			}
		}
		switch {
		case f.kind == sectionField:
			w.prose(depth, f.doc)
			if f.optional {
				w.prose(depth, "Optional: without this section it is off.")
			}
			w.setting(depth, f.key+":")
			w.exampleSection(f, depth+1)
		case f.holdsSections():
			w.prose(depth, f.doc)
			w.setting(depth, f.key+":")
			mark := "-"
			if f.kind == mapField {
				mark = quoteYAML(orElse(f.example, "name")) + ":"
			}
			w.setting(depth+1, mark)
			w.exampleSection(f.elem, depth+2)
		default:
			w.prose(depth, f.doc)
			w.prose(depth, f.facts())
			w.setting(depth, f.exampleLine())
		}
	}
}

// facts says in one line what the reference page says in columns.
func (f *field) facts() string {
	s := f.describe()
	facts := []string{strings.ToUpper(s.Type[:1]) + s.Type[1:]}
	if len(s.OneOf) > 0 {
		facts[0] += ": " + orList(s.OneOf)
	}
	if s.Range != "" {
		facts[0] += ", " + s.Range
	}
	if s.Required {
		facts = append(facts, "Required")
	}
	if s.DefaultWindows != "" {
		facts = append(facts, "Default on Windows: "+s.DefaultWindows)
	}
	if s.Secret {
		facts = append(facts, fmt.Sprintf("Or %s: the path of a file that holds it", f.fileKey()))
	}
	if s.Env != "" {
		facts = append(facts, "Environment: "+s.Env)
	}
	return strings.Join(facts, ". ") + "."
}

// exampleText is the default, else the example, else the simplest value that the setting takes, in its text form.
func (f *field) exampleText() string {
	switch text, ok := f.defaultFor("linux"); {
	case ok:
		return text
	case f.example != "":
		return f.example
	case f.kind == scalarField:
		return f.scalar.simplest(f.typ)
	default:
		return ""
	}
}

func (f *field) exampleLine() string {
	if f.kind == scalarField {
		return f.key + ": " + f.scalar.quote(f.exampleText())
	}
	v := reflect.New(f.typ).Elem()
	_ = f.parse(f.exampleText(), v) // schemaOf proved that it can be read
	return f.yamlLine(v)
}

// simplest is the text of the zero value if that is allowed, else of the least value that is.
func (s *scalar) simplest(typ reflect.Type) string {
	if s.secret {
		return "change-me"
	}
	zero := s.format(reflect.Zero(typ))
	if s.parse(zero, reflect.New(typ).Elem()) == nil {
		return zero
	}
	return s.floor
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
