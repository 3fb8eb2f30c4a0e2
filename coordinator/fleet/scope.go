package fleet

import (
	"maps"
	"slices"
	"strconv"

	"github.com/certctl/certctl/coordinator/fleet/tables"
	"github.com/certctl/certctl/coordinator/selector"
)

// Bounds of a scope.
const (
	MaxScopeLabels = 8
	MaxScopeValues = 16 // of one label
)

// A Scope limits an API token to hosts: to those that have, for each of its labels, one
// of the values. The zero Scope limits nothing. It is written as a selector.
type Scope map[string][]string

// IsZero reports whether every host is in it, and what is of no host.
func (s Scope) IsZero() bool { return len(s) == 0 }

// Allows reports whether a host with these labels is in it.
func (s Scope) Allows(labels map[string]string) bool {
	for label, values := range s {
		if value, has := labels[label]; !has || !slices.Contains(values, value) {
			return false
		}
	}
	return true
}

// Within reports whether it is the same as outer or narrower.
func (s Scope) Within(outer Scope) bool { return s.Selector().Within(outer) }

// Selector chooses the hosts of the scope.
func (s Scope) Selector() selector.Selector { return selector.Of(s) }

// String is the scope in its one form, "*" for the zero one.
func (s Scope) String() string { return s.Selector().String() }

// Covers reports whether a selector, as it is stored, chooses hosts of the scope alone.
func (s Scope) Covers(text string) bool {
	if s.IsZero() {
		return true
	}
	chosen, err := selector.Parse(text)
	return err == nil && chosen.Within(s)
}

// valid reports whether a scope can be stored.
func (s Scope) valid() bool {
	if len(s) > MaxScopeLabels {
		return false
	}
	for label, values := range s {
		if label == "" || len(values) == 0 || len(values) > MaxScopeValues || !slices.IsSorted(values) || len(slices.Compact(slices.Clone(values))) != len(values) {
			return false
		}
	}
	again, err := selector.Parse(s.String())
	return err == nil && again.String() == s.String()
}

// Within is the same moment, as somebody may see it who is limited to a scope: hosts
// outside of it, and all that is of them, are not there, and neither are tables of
// which it is not known whose their records are.
func (v *View) Within(scope Scope) *View {
	return &View{txn: v.txn, reads: v.reads, scope: scope}
}

// Scope is what the view is limited to.
func (v *View) Scope() Scope { return v.scope }

// sees reports whether a record is there for who looks.
func (v *View) sees(record any) bool {
	if v.scope.IsZero() || record == nil {
		return true
	}
	switch r := record.(type) {
	case *tableInfo, *position:
		return true // what views themselves are made of
	case *Agent:
		return v.scope.Allows(r.Labels)
	case *Certificate:
		return v.seesAgent(r.Agent)
	case *Order:
		return v.seesAgent(r.Agent)
	case *AgentCommand:
		return v.seesAgent(r.Agent)
	case *AssignmentReport:
		return v.seesAgent(r.Agent)
	case *Issued:
		return v.seesAgent(r.Agent)
	case *Revocation:
		return v.seesAgent(r.Agent)
	case *presence:
		return v.seesAgent(r.Agent)
	case *EnrollmentToken:
		return v.scope.Allows(r.Labels) // its hosts will be
	case *APIToken:
		return r.Scope.Within(v.scope)
	case *Campaign:
		return v.scope.Covers(r.Selector)
	case *Assignment:
		return v.scope.Covers(r.Selector) || v.reaches(r)
	default:
		return false
	}
}

func (v *View) seesAgent(id string) bool {
	agent, ok := v.txn.First(string(TableAgents), indexID, key(id)).(*Agent)
	return ok && v.scope.Allows(agent.Labels)
}

// reaches reports whether an assignment is for an active host of the scope.
func (v *View) reaches(a *Assignment) bool {
	return matchesAny(a, v.hostLabels())
}

// assignmentsInScope are those that are for hosts of the scope alone, or for one of them.
func (v *View) assignmentsInScope() []*Assignment {
	hosts := v.hostLabels()
	var list []*Assignment
	for all := v.txn.Scan(string(TableAssignments), indexID, nil); ; {
		a, ok := all.Next().(*Assignment)
		if !ok {
			return list
		}
		if v.scope.Covers(a.Selector) || matchesAny(a, hosts) {
			list = append(list, a)
		}
	}
}

func matchesAny(a *Assignment, hosts []map[string]string) bool {
	chosen, err := selector.Parse(a.Selector)
	return err == nil && slices.ContainsFunc(hosts, chosen.Matches)
}

// hostLabels are the labels of the active hosts of the scope. Hosts are many, and how
// they are labelled is most often the same.
func (v *View) hostLabels() []map[string]string {
	var list []map[string]string
	seen := map[string]bool{}
	for agents := v.txn.Scan(string(TableAgents), indexID, nil); ; {
		agent, ok := agents.Next().(*Agent)
		if !ok {
			return list
		}
		if agent.State != AgentActive || !v.scope.Allows(agent.Labels) {
			continue
		}
		if name := labelsName(agent.Labels); !seen[name] {
			seen[name] = true
			list = append(list, agent.Labels)
		}
	}
}

func labelsName(labels map[string]string) string {
	var name []byte
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		name = strconv.AppendQuote(strconv.AppendQuote(name, label), labels[label])
	}
	return string(name)
}

// records are those of a table that somebody sees.
type records struct {
	all  *tables.Iterator
	view *View
}

// Next is the next record, nil at the end.
func (r records) Next() any {
	for {
		record := r.all.Next()
		if record == nil || r.view.sees(record) {
			return record
		}
	}
}
