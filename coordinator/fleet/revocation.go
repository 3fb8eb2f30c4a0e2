package fleet

import (
	"time"

	"github.com/certctl/certctl/shared/wire"
)

// MaxRevocations bounds the revoked certificates that have not expired, and with
// them the revocation list: an entry takes about 50 bytes of it.
const MaxRevocations = 50_000

// cleanRevocations bounds the expired entries that one publication drops.
const cleanRevocations = 10_000

// builtinKind is the kind of issuer that stands for the built-in CA in the
// summaries of agents.
const builtinKind = "coordinator"

// cessationOfOperation is the CRLReason of certificates of retired agents (RFC
// 5280, section 5.3.1).
const cessationOfOperation = 5

// Revocation is a certificate of the built-in CA that was revoked.
type Revocation struct {
	Serial      string    `cbor:"1,keyasint"` // lower-case hex
	At          time.Time `cbor:"2,keyasint"`
	Reason      int       `cbor:"3,keyasint,omitempty"` // CRLReason, RFC 5280, section 5.3.1
	NotAfter    time.Time `cbor:"4,keyasint"`
	Actor       string    `cbor:"5,keyasint,omitempty"`
	Agent       string    `cbor:"6,keyasint,omitempty"`
	Certificate string    `cbor:"7,keyasint,omitempty"` // its name on the host
	Index       uint64    `cbor:"8,keyasint"`           // of the entry that revoked it
}

// RevocationList is the newest list that was published. It holds the
// revocations up to Index that are stored: entries go only when the next list is
// published, so that every node makes the same list of the same number.
type RevocationList struct {
	Number     uint64    `cbor:"1,keyasint"`
	ThisUpdate time.Time `cbor:"2,keyasint"`
	NextUpdate time.Time `cbor:"3,keyasint"`
	Index      uint64    `cbor:"4,keyasint"`
}

// RevokeCertificate revokes a certificate of the built-in CA. One that is
// revoked already stays as it is.
//
// Codes: CodeInvalid, CodeOverloaded.
type RevokeCertificate struct {
	Actor       string    `cbor:"1,keyasint,omitempty"`
	Serial      string    `cbor:"2,keyasint"`
	Reason      int       `cbor:"3,keyasint,omitempty"`
	NotAfter    time.Time `cbor:"4,keyasint"`
	Agent       string    `cbor:"5,keyasint,omitempty"`
	Certificate string    `cbor:"6,keyasint,omitempty"`
}

// PublishRevocations makes the next revocation list. The outcome is a
// RevocationList.
type PublishRevocations struct {
	ThisUpdate time.Time `cbor:"1,keyasint"`
	NextUpdate time.Time `cbor:"2,keyasint"`
}

func (RevokeCertificate) commandType() Type  { return TypeRevokeCertificate }
func (PublishRevocations) commandType() Type { return TypePublishRevocations }

func revocationIndexes() []index {
	return []index{
		{indexID, func(r any) [][]byte { return only(key(r.(*Revocation).Serial)) }},
		{indexNotAfter, func(r any) [][]byte { x := r.(*Revocation); return only(key(x.NotAfter, x.Serial)) }},
	}
}

func revokeCertificate(c *change, p *RevokeCertificate) Result {
	if p.Serial == "" || len(p.Serial) > 40 || p.NotAfter.IsZero() || p.Reason < 0 || p.Reason > 10 || p.Reason == 7 {
		return refuse(wire.CodeInvalid, "serial", "the revocation has no serial number, no end or no reason of RFC 5280", "")
	}
	if find[Revocation](c, TableRevocations, indexID, key(p.Serial)) != nil {
		return Result{}
	}
	if c.info(TableRevocations).Rows >= MaxRevocations {
		return refuse(wire.CodeOverloaded, "serial", "the revocation list is full", "wait until revoked certificates expire; shorter lifetimes keep the list short")
	}
	c.revoke(&Revocation{Serial: p.Serial, Reason: p.Reason, NotAfter: p.NotAfter, Actor: p.Actor, Agent: p.Agent, Certificate: p.Certificate})
	return Result{}
}

func (c *change) revoke(r *Revocation) {
	r.At, r.Index = c.at, c.index
	c.insert(TableRevocations, r)
	c.audit(Fact{Kind: KindCertificateRevoked, Actor: r.Actor, Object: r.Certificate, Agent: r.Agent}, map[string]any{
		"serial": r.Serial, "reason": r.Reason, "not_after": r.NotAfter,
	})
}

// revokeOfRetired revokes what a retired agent held of the built-in CA, as far
// as the list has room.
func (c *change) revokeOfRetired(actor string, row *Certificate) {
	serial := row.Columns.Serial
	if row.Columns.IssuerKind != builtinKind || serial == "" || !c.at.Before(row.Columns.NotAfter) ||
		c.info(TableRevocations).Rows >= MaxRevocations || find[Revocation](c, TableRevocations, indexID, key(serial)) != nil {
		return
	}
	c.revoke(&Revocation{Serial: serial, Reason: cessationOfOperation, NotAfter: row.Columns.NotAfter,
		Actor: actor, Agent: row.Agent, Certificate: row.Name})
}

func publishRevocations(c *change, p *PublishRevocations) Result {
	if !p.NextUpdate.After(p.ThisUpdate) {
		return refuse(wire.CodeInvalid, "next_update", "the revocation list would end before it begins", "")
	}
	list := &RevocationList{Number: 1, ThisUpdate: p.ThisUpdate, NextUpdate: p.NextUpdate, Index: c.index}
	stored := find[RevocationList](c, TableRevocationList, indexID, key("list"))
	if stored == nil {
		c.insert(TableRevocationList, list)
	} else {
		// An entry goes when a list that was made after the certificate's end
		// has carried it (RFC 5280, section 3.3).
		expired := c.scan(TableRevocations, indexNotAfter, nil)
		for range cleanRevocations {
			revocation, ok := expired.Next().(*Revocation)
			if !ok || !revocation.NotAfter.Before(stored.ThisUpdate) {
				break
			}
			if revocation.Index <= stored.Index {
				c.delete(TableRevocations, revocation)
			}
		}
		list.Number = stored.Number + 1
		c.put(TableRevocationList, list)
	}
	c.event(Fact{Kind: KindRevocationsPublished, Actor: "system", Object: "crl"}, map[string]any{
		"number": list.Number, "entries": c.info(TableRevocations).Rows, "next_update": list.NextUpdate,
	})
	return c.success(*list)
}

// Revocation looks a revoked certificate of the built-in CA up by its serial.
func (v *View) Revocation(serial string) (*Revocation, bool) {
	return get[Revocation](v, TableRevocations, indexID, key(serial))
}

// RevocationList is the newest list, and what stands in it.
func (v *View) RevocationList() (*RevocationList, []*Revocation) {
	list, ok := get[RevocationList](v, TableRevocationList, indexID, nil)
	if !ok {
		return nil, nil
	}
	var entries []*Revocation
	for _, revocation := range v.Revocations() {
		if revocation.Index <= list.Index {
			entries = append(entries, revocation)
		}
	}
	return list, entries
}

// Revocations lists all revoked certificates by serial, also those that the
// newest list has not.
func (v *View) Revocations() []*Revocation {
	return collect[Revocation](v.scan(TableRevocations, indexID, nil))
}
