package selector

import (
	"fmt"
	"maps"
	"slices"
)

// Of chooses the hosts that have, for each label, one of its values.
func Of(labels map[string][]string) Selector {
	var s Selector
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		values := slices.Sorted(slices.Values(labels[key]))
		s.requirements = append(s.requirements, requirement{key: key, is: in, values: slices.Compact(values)})
	}
	return s
}

// And chooses the hosts that both choose. Requirements of other that s makes already are
// not made twice. The error says that it would be larger than a selector may be.
func (s Selector) And(other Selector) (Selector, error) {
	both := Selector{requirements: slices.Clone(s.requirements)}
	for _, r := range other.requirements {
		if !slices.ContainsFunc(s.requirements, func(own requirement) bool { return own.String() == r.String() }) {
			both.requirements = append(both.requirements, r)
		}
	}
	if n := len(both.requirements); n > MaxRequirements {
		return Selector{}, fmt.Errorf("the selector has %d requirements; expected at most %d", n, MaxRequirements)
	}
	if n := len(both.String()); n > MaxBytes {
		return Selector{}, fmt.Errorf("the selector has %d bytes; expected at most %d", n, MaxBytes)
	}
	return both, nil
}

// Within reports whether every host that s chooses is one of those that [Of] chooses
// for the same labels, whatever other labels it has.
func (s Selector) Within(labels map[string][]string) bool {
	for key, allowed := range labels {
		left, bound := s.valuesOf(key)
		if !bound || slices.ContainsFunc(left, func(value string) bool { return !slices.Contains(allowed, value) }) {
			return false
		}
	}
	return true
}

// valuesOf are the values of a label that a chosen host can have; bound is false if it
// need not have one of a known set.
func (s Selector) valuesOf(key string) (left []string, bound bool) {
	for _, r := range s.requirements {
		switch {
		case r.key != key || r.is != in:
		case !bound:
			left, bound = slices.Clone(r.values), true
		default:
			left = slices.DeleteFunc(left, func(value string) bool { return !slices.Contains(r.values, value) })
		}
	}
	for _, r := range s.requirements {
		if r.key == key && r.is == notIn {
			left = slices.DeleteFunc(left, func(value string) bool { return slices.Contains(r.values, value) })
		}
	}
	return left, bound
}

// ValidValue reports whether a selector can name the value of a label.
func ValidValue(value string) bool {
	p := parser{text: value}
	word, err := p.value()
	return err == nil && word == value
}
