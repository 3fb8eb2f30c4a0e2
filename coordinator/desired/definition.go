package desired

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/selector"
	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Definition is an assignment that is ready to be judged. It never changes.
type Definition struct {
	Name     string
	Revision uint64
	Selector selector.Selector
	Template *managed.Template

	// broken says why a stored assignment cannot be read by this version; it is
	// refused for the hosts that it would be for.
	broken error
	index  uint64 // of the stored record's last change
}

// Compile parses the texts of an assignment. Its errors say what is wrong with
// which of them.
func Compile(name, selectorText string, template []byte) (*Definition, error) {
	chosen, err := selector.Parse(selectorText)
	if err != nil {
		return nil, err
	}
	d := &Definition{Name: name, Selector: chosen}
	if d.Template, err = managed.ParseTemplate("assignment "+name, template); err != nil {
		return nil, err
	}
	return d, nil
}

// Stored compiles a record of the state.
func Stored(a *fleet.Assignment) *Definition {
	d, err := Compile(a.Name, a.Selector, a.Template)
	if err != nil {
		// The selector decides whom it concerns; without one it is nobody's.
		d = &Definition{Name: a.Name, broken: err}
		chosen, bad := selector.Parse(a.Selector)
		if bad == nil {
			d.Selector = chosen
		}
	}
	d.Revision, d.index = a.Revision, a.ModifyIndex
	return d
}

// Item is one assignment on one host.
type Item struct {
	Name     string
	Revision uint64
	// Certificate is the definition filled in; nil if the assignment is refused.
	Certificate json.RawMessage
	Names       pki.Names
	// Refusal says why the host does not get it, with the mend.
	Refusal string
}

// Judge fills a definition in for an agent whose labels it matches.
func (d *Definition) Judge(agent *fleet.Agent) Item {
	item := Item{Name: d.Name, Revision: d.Revision}
	certificate, text, err := d.fill(agent)
	if err == nil {
		item.Names, err = allowed(certificate, agent)
	}
	if err == nil && len(text) > wire.MaxAssignmentBytes {
		err = fmt.Errorf("the definition has %d bytes on this host; at most %d are sent", len(text), wire.MaxAssignmentBytes)
	}
	if err != nil {
		item.Refusal = err.Error()
		return item
	}
	item.Certificate = text
	return item
}

func (d *Definition) fill(agent *fleet.Agent) (*managed.Certificate, json.RawMessage, error) {
	if d.broken != nil {
		return nil, nil, fmt.Errorf("this version of the coordinator cannot read the assignment: %w", d.broken)
	}
	return d.Template.Fill(managed.Values{Hostname: agent.Host.Hostname, Labels: agent.Labels})
}

// allowed checks the names against the agent's enrolment, whoever issues them.
func allowed(certificate *managed.Certificate, agent *fleet.Agent) (pki.Names, error) {
	names, err := pki.ParseNames(certificate.Names)
	if err != nil {
		return pki.Names{}, fmt.Errorf("names: %w", err)
	}
	if len(agent.NamePatterns) == 0 {
		return pki.Names{}, errors.New("the host's enrolment allows no names; enrol it with a token that has name patterns")
	}
	patterns, err := pki.ParseNamePatterns(agent.NamePatterns)
	if err == nil {
		err = patterns.Allow(names)
	}
	if err != nil {
		return pki.Names{}, fmt.Errorf("the host's enrolment does not allow this: %w", err)
	}
	return names, nil
}
