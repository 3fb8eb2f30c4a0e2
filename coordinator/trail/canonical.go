package trail

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxNesting bounds how deep JSON may be nested to have a canonical form.
const maxNesting = 64

// Canonical is the one form in which JSON is hashed: no white space; the keys of an
// object sorted by their octets; strings in UTF-8, in which nothing but the quotation
// mark, the backslash and control characters is escaped, those as \b, \t, \n, \f and \r
// or else as \u00 and two lower-case digits; numbers as they are written. For what
// facts hold, whose numbers are integers, it is that of RFC 8785.
//
// Nothing stays nothing. What is no JSON, has a key twice in an object, or is nested
// deeper than 64 levels has none.
func Canonical(text []byte) ([]byte, error) {
	if len(text) == 0 {
		return nil, nil
	}
	if !utf8.Valid(text) {
		return nil, errors.New("it is not UTF-8")
	}
	if !json.Valid(text) {
		return nil, errors.New("it is no JSON")
	}
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber()
	return appendValue(nil, in, 0)
}

func appendValue(out []byte, in *json.Decoder, depth int) ([]byte, error) {
	token, err := in.Token()
	if err != nil {
		return nil, fmt.Errorf("it is no JSON: %w", err)
	}
	switch value := token.(type) {
	case json.Delim:
		if depth == maxNesting {
			return nil, fmt.Errorf("it is nested deeper than %d levels", maxNesting)
		}
		if value == '{' {
			return appendObject(out, in, depth+1)
		}
		return appendArray(out, in, depth+1)
	case json.Number:
		return append(out, value...), nil
	case string:
		return appendString(out, value), nil
	case bool:
		if value {
			return append(out, "true"...), nil
		}
		return append(out, "false"...), nil
	default:
		return append(out, "null"...), nil
	}
}

func appendArray(out []byte, in *json.Decoder, depth int) ([]byte, error) {
	var err error
	out = append(out, '[')
	for first := true; in.More(); first = false {
		if !first {
			out = append(out, ',')
		}
		if out, err = appendValue(out, in, depth); err != nil {
			return nil, err
		}
	}
	return closed(append(out, ']'), in)
}

func appendObject(out []byte, in *json.Decoder, depth int) ([]byte, error) {
	type member struct {
		key   string
		value []byte
	}
	var members []member
	for in.More() {
		token, err := in.Token()
		if err != nil {
			return nil, fmt.Errorf("it is no JSON: %w", err)
		}
		key, _ := token.(string) // the decoder accepts nothing else here
		value, err := appendValue(nil, in, depth)
		if err != nil {
			return nil, err
		}
		members = append(members, member{key, value})
	}
	slices.SortFunc(members, func(a, b member) int { return strings.Compare(a.key, b.key) })
	out = append(out, '{')
	for i, m := range members {
		if i > 0 {
			if m.key == members[i-1].key {
				return nil, fmt.Errorf("the key %.40q stands twice in an object", m.key)
			}
			out = append(out, ',')
		}
		out = append(append(appendString(out, m.key), ':'), m.value...)
	}
	return closed(append(out, '}'), in)
}

// closed reads the end of an array or an object.
func closed(out []byte, in *json.Decoder) ([]byte, error) {
	if _, err := in.Token(); err != nil {
		return nil, fmt.Errorf("it is no JSON: %w", err)
	}
	return out, nil
}

func appendString(out []byte, text string) []byte {
	const short, letters = "\b\t\n\f\r\"\\", `btnfr"\`
	out = append(out, '"')
	for i := range len(text) {
		c := text[i]
		if at := strings.IndexByte(short, c); at >= 0 {
			out = append(out, '\\', letters[at])
		} else if c < 0x20 {
			out = fmt.Appendf(out, `\u%04x`, c)
		} else {
			out = append(out, c)
		}
	}
	return append(out, '"')
}
