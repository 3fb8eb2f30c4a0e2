package cli

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"
)

// Logger writes to w. format is text, json or auto: text if w is a terminal.
// The level can be changed while the program runs. Durations are text such as
// 1.5s in both formats.
func Logger(w io.Writer, level, format string) (*slog.Logger, *slog.LevelVar, error) {
	var at slog.LevelVar
	if err := at.UnmarshalText([]byte(level)); err != nil {
		return nil, nil, fmt.Errorf("log level %q: expected debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: &at, ReplaceAttr: durationAsText}
	if format == "auto" {
		format = "json"
		if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			format = "text"
		}
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), &at, nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), &at, nil
	}
	return nil, nil, fmt.Errorf("log format %q: expected auto, text or json", format)
}

// durationAsText is for the JSON handler, which writes a number of nanoseconds.
func durationAsText(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}
