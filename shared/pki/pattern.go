package pki

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// MaxNamePatterns is the largest number of patterns in one NamePatterns list.
const MaxNamePatterns = 100

type patternKind uint8

const (
	patternExact patternKind = iota + 1
	patternOneLabel
	patternAnyDepth
	patternPrefix
)

// NamePattern says which names an enrolment may ask certificates for. Its text forms:
//
//	web1.example.com     this name only
//	*.example.com        any one label in the place of the star: a.example.com; neither a.b.example.com nor
//	                     example.com, nor the wildcard name *.example.com
//	**.example.com       everything beneath example.com at any depth, wildcard names included; not example.com itself
//	=*.example.com       the wildcard name *.example.com only
//	192.0.2.7            this address only
//	10.0.0.0/8           every address of the prefix
//
// So nobody obtains a wildcard certificate, which speaks for hosts that do not exist yet, unless a pattern says so
// with "**" or "=". The zero value allows nothing. NamePatterns compare with ==.
type NamePattern struct {
	kind   patternKind
	name   string // the exact name, or what follows the stars
	prefix netip.Prefix
}

// ParseNamePattern reads one pattern. Names are normalised as ParseNames does.
func ParseNamePattern(s string) (NamePattern, error) {
	if prefix, ok, err := parsePrefix(s); ok || err != nil {
		return NamePattern{kind: patternPrefix, prefix: prefix}, err
	}
	switch {
	case s == "*" || s == "**" || s == "=*":
		return NamePattern{}, fmt.Errorf("name pattern %q: would allow every name; name the domains, as \"**.example.com\"", s)
	case strings.HasPrefix(s, "="):
		if !strings.HasPrefix(s, "=*.") {
			return NamePattern{}, fmt.Errorf("name pattern %q: \"=\" stands only before a wildcard name, as \"=*.example.com\"", clip(s))
		}
		name, err := normalDNS(s[1:])
		return makePattern(patternExact, s, name, err)
	case strings.HasPrefix(s, "**."):
		name, err := normalBase(s, s[3:])
		return makePattern(patternAnyDepth, s, name, err)
	case strings.HasPrefix(s, "*."):
		name, err := normalBase(s, s[2:])
		return makePattern(patternOneLabel, s, name, err)
	default:
		name, err := normalBase(s, s)
		return makePattern(patternExact, s, name, err)
	}
}

func makePattern(kind patternKind, text, name string, err error) (NamePattern, error) {
	if err != nil {
		return NamePattern{}, fmt.Errorf("name pattern: %w", err)
	}
	if kind != patternExact && len(name)+2 > maxNameOctets {
		return NamePattern{}, fmt.Errorf("name pattern %q: too long for any name to match", clip(text))
	}
	return NamePattern{kind: kind, name: name}, nil
}

// parsePrefix reports ok if s is an address or a prefix, and an error if it looks like a prefix but is a wrong one.
func parsePrefix(s string) (netip.Prefix, bool, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		if addr, err = normalIP(addr); err != nil {
			return netip.Prefix{}, false, fmt.Errorf("name pattern: %w", err)
		}
		return netip.PrefixFrom(addr, addr.BitLen()), true, nil
	}
	if !strings.Contains(s, "/") {
		return netip.Prefix{}, false, nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, false, fmt.Errorf("name pattern %q: want an address prefix as 10.0.0.0/8: %w", clip(s), err)
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, false, fmt.Errorf("name pattern %q: write the IPv4 prefix itself, as 10.0.0.0/8", s)
	}
	if masked := prefix.Masked(); masked != prefix {
		return netip.Prefix{}, false, fmt.Errorf("name pattern %q: has bits beyond its length; write %q", s, masked)
	}
	return prefix, true, nil
}

// String returns the pattern as ParseNamePattern reads it; the zero value is "".
func (p NamePattern) String() string {
	switch p.kind {
	case patternExact:
		if strings.HasPrefix(p.name, "*.") {
			return "=" + p.name
		}
		return p.name
	case patternOneLabel:
		return "*." + p.name
	case patternAnyDepth:
		return "**." + p.name
	case patternPrefix:
		if p.prefix.IsSingleIP() {
			return p.prefix.Addr().String()
		}
		return p.prefix.String()
	default:
		return ""
	}
}

