package settings

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
)

// Effective writes the configuration in the struct that ptr points to as YAML, with secrets as "[redacted]". Settings
// and optional sections without a value are left as comments. But for the secrets, Load reads it back to the same struct.
func Effective(ptr any) ([]byte, error) {
	schema, err := schemaOf(ptr)
	if err != nil {
		return nil, err
	}
	v := reflect.ValueOf(ptr)
	if v.IsNil() {
		return nil, fmt.Errorf("settings: need a pointer to a struct, got a nil %T", ptr)
	}
	w := yamlWriter{}
	w.section(schema, v.Elem(), 0)
	return w.out.Bytes(), nil
}

// yamlWriter writes sections in block form.
type yamlWriter struct{ out bytes.Buffer }

func (w *yamlWriter) line(depth int, text string) {
	w.out.WriteString(strings.Repeat("  ", depth))
	w.out.WriteString(text)
	w.out.WriteByte('\n')
}

// section writes the settings of a section and reports whether any of them is more than a comment.
func (w *yamlWriter) section(section *field, v reflect.Value, depth int) (active bool) {
	for _, f := range section.children {
		fv := v.FieldByIndex(f.index)
		switch {
		case f.kind == sectionField && f.optional && fv.IsNil():
			w.line(depth, "# "+f.key+": off")
			continue
		case f.kind == sectionField:
			w.headed(f.key+":", f, reflect.Indirect(fv), depth)
		case f.holdsSections():
			w.elements(f, fv, depth)
		default:
			text := f.yamlLine(fv)
			if text == "" {
				w.line(depth, "# "+f.key+": not set")
				continue
			}
			w.line(depth, text)
		}
		active = true
	}
	return active
}

// headed writes a section under its key or dash. One that holds nothing but comments would read as absent, so it is
// written as {}.
func (w *yamlWriter) headed(head string, section *field, v reflect.Value, depth int) {
	start := w.out.Len()
	w.line(depth, head)
	if !w.section(section, v, depth+1) {
		w.out.Truncate(start)
		w.line(depth, head+" {}")
	}
}

// elements writes a list or map of sections. A dash stands on a line of its own, so that an element whose first setting
// is a comment needs no special case.
func (w *yamlWriter) elements(f *field, v reflect.Value, depth int) {
	switch {
	case v.Len() == 0 && f.kind == listField:
		w.line(depth, f.key+": []")
	case v.Len() == 0:
		w.line(depth, f.key+": {}")
	case f.kind == listField:
		w.line(depth, f.key+":")
		for i := range v.Len() {
			w.headed("-", f.elem, v.Index(i), depth+1)
		}
	default:
		w.line(depth, f.key+":")
		for _, key := range sortedKeys(v) {
			w.headed(quoteYAML(key.String())+":", f.elem, v.MapIndex(key), depth+1)
		}
	}
}
