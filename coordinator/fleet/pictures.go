package fleet

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"time"
)

// A picture is what the audit trail shows of an object before and after an act. What
// keeps a secret has none of it in its picture, and no hash either.
type picture map[string]any

// with adds what is there.
func (p picture) with(name string, value any) picture {
	if v := reflect.ValueOf(value); v.IsValid() && !v.IsZero() {
		p[name] = value
	}
	return p
}

// moment is a time in a picture.
func (p picture) moment(name string, at time.Time) picture {
	if !at.IsZero() {
		p[name] = at.UTC()
	}
	return p
}

func (a *Assignment) picture() picture {
	return picture{"selector": a.Selector, "definition": definitionOf(a.Template), "revision": a.Revision}
}

// definitionOf is a definition as the members that it has. The proposer has read it;
// what cannot be read here is shown as it is.
func definitionOf(template []byte) any {
	in := json.NewDecoder(bytes.NewReader(template))
	in.UseNumber()
	var members map[string]any
	if err := in.Decode(&members); err != nil {
		return string(template)
	}
	return members
}

// differing leaves of two pictures what is not the same in both: of a large definition
// often little is changed.
func differing(before, after picture) (was, is picture) {
	was, is = picture{}, picture{}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		value := before[name]
		other, both := after[name]
		if both && reflect.DeepEqual(value, other) {
			continue
		}
		one, nested := value.(map[string]any)
		two, too := other.(map[string]any)
		if nested && too {
			was[name], is[name] = differing(one, two)
			continue
		}
		if was[name] = value; both {
			is[name] = other
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if _, both := before[name]; !both {
			is[name] = after[name]
		}
	}
	return was, is
}

func (t *EnrollmentToken) picture() picture {
	return picture{"max_uses": t.MaxUses}.with("description", t.Description).with("labels", t.Labels).with("name_patterns", t.NamePatterns).
		moment("expires_at", t.ExpiresAt).moment("revoked_at", t.RevokedAt)
}

func (t *APIToken) picture() picture {
	p := picture{"name": t.Name, "role": t.Role}.moment("expires_at", t.ExpiresAt).moment("revoked_at", t.RevokedAt).with("fixed_expiry", t.FixedExpiry)
	if !t.Scope.IsZero() {
		p["scope"] = t.Scope.String()
	}
	if t.Rotation != nil {
		p.moment("rotated_at", t.Rotation.At)
	}
	return p
}

func (t *JoinToken) picture() picture {
	return picture{}.with("description", t.Description).moment("expires_at", t.ExpiresAt).moment("used_at", t.UsedAt).with("used_by", t.UsedBy).
		moment("revoked_at", t.RevokedAt)
}

func (ca *CA) picture() picture {
	type entry struct {
		Name        string         `json:"name"`
		Fingerprint string         `json:"fingerprint"`
		State       AuthorityState `json:"state"`
	}
	entries := make([]entry, len(ca.Authorities))
	for i, authority := range ca.Authorities {
		sum := sha256.Sum256(authority.Certificate)
		entries[i] = entry{authority.Name, hex.EncodeToString(sum[:]), authority.State}
		if entries[i].State == AuthorityActive {
			entries[i].State = "active"
		}
	}
	return picture{"authorities": entries, "trust_generation": len(ca.Generations)}
}

func (c *Campaign) picture() picture {
	return picture{"selector": c.Selector, "over_seconds": int64(c.Over / time.Second), "targets": c.Targets}.with("issuer", c.Issuer).
		with("name_pattern", c.NamePattern).moment("expiring_before", c.ExpiringBefore).moment("cancelled_at", c.CancelledAt)
}

func (n *ClusterNode) picture() picture {
	return picture{"address": n.Address, "level": n.Level}.with("url", n.URL).with("version", n.Version).with("key_fingerprint", n.KeyFingerprint)
}

func (a *Agent) picture() picture {
	p := picture{"state": a.State, "identity": a.Current.Fingerprint}.with("labels", a.Labels).with("name_patterns", a.NamePatterns)
	if a.Pending != nil {
		p["pending_identity"] = a.Pending.Fingerprint
	}
	return p
}

func (o *Order) picture() picture {
	p := picture{"stage": o.Stage()}
	if b := o.Brokering; b != nil {
		if !b.Handle.IsZero() {
			p["handle"] = picture{}.with("order", b.Handle.Order).with("certificate", b.Handle.Certificate).with("request", b.Handle.Request)
		}
		p.with("attempt", b.Attempt)
		if b.Cancel != nil {
			p["cancel_asked_by"] = b.Cancel.By
		}
	}
	if r := o.Revocation; r != nil {
		p.moment("revocation_asked_at", r.At).moment("revocation_taken_at", r.TakenAt).moment("revoked_at", r.DoneAt)
	}
	return p
}
