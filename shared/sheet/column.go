package sheet

import (
	"bytes"
	"encoding"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/shared/printable"
)

// deepest is how many structs within each other have columns of their own.
const deepest = 4

// A column is one field of the items.
type column struct {
	name string
	// of finds the field in an item; ok is false where JSON leaves it out.
	of       func(item reflect.Value) (field reflect.Value, ok bool)
	embedded int // how many structs it was embedded by
}

var (
	timeType      = reflect.TypeFor[time.Time]()
	numberType    = reflect.TypeFor[json.Number]()
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// marshals reports whether a type says by itself what it is in JSON.
func marshals(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(jsonMarshaler) || p.Implements(textMarshaler)
}

func columnsOf(item reflect.Type) []column {
	self := func(item reflect.Value) (reflect.Value, bool) { return item, true }
	if item.Kind() != reflect.Struct || marshals(item) {
		return []column{{name: "value", of: self}}
	}
	var columns []column
	for _, one := range fieldsOf(item, column{of: self}, 1) {
		// As in JSON, what embeds goes before what is embedded.
		same := slices.IndexFunc(columns, func(c column) bool { return c.name == one.name })
		switch {
		case same < 0:
			columns = append(columns, one)
		case one.embedded < columns[same].embedded:
			columns[same] = one
		}
	}
	return columns
}

// fieldsOf are the columns of the fields of a struct that is a field itself.
func fieldsOf(t reflect.Type, parent column, depth int) []column {
	var columns []column
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		inner := field.Type
		for inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		part := inner.Kind() == reflect.Struct && !marshals(inner)
		switch {
		case name == "-" || !field.IsExported() && (!field.Anonymous || !part):
			continue
		case field.Anonymous && part && name == "":
			columns = append(columns, fieldsOf(inner, column{name: parent.name, of: step(parent, i, ""), embedded: parent.embedded + 1}, depth)...)
			continue
		case name == "":
			name = field.Name
		}
		one := column{name: name, of: step(parent, i, options), embedded: parent.embedded}
		if parent.name != "" {
			one.name = parent.name + "." + name
		}
		if part && depth < deepest {
			columns = append(columns, fieldsOf(inner, one, depth+1)...)
			continue
		}
		columns = append(columns, one)
	}
	return columns
}

// step finds a field of what parent finds.
func step(parent column, i int, options string) func(reflect.Value) (reflect.Value, bool) {
	list := strings.Split(options, ",")
	omitEmpty, omitZero := slices.Contains(list, "omitempty"), slices.Contains(list, "omitzero")
	return func(item reflect.Value) (reflect.Value, bool) {
		v, ok := parent.of(item)
		if !ok {
			return v, false
		}
		v = v.Field(i)
		if omitZero && isZero(v) || omitEmpty && isEmpty(v) {
			return v, false
		}
		for v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return v, false
			}
			v = v.Elem()
		}
		return v, true
	}
}

func isZero(v reflect.Value) bool {
	if zeroer, ok := v.Interface().(interface{ IsZero() bool }); ok && (v.Kind() != reflect.Pointer || !v.IsNil()) {
		return zeroer.IsZero()
	}
	return v.IsZero()
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// cell is the text of the column for an item.
func (c *column) cell(item reflect.Value) (string, error) {
	v, ok := c.of(item)
	if !ok {
		return "", nil
	}
	return textOf(v)
}

// textOf is a value as a cell.
func textOf(v reflect.Value) (string, error) {
	if text, ok, err := scalar(v); ok || err != nil {
		return text, err
	}
	switch {
	case v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String && isScalar(v.Type().Elem()):
		return mapText(v)
	case (v.Kind() == reflect.Slice || v.Kind() == reflect.Array) && isScalar(v.Type().Elem()):
		return listText(v)
	case v.Kind() == reflect.Map && v.Len() == 0, v.Kind() == reflect.Slice && v.Len() == 0:
		return "", nil
	}
	return jsonText(v)
}

// isScalar reports whether values of a type are texts, numbers, truth values or times.
func isScalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return true
	}
	return t == timeType || t.Implements(textMarshaler)
}

// scalar is the cell of a text, number, truth value or time; ok is false of others.
func scalar(v reflect.Value) (cell string, ok bool, err error) {
	switch {
	case v.Type() == timeType:
		t := v.Interface().(time.Time) //nolint:forcetypeassert // it is one
		if t.IsZero() {
			return "", true, nil
		}
		return t.UTC().Format(time.RFC3339), true, nil
	case v.Type() == numberType:
		return v.String(), true, nil
	case marshals(v.Type()):
		return "", false, nil // it says so itself
	}
	switch v.Kind() {
	case reflect.String:
		return Cell(v.String()), true, nil
	case reflect.Interface:
		if v.IsNil() {
			return "", true, nil
		}
		cell, err := textOf(v.Elem())
		return cell, true, err
	}
	switch { // by what it is in JSON, whatever the type says of itself otherwise
	case v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool()), true, nil
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10), true, nil
	case v.CanUint():
		return strconv.FormatUint(v.Uint(), 10), true, nil
	}
	return "", false, nil
}

// listText is a list in one cell. Each text in it is safe by itself, in case a program
// takes the semicolons for borders of cells.
func listText(v reflect.Value) (string, error) {
	parts := make([]string, v.Len())
	for i := range parts {
		part, err := textOf(v.Index(i))
		if err != nil {
			return "", err
		}
		parts[i] = part
	}
	return strings.Join(parts, ";"), nil
}

func mapText(v reflect.Value) (string, error) {
	values := make(map[string]string, v.Len())
	for each := v.MapRange(); each.Next(); {
		value, err := textOf(each.Value())
		if err != nil {
			return "", err
		}
		values[each.Key().String()] = value
	}
	parts := make([]string, 0, len(values))
	for _, key := range slices.Sorted(maps.Keys(values)) {
		parts = append(parts, Cell(key+"="+values[key]))
	}
	return strings.Join(parts, ";"), nil
}

// jsonText is what JSON says: the text itself where that is a text.
func jsonText(v reflect.Value) (string, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v.Interface()); err != nil {
		return "", err
	}
	document := bytes.TrimSpace(out.Bytes())
	if len(document) > 0 && document[0] == '"' {
		var text string
		if err := json.Unmarshal(document, &text); err != nil {
			return "", err
		}
		return Cell(text), nil
	}
	if string(document) == "null" {
		return "", nil
	}
	return printable.JSON(string(document)), nil // a number, or what begins with a bracket
}
