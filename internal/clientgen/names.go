package clientgen

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// initialisms are the words that Go writes in capitals.
var initialisms = map[string]string{"api": "API", "ca": "CA", "csv": "CSV", "id": "ID", "ids": "IDs", "os": "OS", "url": "URL"}

// exported is the Go name of a name of the document: list-api-tokens is ListAPITokens.
func exported(name string) string {
	var out strings.Builder
	for word := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '-' || r == '_' }) {
		if known, ok := initialisms[word]; ok {
			out.WriteString(known)
			continue
		}
		first, size := utf8.DecodeRuneInString(word)
		out.WriteRune(unicode.ToUpper(first))
		out.WriteString(word[size:])
	}
	return out.String()
}

// sentence is a summary as the continuation of a comment that begins with a name.
func sentence(summary string) string {
	first, size := utf8.DecodeRuneInString(summary)
	next, _ := utf8.DecodeRuneInString(summary[size:])
	if unicode.IsUpper(next) {
		return summary // begins with an abbreviation
	}
	return string(unicode.ToLower(first)) + summary[size:]
}

// comment is a text as lines of a comment, at most so wide.
func comment(indent, text string) string {
	const width = 110
	var out strings.Builder
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if out.Len() > 0 {
			out.WriteString(indent + "//\n")
		}
		line := ""
		for word := range strings.FieldsSeq(paragraph) {
			if line != "" && len(line)+1+len(word) > width {
				out.WriteString(indent + "// " + line + "\n")
				line = ""
			}
			if line != "" {
				line += " "
			}
			line += word
		}
		out.WriteString(indent + "// " + line + "\n")
	}
	return strings.TrimSuffix(out.String(), "\n")
}

func lower(method string) string { return strings.ToLower(method) }
