package fleet

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"

	"github.com/certctl/certctl/shared/wire"
)

func syncAgent(c *change, p *SyncAgent) Result {
	stored, refusal := activeAgent(c, p.AgentID)
	if stored == nil {
		return refusal
	}
	if refusal := checkSync(stored, p); !refusal.OK() {
		return refusal
	}

	s := &agentSync{change: c, agent: edit(stored)}
	progress := &s.agent.Sync
	if p.BootID != progress.BootID {
		progress.PreviousBootID, progress.BootID = progress.BootID, p.BootID
	}
	progress.Sequence = p.Sequence
	if p.Host != nil {
		s.agent.Host = *p.Host
	}
	s.inventory(p)
	s.events(p.Events)
	s.reports(p)
	s.commands(p.Commands)

	outcome := SyncOutcome{Revision: progress.Revision, Event: progress.Event, ResyncID: progress.ResyncID, Digest: progress.Digest}
	for i := range p.Orders {
		outcome.Orders = append(outcome.Orders, c.place(s.agent, &p.Orders[i]))
	}
	c.collect(s.agent, p.Collected)

	s.agent.ModifyIndex = c.index
	c.put(TableAgents, s.agent)
	c.touch(s.agent.ID, c.at)
	return c.success(outcome)
}

// checkSync refuses what cannot be a step of this agent's history.
func checkSync(agent *Agent, p *SyncAgent) Result {
	progress := &agent.Sync
	switch {
	case p.BootID == "":
		return refuse(wire.CodeInvalid, "boot_id", "the sync has no boot id", "")
	case p.BaseRevision > p.Revision || p.Revision > p.HeadRevision:
		return refuse(wire.CodeInvalid, "revision", "base_revision, revision and head_revision are not in order", "")
	case slices.ContainsFunc(p.Rows, func(r Row) bool { return r.Revision <= p.BaseRevision || r.Revision > p.Revision }):
		return refuse(wire.CodeInvalid, "rows", "a row's revision is not between base_revision and revision", "")
	case slices.ContainsFunc(p.Removed, func(r Removal) bool { return r.Revision <= p.BaseRevision || r.Revision > p.Revision }):
		return refuse(wire.CodeInvalid, "removed", "a removal's revision is not between base_revision and revision", "")
	case p.BootID == progress.PreviousBootID,
		p.BootID == progress.BootID && p.Sequence < progress.Sequence:
		return refuse(wire.CodeStale, "sequence", "a later sync of this agent has been applied already", "send the current state")
	}
	return Result{}
}

// agentSync is the sync of one agent under way. agent is a copy that the caller
// stores.
type agentSync struct {
	*change
	agent *Agent
	known uint64 // acknowledged revision before this sync
}

// inventory brings the stored rows from BaseRevision to Revision, or asks for
// all rows when that is not possible or did not lead to the agent's digest.
func (s *agentSync) inventory(p *SyncAgent) {
	progress := &s.agent.Sync
	inResync := p.ResyncID != "" && p.ResyncID == progress.ResyncID
	s.known = progress.Revision

	switch {
	case inResync && p.BaseRevision == 0:
		// The first page. It may come again when the agent was restarted.
		progress.ResyncBegun, progress.Revision = true, p.Revision
	case inResync && !progress.ResyncBegun, p.BaseRevision > progress.Revision:
		// Rows between what is stored and the base are missing here.
		s.askForAll("gap", inResync)
		return
	case !inResync && p.HeadRevision < progress.Revision:
		// The agent's history is shorter than what it sent before: its store
		// was set back. Its next revisions would look like known ones.
		s.askForAll("set_back", false)
		return
	default:
		progress.Revision = max(progress.Revision, p.Revision)
	}

	for i := range p.Rows {
		s.row(&p.Rows[i], inResync)
	}
	for _, removal := range p.Removed {
		s.removal(removal, inResync)
	}
	if p.Revision != p.HeadRevision {
		return // more pages follow
	}
	if inResync {
		s.dropUnmarked()
		progress.Revision, progress.ResyncID, progress.ResyncBegun = p.Revision, "", false
	}
	if progress.Digest != p.Digest {
		s.askForAll("digest", inResync)
	}
}

