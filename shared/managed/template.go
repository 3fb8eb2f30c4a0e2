package managed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/certctl/certctl/shared/settings"
)

// MaxTemplateBytes bounds a definition in JSON.
const MaxTemplateBytes = 60 << 10

// A Template is a definition whose placeholders are still open. It never
// changes and may be used by any number of goroutines.
type Template struct {
	certificate Certificate
	text        json.RawMessage
	// pieces are the parts of text between the values that hold placeholders,
	// which are the fields at the places in between.
	pieces [][]byte
	fields []templateField
}

type templateField struct {
	name, text string
	path       bool
}

// ParseTemplate reads a definition, YAML or JSON, as strictly as the agent reads
// its configuration. file names the text in errors, which are a *settings.Error.
func ParseTemplate(file string, text []byte) (*Template, error) {
	var c Certificate
	report, err := settings.Load(&c, settings.Options{File: file, Text: text})
	if err != nil {
		return nil, err
	}
	return newTemplate(c, report)
}

// newTemplate makes a template of a definition that is read already.
func newTemplate(c Certificate, report *settings.Report) (*Template, error) {
	t := &Template{certificate: c}
	var err error
	if t.text, err = report.Given(&c); err != nil {
		return nil, err
	}
	if bytes.Contains(t.text, []byte(`\u0000`)) {
		return nil, errors.New("the definition holds a NUL character; remove it")
	}
	if len(t.text) > MaxTemplateBytes {
		return nil, fmt.Errorf("the definition has %d bytes; expected at most %d", len(t.text), MaxTemplateBytes)
	}
	return t, t.split(report)
}

// split cuts the text at the values that hold placeholders.
func (t *Template) split(report *settings.Report) error {
	marked := t.certificate.clone()
	rest := 0
	var values []templateField
	marked.eachTemplated(func(field string, path bool, text *string) {
		if open(*text) {
			values = append(values, templateField{field, *text, path})
			*text = marker(len(values) - 1)
		}
	})
	text, err := report.Given(&marked)
	if err != nil {
		return err
	}
	for i, value := range values {
		mark, err := json.Marshal(marker(i))
		if err != nil {
			return err
		}
		at := bytes.Index(text[rest:], mark)
		if at < 0 {
			return errors.New("a definition lost a placeholder in its encoding")
		}
		t.pieces = append(t.pieces, text[rest:rest+at])
		t.fields = append(t.fields, value)
		rest += at + len(mark)
	}
	t.pieces = append(t.pieces, text[rest:])
	return nil
}

// marker stands for a value while the text is cut. No other value holds a NUL.
func marker(i int) string { return fmt.Sprintf("\x00%d\x00", i) }

// JSON is the definition with its placeholders, as it was given: what was left
// to a default is left out. Equal definitions have equal bytes.
func (t *Template) JSON() json.RawMessage { return t.text }

// Certificate is the definition with its placeholders. It must not be changed.
func (t *Template) Certificate() *Certificate { return &t.certificate }

// Fill is the definition on one host, with its JSON. Errors name the field; one
// wraps an *UndefinedError where the host has no value for a placeholder.
func (t *Template) Fill(values Values) (*Certificate, json.RawMessage, error) {
	if len(t.fields) == 0 {
		return &t.certificate, t.text, nil
	}
	c := t.certificate.clone()
	var problem error
	c.eachTemplated(func(field string, path bool, text *string) {
		filled, err := fillText(*text, func(variable string) (string, error) {
			value, ok := values.lookup(variable)
			if !ok {
				return "", &UndefinedError{Variable: variable}
			}
			return value, checkValue(variable, value, path)
		})
		if err != nil && problem == nil {
			problem = fmt.Errorf("%s: %w", field, err)
		}
		*text = filled
	})
	if problem != nil {
		return nil, nil, problem
	}
	if err := c.check(); err != nil {
		return nil, nil, err
	}
	text, err := t.join(&c)
	if err != nil {
		return nil, nil, err
	}
	return &c, text, nil
}

// join puts the filled values between the pieces of the text.
func (t *Template) join(c *Certificate) (json.RawMessage, error) {
	filled := make(map[string]string, len(t.fields))
	c.templated(func(field string, text *string) { filled[field] = *text })
	var out []byte
	for i, field := range t.fields {
		value, err := json.Marshal(filled[field.name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field.name, err)
		}
		out = append(append(out, t.pieces[i]...), value...)
	}
	return append(out, t.pieces[len(t.fields)]...), nil
}

// check is Validate for a definition that is filled in: the first thing that is
// wrong, with its field.
func (c *Certificate) check() error {
	var first error
	report := func(prefix string) func(string, error) {
		return func(field string, err error) {
			if first == nil {
				first = fmt.Errorf("%s%s: %w", prefix, field, err)
			}
		}
	}
	c.Validate(report(""))
	for i := range c.Deployments {
		c.Deployments[i].Validate(report(fmt.Sprintf("deployments[%d].", i)))
	}
	return first
}

// clone copies what placeholders may stand in.
func (c *Certificate) clone() Certificate {
	copied := *c
	copied.Names = slices.Clone(c.Names)
	copied.Deployments = slices.Clone(c.Deployments)
	for i := range copied.Deployments {
		if v := copied.Deployments[i].Verify; v != nil {
			verify := *v
			copied.Deployments[i].Verify = &verify
		}
	}
	return copied
}
