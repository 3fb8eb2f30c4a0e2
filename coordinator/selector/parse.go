package selector

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const everything = "*"

const expected = `expected such as env=prod,role in (web,api),!legacy, or * for every host`

// Parse reads a selector. Its errors say what was found, where, and what was
// expected; an empty text is one, so that nothing chooses every host by
// accident.
func Parse(text string) (Selector, error) {
	switch {
	case len(text) > MaxBytes:
		return Selector{}, fmt.Errorf("the selector has %d bytes; expected at most %d", len(text), MaxBytes)
	case !utf8.ValidString(text):
		return Selector{}, fmt.Errorf("the selector is not UTF-8; %s", expected)
	case strings.TrimSpace(text) == everything:
		return Selector{}, nil
	case strings.TrimSpace(text) == "":
		return Selector{}, fmt.Errorf("the selector is empty; %s", expected)
	}
	p := parser{text: text}
	var s Selector
	for {
		r, err := p.requirement()
		if err != nil {
			return Selector{}, err
		}
		s.requirements = append(s.requirements, r)
		if len(s.requirements) > MaxRequirements {
			return Selector{}, fmt.Errorf("the selector has more than %d requirements", MaxRequirements)
		}
		if p.space(); p.at == len(p.text) {
			return s, nil
		}
		if !p.take(",") {
			return Selector{}, p.unexpected("a comma")
		}
	}
}

type parser struct {
	text string
	at   int
}

func (p *parser) space() {
	p.at += len(p.text[p.at:]) - len(strings.TrimLeft(p.text[p.at:], " \t"))
}

func (p *parser) take(token string) bool {
	p.space()
	if !strings.HasPrefix(p.text[p.at:], token) {
		return false
	}
	p.at += len(token)
	return true
}

func (p *parser) unexpected(wanted string) error {
	found := "the end"
	if rest := p.text[p.at:]; rest != "" {
		r, _ := utf8.DecodeRuneInString(rest)
		found = fmt.Sprintf("%q", r)
	}
	return fmt.Errorf("the selector has %s at character %d, where %s should be; %s",
		found, utf8.RuneCountInString(p.text[:p.at])+1, wanted, expected)
}

func (p *parser) requirement() (requirement, error) {
	not := p.take("!")
	key := p.word(keyRune)
	switch {
	case key == "":
		return requirement{}, p.unexpected("a label's name")
	case len(key) > maxKey:
		return requirement{}, fmt.Errorf("the label's name %.80q is longer than %d bytes", key, maxKey)
	case not:
		return requirement{key: key, is: absent}, nil
	case p.take("!="):
		return p.single(key, notIn)
	case p.take("=="), p.take("="):
		return p.single(key, in)
	}
	before := p.at
	switch p.word(keyRune) {
	case "in":
		return p.set(key, in)
	case "notin":
		return p.set(key, notIn)
	}
	p.at = before
	return requirement{key: key, is: exists}, nil
}

// single is a requirement with one value, which may be empty.
func (p *parser) single(key string, is operator) (requirement, error) {
	value, err := p.value()
	return requirement{key: key, is: is, values: []string{value}}, err
}

func (p *parser) set(key string, is operator) (requirement, error) {
	r := requirement{key: key, is: is}
	if !p.take("(") {
		return r, p.unexpected("an opening bracket")
	}
	for {
		value, err := p.value()
		if err != nil {
			return r, err
		}
		r.values = append(r.values, value)
		if p.take(")") {
			slices.Sort(r.values)
			r.values = slices.Compact(r.values)
			return r, nil
		}
		if !p.take(",") {
			return r, p.unexpected("a comma or a closing bracket")
		}
	}
}

func (p *parser) value() (string, error) {
	value := p.word(valueRune)
	if len(value) > maxValue {
		return "", fmt.Errorf("the value %.80q is longer than %d bytes", value, maxValue)
	}
	return value, nil
}

// word takes the characters that belong to a word, "" if there are none.
func (p *parser) word(belongs func(rune) bool) string {
	p.space()
	rest := p.text[p.at:]
	end := strings.IndexFunc(rest, func(r rune) bool { return !belongs(r) })
	if end < 0 {
		end = len(rest)
	}
	p.at += end
	return rest[:end]
}

func keyRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/", r)
}

// valueRune leaves out what separates.
func valueRune(r rune) bool {
	return unicode.IsGraphic(r) && !unicode.IsSpace(r) && !strings.ContainsRune(",()=!", r)
}
