package fleet

import (
	"time"

	"github.com/certctl/certctl/shared/wire"
)

// MaxAssignments bounds the assignments of a cluster.
const MaxAssignments = 5000

// Assignment defines a managed certificate for the agents that its selector
// matches. Both texts are parsed by the proposer, and are opaque here.
type Assignment struct {
	Name     string `cbor:"1,keyasint"`
	Selector string `cbor:"2,keyasint"`
	Template []byte `cbor:"3,keyasint"` // JSON, see managed.Template
	// Revision grows by one with each change.
	Revision    uint64    `cbor:"4,keyasint"`
	CreatedAt   time.Time `cbor:"5,keyasint"`
	CreatedBy   string    `cbor:"6,keyasint,omitempty"`
	UpdatedAt   time.Time `cbor:"7,keyasint"`
	UpdatedBy   string    `cbor:"8,keyasint,omitempty"`
	ModifyIndex uint64    `cbor:"9,keyasint"`
}

// AssignmentReport is what an agent made of an assignment, as it said last. It
// may be of an assignment that is gone.
type AssignmentReport struct {
	Agent       string               `cbor:"1,keyasint"`
	Name        string               `cbor:"2,keyasint"`
	Revision    uint64               `cbor:"3,keyasint"` // of the assignment
	State       wire.AssignmentState `cbor:"4,keyasint"`
	Detail      string               `cbor:"5,keyasint,omitempty"`
	At          time.Time            `cbor:"6,keyasint"`
	ModifyIndex uint64               `cbor:"7,keyasint"`
}

// Says reports whether the agent says the same again.
func (r *AssignmentReport) Says(again wire.AssignmentReport) bool {
	return r.Name == again.Name && r.Revision == again.Revision && r.State == again.State && r.Detail == again.Detail
}

// PutAssignment stores a new assignment, or changes one. The outcome is a
// PutOutcome.
//
// Codes: CodeInvalid, CodeConflict.
type PutAssignment struct {
	Actor    string `cbor:"1,keyasint,omitempty"`
	Name     string `cbor:"2,keyasint"`
	Selector string `cbor:"3,keyasint"`
	Template []byte `cbor:"4,keyasint"`
	// Previous is the revision that the change was made to, 0 for one that is
	// new. With another one stored the outcome is CodeConflict. Nil changes
	// whatever is stored.
	Previous *uint64 `cbor:"5,keyasint,omitempty"`
}

// PutOutcome is what a PutAssignment came to.
type PutOutcome struct {
	Assignment Assignment `cbor:"1,keyasint"`
	Created    bool       `cbor:"2,keyasint,omitempty"`
	Changed    bool       `cbor:"3,keyasint,omitempty"` // also of one that is new
}

// DeleteAssignment ends an assignment. What was deployed by it stays on the
// hosts. An unknown name gives CodeNotFound, another revision CodeConflict.
type DeleteAssignment struct {
	Actor    string  `cbor:"1,keyasint,omitempty"`
	Name     string  `cbor:"2,keyasint"`
	Previous *uint64 `cbor:"3,keyasint,omitempty"`
}

func (PutAssignment) commandType() Type    { return TypePutAssignment }
func (DeleteAssignment) commandType() Type { return TypeDeleteAssignment }

func assignmentReportKey(r *AssignmentReport) []byte { return key(r.Agent, r.Name) }

func assignmentReportIndexes() []index {
	return []index{
		{name: indexID, keys: func(r any) [][]byte { return only(assignmentReportKey(r.(*AssignmentReport))) }},
		{name: indexName, keys: func(r any) [][]byte { a := r.(*AssignmentReport); return only(key(a.Name, a.Agent)) }, whole: true},
	}
}

