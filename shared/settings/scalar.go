package settings

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// scalar converts one kind of value between text and Go.
type scalar struct {
	name     string                                      // for the reference page: "whole number"
	expected string                                      // after "expected ": "a whole number from 1 to 1000"
	limits   string                                      // the range alone: "1 to 1000"
	floor    string                                      // the least allowed value as text, if it has one
	accepts  yamlStyle                                   // the YAML scalars that can stand for it
	parse    func(text string, v reflect.Value) *refusal // v is settable; unchanged if refused
	format   func(v reflect.Value) string                // the text that parse reads back
	secret   bool
	err      error // a mistake in the tags
}

// refusal says why a text cannot be used, as far as there is more to say than what was expected.
type refusal struct {
	detail     error
	suggestion string
}

// yamlStyle is a set of YAML scalar kinds.
type yamlStyle int

const (
	yamlText yamlStyle = 1 << iota
	yamlInteger
	yamlFloat
	yamlBool
	yamlPlain // a text without quotes, which may be a number or truth value that YAML writes otherwise
)

var (
	secretType      = reflect.TypeFor[Secret]()
	durationType    = reflect.TypeFor[time.Duration]()
	unmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
	marshalerType   = reflect.TypeFor[encoding.TextMarshaler]()
)

// isScalar reports whether a single text can stand for a value of the type.
func isScalar(typ reflect.Type) bool {
	if typ == secretType || reflect.PointerTo(typ).Implements(unmarshalerType) {
		return true
	}
	switch typ.Kind() {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	default:
		return false
	}
}

// scalarOf returns the codec of a type for which isScalar holds.
func scalarOf(typ reflect.Type, t tags) *scalar {
	var s *scalar
	switch {
	case typ == secretType:
		s = secretScalar(t)
	case reflect.PointerTo(typ).Implements(unmarshalerType):
		s = marshaledScalar(typ, t)
	case typ == durationType:
		s = orderedScalar("duration", "a duration such as 90s, 12h or 30d", t, yamlText|yamlInteger, FormatDuration,
			func(text string) (time.Duration, *refusal) { return parseDurationSetting(text, t.unit) })
	case typ.Kind() == reflect.String:
		s = textScalar(t)
	case typ.Kind() == reflect.Bool:
		s = boolScalar()
		if t.minText+t.maxText != "" {
			s.err = errors.New("min and max make no sense for true or false")
		}
	case typ.Kind() == reflect.Float32 || typ.Kind() == reflect.Float64:
		s = orderedScalar("number", "a number", t, yamlInteger|yamlFloat|yamlPlain, formatFloat(typ.Bits()),
			func(text string) (float64, *refusal) { return parseFloat(text, typ.Bits()) })
	case typ.Kind() >= reflect.Uint && typ.Kind() <= reflect.Uint64:
		s = orderedScalar("whole number", "a whole number", withIntegerBounds(t, "0", strconv.FormatUint(math.MaxUint64>>(64-typ.Bits()), 10), typ.Bits()),
			yamlInteger, func(n uint64) string { return strconv.FormatUint(n, 10) },
			func(text string) (uint64, *refusal) { return parseInteger(text, typ.Bits(), strconv.ParseUint) })
	default:
		s = orderedScalar("whole number", "a whole number", withIntegerBounds(t, strconv.FormatInt(math.MinInt64>>(64-typ.Bits()), 10), strconv.FormatInt(math.MaxInt64>>(64-typ.Bits()), 10), typ.Bits()),
			yamlInteger, func(n int64) string { return strconv.FormatInt(n, 10) },
			func(text string) (int64, *refusal) { return parseInteger(text, typ.Bits(), strconv.ParseInt) })
	}
	if t.typeText != "" {
		s.name = t.typeText
	}
	if t.oneof != nil {
		s.restrict(t.oneof)
	}
	return s
}

// restrict allows only the listed texts.
func (s *scalar) restrict(allowed []string) {
	if s.accepts&yamlText == 0 || s.secret {
		s.err = errors.Join(s.err, errors.New("oneof is for texts"))
		return
	}
	parse := s.parse
	s.expected, s.limits, s.floor = orList(allowed), "", allowed[0]
	s.parse = func(text string, v reflect.Value) *refusal {
		if !slices.Contains(allowed, text) {
			return &refusal{suggestion: nearest(text, allowed)}
		}
		return parse(text, v)
	}
}

