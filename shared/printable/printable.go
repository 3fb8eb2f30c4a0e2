// Package printable makes texts from outside safe for a terminal: what hosts and
// authorities report may not move its cursor, change its colours, or turn the direction
// of a line.
package printable

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
)

// Paints reports whether a terminal takes a character for more than itself: an
// escape sequence begins with one, and others turn the direction of the text.
func Paints(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }

// Text is a text on one line, with a space for each character that paints.
func Text(text string) string {
	return strings.Map(func(r rune) rune {
		if Paints(r) {
			return ' '
		}
		return r
	}, text)
}

// Lines is Text for several lines, which keep the tabs that they begin with.
func Lines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		indent := line[:len(line)-len(strings.TrimLeft(line, "\t"))]
		lines[i] = indent + Text(line[len(indent):])
	}
	return strings.Join(lines, "\n")
}

// JSON escapes in a JSON document what JSON lets stand although a terminal obeys it,
// which means the same.
func JSON(document string) string {
	return escaped(document, func(out *strings.Builder, r rune) {
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(out, `\u%04x`, unit)
		}
	})
}

// YAML is JSON for a YAML document in which such characters stand between double
// quotes alone.
func YAML(document string) string {
	return escaped(document, func(out *strings.Builder, r rune) {
		if r > 0xffff {
			fmt.Fprintf(out, `\U%08x`, r)
			return
		}
		fmt.Fprintf(out, `\u%04x`, r)
	})
}

func escaped(document string, escape func(out *strings.Builder, r rune)) string {
	if !strings.ContainsFunc(document, func(r rune) bool { return r != '\n' && Paints(r) }) {
		return document
	}
	var safe strings.Builder
	for _, r := range document {
		if r == '\n' || !Paints(r) {
			safe.WriteRune(r)
			continue
		}
		escape(&safe, r) // only ever within a string
	}
	return safe.String()
}
