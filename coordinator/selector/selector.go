// Package selector chooses hosts by their labels, in the grammar of Kubernetes'
// label selectors:
//
//	env=prod              the label has this value (== means the same)
//	env!=prod             it has another value, or the host has no such label
//	role in (web,api)     it has one of these values
//	role notin (db)       it has none of these values, or the host has no such label
//	legacy, !legacy       the host has the label, or has not
//	*                     every host; alone
//
// Requirements are separated by commas, and all of them have to hold.
package selector

import (
	"slices"
	"strings"
)

// Bounds of a selector.
const (
	MaxBytes        = 1024
	MaxRequirements = 32
	maxKey          = 63
	maxValue        = 255
)

type operator int

const (
	in operator = iota
	notIn
	exists
	absent
)

type requirement struct {
	key    string
	is     operator
	values []string // sorted, of in and notIn
}

// Selector is a parsed selector. The zero Selector matches every host. It never
// changes.
type Selector struct {
	requirements []requirement
}

// Matches reports whether a host with these labels is chosen.
func (s Selector) Matches(labels map[string]string) bool {
	for i := range s.requirements {
		if !s.requirements[i].matches(labels) {
			return false
		}
	}
	return true
}

func (r *requirement) matches(labels map[string]string) bool {
	value, has := labels[r.key]
	switch r.is {
	case exists:
		return has
	case absent:
		return !has
	case in:
		return has && slices.Contains(r.values, value)
	default:
		return !has || !slices.Contains(r.values, value)
	}
}

// String is the selector in its one form: requirements as they were given,
// values sorted, and a set of one value written as an equality.
func (s Selector) String() string {
	if len(s.requirements) == 0 {
		return everything
	}
	parts := make([]string, len(s.requirements))
	for i, r := range s.requirements {
		parts[i] = r.String()
	}
	return strings.Join(parts, ",")
}

// String is the requirement in its one form.
func (r requirement) String() string {
	list := strings.Join(r.values, ",")
	switch {
	case r.is == exists:
		return r.key
	case r.is == absent:
		return "!" + r.key
	case r.is == in && len(r.values) == 1:
		return r.key + "=" + list
	case r.is == notIn && len(r.values) == 1:
		return r.key + "!=" + list
	case r.is == in:
		return r.key + " in (" + list + ")"
	default:
		return r.key + " notin (" + list + ")"
	}
}
