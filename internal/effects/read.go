package effects

import (
	"cmp"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Absent is read where a pointer, an interface or a map on the way holds nothing, and
// where another type than usual stands there, without that field.
const Absent = "absent"

var step = regexp.MustCompile(`^(?:\.?(\w+)|\[([^\]]*)\])`)

// Read is what a part of an assembled program holds, as text. The path leads from field
// to field, those that are not exported too, through pointers and interfaces, with [key]
// for an element of a map and [0] for one of a list: "front.agents.interval". Behind a
// path, ":type" stands for the type there, and ":set" for whether there is anything.
func Read(program any, path string) (string, error) {
	way, question, _ := strings.Cut(path, ":")
	v := reflect.ValueOf(program)
	for rest := way; rest != ""; {
		match := step.FindStringSubmatch(rest)
		if match == nil {
			return "", fmt.Errorf("%s: %q is no step of a path", path, rest)
		}
		rest = rest[len(match[0]):]
		if v = through(v); !v.IsValid() {
			break
		}
		var err error
		if v, err = below(v, match[1], match[2]); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
	}
	switch question {
	case "set":
		return strconv.FormatBool(through(v).IsValid()), nil
	case "type":
		if v = through(v); v.IsValid() {
			return v.Type().String(), nil
		}
		return Absent, nil
	}
	return text(v, deepest), nil
}

// below is a field, or an element.
func below(v reflect.Value, field, key string) (reflect.Value, error) {
	switch {
	case field != "" && v.Kind() == reflect.Struct:
		return v.FieldByName(field), nil
	case field == "" && v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String:
		return v.MapIndex(reflect.ValueOf(key).Convert(v.Type().Key())), nil
	case field == "" && (v.Kind() == reflect.Slice || v.Kind() == reflect.Array):
		at, err := strconv.Atoi(key)
		if err != nil {
			return v, fmt.Errorf("[%s] is no place in a list", key)
		}
		if at >= v.Len() {
			return reflect.Value{}, nil
		}
		return v.Index(at), nil
	}
	return v, fmt.Errorf("%s has no %s", v.Type(), cmp.Or(field, "["+key+"]"))
}

// through follows pointers and interfaces; the result is not valid where one is nil.
func through(v reflect.Value) reflect.Value {
	for v.IsValid() && (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) {
		if v.IsNil() {
			return reflect.Value{}
		}
		v = v.Elem()
	}
	return v
}

// deepest bounds what is shown of a part that holds others.
const deepest = 3

func text(v reflect.Value, depth int) string {
	v = through(v)
	if !v.IsValid() {
		return Absent
	}
	if depth < 0 {
		return v.Type().String()
	}
	switch v.Kind() {
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if v.Type() == reflect.TypeFor[time.Duration]() {
			return time.Duration(v.Int()).String()
		}
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10)
	case reflect.Float32, reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case reflect.String:
		return v.String()
	case reflect.Chan: // of which the room is what can be set
		return strconv.Itoa(v.Cap())
	case reflect.Slice, reflect.Array:
		elements := make([]string, v.Len())
		for i := range elements {
			elements[i] = text(v.Index(i), depth-1)
		}
		return "[" + strings.Join(elements, " ") + "]"
	case reflect.Map:
		var entries []string
		for _, key := range v.MapKeys() {
			entries = append(entries, text(key, depth-1)+"="+text(v.MapIndex(key), depth-1))
		}
		slices.Sort(entries)
		return "{" + strings.Join(entries, " ") + "}"
	case reflect.Struct:
		fields := make([]string, v.NumField())
		for i := range fields {
			fields[i] = text(v.Field(i), depth-1)
		}
		return "{" + strings.Join(fields, " ") + "}"
	}
	return v.Type().String()
}
