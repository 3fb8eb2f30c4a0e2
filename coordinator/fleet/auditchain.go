package fleet

import (
	"encoding/json"
	"time"

	"github.com/certctl/certctl/coordinator/trail"
)

// AuditHead is the newest fact of the audit trail's chain.
type AuditHead struct {
	Number uint64     `cbor:"1,keyasint"`
	Hash   trail.Hash `cbor:"2,keyasint"`
	Index  uint64     `cbor:"3,keyasint"` // of the log entry
	Time   time.Time  `cbor:"4,keyasint"`
	// First is the number that the chain begins with.
	First uint64 `cbor:"5,keyasint"`
}

// BeginAuditChain begins the chain over the audit trail. From then on each of its facts
// has a hash over itself and all of those before, and says what it changed. Nodes that
// do not know the command make facts without, so that it is only proposed when none is
// left. Beginning it again changes nothing.
type BeginAuditChain struct {
	Actor string `cbor:"1,keyasint,omitempty"`
}

func (BeginAuditChain) commandType() Type { return TypeBeginAuditChain }

func beginAuditChain(c *change, p *BeginAuditChain) Result {
	if c.position.Chain != nil {
		return Result{}
	}
	before := c.position.Audit
	c.position.Chain = &AuditHead{First: before + 1}
	c.audit(Fact{Kind: KindAuditChainBegun, Actor: p.Actor, Object: "audit"}, map[string]any{"not_chained": before})
	return Result{}
}

// An act is a fact of the audit trail whose command is still being applied.
type act struct {
	change *change
	at     int
}

// changed says what the act changed: the object as it was and as it is, nil for none.
// Secrets are never in them.
func (a *act) changed(before, after picture) {
	if a.change.position.Chain == nil {
		return
	}
	f := &a.change.facts[a.at]
	f.Before, f.After = a.change.draw(before), a.change.draw(after)
}

func (c *change) draw(p picture) json.RawMessage {
	if p == nil {
		return nil
	}
	data, err := json.Marshal(p)
	c.fail(err)
	return data
}

// seal puts the facts of the audit trail that a command has made into the chain.
func (c *change) seal() {
	for ; c.sealed < len(c.facts); c.sealed++ {
		f, head := &c.facts[c.sealed], c.position.Chain
		if f.Audit == 0 || head == nil {
			continue
		}
		for _, part := range []*json.RawMessage{&f.Detail, &f.Before, &f.After} {
			*part = canonical(*part)
		}
		f.Prev = head.Hash
		record := f.Record()
		hash, err := record.Sum()
		c.fail(err)
		f.Hash = hash
		c.position.Chain = &AuditHead{Number: f.Audit, Hash: hash, Index: f.Index, Time: f.Time, First: head.First}
	}
}

// canonical is the canonical form of JSON that this package made. What has none, since
// a text from outside was put into it, becomes a string with that text: every node does
// the same, and the fact is there.
func canonical(text json.RawMessage) json.RawMessage {
	form, err := trail.Canonical(text)
	if err == nil {
		return form
	}
	quoted, err := json.Marshal(string(text))
	if err == nil {
		form, err = trail.Canonical(quoted)
	}
	if err != nil {
		return nil // a string can always be written
	}
	return form
}

// AuditHead is the newest fact of the audit trail's chain, if it was begun.
func (v *View) AuditHead() (AuditHead, bool) {
	p, ok := get[position](v, tablePosition, indexID, nil)
	if !ok || p.Chain == nil {
		return AuditHead{}, false
	}
	return *p.Chain, true
}

// AuditFacts is how many numbers of the audit trail were given.
func (v *View) AuditFacts() uint64 {
	p, _ := get[position](v, tablePosition, indexID, nil)
	if p == nil {
		return 0
	}
	return p.Audit
}
