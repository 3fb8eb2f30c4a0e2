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

// builtinIssuer is the built-in CA in orders.
const builtinIssuer = "builtin"

// cessationOfOperation is the CRLReason of certificates of retired agents (RFC
// 5280, section 5.3.1).
const cessationOfOperation = 5

// Issued is a certificate of the built-in CA that has not expired, whether or not
// it is in service. It, and not what an agent says, tells whose it is.
type Issued struct {
	Serial      string    `cbor:"1,keyasint"` // lower-case hex
	Agent       string    `cbor:"2,keyasint"`
	Certificate string    `cbor:"3,keyasint"` // its name on the host
	NotAfter    time.Time `cbor:"4,keyasint"`
	// Signer is the key id of the issuing CA that signed it, lower-case hex; "" in
	// records of earlier versions.
	Signer string `cbor:"20,keyasint,omitempty"`
}

// Revocation is a certificate of the built-in CA that was revoked.
type Revocation struct {
	Serial      string    `cbor:"1,keyasint"` // lower-case hex
	At          time.Time `cbor:"2,keyasint"`
	Reason      int       `cbor:"3,keyasint,omitempty"` // CRLReason, RFC 5280, section 5.3.1
	NotAfter    time.Time `cbor:"4,keyasint"`
	Actor       string    `cbor:"5,keyasint,omitempty"`
	Agent       string    `cbor:"6,keyasint,omitempty"`
	Certificate string    `cbor:"7,keyasint,omitempty"`  // its name on the host
	Index       uint64    `cbor:"8,keyasint"`            // of the entry that revoked it
	Signer      string    `cbor:"20,keyasint,omitempty"` // as in Issued
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
// Codes: CodeInvalid, CodeNotFound, CodeOverloaded.
type RevokeCertificate struct {
	Actor  string `cbor:"1,keyasint,omitempty"`
	Serial string `cbor:"2,keyasint"`
	Reason int    `cbor:"3,keyasint,omitempty"`
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
		{name: indexID, keys: func(r any) [][]byte { return only(key(r.(*Revocation).Serial)) }},
		{name: indexNotAfter, keys: func(r any) [][]byte { x := r.(*Revocation); return only(key(x.NotAfter, x.Serial)) }},
	}
}

func issuedIndexes() []index {
	return []index{
		{name: indexID, keys: func(r any) [][]byte { return only(key(r.(*Issued).Serial)) }},
		{name: indexAgent, keys: func(r any) [][]byte { x := r.(*Issued); return only(key(x.Agent, x.Serial)) }},
		{name: indexNotAfter, keys: func(r any) [][]byte { x := r.(*Issued); return only(key(x.NotAfter, x.Serial)) }},
	}
}

// issued remembers a certificate of the built-in CA until it expires.
func (c *change) issued(o *Order, signer string) {
	if o.Issuer != builtinIssuer || o.Serial == "" {
		return
	}
	record := &Issued{Serial: o.Serial, Agent: o.Agent, Certificate: o.Certificate, NotAfter: o.NotAfter, Signer: signer}
	if find[Issued](c, TableIssued, indexID, key(o.Serial)) != nil {
		c.put(TableIssued, record)
		return
	}
	c.insert(TableIssued, record)
}

func revokeCertificate(c *change, p *RevokeCertificate) Result {
	if p.Reason < 0 || p.Reason > 10 || p.Reason == 7 {
		return refuse(wire.CodeInvalid, "reason", "this is no reason of RFC 5280, section 5.3.1", "")
	}
	if find[Revocation](c, TableRevocations, indexID, key(p.Serial)) != nil {
		return Result{}
	}
	issued := find[Issued](c, TableIssued, indexID, key(p.Serial))
	switch {
	case issued == nil || !c.at.Before(issued.NotAfter):
		return refuse(wire.CodeNotFound, "serial", "the built-in CA has no unexpired certificate with this serial number", "check the number")
	case c.info(TableRevocations).Rows >= MaxRevocations:
		return refuse(wire.CodeOverloaded, "serial", "the revocation list is full", "wait until revoked certificates expire; shorter lifetimes keep the list short")
	}
	c.revoke(issued, p.Actor, p.Reason)
	return Result{}
}

func (c *change) revoke(issued *Issued, actor string, reason int) {
	c.insert(TableRevocations, &Revocation{
		Serial: issued.Serial, At: c.at, Reason: reason, NotAfter: issued.NotAfter, Actor: actor,
		Agent: issued.Agent, Certificate: issued.Certificate, Index: c.index, Signer: issued.Signer,
	})
	c.audit(Fact{Kind: KindCertificateRevoked, Actor: actor, Object: issued.Certificate, Agent: issued.Agent}, map[string]any{
		"serial": issued.Serial, "reason": reason, "not_after": issued.NotAfter,
	}).changed(picture{"serial": issued.Serial, "revoked": false}, picture{"serial": issued.Serial, "revoked": true})
}

// revokeAllOf revokes what the built-in CA issued to an agent that is retired,
// as far as the list has room; left counts what has none.
func (c *change) revokeAllOf(agent, actor string) (revoked, left int) {
	for records := c.scan(TableIssued, indexAgent, key(agent)); ; {
		issued, ok := records.Next().(*Issued)
		switch {
		case !ok:
			return revoked, left
		case !c.at.Before(issued.NotAfter), find[Revocation](c, TableRevocations, indexID, key(issued.Serial)) != nil:
		case c.info(TableRevocations).Rows >= MaxRevocations:
			left++
		default:
			c.revoke(issued, actor, cessationOfOperation)
			revoked++
		}
	}
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

// Issued looks an unexpired certificate of the built-in CA up by its serial.
func (v *View) Issued(serial string) (*Issued, bool) {
	return get[Issued](v, TableIssued, indexID, key(serial))
}

// Revocation looks a revoked certificate of the built-in CA up by its serial.
func (v *View) Revocation(serial string) (*Revocation, bool) {
	return get[Revocation](v, TableRevocations, indexID, key(serial))
}

// NewestList is the newest list without what stands in it, and whether it is
// behind: something was revoked since.
func (v *View) NewestList() (list *RevocationList, behind, ok bool) {
	list, ok = get[RevocationList](v, TableRevocationList, indexID, nil)
	return list, ok && v.Version(TableRevocations) > list.Index, ok
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
