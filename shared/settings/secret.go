package settings

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
)

// redacted stands for a secret wherever it would be printed.
const redacted = "[redacted]"

// Secret is a text that prints itself as "[redacted]" through fmt, log/slog, encoding/json and every encoder that honours
// encoding.TextMarshaler. The zero Secret is unset.
type Secret struct{ text string }

// NewSecret wraps text.
func NewSecret(text string) Secret { return Secret{text: text} }

// Reveal returns the text itself, for the one place that needs it.
func (s Secret) Reveal() string { return s.text }

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
