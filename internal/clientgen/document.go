package clientgen

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// document is what is read of an OpenAPI document.
type document struct {
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	ID          string              `json:"operationId"`
	Summary     string              `json:"summary"`
	Description string              `json:"description"`
	Parameters  []parameter         `json:"parameters"`
	Body        *body               `json:"requestBody"`
	Responses   map[string]response `json:"responses"`
}

// forms is how many types of content the answer can be had in.
func (o *operation) forms() (n int) {
	for status, answer := range o.Responses {
		if strings.HasPrefix(status, "2") {
			n += len(answer.Content)
		}
	}
	return n
}

type parameter struct {
	Name        string `json:"name"`
	In          string `json:"in"`
	Required    bool   `json:"required"`
	Explode     bool   `json:"explode"`
	Description string `json:"description"`
	Schema      schema `json:"schema"`
}

type body struct {
	Required bool             `json:"required"`
	Content  map[string]media `json:"content"`
}

type response struct {
	Content map[string]media `json:"content"`
}

type media struct {
	Schema schema `json:"schema"`
}

type schema struct {
	Ref        string            `json:"$ref"`
	Type       kinds             `json:"type"`
	Format     string            `json:"format"`
	Minimum    *float64          `json:"minimum"`
	Default    json.RawMessage   `json:"default"`
	Enum       []string          `json:"-"` // see UnmarshalJSON
	Items      *schema           `json:"items"`
	Properties map[string]schema `json:"properties"`
}

// UnmarshalJSON implements json.Unmarshaler: of enumerations only texts are read.
func (s *schema) UnmarshalJSON(text []byte) error {
	type plain schema
	read := struct {
		*plain
		Enum []any `json:"enum"`
	}{plain: (*plain)(s)}
	if err := json.Unmarshal(text, &read); err != nil {
		return err
	}
	for _, value := range read.Enum {
		if one, ok := value.(string); ok {
			s.Enum = append(s.Enum, one)
		}
	}
	return nil
}

// kinds are the types of a schema: one, or one and null.
type kinds string

// UnmarshalJSON implements json.Unmarshaler.
func (k *kinds) UnmarshalJSON(text []byte) error {
	if bytes.HasPrefix(text, []byte(`"`)) {
		return json.Unmarshal(text, (*string)(k))
	}
	var several []string
	if err := json.Unmarshal(text, &several); err != nil {
		return err
	}
	several = slices.DeleteFunc(several, func(kind string) bool { return kind == "null" })
	if len(several) != 1 {
		return fmt.Errorf("the types %q are no single one", several)
	}
	*k = kinds(several[0])
	return nil
}

// reference is the name of the schema that this one refers to.
func (s *schema) reference() string { return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:] }

// Content types of the document.
const (
	contentJSON = "application/json"
	contentCSV  = "text/csv"
)

