package fleet

import (
	"slices"
	"time"
)

// Watched is the same moment, seen by somebody who wants to know which tables it was
// told from. One goroutine uses it.
func (v *View) Watched() *View { return &View{txn: v.txn, reads: new([]Table), scope: v.scope} }

// ReadOnly reports whether a watched view was asked for nothing but these tables so
// far, so that what was told follows from their [View.Version]. The first other one
// is named.
func (v *View) ReadOnly(allowed []Table) (other Table, ok bool) {
	for _, table := range *v.reads {
		if !slices.Contains(allowed, table) {
			return table, false
		}
	}
	return "", true
}

// note remembers that a table was read. The bookkeeping of the tables themselves is
// what versions are read from.
func (v *View) note(table Table) {
	if v.reads != nil && table != tableInfos && !slices.Contains(*v.reads, table) {
		*v.reads = append(*v.reads, table)
	}
}

// EachSeen visits the active agents by id, each with its last sign of life as far as
// it is replicated; its enrolment is one.
func (v *View) EachSeen(visit func(agent *Agent, seen time.Time)) {
	signs := v.scan(TablePresence, indexID, nil)
	sign, more := signs.Next().(*presence)
	for agents := v.scan(TableAgents, indexID, nil); ; {
		agent, ok := agents.Next().(*Agent)
		if !ok {
			return
		}
		for more && sign.Agent < agent.ID {
			sign, more = signs.Next().(*presence)
		}
		if agent.State != AgentActive {
			continue
		}
		seen := agent.EnrolledAt
		if more && sign.Agent == agent.ID && sign.At.After(seen) {
			seen = sign.At
		}
		visit(agent, seen)
	}
}
