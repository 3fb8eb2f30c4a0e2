package managed

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	opening          = "${"
	closing          = "}"
	hostnameVariable = "hostname"
	labelPrefix      = "label."
)

// Values are what the placeholders stand for on one host.
type Values struct {
	Hostname string
	Labels   map[string]string
}

// An UndefinedError says that a host has no value for a placeholder.
type UndefinedError struct {
	Variable string // "hostname" or "label.KEY"
}

// Error names the placeholder and the mend.
func (e *UndefinedError) Error() string {
	if key, ok := strings.CutPrefix(e.Variable, labelPrefix); ok {
		return fmt.Sprintf("the host has no label %q for ${%s}; select only hosts that have it", key, e.Variable)
	}
	return fmt.Sprintf("the host has not said its name yet, for ${%s}", e.Variable)
}

func (v Values) lookup(variable string) (string, bool) {
	if key, ok := strings.CutPrefix(variable, labelPrefix); ok {
		value, known := v.Labels[key]
		return value, known && value != ""
	}
	return v.Hostname, v.Hostname != ""
}

// open reports whether a text holds a placeholder.
func open(text string) bool { return strings.Contains(text, opening) }

// checkPlaceholders reports a placeholder that no host could have a value for.
func checkPlaceholders(text string) error {
	_, err := fillText(text, func(variable string) (string, error) {
		key, label := strings.CutPrefix(variable, labelPrefix)
		if variable == hostnameVariable || label && key != "" {
			return "", nil
		}
		return "", fmt.Errorf("cannot use ${%.80s}; expected ${hostname} or ${label.KEY}", variable)
	})
	return err
}

// fillText replaces each placeholder of a text by what value says.
func fillText(text string, value func(variable string) (string, error)) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, opening)
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		variable, after, closed := strings.Cut(rest, closing)
		if !closed {
			return "", fmt.Errorf("the placeholder ${%.80s has no closing brace", rest)
		}
		filled, err := value(variable)
		if err != nil {
			return "", err
		}
		out.WriteString(filled)
		text = after
	}
}

// checkValue refuses a value that is no plain text, or that would change where a
// path leads: in a path it is one step, or a part of one, and nothing more.
func checkValue(variable, value string, path bool) error {
	switch {
	case !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) || open(value):
		return fmt.Errorf("the value %.80q of ${%s} is not plain text", value, variable)
	case path && (value == "." || value == ".." || strings.ContainsAny(value, `/\:`)):
		return fmt.Errorf("the value %.80q of ${%s} cannot stand in a path; expected a name without slash, backslash and colon", value, variable)
	}
	return nil
}

// templated visits the texts in which placeholders may stand.
func (c *Certificate) templated(visit func(field string, text *string)) {
	c.eachTemplated(func(field string, _ bool, text *string) { visit(field, text) })
}

func (c *Certificate) eachTemplated(visit func(field string, path bool, text *string)) {
	for i := range c.Names {
		visit(fmt.Sprintf("names[%d]", i), false, &c.Names[i])
	}
	for i := range c.Deployments {
		d := &c.Deployments[i]
		at := fmt.Sprintf("deployments[%d].", i)
		d.Files.each(func(key string, path *string) { visit(at+"files."+key, true, path) })
		if d.Verify != nil {
			visit(at+"verify.address", false, &d.Verify.Address)
			visit(at+"verify.server_name", false, &d.Verify.ServerName)
		}
	}
}

// Placeholders lists the fields that hold a placeholder.
func (c *Certificate) Placeholders() []string {
	var fields []string
	c.templated(func(field string, text *string) {
		if open(*text) {
			fields = append(fields, field)
		}
	})
	return fields
}