// Read reads the operations of an OpenAPI document, by their ids.
func Read(text []byte) ([]Operation, error) {
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	var found []Operation
	names := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(d.Paths[path])) {
			op := d.Paths[path][method]
			one, err := d.read(path, strings.ToUpper(method), &op)
			if err != nil {
				return nil, fmt.Errorf("%s %s (%s): %w", strings.ToUpper(method), path, op.ID, err)
			}
			for _, one := range one {
				if names[one.Name] {
					return nil, fmt.Errorf("two operations would both be %s", one.Name)
				}
				names[one.Name] = true
				found = append(found, one)
			}
		}
	}
	slices.SortFunc(found, func(a, b Operation) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// read makes the methods of one operation: one for each form of its answer.
func (d *document) read(path, method string, op *operation) ([]Operation, error) {
	one := Operation{ID: op.ID, Name: exported(op.ID), Method: method, Path: path, Summary: sentence(op.Summary), Description: op.Description}
	if one.ID == "" || op.Summary == "" {
		return nil, errors.New("it has no id, or no summary")
	}
	placed := map[string]string{}
	for i := range op.Parameters {
		given := &op.Parameters[i]
		switch {
		case given.In == "header", general[given.Name]:
			continue // what every call has; see Option in the client
		case given.Name == "format" && given.In == "query" && op.forms() > 1:
			continue // each form is a method of its own
		}
		p, err := readParameter(given)
		if err != nil {
			return nil, fmt.Errorf("parameter %s: %w", given.Name, err)
		}
		if p.inPath {
			placed[p.Parameter] = "params." + p.Name
		}
		one.Params = append(one.Params, p)
		one.List = one.List || p.Parameter == "cursor"
	}
	var err error
	if one.PathExpression, err = pathExpression(path, placed); err != nil {
		return nil, err
	}
	if err := one.takes(op.Body); err != nil {
		return nil, err
	}
	return d.answers(one, op)
}

// general are the parameters of all reads.
var general = map[string]bool{"min_index": true, "consistent": true}

func readParameter(given *parameter) (Param, error) {
	p := Param{Parameter: given.Name, Name: exported(given.Name), inPath: given.In == "path", Doc: given.Description}
	if p.Doc == "" {
		return p, errors.New("it has no description")
	}
	s := &given.Schema
	values := s.Enum
	switch {
	case s.Type == "string" && s.Format == "date-time":
		p.Type, p.Setter = "time.Time", "moment"
	case s.Type == "string":
		p.Type, p.Setter = "string", "text"
	case s.Type == "boolean" && string(s.Default) != "true":
		p.Type, p.Setter = "bool", "flag"
	case s.Type == "integer" && given.Name == "limit":
		p.Type, p.Setter = "int", "number"
	case s.Type == "integer" && s.Minimum != nil && *s.Minimum >= 0:
		p.Type, p.Setter = "uint64", "count"
	case s.Type == "array" && s.Items != nil && s.Items.Type == "string":
		p.Type, p.Setter, values = "[]string", "joined", s.Items.Enum
		if given.Explode {
			p.Setter = "repeated"
		}
	default:
		return p, fmt.Errorf("a %s %s of this kind cannot be told from one that is absent", s.Type, s.Format)
	}
	if p.inPath && p.Type != "string" {
		return p, errors.New("it is part of the path, and no text")
	}
	if len(values) > 0 {
		p.Doc += " One of: " + strings.Join(values, ", ") + "."
	}
	return p, nil
}

// pathExpression is the Go expression of a path with values in the places of parameters.
func pathExpression(path string, values map[string]string) (string, error) {
	at := strings.IndexByte(path, '{')
	if at < 0 {
		return fmt.Sprintf("%q", path), nil
	}
	parts := make([]string, 0, 4)
	for part := range strings.SplitSeq(path[at:], "/") {
		name, isParameter := strings.CutPrefix(part, "{")
		if !isParameter {
			parts = append(parts, fmt.Sprintf("%q", part))
			continue
		}
		value, ok := values[strings.TrimSuffix(name, "}")]
		if !ok {
			return "", fmt.Errorf("the path's %s is not among the parameters", part)
		}
		parts = append(parts, value)
	}
	return fmt.Sprintf("%q + Path(%s)", strings.TrimSuffix(path[:at], "/"), strings.Join(parts, ", ")), nil
}

// takes notes what an operation is sent.
func (o *Operation) takes(sent *body) error {
	if sent == nil {
		return nil
	}
	if len(sent.Content) != 1 {
		return errors.New("its body is not of one type")
	}
	for kind, content := range sent.Content {
		if kind != contentJSON {
			o.Streams = kind
			return nil
		}
		name := content.Schema.reference()
		if name == "" {
			return errors.New("the schema of its body has no name")
		}
		o.Body, o.Optional = resourceType(name), !sent.Required
	}
	return nil
}

// answers completes an operation by what it answers.
func (d *document) answers(one Operation, op *operation) (made []Operation, err error) {
	for status, answer := range op.Responses {
		if !strings.HasPrefix(status, "2") {
			continue
		}
		for _, kind := range slices.Sorted(maps.Keys(answer.Content)) {
			form := one
			switch content := answer.Content[kind]; kind {
			case contentJSON:
				if err := d.document(&form, content.Schema.reference()); err != nil {
					return nil, err
				}
			default:
				if kind == contentCSV && len(answer.Content) > 1 {
					form.Name += "CSV"
				}
				if form.Streams != "" || form.Body != "" || form.Method != http.MethodGet {
					return nil, errors.New("its answer is a stream, and it is no read")
				}
				form.Accept, form.List = kind, false
			}
			form.ParamsOf = one.Name
			made = append(made, form)
		}
	}
	if len(made) == 0 {
		return nil, errors.New("it has no answer with a content")
	}
	return made, nil
}

// document notes the type of an answer.
func (d *document) document(one *Operation, name string) error {
	s, ok := d.Components.Schemas[name]
	if !ok {
		return errors.New("the schema of its answer has no name")
	}
	one.Answer = resourceType(name)
	items, paged := s.Properties["items"]
	_, continued := s.Properties["next_cursor"]
	if paged && continued && items.Items != nil {
		one.Item = resourceType(items.Items.reference())
		if name == "Page"+items.Items.reference() {
			one.Answer = "resource.Page[" + one.Item + "]"
		} else {
			one.Embeds = true
		}
	}
	if one.List && one.Item == "" {
		return errors.New("it has a cursor, and its answer is no page")
	}
	return nil
}

func resourceType(name string) string { return "resource." + name }
