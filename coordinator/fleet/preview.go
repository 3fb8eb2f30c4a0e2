package fleet

import "fmt"

// Preview is what a command would come to if it were the next to be applied. It
// changes nothing, and holds up no one: what is refused need not enter the log.
// The answer may be out of date when the command is applied.
func (s *State) Preview(command Command) (Result, error) {
	// What it writes is its own, and is thrown away.
	c := &change{txn: s.db.Load().Write(), index: s.index.Load() + 1, infos: map[Table]*tableInfo{}}
	if stored := find[position](c, tablePosition, indexID, key("position")); stored != nil {
		c.position = *stored
	}
	result, err := c.apply(0, command)
	if err != nil {
		return Result{}, fmt.Errorf("preview: %w", err)
	}
	return result, nil
}

// CheckSync says whether a sync can be a step of its agent's history, by the
// rules of SyncAgent.
func (v *View) CheckSync(p *SyncAgent) Result {
	agent, refusal := activeAgent(&change{txn: v.txn}, p.AgentID)
	if agent == nil {
		return refusal
	}
	return checkSync(agent, p)
}
