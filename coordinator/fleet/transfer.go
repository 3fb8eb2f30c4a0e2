package fleet

// NoteTransfer puts into the audit trail that somebody asks the leader to hand over.
// It comes before the transfer, which may fail.
//
// Codes: CodeInvalid.
type NoteTransfer struct {
	Actor string `cbor:"1,keyasint,omitempty"`
	// To is the node that shall lead; "" leaves it to the leader.
	To string `cbor:"2,keyasint,omitempty"`
	// From leads, as far as the proposer knows.
	From string `cbor:"3,keyasint,omitempty"`
}

func (NoteTransfer) commandType() Type { return TypeNoteTransfer }

func noteTransfer(c *change, p *NoteTransfer) Result {
	if refusal := checkText("to", p.To, 0, maxNodeID); !refusal.OK() {
		return refusal
	}
	if refusal := checkText("from", p.From, 0, maxNodeID); !refusal.OK() {
		return refusal
	}
	c.audit(Fact{Kind: KindTransferAsked, Actor: p.Actor, Object: "leadership"}, map[string]any{"from": p.From, "to": p.To})
	return Result{}
}
