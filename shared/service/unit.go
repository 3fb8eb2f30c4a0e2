package service

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

const execStart = "ExecStart="

// renderUnit returns unit with commandLine in its one line ExecStart=; every
// other byte stays as it is.
func renderUnit(unit string, commandLine []string) (string, error) {
	words := make([]string, len(commandLine))
	for i, word := range commandLine {
		quoted, err := unitWord(word)
		if err != nil {
			return "", err
		}
		words[i] = quoted
	}
	lines := strings.Split(unit, "\n")
	at := -1
	for i, line := range lines {
		if !strings.HasPrefix(line, execStart) {
			continue
		}
		if at >= 0 {
			return "", errors.New("the unit has more than one line " + execStart)
		}
		at = i
	}
	if at < 0 {
		return "", errors.New("the unit has no line " + execStart)
	}
	lines[at] = execStart + strings.Join(words, " ")
	return strings.Join(lines, "\n"), nil
}

// unitWord writes one word of a command line as systemd.service(5) reads it.
// What would need escapes that differ between the command and its arguments,
// and between versions of systemd, is refused: nobody misses it in a path.
func unitWord(word string) (string, error) {
	if word == "" {
		return "", errors.New("systemd: an empty word cannot stand in the command line of a service")
	}
	if i := strings.IndexFunc(word, func(r rune) bool {
		return r == unicode.ReplacementChar || unicode.IsControl(r) || strings.ContainsRune("\"'\\${};", r)
	}); i >= 0 {
		return "", fmt.Errorf("systemd: %q cannot stand in the command line of a service because of its character %d: choose another path", word, i+1)
	}
	word = strings.ReplaceAll(word, "%", "%%")
	if strings.ContainsFunc(word, unicode.IsSpace) {
		return `"` + word + `"`, nil
	}
	return word, nil
}
