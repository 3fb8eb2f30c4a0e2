package assignment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/settings"
	"github.com/certctl/certctl/shared/wire"
)

// Verdict is what a host makes of one assignment.
type Verdict struct {
	Name     string
	Revision uint64
	State    wire.AssignmentState
	// Detail says why it is not active, with the mend.
	Detail string
	// Certificate is what to manage; nil unless it is active.
	Certificate *config.Certificate
}

// Report is the verdict as the centre is told of it.
func (v *Verdict) Report() wire.AssignmentReport {
	return wire.AssignmentReport{Name: v.Name, Revision: v.Revision, State: v.State, Detail: v.Detail}
}

// Refuse turns a verdict into a refusal: also one that was active until something
// was found that only the making of its deployments could tell.
func (v *Verdict) Refuse(err error) {
	v.State, v.Detail, v.Certificate = wire.AssignmentRefused, explain(v.Name, err), nil
}

// Host is what assignments are judged by.
type Host struct {
	Settings *config.Settings
	// Patterns are those of the enrolment; none allows nothing.
	Patterns []string
}

// Judge decides about all assignments of a host, in their order. Equal inputs
// give equal verdicts, but for what symbolic links lead to.
func (h Host) Judge(list []wire.Assignment) []Verdict {
	s := h.Settings
	own := make(map[string]bool, len(s.Certificates))
	taken := newFiles()
	for i := range s.Certificates {
		c := &s.Certificates[i]
		own[c.Name] = true
		taken.give(&c.Certificate, fmt.Sprintf("the host's own certificate %q", c.Name))
	}
	patterns, patternsErr := pki.ParseNamePatterns(h.Patterns)
	verdicts := make([]Verdict, 0, len(list))
	for _, a := range list {
		v := Verdict{Name: a.Name, Revision: a.Revision}
		switch {
		case own[a.Name]:
			v.State = wire.AssignmentShadowed
			v.Detail = clip(fmt.Sprintf("this host's own configuration has a certificate named %q, which is managed instead; "+
				"to let the assignment be, take that out of certificates in agent.yaml", a.Name))
		case !s.Assignments.Accept:
			v.Refuse(errors.New(`this host takes no assignments; to let it, write "accept: true" below assignments in agent.yaml`))
		case patternsErr != nil:
			v.Refuse(fmt.Errorf("the name patterns of this host's enrolment cannot be read: %w; enrol it again", patternsErr))
		default:
			certificate, err := h.allow(a, patterns)
			if err == nil {
				err = taken.claim(certificate)
			}
			if err != nil {
				v.Refuse(err)
				break
			}
			taken.give(certificate, fmt.Sprintf("the assignment %q", a.Name))
			v.State = wire.AssignmentActive
			v.Certificate = &config.Certificate{Name: a.Name, Certificate: *certificate}
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

// allow reads one assignment and decides whether this host does what it says.
func (h Host) allow(a wire.Assignment, patterns pki.NamePatterns) (*managed.Certificate, error) {
	c, err := Parse(a)
	if err != nil {
		return nil, err
	}
	names, err := pki.ParseNames(c.Names)
	if err != nil {
		return nil, fmt.Errorf("names: %w", err)
	}
	if len(patterns) == 0 {
		return nil, errors.New("this host's enrolment allows no names; enrol it with a token that has name patterns")
	}
	if err := patterns.Allow(names); err != nil {
		return nil, fmt.Errorf("names: this host's enrolment does not allow this: %w", err)
	}
	var problems []error
	h.Settings.ValidateIssuers("", c, func(field string, err error) { problems = append(problems, fmt.Errorf("%s: %w", field, err)) })
	for i := range c.Deployments {
		at := fmt.Sprintf("deployments[%d].", i)
		problems = append(problems, h.allowFiles(at, &c.Deployments[i].Files), h.allowCommands(at, &c.Deployments[i]))
	}
	return c, errors.Join(problems...)
}

// Parse reads the definition of an assignment as strictly as the agent reads its
// own configuration. Its errors name the field, and its place in the definition.
func Parse(a wire.Assignment) (*managed.Certificate, error) {
	if len(a.Certificate) > wire.MaxAssignmentBytes {
		return nil, fmt.Errorf("the definition has %d bytes; at most %d are read", len(a.Certificate), wire.MaxAssignmentBytes)
	}
	// Without its white space, which JSON and YAML see differently.
	var text bytes.Buffer
	if err := json.Compact(&text, a.Certificate); err != nil {
		return nil, fmt.Errorf("the definition is not JSON: %w", err)
	}
	var c managed.Certificate
	if _, err := settings.Load(&c, settings.Options{File: "definition", Text: text.Bytes()}); err != nil {
		return nil, err
	}
	if open := c.Placeholders(); len(open) > 0 {
		return nil, fmt.Errorf("%s: holds a placeholder that the coordinator did not fill in; upgrade the coordinator", open[0])
	}
	return &c, nil
}

// explain is the text of a refusal, in one line that names the assignment.
func explain(name string, err error) string {
	return clip(fmt.Sprintf("assignment %q: %s", name, strings.Join(strings.Split(err.Error(), "\n"), "; ")))
}

// clip bounds a text as the wire wants it.
func clip(text string) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= wire.MaxTextLen {
		return text
	}
	return strings.ToValidUTF8(text[:wire.MaxTextLen-len("…")], "") + "…"
}

// Reports are all verdicts as the centre is told of them.
func Reports(verdicts []Verdict) []wire.AssignmentReport {
	var list []wire.AssignmentReport
	for i := range verdicts {
		list = append(list, verdicts[i].Report())
	}
	return list
}