// textScalar counts min and max in characters.
func textScalar(t tags) *scalar {
	b, err := lengthBounds(t.minText, t.maxText)
	s := &scalar{name: "text", expected: "text" + b.lengthText("character"), accepts: yamlText, err: err}
	s.limits = strings.TrimPrefix(b.lengthText("character"), " of ")
	s.parse = func(text string, v reflect.Value) *refusal {
		if !utf8.ValidString(text) || !b.allow(utf8.RuneCountInString(text)) {
			return &refusal{}
		}
		v.SetString(text)
		return nil
	}
	s.format = func(v reflect.Value) string { return v.String() }
	return s
}

// secretScalar refuses the empty text: a secret that is given and empty is a broken deployment, not a wish for none.
func secretScalar(t tags) *scalar {
	b, err := lengthBounds(t.minText, t.maxText)
	s := &scalar{name: "secret", expected: "a secret text" + b.lengthText("character"), accepts: yamlText, secret: true, err: err}
	s.limits = strings.TrimPrefix(b.lengthText("character"), " of ")
	s.parse = func(text string, v reflect.Value) *refusal {
		if text == "" {
			return &refusal{detail: errors.New("it is empty")}
		}
		if !utf8.ValidString(text) || !b.allow(utf8.RuneCountInString(text)) {
			return &refusal{}
		}
		v.Set(reflect.ValueOf(NewSecret(text)))
		return nil
	}
	s.format = func(v reflect.Value) string {
		if v.IsZero() {
			return ""
		}
		return redacted
	}
	return s
}

func boolScalar() *scalar {
	return &scalar{
		name: "true or false", expected: "true or false", accepts: yamlBool | yamlPlain,
		parse: func(text string, v reflect.Value) *refusal {
			switch strings.ToLower(text) {
			case "true":
				v.SetBool(true)
			case "false":
				v.SetBool(false)
			case "yes", "on", "y", "1":
				return &refusal{suggestion: "true"}
			case "no", "off", "n", "0":
				return &refusal{suggestion: "false"}
			default:
				return &refusal{}
			}
			return nil
		},
		format: func(v reflect.Value) string { return strconv.FormatBool(v.Bool()) },
	}
}

// marshaledScalar is a type that reads and writes its own text.
func marshaledScalar(typ reflect.Type, t tags) *scalar {
	s := &scalar{name: "text", accepts: yamlText | yamlInteger | yamlFloat | yamlBool}
	switch typ {
	case reflect.TypeFor[netip.Addr]():
		s.name = "IP address"
	case reflect.TypeFor[netip.AddrPort]():
		s.name = "IP address and port"
	case reflect.TypeFor[netip.Prefix]():
		s.name = "network in CIDR form"
	}
	if t.typeText != "" {
		s.name = t.typeText
	}
	s.expected = withArticle(s.name)
	if t.minText+t.maxText != "" {
		s.err = errors.New("min and max make no sense for a type with its own text form")
	}
	if !reflect.PointerTo(typ).Implements(marshalerType) {
		s.err = fmt.Errorf("type %s reads a text but cannot write it: it needs MarshalText", typ)
	}
	s.parse = func(text string, v reflect.Value) *refusal {
		fresh := reflect.New(typ)
		if err := fresh.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
			return &refusal{detail: err}
		}
		v.Set(fresh.Elem())
		return nil
	}
	s.format = func(v reflect.Value) string {
		p := reflect.New(typ)
		p.Elem().Set(v)
		text, err := p.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			return "" // the zero value of a type whose texts are never empty
		}
		return string(text)
	}
	return s
}

func withArticle(name string) string {
	switch {
	case name == "text":
		return name
	case strings.ContainsRune("aeiouAEIOU", rune(name[0])):
		return "an " + name
	default:
		return "a " + name
	}
}

// refuse composes the message about a value that cannot be used.
func (s *scalar) refuse(shown string, r *refusal) error {
	text := "cannot use " + shown
	if r.detail != nil {
		text += ": " + r.detail.Error()
	}
	text += "; expected " + s.expected
	if r.suggestion != "" {
		text += fmt.Sprintf("; did you mean %q?", r.suggestion)
	}
	return errors.New(text)
}

// show quotes a wrong text in a message, unless it may be a secret.
func (s *scalar) show(text string) string {
	if s.secret {
		return "this value"
	}
	return strconv.Quote(truncate(text, 64))
}
