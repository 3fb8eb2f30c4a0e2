package settings

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"unicode/utf8"
)

// redacted stands for a secret wherever it would be printed.
const redacted = "[redacted]"

// Secret is a text that prints itself as "[redacted]" through fmt, log/slog, encoding/json and every encoder that honours
// encoding.TextMarshaler. The zero Secret is unset.
type Secret struct {
	text string
	file string // that it was read from, "" if none
}

// NewSecret wraps text.
func NewSecret(text string) Secret { return Secret{text: text} }

// Reveal returns the text itself, for the one place that needs it.
func (s Secret) Reveal() string { return s.text }

// Read returns the text as it is now: of a secret that was read from a file, what that file holds, if it may be used as
// for Load. A program that calls it whenever it needs the secret follows a change of the file without being started anew.
func (s Secret) Read() (string, error) {
	if s.file == "" {
		return s.text, nil
	}
	text, err := secretText(s.file)
	switch {
	case err != nil:
		return "", err
	case text == "" || !utf8.ValidString(text):
		return "", errors.New("the secret file " + s.file + " is empty, or is not UTF-8")
	}
	return text, nil
}

// IsSet reports whether the secret has a text.
func (s Secret) IsSet() bool { return s.text != "" }

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// GoString returns "[redacted]", for %#v.
func (Secret) GoString() string { return redacted }

// Format writes "[redacted]" for every verb: without it, %x and %d would print the field.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON implements json.Marshaler.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(strconv.Quote(redacted)), nil }

// MarshalText implements encoding.TextMarshaler.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// secretText reads the file of a secret. One line break at the end is not part of the secret, since most editors add it.
func secretText(path string) (string, error) {
	data, err := readBounded(path, maxSecretSize, checkReaders)
	if access, refused := errors.AsType[*AccessError](err); refused {
		return "", fmt.Errorf("the secret file is not used: %w", access)
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the secret file: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), nil
}
