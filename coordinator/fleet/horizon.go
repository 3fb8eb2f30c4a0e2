package fleet

import "time"

// Ranks of hosts by how long they are safe on their own, the worst first.
const (
	rankEnded   uint32 = iota // not safe now: what has expired or is revoked is served
	rankNotSafe               // not safe now: something is not in service
	rankSafe                  // safe as last reported, until a moment that may have passed
)

// horizonKeys orders active agents by their offline horizon as last reported. A
// host that has nothing to serve has none.
func horizonKeys(record any) [][]byte {
	a := record.(*Agent)
	switch until := a.Host.SafeUntil; {
	case a.State != AgentActive:
		return nil
	case a.Host.NotSafe > 0 && until != nil:
		return only(key(rankEnded, *until, a.ID))
	case a.Host.NotSafe > 0:
		return only(key(rankNotSafe, a.ID))
	case until != nil:
		return only(key(rankSafe, *until, a.ID))
	}
	return nil
}

// safeBefore reports whether the host's offline horizon ends before a moment: it
// does for one that is not safe now.
func (a *Agent) safeBefore(at time.Time) bool {
	return a.Host.NotSafe > 0 || a.Host.SafeUntil != nil && a.Host.SafeUntil.Before(at)
}

// SafeUntil is the earliest offline horizon of an active agent, as the fleet's
// is told: false if none of them serves anything, or one of them is not safe now,
// which makes any later moment untrue. One that is past stays.
func (v *View) SafeUntil(now time.Time) (time.Time, bool) {
	first, ok := v.scan(TableAgents, indexHorizon, nil).Next().(*Agent)
	if !ok {
		return time.Time{}, false
	}
	if first.Host.SafeUntil != nil {
		return *first.Host.SafeUntil, true
	}
	next, ok := v.scan(TableAgents, indexHorizon, key(rankSafe)).Next().(*Agent)
	if !ok || now.Before(*next.Host.SafeUntil) {
		return time.Time{}, false
	}
	return *next.Host.SafeUntil, true
}

// NeedingAttention counts the certificates of an agent for which a person has to
// act. It costs in proportion to them.
func (v *View) NeedingAttention(agentID string) (n int) {
	for records := v.scan(TableCertificates, indexAttention, key(agentID)); records.Next() != nil; {
		n++
	}
	return n
}
