package desired

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// maxClasses and maxAgents bound what is remembered. Beyond them it is
	// forgotten and computed again.
	maxClasses = 200_000
	maxAgents  = 500_000
	// maxBytes bounds the assignments of one agent, so that they fit into an
	// answer.
	maxBytes = 2 << 20
)

// EmptyDigest is the digest of no assignments at all.
var EmptyDigest = digestOf(nil)

// Planner computes what is wanted of agents. The zero Planner is ready, and safe
// for concurrent use.
type Planner struct {
	mu      sync.Mutex
	version uint64
	all     []*Definition // by name
	classes map[string]*class
	agents  map[string]planned
}

// A class is what agents with the same labels have in common.
type class struct {
	version   uint64 // of the assignments that it was matched with
	matched   []*Definition
	signature [sha256.Size]byte // of the matched definitions
}

// planned is what is remembered of one agent, and what it was computed from.
type planned struct {
	signature [sha256.Size]byte
	hostname  string
	digest    string
}

// Digest is the digest of what is wanted of an agent, equal on every node.
func (p *Planner) Digest(view *fleet.View, agent *fleet.Agent) string {
	p.mu.Lock()
	known := p.class(view, agent)
	if known.signature == emptySignature {
		p.mu.Unlock()
		return EmptyDigest
	}
	remembered, ok := p.agents[agent.ID]
	p.mu.Unlock()
	if ok && remembered.signature == known.signature && remembered.hostname == agent.Host.Hostname {
		return remembered.digest
	}
	digest := digestOf(sendable(plan(known.matched, agent)))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.agents == nil || len(p.agents) >= maxAgents {
		p.agents = map[string]planned{}
	}
	p.agents[agent.ID] = planned{known.signature, agent.Host.Hostname, digest}
	return digest
}

// Desired is what is wanted of an agent, in the form in which it is sent.
func (p *Planner) Desired(view *fleet.View, agent *fleet.Agent) *wire.Desired {
	list := sendable(p.Items(view, agent))
	return &wire.Desired{Digest: digestOf(list), Assignments: list}
}

// Items are the assignments that match an agent, by name, refused ones too.
func (p *Planner) Items(view *fleet.View, agent *fleet.Agent) []Item {
	p.mu.Lock()
	known := p.class(view, agent)
	p.mu.Unlock()
	return plan(known.matched, agent)
}

// class is what agents with these labels have, matched with the assignments of
// the view. The result does not change. The caller holds mu.
func (p *Planner) class(view *fleet.View, agent *fleet.Agent) class {
	p.load(view)
	labels := labelKey(agent.Labels)
	known := p.classes[labels]
	if known != nil && known.version == p.version {
		return *known
	}
	fresh := &class{version: p.version}
	for _, definition := range p.all {
		if definition.Selector.Matches(agent.Labels) {
			fresh.matched = append(fresh.matched, definition)
		}
	}
	fresh.signature = signatureOf(fresh.matched)
	if p.classes == nil || len(p.classes) >= maxClasses {
		p.classes = map[string]*class{}
	}
	p.classes[labels] = fresh
	return *fresh
}

// load compiles the assignments that changed since the last look.
func (p *Planner) load(view *fleet.View) {
	version := view.Version(fleet.TableAssignments)
	if version == p.version {
		return
	}
	before := make(map[string]*Definition, len(p.all))
	for _, definition := range p.all {
		before[definition.Name] = definition
	}
	records := view.Assignments()
	p.all = make([]*Definition, 0, len(records))
	for _, record := range records {
		definition := before[record.Name]
		if definition == nil || definition.index != record.ModifyIndex {
			definition = Stored(record)
		}
		p.all = append(p.all, definition)
	}
	p.version = version
}

// plan judges the matched definitions for an agent. What is more than an agent
// takes is refused too, never left out in silence.
func plan(matched []*Definition, agent *fleet.Agent) []Item {
	items := make([]Item, 0, len(matched))
	count, bytes := 0, 0
	for _, definition := range matched {
		item := definition.Judge(agent)
		if item.Refusal == "" {
			if count++; count > wire.MaxAssignments || bytes+len(item.Certificate) > maxBytes {
				item.Certificate, item.Refusal = nil, fmt.Sprintf("the host has more assignments than are sent to one (%d, or %d KiB)", wire.MaxAssignments, maxBytes>>10)
			}
			bytes += len(item.Certificate)
		}
		items = append(items, item)
	}
	return items
}

func sendable(items []Item) []wire.Assignment {
	var list []wire.Assignment
	for _, item := range items {
		if item.Refusal == "" {
			list = append(list, wire.Assignment{Name: item.Name, Revision: item.Revision, Certificate: item.Certificate})
		}
	}
	return list
}

// digestOf covers all of each assignment, each with its length in front.
func digestOf(list []wire.Assignment) string {
	h := sha256.New()
	var n [8]byte
	field := func(text []byte) {
		binary.BigEndian.PutUint64(n[:], uint64(len(text)))
		h.Write(n[:])
		h.Write(text)
	}
	for _, a := range list {
		field([]byte(a.Name))
		binary.BigEndian.PutUint64(n[:], a.Revision)
		h.Write(n[:])
		field(a.Certificate)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

var emptySignature = signatureOf(nil)

func signatureOf(matched []*Definition) (signature [sha256.Size]byte) {
	h := sha256.New()
	var n [8]byte
	for _, definition := range matched {
		// No two assignments change by one entry under one name.
		binary.BigEndian.PutUint64(n[:], definition.index)
		h.Write(n[:])
		h.Write([]byte(definition.Name))
		h.Write([]byte{0})
	}
	copy(signature[:], h.Sum(nil))
	return signature
}

// labelKey is a set of labels as one text.
func labelKey(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	keys := make([]string, 0, len(labels))
	for key := range labels {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var text strings.Builder
	for _, key := range keys {
		text.WriteString(key)
		text.WriteByte(0)
		text.WriteString(labels[key])
		text.WriteByte(0)
	}
	return text.String()
}
