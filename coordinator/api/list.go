package api

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Paging is the part that the inputs of all lists share. It is exported for Huma,
// which reads the tags of exported fields alone.
type Paging struct {
	Cursor string `query:"cursor" maxLength:"2048" doc:"next_cursor of the page before."`
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"Items on one page, at most."`
}

// Bounds of labels, in filters and on tokens.
const (
	maxLabels     = 32
	maxLabelKey   = 63
	maxLabelValue = 255
)

// parseLabels reads label=value filters.
func parseLabels(field string, list []string) (map[string]string, *Problem) {
	labels := make(map[string]string, len(list))
	for _, text := range list {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, invalid(field, fmt.Sprintf("%q is not label=value", text), "write it as env=prod; repeat the parameter for more labels")
		}
		if _, twice := labels[key]; twice {
			return nil, invalid(field, fmt.Sprintf("the label %q stands twice", key), "give each label once")
		}
		labels[key] = value
	}
	return labels, checkLabels(field, labels)
}

func checkLabels(field string, labels map[string]string) *Problem {
	if len(labels) > maxLabels {
		return invalid(field, fmt.Sprintf("%d labels; at most %d are kept", len(labels), maxLabels), "give fewer labels")
	}
	for key, value := range labels {
		if !validLabelKey(key) {
			return invalid(field, fmt.Sprintf("%q is not a label", clip(key)),
				fmt.Sprintf("use 1 to %d letters, digits and . _ - /", maxLabelKey))
		}
		if len(value) > maxLabelValue || strings.ContainsFunc(value, notPrintable) {
			return invalid(field, fmt.Sprintf("the value of the label %q is too long or has control characters", key),
				fmt.Sprintf("use at most %d bytes of plain text", maxLabelValue))
		}
	}
	return nil
}

func validLabelKey(key string) bool {
	if key == "" || len(key) > maxLabelKey {
		return false
	}
	for _, r := range key {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-/", r) {
			return false
		}
	}
	return true
}

func notPrintable(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }

// clip keeps a refused text from filling the answer.
func clip(text string) string {
	if len(text) <= maxLabelKey {
		return text
	}
	return strings.ToValidUTF8(text[:maxLabelKey], "") + "..."
}