// askForAll asks for a full inventory. One that is asked for already and that
// the agent may not have heard of is left as it is, unless afresh says that the
// agent is sending it in a way that cannot be used.
func (s *agentSync) askForAll(reason string, afresh bool) {
	progress := &s.agent.Sync
	if progress.ResyncID != "" && !progress.ResyncBegun && !afresh {
		return
	}
	progress.Resyncs++
	progress.ResyncBegun = false
	progress.ResyncID = s.resyncID()
	s.event(Fact{Kind: KindAgentResync, Actor: "system", Object: s.agent.ID, Agent: s.agent.ID}, map[string]any{
		"reason": reason, "resync_id": progress.ResyncID,
	})
}

// resyncID follows from the command's id, which its proposer drew at random.
func (s *agentSync) resyncID() string {
	h := sha256.New()
	h.Write(s.command[:])
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], s.agent.Sync.Resyncs)
	h.Write(n[:])
	h.Write([]byte(s.agent.ID))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// row stores a row unless it is known.
//
// Within a full inventory the agent's word is final: a row that this inventory
// has not carried yet replaces the stored one even if that has a higher
// revision, because the agent's store may have been set back.
func (s *agentSync) row(r *Row, inResync bool) {
	progress := &s.agent.Sync
	stored := find[Certificate](s.change, TableCertificates, indexID, key(s.agent.ID, r.Name))
	carried := stored != nil && stored.Resync == progress.Resyncs
	final := inResync && !carried
	switch {
	case stored != nil && !final && r.Revision <= stored.Revision:
		return
	case stored == nil && !inResync && r.Revision <= s.known:
		return // removed since
	}
	row := &Certificate{
		Agent: s.agent.ID, Name: r.Name, Revision: r.Revision, Data: r.Data, Columns: r.Columns,
		Resync: progress.Resyncs, ModifyIndex: s.index,
	}
	if progress.ResyncID != "" && !inResync {
		// Sent before the agent heard of the full inventory, which has to
		// carry the row again.
		row.Resync--
	}
	row.SerialIndex = s.index
	if stored != nil && stored.Columns.Serial == row.Columns.Serial {
		row.SerialIndex = stored.SerialIndex
	}
	row.hash = row.rowHash()
	if stored == nil {
		s.insert(TableCertificates, row)
		s.agent.Certificates++
	} else {
		if stored.hash == row.hash {
			row.ModifyIndex = stored.ModifyIndex
		}
		progress.Digest.Toggle(stored.hash)
		s.put(TableCertificates, row)
	}
	progress.Digest.Toggle(row.hash)
}

func (s *agentSync) removal(r Removal, inResync bool) {
	stored := find[Certificate](s.change, TableCertificates, indexID, key(s.agent.ID, r.Name))
	if stored == nil {
		return
	}
	carried := stored.Resync == s.agent.Sync.Resyncs
	if r.Revision > stored.Revision || inResync && !carried {
		s.drop(stored)
	}
}

// dropUnmarked removes the rows that no page of a full inventory carried.
func (s *agentSync) dropUnmarked() {
	for records := s.scan(TableCertificates, indexID, key(s.agent.ID)); ; {
		stored, ok := records.Next().(*Certificate)
		if !ok {
			return
		}
		if stored.Resync != s.agent.Sync.Resyncs {
			s.drop(stored)
		}
	}
}

func (s *agentSync) drop(stored *Certificate) {
	s.delete(TableCertificates, stored)
	s.agent.Certificates--
	s.agent.Sync.Digest.Toggle(stored.hash)
}

// events turns the events that are not known into facts.
func (s *agentSync) events(events []wire.Event) {
	progress := &s.agent.Sync
	for _, event := range events {
		if event.Sequence <= progress.Event {
			continue
		}
		progress.Event = event.Sequence
		s.event(Fact{
			Kind: Kind(event.Kind), Actor: "agent:" + s.agent.ID, Object: event.Certificate, Agent: s.agent.ID,
		}, event)
	}
}

func (c *Certificate) rowHash() wire.Digest {
	return wire.Row{Name: c.Name, Revision: c.Revision, Data: c.Data}.Hash()
}
