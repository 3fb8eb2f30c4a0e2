package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// What a terminal is told, as in ECMA-48: to go to its first line, and to clear the rest
// of a line and of itself.
const (
	toTop     = "\x1b[H"
	clearLine = "\x1b[K"
	clearRest = "\x1b[J"
)

// A screen shows what is watched: on a terminal always the newest, in place; elsewhere
// what changes, one after the other.
type screen struct {
	out, errs io.Writer
	every     time.Duration
	file      *os.File // the terminal; nil if there is none, or nobody reads it as one
	absent    string   // why the coordinator says nothing
	shown     string   // what the terminal shows
	newest    string   // what it is to show
	at        time.Time
}

// newScreen is for what --output says.
func (p *program) newScreen(cmd *cobra.Command, every time.Duration) *screen {
	s := &screen{out: cmd.OutOrStdout(), errs: cmd.ErrOrStderr(), every: every}
	if file, ok := s.out.(*os.File); ok && p.output.Human() && !dumb() && term.IsTerminal(int(file.Fd())) && obeysEscapes(file) {
		s.file = file
	}
	return s
}

// terminal reports whether the newest is shown in place.
func (s *screen) terminal() bool { return s.file != nil }

// away says that the coordinator says nothing, and why; "" that it is back.
func (s *screen) away(why string) {
	s.absent = why
	switch {
	case s.terminal():
		_ = s.paint() // what fails is found when there is something to show
	case why != "":
		fmt.Fprintf(s.errs, "certctl: %s\n", why)
	default:
		fmt.Fprintln(s.errs, "certctl: the coordinator answers again")
	}
}

// draw shows a text, if it is another one than is shown.
func (s *screen) draw(text string, now time.Time) error {
	if text == s.newest && s.shown != "" {
		return nil
	}
	s.newest, s.at = text, now
	return s.paint()
}

// paint writes what is to be shown over what is there. What does not fit is left out: a
// line that wraps, or one below the last, would move the rest.
func (s *screen) paint() error {
	width, height, err := term.GetSize(int(s.file.Fd()))
	if err != nil || width < 1 || height < 4 {
		width, height = 80, 24
	}
	head := fmt.Sprintf("as of %s, looking every %s; Ctrl-C ends", s.at.Local().Format(time.TimeOnly), s.every)
	if s.at.IsZero() {
		head = "Ctrl-C ends"
	}
	if s.absent != "" {
		head = "certctl: " + s.absent
	}
	lines := strings.Split(strings.TrimSuffix(s.newest, "\n"), "\n")
	if room := height - 3; len(lines) > room { // the head, an empty line, and the cursor's
		left := len(lines) - room + 1
		lines = append(lines[:room-1], fmt.Sprintf("and %d lines more", left))
	}
	var text strings.Builder
	text.WriteString(toTop)
	for _, line := range append([]string{head, ""}, lines...) {
		if letters := []rune(line); len(letters) > width {
			line = string(letters[:width])
		}
		text.WriteString(line + clearLine + "\n")
	}
	text.WriteString(clearRest)
	s.shown = text.String()
	_, err = io.WriteString(s.file, s.shown)
	return err
}