// MarshalText implements encoding.TextMarshaler; the zero value is an error.
func (p NamePattern) MarshalText() ([]byte, error) {
	if p.kind == 0 {
		return nil, errors.New("name pattern: is empty")
	}
	return []byte(p.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler with the rules of ParseNamePattern.
func (p *NamePattern) UnmarshalText(text []byte) error {
	parsed, err := ParseNamePattern(string(text))
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}

// allowsDNS reports whether the pattern allows a normalised DNS name.
func (p NamePattern) allowsDNS(name string) bool {
	switch p.kind {
	case patternExact:
		return name == p.name
	case patternOneLabel:
		label, rest, _ := strings.Cut(name, ".")
		return rest == p.name && label != "*"
	case patternAnyDepth:
		return strings.HasSuffix(name, "."+p.name)
	default:
		return false
	}
}

func (p NamePattern) allowsIP(ip netip.Addr) bool {
	return p.kind == patternPrefix && p.prefix.Contains(ip)
}

// NamePatterns is a list of patterns; a name is allowed if any of them allows it. The empty list allows nothing.
type NamePatterns []NamePattern

// ParseNamePatterns reads at most MaxNamePatterns patterns, keeps their order and drops repeated ones.
func ParseNamePatterns(list []string) (NamePatterns, error) {
	if len(list) > MaxNamePatterns {
		return nil, fmt.Errorf("%d name patterns; at most %d are kept; join them, for example with \"**.\"", len(list), MaxNamePatterns)
	}
	patterns := make(NamePatterns, 0, len(list))
	for _, s := range list {
		p, err := ParseNamePattern(s)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(patterns, p) {
			patterns = append(patterns, p)
		}
	}
	return patterns, nil
}

// Bounded reports a pattern that allows every address. ParseNamePattern reads such a one, since it stands in states of
// enrolments that were made before it was refused; no new enrolment is to get it.
func (ps NamePatterns) Bounded() error {
	for _, p := range ps {
		if p.kind == patternPrefix && p.prefix.Bits() == 0 {
			return fmt.Errorf("name pattern %q: would allow every address; name the networks, as 10.0.0.0/8", p)
		}
	}
	return nil
}

// Strings returns the patterns' texts. It never returns nil.
func (ps NamePatterns) Strings() []string {
	list := make([]string, len(ps))
	for i, p := range ps {
		list[i] = p.String()
	}
	return list
}

// NameNotAllowedError says that a request asks for a name outside its enrolment.
type NameNotAllowedError struct {
	// Name is the first refused name.
	Name string
	// Patterns are the texts of what is allowed.
	Patterns []string
}

// Error implements error.
func (e *NameNotAllowedError) Error() string {
	if len(e.Patterns) == 0 {
		return fmt.Sprintf("name %q is not allowed: this enrolment allows no names", e.Name)
	}
	// The text is kept with each refused order: it must not grow with the enrolment.
	const most = 10
	shown, more := e.Patterns, ""
	if len(shown) > most {
		shown, more = shown[:most], fmt.Sprintf(" and %d more patterns", len(shown)-most)
	}
	return fmt.Sprintf("name %q is not allowed; this enrolment allows %s%s", e.Name, strings.Join(shown, ", "), more)
}

// Allow returns nil if every name is allowed, and else a *NameNotAllowedError about the first that is not. A set
// without names gives ErrNoNames.
func (ps NamePatterns) Allow(names Names) error {
	if names.IsZero() {
		return ErrNoNames
	}
	for _, name := range names.DNS {
		if !slices.ContainsFunc(ps, func(p NamePattern) bool { return p.allowsDNS(name) }) {
			return &NameNotAllowedError{Name: name, Patterns: ps.Strings()}
		}
	}
	for _, ip := range names.IPs {
		if !slices.ContainsFunc(ps, func(p NamePattern) bool { return p.allowsIP(ip) }) {
			return &NameNotAllowedError{Name: ip.String(), Patterns: ps.Strings()}
		}
	}
	return nil
}
