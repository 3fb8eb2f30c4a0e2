package fleet

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/certctl/certctl/shared/wire"
)

// Bounds of a restore, in octets and pieces.
const (
	// MaxRestorePiece is what one StageRestore may hold.
	MaxRestorePiece = 384 << 10
	// MaxRestorePieces bounds the pieces of one restore, 3 GiB in all, packed.
	MaxRestorePieces = 8192

	maxRestoreID = 64
	// stagedFor is how long pieces wait for the command that uses them.
	stagedFor = 6 * time.Hour
)

// StageRestore puts one piece of a snapshot into the state, where it waits for
// ApplyRestore. A restore is many entries of the log that change nothing, and
// one that changes everything: so it is committed like every other change, and a
// leader that is lost in its middle leaves the state as it was.
//
// The pieces are the gzip of a stream that [Snapshot.Persist] wrote, in order
// from 0. The first piece of a restore drops those of another one.
//
// Codes: CodeInvalid, CodeConflict.
type StageRestore struct {
	ID    string `cbor:"1,keyasint"` // of the restore
	Piece uint32 `cbor:"2,keyasint"`
	Data  []byte `cbor:"3,keyasint"`
}

// ApplyRestore replaces the state by the snapshot that was staged, but for what
// a live cluster keeps of its own; see [State.KeepCluster].
//
// Facts of before stay in the journal and the log goes on, so that indexes only
// grow. What was acknowledged after the snapshot is gone, and its commands are
// not remembered: who proposes one again has it applied again, to the restored
// state. Agents that know more than it are asked for their full inventory. Orders at
// authorities that may have been placed since are of unknown outcome.
//
// Codes: CodeInvalid, CodeConflict.
type ApplyRestore struct {
	ID     string `cbor:"1,keyasint"`
	Pieces uint32 `cbor:"2,keyasint"`
	// APIToken is the id of the token that stays good besides those of the
	// snapshot, "" for none.
	APIToken string `cbor:"3,keyasint,omitempty"`
	// Note is what the audit trail says of it.
	Note NoteRestore `cbor:"4,keyasint"`
	// Level is that of the proposer, which has read the snapshot; NewCommand sets
	// it. A node of a lower one may not know all that is in it, and would refuse
	// what the others take.
	Level uint32 `cbor:"5,keyasint"`
}

// DropRestore takes back what was staged. It is no error if there is nothing.
type DropRestore struct {
	ID string `cbor:"1,keyasint"`
}

func (StageRestore) commandType() Type { return TypeStageRestore }
func (ApplyRestore) commandType() Type { return TypeApplyRestore }
func (DropRestore) commandType() Type  { return TypeDropRestore }

// stagedPiece is a piece of a snapshot that waits.
type stagedPiece struct {
	ID    string    `cbor:"1,keyasint"`
	Piece uint32    `cbor:"2,keyasint"`
	At    time.Time `cbor:"3,keyasint"`
	Data  []byte    `cbor:"4,keyasint"`
}

func stagedKey(r any) [][]byte {
	p := r.(*stagedPiece)
	return only(key(p.ID, p.Piece))
}

func stageRestore(c *change, p *StageRestore) Result {
	if refusal := checkText("id", p.ID, 1, maxRestoreID); !refusal.OK() {
		return refusal
	}
	switch {
	case len(p.Data) == 0 || len(p.Data) > MaxRestorePiece:
		return refuse(wire.CodeInvalid, "data", fmt.Sprintf("%d octets; expected 1 to %d", len(p.Data), MaxRestorePiece), "")
	case p.Piece >= MaxRestorePieces:
		return refuse(wire.CodeInvalid, "piece", fmt.Sprintf("a restore has at most %d pieces", MaxRestorePieces),
			"the snapshot is too large to restore to a running cluster")
	case p.Piece == 0:
		c.dropStaged("")
	case find[stagedPiece](c, tableStaged, indexID, key(p.ID, p.Piece-1)) == nil:
		return refuse(wire.CodeConflict, "piece", "the piece before it is not here: another restore has taken its place", "begin again")
	}
	if staged := find[stagedPiece](c, tableStaged, indexID, key(p.ID, p.Piece)); staged != nil {
		c.delete(tableStaged, staged)
	}
	c.insert(tableStaged, &stagedPiece{ID: p.ID, Piece: p.Piece, At: c.at, Data: p.Data})
	return Result{}
}

func dropRestore(c *change, p *DropRestore) Result {
	if p.ID != "" {
		c.dropStaged(p.ID)
	}
	return Result{}
}

// dropStaged drops the pieces of one restore, of all with "".
func (c *change) dropStaged(id string) {
	var prefix []byte
	if id != "" {
		prefix = key(id)
	}
	staged := c.scan(tableStaged, indexID, prefix)
	for record := staged.Next(); record != nil; record = staged.Next() {
		c.delete(tableStaged, record)
	}
}

// cleanStaged forgets what was staged and never used.
func (c *change) cleanStaged() {
	staged := c.scan(tableStaged, indexID, nil)
	for range cleanPerEntry {
		piece, ok := staged.Next().(*stagedPiece)
		if !ok || c.at.Sub(piece.At) < stagedFor {
			break
		}
		c.delete(tableStaged, piece)
	}
}

