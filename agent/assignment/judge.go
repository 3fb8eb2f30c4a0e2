package assignment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
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
	// Certificate is what to manage, and InForce the definition that it is of. Of
	// one that is refused that is the last one which was not; nil if there is none.
	Certificate *config.Certificate
	InForce     *wire.Assignment
}

// Host is what assignments are judged by.
type Host struct {
	Settings *config.Settings
	// Patterns are those of the enrolment; none allows nothing.
	Patterns []string
	// Accepted are the definitions that were in force before.
	Accepted []wire.Assignment
	// Make makes what a definition needs, and refuses what only that can tell. It
	// is called for what is otherwise allowed; the last call for a name counts.
	Make func(*config.Certificate) error
	// Addresses are the host's own, with the lengths of their networks; nil asks
	// the operating system.
	Addresses func() ([]net.Addr, error)
}

// Judge decides about all assignments of a host, in their order. Equal inputs
// give equal verdicts, but for what symbolic links lead to and for the addresses
// that the host has.
//
// A definition that is refused as a change of one that was not leaves that one in
// force, as long as the host's rules allow it: a slip at the centre must not let
// certificates expire.
func (h Host) Judge(list []wire.Assignment) []Verdict {
	j := h.judge()
	before := make(map[string]wire.Assignment, len(h.Accepted))
	for _, a := range h.Accepted {
		before[a.Name] = a
	}
	verdicts := make([]Verdict, 0, len(list))
	for _, a := range list {
		v := Verdict{Name: a.Name, Revision: a.Revision}
		if j.own[a.Name] {
			v.State = wire.AssignmentShadowed
			v.Detail = clip(fmt.Sprintf("this host's own configuration has a certificate named %q, which is managed instead; "+
				"to let the assignment be, take that out of certificates in agent.yaml", a.Name))
			verdicts = append(verdicts, v)
			continue
		}
		err := j.try(a, &v)
		v.State = wire.AssignmentActive
		if err != nil {
			v.State, v.Detail = wire.AssignmentRefused, explain(a.Name, err)
			if last, ok := before[a.Name]; ok && last.Revision != a.Revision && j.try(last, &v) == nil {
				v.Detail = clip(fmt.Sprintf("revision %d stays in force; %s", last.Revision, v.Detail))
			}
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

// judgement is what stays the same over all assignments of a host.
type judgement struct {
	Host
	patterns    pki.NamePatterns
	patternsErr error
	own         map[string]bool
	taken       *config.Owners
}

func (h Host) judge() *judgement {
	j := &judgement{Host: h, own: make(map[string]bool, len(h.Settings.Certificates)), taken: config.NewOwners()}
	for i := range h.Settings.Certificates {
		c := &h.Settings.Certificates[i]
		j.own[c.Name] = true
		j.taken.Give(&c.Certificate, fmt.Sprintf("the host's own certificate %q", c.Name))
	}
	j.patterns, j.patternsErr = pki.ParseNamePatterns(h.Patterns)
	return j
}

// try puts a definition in force, unless it is not allowed.
func (j *judgement) try(a wire.Assignment, v *Verdict) error {
	switch {
	case !j.Settings.Assignments.Accept:
		return errors.New(`this host takes no assignments; to let it, write "accept: true" below assignments in agent.yaml`)
	case j.patternsErr != nil:
		return fmt.Errorf("the name patterns of this host's enrolment cannot be read: %w; enrol it again", j.patternsErr)
	}
	definition, err := j.allow(a, j.patterns)
	if err != nil {
		return err
	}
	var taken []error
	j.taken.Claim(definition, func(field string, err error) { taken = append(taken, fmt.Errorf("%s: %w", field, err)) })
	if err := errors.Join(taken...); err != nil {
		return err
	}
	certificate := &config.Certificate{Name: a.Name, Certificate: *definition}
	if j.Make != nil {
		if err := j.Make(certificate); err != nil {
			return err
		}
	}
	j.taken.Give(definition, fmt.Sprintf("the assignment %q", a.Name))
	v.Certificate, v.InForce = certificate, &a
	return nil
}

// Report is the verdict as the centre is told of it.
func (v *Verdict) Report() wire.AssignmentReport {
	return wire.AssignmentReport{Name: v.Name, Revision: v.Revision, State: v.State, Detail: v.Detail}
}

// InForce are the definitions that the host goes by.
func InForce(verdicts []Verdict) []wire.Assignment {
	var list []wire.Assignment
	for i := range verdicts {
		if a := verdicts[i].InForce; a != nil {
			list = append(list, *a)
		}
	}
	return list
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
	h.Settings.ValidateIssuers("", c, func(field string, err error) {
		problems = append(problems, fmt.Errorf("%s: %w; configure the issuer below issuers in agent.yaml, or have the assignment name another one", field, err))
	})
	for i := range c.Deployments {
		at := fmt.Sprintf("deployments[%d].", i)
		problems = append(problems, h.allowFiles(at, &c.Deployments[i].Files), h.allowCommands(at, &c.Deployments[i]),
			h.allowVerify(at, c.Deployments[i].Verify, names))
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