func putAssignment(c *change, p *PutAssignment) Result {
	if !wire.ValidName(p.Name) || len(p.Template) == 0 || len(p.Template) > wire.MaxAssignmentBytes {
		return refuse(wire.CodeInvalid, "name", "the assignment has no name or no definition", "")
	}
	stored := find[Assignment](c, TableAssignments, indexID, key(p.Name))
	if refusal := previousRevision(stored, p.Previous); !refusal.OK() {
		return refusal
	}
	next := Assignment{Name: p.Name, Selector: p.Selector, Template: p.Template, Revision: 1,
		CreatedAt: c.at, CreatedBy: p.Actor, UpdatedAt: c.at, UpdatedBy: p.Actor, ModifyIndex: c.index}
	detail := map[string]any{"selector": p.Selector, "revision": next.Revision}
	if stored == nil {
		if c.info(TableAssignments).Rows >= MaxAssignments {
			return refuse(wire.CodeConflict, "name", "there are as many assignments as can be kept", "delete some that are not wanted any more")
		}
		c.insert(TableAssignments, &next)
		c.audit(Fact{Kind: KindAssignmentCreated, Actor: p.Actor, Object: p.Name}, detail).changed(nil, next.picture())
		return c.success(PutOutcome{Assignment: next, Created: true, Changed: true})
	}
	if stored.Selector == p.Selector && string(stored.Template) == string(p.Template) {
		return c.success(PutOutcome{Assignment: *stored})
	}
	next.Revision, next.CreatedAt, next.CreatedBy = stored.Revision+1, stored.CreatedAt, stored.CreatedBy
	detail["revision"], detail["selector_before"] = next.Revision, stored.Selector
	c.put(TableAssignments, &next)
	c.audit(Fact{Kind: KindAssignmentChanged, Actor: p.Actor, Object: p.Name}, detail).changed(differing(stored.picture(), next.picture()))
	return c.success(PutOutcome{Assignment: next, Changed: true})
}

// previousRevision refuses a change that was made to another revision than the
// stored one.
func previousRevision(stored *Assignment, previous *uint64) Result {
	var revision uint64
	if stored != nil {
		revision = stored.Revision
	}
	if previous == nil || *previous == revision {
		return Result{}
	}
	return refuse(wire.CodeConflict, "revision", "the assignment was changed in the meantime", "look at it as it is now, and make the change again")
}

func deleteAssignment(c *change, p *DeleteAssignment) Result {
	stored := find[Assignment](c, TableAssignments, indexID, key(p.Name))
	if stored == nil {
		return refuse(wire.CodeNotFound, "name", "there is no assignment with this name", "list the assignments to see their names")
	}
	if refusal := previousRevision(stored, p.Previous); !refusal.OK() {
		return refusal
	}
	c.delete(TableAssignments, stored)
	c.audit(Fact{Kind: KindAssignmentDeleted, Actor: p.Actor, Object: p.Name}, map[string]any{
		"selector": stored.Selector, "revision": stored.Revision,
	}).changed(stored.picture(), nil)
	return Result{}
}

// reports stores what an agent says of its assignments.
func (s *agentSync) reports(p *SyncAgent) {
	for _, name := range p.ReportsGone {
		if stored := find[AssignmentReport](s.change, TableAssignmentReports, indexID, key(s.agent.ID, name)); stored != nil {
			s.delete(TableAssignmentReports, stored)
		}
	}
	for _, report := range p.Reports {
		stored := find[AssignmentReport](s.change, TableAssignmentReports, indexID, key(s.agent.ID, report.Name))
		next := &AssignmentReport{Agent: s.agent.ID, Name: report.Name, Revision: report.Revision, State: report.State,
			Detail: report.Detail, At: s.at, ModifyIndex: s.index}
		switch {
		case stored == nil:
			s.insert(TableAssignmentReports, next)
		case stored.Says(report):
			continue
		default:
			s.put(TableAssignmentReports, next)
		}
		s.event(Fact{Kind: KindAssignmentReported, Actor: "agent:" + s.agent.ID, Object: report.Name, Agent: s.agent.ID}, report)
	}
	if p.DesiredDigest != "" {
		s.agent.DesiredDigest = p.DesiredDigest
	}
}

// Assignment looks an assignment up by its name.
func (v *View) Assignment(name string) (*Assignment, bool) {
	return get[Assignment](v, TableAssignments, indexID, key(name))
}

// Assignments lists all assignments by name.
func (v *View) Assignments() []*Assignment {
	if v.scope.IsZero() {
		return collect[Assignment](v.scan(TableAssignments, indexID, nil))
	}
	v.note(TableAssignments)
	return v.assignmentsInScope()
}

// AssignmentReport is what an agent made of an assignment.
func (v *View) AssignmentReport(agent, name string) (*AssignmentReport, bool) {
	return get[AssignmentReport](v, TableAssignmentReports, indexID, key(agent, name))
}

// AssignmentReportsOf lists what an agent says of its assignments, by name.
func (v *View) AssignmentReportsOf(agent string) []*AssignmentReport {
	return collect[AssignmentReport](v.scan(TableAssignmentReports, indexID, key(agent)))
}

// AssignmentReports lists what agents say of an assignment, by agent.
func (v *View) AssignmentReports(name string) []*AssignmentReport {
	return collect[AssignmentReport](v.scan(TableAssignmentReports, indexName, key(name)))
}
