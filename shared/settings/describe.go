package settings

import "strings"

// Setting is the description of one setting, for documentation and for generating flags.
type Setting struct {
	// Path is the dotted path, with [] for list elements and <name> for the keys of maps: "certificates[].names".
	Path string
	// Env is the environment variable and EnvFile the one that names a file with the secret; "" if there is none.
	Env, EnvFile string
	// Type is the kind of value in words: "whole number", "list of text".
	Type string
	// Default is in the text form of the environment; DefaultWindows is set where Windows differs.
	Default, DefaultWindows string
	HasDefault              bool
	// Range is the allowed range in words, "" without one: "1 to 1000".
	Range string
	// OneOf lists the allowed texts, if only some are.
	OneOf []string
	// Doc says what the setting does.
	Doc      string
	Example  string
	Required bool
	Secret   bool
}

// Section is a group of settings with a heading, for Markdown.
type Section struct {
	// Heading is the title of the group; Level its depth in the page, 2 for the first.
	Heading string
	Level   int
	// Doc introduces the group.
	Doc      string
	Settings []Setting
}

// Describe lists every setting of the struct that ptr points to, in the order of the struct; sections themselves are not
// listed.
func Describe(ptr any) ([]Setting, error) {
	schema, err := schemaOf(ptr)
	if err != nil {
		return nil, err
	}
	var list []Setting
	schema.settings(func(f *field) {
		if !f.isOrHoldsSections() {
			list = append(list, f.describe())
		}
	})
	return list, nil
}

// Sections groups the settings of the struct that ptr points to for the reference page: first those at the top, under
// heading, then each section and each kind of list or map element under its path.
func Sections(ptr any, heading, doc string) ([]Section, error) {
	schema, err := schemaOf(ptr)
	if err != nil {
		return nil, err
	}
	return schema.sections([]Section{{Heading: heading, Level: 2, Doc: doc}}, 0), nil
}

// sections adds the settings of f to list[at] and appends the sections below it.
func (f *field) sections(list []Section, at int) []Section {
	var nested []*field
	for _, child := range f.children {
		if child.isOrHoldsSections() {
			nested = append(nested, child)
			continue
		}
		list[at].Settings = append(list[at].Settings, child.describe())
	}
	for _, child := range nested {
		section := Section{Heading: "`" + child.path + "`", Level: 3, Doc: child.doc}
		if child.kind == sectionField && child.optional {
			section.Doc += " Optional: without this section it is off."
		}
		inner := child
		if child.holdsSections() {
			inner = child.elem
			section.Heading = "`" + inner.path + "`"
			section.Doc += " " + child.elementsText()
		}
		list = append(list, section)
		list = inner.sections(list, len(list)-1)
	}
	return list
}

// holdsSections reports whether f is a list or map whose elements are sections.
func (f *field) holdsSections() bool { return f.elem != nil && f.elem.kind == sectionField }

// isOrHoldsSections reports whether f is a section, or a list or map of such.
func (f *field) isOrHoldsSections() bool { return f.kind == sectionField || f.holdsSections() }

// elementsText introduces the table of a list's or map's elements.
func (f *field) elementsText() string {
	text := "A list, given in YAML only; each element has these settings."
	if f.kind == mapField {
		text = "Named sections, given in YAML only; each has these settings."
	}
	if bounds := f.bounds.lengthText("element"); bounds != "" {
		text += " Allowed: " + strings.TrimPrefix(bounds, " of ") + "."
	}
	if f.required() {
		text += " Required."
	}
	return text
}

func (f *field) describe() Setting {
	s := Setting{
		Path: f.path, Env: f.env, Default: f.def, HasDefault: f.hasDefault, OneOf: f.oneof,
		Doc: f.doc, Example: f.example, Required: f.required(), Secret: f.isSecret(),
	}
	if f.hasDefWindows {
		s.DefaultWindows = f.defWindows
	}
	if s.Secret && f.env != "" {
		s.EnvFile = f.fileEnv()
	}
	switch f.kind {
	case listField:
		s.Type = "list of " + f.elem.scalar.name
		s.Range = strings.TrimPrefix(f.bounds.lengthText("element"), " of ")
	case mapField:
		s.Type = "map of " + f.elem.scalar.name
		s.Range = strings.TrimPrefix(f.bounds.lengthText("key"), " of ")
	default:
		s.Type, s.Range = f.scalar.name, f.scalar.limits
	}
	return s
}