func applyRestore(c *change, p *ApplyRestore) Result {
	if refusal := checkText("id", p.ID, 1, maxRestoreID); !refusal.OK() {
		return refusal
	}
	if refusal := checkNote(&p.Note); !refusal.OK() {
		return refusal
	}
	if p.Level > Level {
		c.stop(fmt.Errorf("%w: a restore of level %d", ErrUnknownCommand, p.Level))
		return Result{}
	}
	pieces := &pieceReader{change: c, id: p.ID}
	for records := c.scan(tableStaged, indexID, key(p.ID)); records.Next() != nil; {
		pieces.count++
	}
	if p.Pieces == 0 || pieces.count != p.Pieces {
		return refuse(wire.CodeConflict, "pieces", fmt.Sprintf("%d pieces of the snapshot are here, of %d", pieces.count, p.Pieces),
			"another restore has taken its place, or this one took too long: begin again")
	}
	restored, err := unpackState(pieces)
	if err != nil {
		return refuse(wire.CodeInvalid, "data", err.Error(), "")
	}
	// Commands before this one in the entry count for what is kept.
	c.flush(c.index - 1)
	if c.err != nil {
		return Result{}
	}
	if restored.Index() >= c.index {
		return refuse(wire.CodeConflict, "data", fmt.Sprintf("the snapshot is of log index %d, and the log is at %d", restored.Index(), c.index),
			"restore it to a cluster of one node, which can move its log on, and let the others join afterwards")
	}
	var head *AuditHead
	if own, chained := restored.View().AuditHead(); chained {
		head = &own
	}
	if err := restored.keepCluster(&View{txn: c.txn}, p.APIToken, c.index, p.Level); err != nil {
		return refuse(wire.CodeConflict, "api_token", err.Error(), "")
	}
	c.replace(restored)
	if p.Level >= ordersLevel { // logs of before are replayed as they were applied
		c.doubtOrders()
	}
	c.restored(&p.Note, head)
	return Result{}
}

// unpackState reads a state from the packed stream of a snapshot.
func unpackState(r io.Reader) (*State, error) {
	packed, err := gzip.NewReader(bufio.NewReader(r))
	if err != nil {
		return nil, fmt.Errorf("%w: its packing cannot be undone: %w", ErrSnapshotDamaged, err)
	}
	state, err := New()
	if err != nil {
		return nil, err
	}
	return state, state.Restore(packed)
}

// replace goes on with another state, which is the caller's own.
func (c *change) replace(state *State) {
	c.txn = state.db.Load().Write()
	c.infos = map[Table]*tableInfo{}
	if stored := find[position](c, tablePosition, indexID, key("position")); stored != nil {
		c.position = *stored
	}
	c.dropStaged("")
	// What was applied since the snapshot is not remembered any more.
	c.forgotten = c.index
	// Another CA may have been changed at the same index as the one before.
	if ca := find[CA](c, TableCA, indexID, key("ca")); ca != nil {
		moved := edit(ca)
		moved.ModifyIndex = c.index
		c.put(TableCA, moved)
	}
}

// pieceReader reads the staged pieces of a restore one after the other.
type pieceReader struct {
	change *change
	id     string
	count  uint32
	next   uint32
	piece  bytes.Reader
}

// Read implements io.Reader.
func (r *pieceReader) Read(b []byte) (int, error) {
	for r.piece.Len() == 0 {
		if r.next == r.count {
			return 0, io.EOF
		}
		staged := find[stagedPiece](r.change, tableStaged, indexID, key(r.id, r.next))
		if staged == nil {
			return 0, errors.New("a piece of the snapshot is missing")
		}
		r.piece.Reset(staged.Data)
		r.next++
	}
	return r.piece.Read(b)
}

// RestorePacker cuts a snapshot's stream into pieces for StageRestore.
type RestorePacker struct {
	packed *gzip.Writer
	pieces pieceBuffer
}

// NewRestorePacker makes a packer that gives each piece to emit, in order. What
// emit returns as an error, Write and Close return. emit must not keep the piece
// beyond its return unless it copies it.
func NewRestorePacker(emit func(piece []byte) error) (*RestorePacker, error) {
	p := &RestorePacker{pieces: pieceBuffer{emit: emit}}
	var err error
	p.packed, err = gzip.NewWriterLevel(&p.pieces, gzip.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("fleet restore: %w", err)
	}
	return p, nil
}

// Write implements io.Writer.
func (p *RestorePacker) Write(b []byte) (int, error) { return p.packed.Write(b) }

// Close packs what is left.
func (p *RestorePacker) Close() error {
	if err := p.packed.Close(); err != nil {
		return err
	}
	return p.pieces.close()
}

type pieceBuffer struct {
	emit    func(piece []byte) error
	pending []byte
}

// Write implements io.Writer.
func (p *pieceBuffer) Write(b []byte) (int, error) {
	p.pending = append(p.pending, b...)
	for len(p.pending) >= MaxRestorePiece {
		if err := p.emit(p.pending[:MaxRestorePiece]); err != nil {
			return 0, err
		}
		p.pending = append(p.pending[:0], p.pending[MaxRestorePiece:]...)
	}
	return len(b), nil
}

func (p *pieceBuffer) close() error {
	if len(p.pending) == 0 {
		return nil
	}
	return p.emit(p.pending)
}
