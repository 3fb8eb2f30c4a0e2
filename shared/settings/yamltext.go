package settings

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// plainText is a text that every YAML reader takes as that text without quotes. It is narrower than YAML allows.
var plainText = regexp.MustCompile(`^([A-Za-z/][A-Za-z0-9_./@+-]*|https?://[A-Za-z0-9_./@+-]+(:[0-9]+)?[A-Za-z0-9_./@+-]*|([0-9]+(d|h|m|s|ms))+)$`)

// reservedText are the plain texts that some YAML reader takes for a truth value, null or number.
var reservedText = map[string]bool{
	"true": true, "false": true, "yes": true, "no": true, "on": true, "off": true, "y": true, "n": true,
	"null": true, "nan": true, "inf": true,
}

// quoteYAML writes a text as a YAML scalar.
func quoteYAML(text string) string {
	if plainText.MatchString(text) && !reservedText[strings.ToLower(text)] {
		return text
	}
	var out strings.Builder
	out.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			out.WriteByte('\\')
			out.WriteRune(r)
		case r == '\n':
			out.WriteString(`\n`)
		case r == '\t':
			out.WriteString(`\t`)
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xfeff || r == 0x2028 || r == 0x2029 || r == 0xfffe || r == 0xffff:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			out.WriteRune(r)
		}
	}
	out.WriteByte('"')
	return out.String()
}

// yaml writes a scalar value as a YAML scalar.
func (s *scalar) yaml(v reflect.Value) string { return s.quote(s.format(v)) }

// quote writes the text form of a value as YAML. Only texts need quotes; a type with its own text form may have texts
// that look like numbers, which are then read back from quotes.
func (s *scalar) quote(text string) string {
	if s.accepts&yamlText == 0 {
		return text
	}
	return quoteYAML(text)
}

// yamlLine writes a setting with its key, in the flow form if it is a list or map of scalars. It returns "" if the value
// has no text that could be read back, such as a number below its range because nothing set it.
func (f *field) yamlLine(v reflect.Value) string {
	switch f.kind {
	case listField:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = f.elem.scalar.yaml(v.Index(i))
		}
		return f.key + ": [" + strings.Join(parts, ", ") + "]"
	case mapField:
		var parts []string
		for _, key := range sortedKeys(v) {
			parts = append(parts, quoteYAML(key.String())+": "+f.elem.scalar.yaml(v.MapIndex(key)))
		}
		return f.key + ": {" + strings.Join(parts, ", ") + "}"
	default:
		if f.scalar.secret && v.IsZero() || f.scalar.parse(f.scalar.format(v), reflect.New(v.Type()).Elem()) != nil {
			return ""
		}
		return f.key + ": " + f.scalar.yaml(v)
	}
}
