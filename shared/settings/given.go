package settings

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Given returns the settings of src, which Load filled and this report is about, that some source gave, as JSON that Load
// reads as a file. What was left to its default is left out. Equal settings have equal bytes, however their file was
// written. Secrets cannot be given away: a struct that holds one is an error.
func (r *Report) Given(src any) (json.RawMessage, error) {
	schema, err := schemaOf(src)
	if err != nil {
		return nil, err
	}
	g := givenWriter{report: r}
	g.section(schema, reflect.ValueOf(src).Elem(), "")
	if g.err != nil {
		return nil, g.err
	}
	return json.RawMessage(g.out.String()), nil
}

type givenWriter struct {
	report *Report
	out    strings.Builder
	err    error
}

func (g *givenWriter) section(section *field, v reflect.Value, path string) {
	g.out.WriteByte('{')
	first := true
	for _, f := range section.children {
		fv, at := v.FieldByIndex(f.index), joinPath(path, f.key)
		if g.report.origins[at].Source == SourceDefault || f.optional && fv.IsNil() {
			continue
		}
		if !first {
			g.out.WriteByte(',')
		}
		first = false
		g.text(f.key)
		g.out.WriteByte(':')
		g.value(f, fv, at)
	}
	g.out.WriteByte('}')
}

func (g *givenWriter) value(f *field, v reflect.Value, path string) {
	switch f.kind {
	case sectionField:
		if f.optional {
			v = v.Elem()
		}
		g.section(f, v, path)
	case listField:
		g.out.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				g.out.WriteByte(',')
			}
			g.value(f.elem, v.Index(i), joinIndex(path, i))
		}
		g.out.WriteByte(']')
	case mapField:
		g.out.WriteByte('{')
		for i, key := range sortedKeys(v) {
			if i > 0 {
				g.out.WriteByte(',')
			}
			g.text(key.String())
			g.out.WriteByte(':')
			g.value(f.elem, v.MapIndex(key), joinPath(path, key.String()))
		}
		g.out.WriteByte('}')
	default:
		g.scalar(f, v, path)
	}
}

func (g *givenWriter) scalar(f *field, v reflect.Value, path string) {
	switch text := f.scalar.format(v); {
	case f.scalar.secret:
		g.err = fmt.Errorf("%s is a secret, which is not given away", path)
	case f.scalar.accepts&yamlText == 0: // numbers and truth values
		g.out.WriteString(text)
	default:
		g.text(text)
	}
}

func (g *givenWriter) text(text string) {
	encoded, err := json.Marshal(text)
	if err != nil && g.err == nil {
		g.err = err
	}
	g.out.Write(encoded)
}
