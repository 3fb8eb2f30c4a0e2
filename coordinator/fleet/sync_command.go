package fleet

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/certctl/certctl/shared/wire"
)

// NewRow checks a row from an agent and takes its columns out of the JSON. The
// error says what is wrong with the row, fit to be shown to its sender.
func NewRow(row wire.Row) (Row, error) {
	switch {
	case row.Name == "" || len(row.Name) > wire.MaxNameLen || !utf8.ValidString(row.Name):
		return Row{}, fmt.Errorf("row %.40q: a name has 1 to %d bytes of UTF-8", row.Name, wire.MaxNameLen)
	case len(row.Data) > wire.MaxRowBytes:
		return Row{}, fmt.Errorf("row %q: %d bytes, at most %d are accepted", row.Name, len(row.Data), wire.MaxRowBytes)
	}
	var summary wire.Summary
	if err := json.Unmarshal(row.Data, &summary); err != nil {
		return Row{}, fmt.Errorf("row %q: data is not a summary: %w", row.Name, err)
	}
	return Row{
		Name: row.Name, Revision: row.Revision, Data: row.Data,
		Columns: Columns{
			Names: summary.Names.Strings(), State: summary.State, Issuer: summary.Issuer,
			Serial: summary.Serial, Fingerprint: summary.Fingerprint, NotAfter: summary.NotAfter.UTC(),
			Attention: summary.NeedsAttention != "",
		},
	}, nil
}

// SplitSync cuts a sync into commands of about at most size bytes, to be
// proposed in this order. Each is a step of the way from BaseRevision to
// Revision; the outcome of the last one answers the request.
func SplitSync(p SyncAgent, size int) []SyncAgent {
	s := splitter{whole: p, limit: size, base: p.BaseRevision}
	s.begin()
	s.piece.Host = p.Host

	changes := inventoryChanges(p)
	for i, change := range changes {
		// A piece ends between revisions, so that the next one can begin there.
		if i > 0 && change.revision > s.last && s.full(change.size) {
			s.end(s.last)
		}
		s.used += change.size
		s.last = change.revision
		if change.row != nil {
			s.piece.Rows = append(s.piece.Rows, *change.row)
		} else {
			s.piece.Removed = append(s.piece.Removed, Removal{Name: change.name, Revision: change.revision})
		}
	}
	for _, event := range p.Events {
		s.room(128 + len(event.Kind) + len(event.Certificate) + len(event.Serial) + len(event.Detail) + len(event.Issuer) + len(event.Reason))
		s.piece.Events = append(s.piece.Events, event)
	}
	for _, order := range p.Orders {
		s.room(256 + 2*len(order.CSR))
		s.piece.Orders = append(s.piece.Orders, order)
	}
	for _, id := range p.Collected {
		s.room(8 + len(id))
		s.piece.Collected = append(s.piece.Collected, id)
	}
	for _, report := range p.Reports {
		s.room(64 + len(report.Name) + len(report.Detail))
		s.piece.Reports = append(s.piece.Reports, report)
	}
	for _, name := range p.ReportsGone {
		s.room(8 + len(name))
		s.piece.ReportsGone = append(s.piece.ReportsGone, name)
	}
	for _, report := range p.Commands {
		s.room(192 + len(report.Certificate) + len(report.Detail))
		s.piece.Commands = append(s.piece.Commands, report)
	}
	s.piece.DesiredDigest = p.DesiredDigest // when all its reports are stored
	s.end(p.Revision)
	return s.pieces
}

// OfBefore is the sync without what events say of issuer and reason, which nodes of
// before do not understand.
func (p SyncAgent) OfBefore() SyncAgent {
	p.Events = slices.Clone(p.Events)
	for i := range p.Events {
		p.Events[i].Issuer, p.Events[i].Reason = "", ""
	}
	return p
}

type splitter struct {
	whole  SyncAgent
	limit  int
	pieces []SyncAgent

	piece SyncAgent // being filled
	used  int
	base  uint64 // of piece
	last  uint64 // revision of the last change in a piece
}

func (s *splitter) begin() {
	w := &s.whole
	s.piece = SyncAgent{
		AgentID: w.AgentID, BootID: w.BootID, Sequence: w.Sequence, BaseRevision: s.base,
		HeadRevision: w.HeadRevision, Digest: w.Digest, ResyncID: w.ResyncID,
	}
	s.used = 512
}

func (s *splitter) full(more int) bool { return s.used > 512 && s.used+more > s.limit }

func (s *splitter) end(revision uint64) {
	s.piece.Revision = revision
	s.pieces = append(s.pieces, s.piece)
	s.base = revision
	s.begin()
}

// room ends the piece if more does not fit. It is called after the rows.
func (s *splitter) room(more int) {
	if s.full(more) {
		s.end(s.whole.Revision)
	}
	s.used += more
}

type inventoryChange struct {
	revision uint64
	size     int
	row      *Row // nil for a removal
	name     string
}

// inventoryChanges lists rows and removals in the order of their revisions.
func inventoryChanges(p SyncAgent) []inventoryChange {
	changes := make([]inventoryChange, 0, len(p.Rows)+len(p.Removed))
	for i := range p.Rows {
		row := &p.Rows[i]
		col := &row.Columns
		size := 128 + len(row.Name) + len(row.Data) + len(col.State) + len(col.Issuer) + len(col.Serial) + len(col.Fingerprint)
		for _, name := range col.Names {
			size += len(name) + 2
		}
		changes = append(changes, inventoryChange{revision: row.Revision, size: size, row: row})
	}
	for _, removal := range p.Removed {
		changes = append(changes, inventoryChange{revision: removal.Revision, size: 16 + len(removal.Name), name: removal.Name})
	}
	slices.SortStableFunc(changes, func(a, b inventoryChange) int {
		switch {
		case a.revision < b.revision:
			return -1
		case a.revision > b.revision:
			return 1
		}
		return 0
	})
	return changes
}

// Settled reports whether a sync says nothing that the state does not know, so
// that it can be answered with the returned outcome and without a log entry.
func (v *View) Settled(p *SyncAgent) (SyncOutcome, bool) {
	agent, ok := v.Agent(p.AgentID)
	if !ok || agent.State != AgentActive || !checkSync(agent, p).OK() {
		return SyncOutcome{}, false
	}
	progress := &agent.Sync
	switch {
	case p.BootID != progress.BootID, p.Host != nil, len(p.Collected) > 0, len(p.Rows)+len(p.Removed) > 0,
		p.ResyncID != "", progress.ResyncBegun, p.BaseRevision != progress.Revision,
		p.Revision != progress.Revision, p.HeadRevision != progress.Revision,
		p.Digest != progress.Digest && progress.ResyncID == "":
		return SyncOutcome{}, false
	case p.DesiredDigest != "" && p.DesiredDigest != agent.DesiredDigest, len(p.Reports)+len(p.ReportsGone)+len(p.Commands) > 0:
		return SyncOutcome{}, false
	case len(p.Events) > 0 && p.Events[len(p.Events)-1].Sequence > progress.Event:
		return SyncOutcome{}, false
	}
	outcome := SyncOutcome{Revision: progress.Revision, Event: progress.Event, ResyncID: progress.ResyncID, Digest: progress.Digest}
	for _, placement := range p.Orders {
		order, ok := v.Order(p.AgentID, placement.ID)
		if !ok || order.CSRDigest != sha256.Sum256(placement.CSR) {
			return SyncOutcome{}, false
		}
		outcome.Orders = append(outcome.Orders, OrderOutcome{ID: order.ID, State: order.State, Problem: order.Problem})
	}
	return outcome, true
}
