package settings

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// orderedScalar is a number or duration with a range.
func orderedScalar[N cmp.Ordered](name, expected string, t tags, accepts yamlStyle, format func(N) string,
	parse func(string) (N, *refusal),
) *scalar {
	s := &scalar{name: name, expected: expected, accepts: accepts}
	var low, high *N
	for _, side := range []struct {
		name, text string
		to         **N
	}{{"min", t.minText, &low}, {"max", t.maxText, &high}} {
		if side.text == "" {
			continue
		}
		n, refused := parse(side.text)
		if refused != nil {
			s.err = errors.Join(s.err, fmt.Errorf("%s tag %q is not %s", side.name, side.text, expected))
			continue
		}
		*side.to = &n
	}
	if low != nil && high != nil && *low > *high {
		s.err = errors.Join(s.err, errors.New("min tag is above max tag"))
	}
	switch {
	case low != nil && high != nil:
		s.limits = format(*low) + " to " + format(*high)
		s.expected += " from " + s.limits
	case low != nil:
		s.limits = "at least " + format(*low)
		s.expected += " of " + s.limits
	case high != nil:
		s.limits = "at most " + format(*high)
		s.expected += " of " + s.limits
	}
	if low != nil {
		s.floor = format(*low)
	}
	s.parse = func(text string, v reflect.Value) *refusal {
		n, refused := parse(text)
		if refused != nil {
			return refused
		}
		if low != nil && n < *low || high != nil && n > *high {
			return &refusal{}
		}
		v.Set(reflect.ValueOf(n).Convert(v.Type()))
		return nil
	}
	s.format = func(v reflect.Value) string {
		return format(v.Convert(reflect.TypeFor[N]()).Interface().(N))
	}
	return s
}

// withIntegerBounds names the range of a narrow Go type, which a user cannot know; that of a 64-bit type says nothing.
func withIntegerBounds(t tags, low, high string, bits int) tags {
	if t.minText == "" && (bits < 64 || low == "0") {
		t.minText = low
	}
	if t.maxText == "" && bits < 64 {
		t.maxText = high
	}
	return t
}

// parseInteger reads decimal, 0x, 0o and 0b forms. A leading zero is refused: YAML 1.1 and C read 0755 as octal, YAML 1.2
// as decimal, and a setting must not depend on which of them its author had in mind.
func parseInteger[N any](text string, bits int, parse func(string, int, int) (N, error)) (N, *refusal) {
	digits := strings.TrimLeft(text, "+-")
	if len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
		var zero N
		return zero, &refusal{detail: errors.New("a leading zero is ambiguous; write 0o for octal")}
	}
	n, err := parse(strings.TrimPrefix(text, "+"), 0, bits)
	if err != nil {
		return n, &refusal{}
	}
	return n, nil
}

func parseFloat(text string, bits int) (float64, *refusal) {
	n, err := strconv.ParseFloat(text, bits)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, &refusal{}
	}
	return n, nil
}

func formatFloat(bits int) func(float64) string {
	return func(n float64) string { return strconv.FormatFloat(n, 'g', -1, bits) }
}

// parseDurationSetting suggests a unit to whoever leaves it out; "" is seconds.
func parseDurationSetting(text, unit string) (time.Duration, *refusal) {
	d, err := ParseDuration(text)
	if err == nil {
		return d, nil
	}
	if _, err := strconv.ParseUint(text, 10, 31); err == nil {
		return 0, &refusal{detail: errors.New("it has no unit"), suggestion: text + cmp.Or(unit, "s")}
	}
	return 0, &refusal{}
}
