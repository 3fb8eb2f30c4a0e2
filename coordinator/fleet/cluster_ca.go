package fleet

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/certctl/certctl/shared/wire"
)

// Bounds of the cluster's own CA.
const (
	MaxClusterAuthorities = 8
	maxClusterCertificate = 8 << 10 // DER
	maxClusterSealedKey   = 4 << 10
)

// ClusterCA is the certificate authority of the connections between nodes. It is
// apart from the built-in CA, which serves the fleet.
type ClusterCA struct {
	// Authorities are trusted; the first one is active and signs.
	Authorities []ClusterAuthority `cbor:"1,keyasint"`
	CreatedAt   time.Time          `cbor:"2,keyasint"`
	ModifyIndex uint64             `cbor:"3,keyasint"`
}

// ClusterAuthority is one root of the cluster's own CA. Its private key is sealed
// by the coordinator's own key and opaque here.
type ClusterAuthority struct {
	Certificate []byte `cbor:"1,keyasint"` // DER
	SealedKey   []byte `cbor:"2,keyasint,omitempty"`
	// State is AuthorityActive, AuthorityPublished or AuthorityRetiring.
	State AuthorityState `cbor:"3,keyasint,omitempty"`
}

// Fingerprint is the SHA-256 of the certificate, lower-case hex.
func (a *ClusterAuthority) Fingerprint() string {
	sum := sha256.Sum256(a.Certificate)
	return hex.EncodeToString(sum[:])
}

// InitClusterCA stores the cluster's own CA unless there is one. The outcome is
// an InitializedClusterCA.
//
// Codes: CodeInvalid.
type InitClusterCA struct {
	Actor     string           `cbor:"1,keyasint,omitempty"`
	Authority ClusterAuthority `cbor:"2,keyasint"`
}

// InitializedClusterCA is the authority that is stored, whoever proposed it.
type InitializedClusterCA struct {
	CA      ClusterCA `cbor:"1,keyasint"`
	Created bool      `cbor:"2,keyasint,omitempty"` // by this command
}

// ChangeClusterCA replaces the authorities of the cluster's own CA, if it is
// still the one that the change was made for. The outcome is a ClusterCA.
//
// Codes: CodeNotFound, CodeConflict, CodeInvalid.
type ChangeClusterCA struct {
	Actor string `cbor:"1,keyasint,omitempty"`
	// PrevIndex is the ModifyIndex of the CA that the change was made for.
	PrevIndex   uint64             `cbor:"2,keyasint"`
	Authorities []ClusterAuthority `cbor:"3,keyasint"`
}

func (InitClusterCA) commandType() Type   { return TypeInitClusterCA }
func (ChangeClusterCA) commandType() Type { return TypeChangeClusterCA }

func initClusterCA(c *change, p *InitClusterCA) Result {
	if stored := find[ClusterCA](c, TableClusterCA, indexID, key("ca")); stored != nil {
		return c.success(InitializedClusterCA{CA: *stored})
	}
	list := []ClusterAuthority{p.Authority}
	if refusal := checkClusterAuthorities(list); !refusal.OK() {
		return refusal
	}
	ca := &ClusterCA{Authorities: list, CreatedAt: c.at, ModifyIndex: c.index}
	c.insert(TableClusterCA, ca)
	c.audit(Fact{Kind: KindClusterCACreated, Actor: p.Actor, Object: "cluster_ca"}, clusterAuthoritiesDetail(list)).
		changed(nil, clusterAuthoritiesDetail(list))
	return c.success(InitializedClusterCA{CA: *ca, Created: true})
}

func changeClusterCA(c *change, p *ChangeClusterCA) Result {
	stored := find[ClusterCA](c, TableClusterCA, indexID, key("ca"))
	switch {
	case stored == nil:
		return refuse(wire.CodeNotFound, "", "the cluster has no certificate authority of its own yet", "start the coordinator")
	case stored.ModifyIndex != p.PrevIndex:
		return refuse(wire.CodeConflict, "", "the cluster's certificate authority was changed meanwhile",
			"look at it again, then repeat the change if it is still wanted")
	}
	if refusal := checkClusterAuthorities(p.Authorities); !refusal.OK() {
		return refusal
	}
	ca := edit(stored)
	ca.Authorities, ca.ModifyIndex = p.Authorities, c.index
	c.put(TableClusterCA, ca)
	c.audit(Fact{Kind: KindClusterCAChanged, Actor: p.Actor, Object: "cluster_ca"}, clusterAuthoritiesDetail(p.Authorities)).
		changed(clusterAuthoritiesDetail(stored.Authorities), clusterAuthoritiesDetail(p.Authorities))
	return c.success(*ca)
}

// checkClusterAuthorities refuses what would leave the nodes without one root
// that signs, or with one that cannot.
func checkClusterAuthorities(list []ClusterAuthority) Result {
	invalid := func(i int, what string) Result {
		return refuse(wire.CodeInvalid, fmt.Sprintf("authorities[%d]", i), what, "")
	}
	if len(list) == 0 || len(list) > MaxClusterAuthorities {
		return refuse(wire.CodeInvalid, "authorities", fmt.Sprintf("%d roots; expected 1 to %d", len(list), MaxClusterAuthorities),
			"retire a root that nothing uses any more")
	}
	for i := range list {
		authority := &list[i]
		switch size := len(authority.Certificate); {
		case size == 0 || size > maxClusterCertificate:
			return invalid(i, fmt.Sprintf("the certificate has %d bytes; expected 1 to %d", size, maxClusterCertificate))
		case len(authority.SealedKey) > maxClusterSealedKey:
			return invalid(i, fmt.Sprintf("the sealed key has %d bytes, at most %d are accepted", len(authority.SealedKey), maxClusterSealedKey))
		case slices.ContainsFunc(list[:i], func(b ClusterAuthority) bool { return bytes.Equal(b.Certificate, authority.Certificate) }):
			return invalid(i, "this root is in the list twice")
		}
		switch authority.State {
		case AuthorityActive, AuthorityPublished:
			if len(authority.SealedKey) == 0 {
				return invalid(i, "a root that signs, or is to sign, needs its key")
			}
		case AuthorityRetiring:
		default:
			return invalid(i, fmt.Sprintf("a root cannot be %.40q", authority.State))
		}
		if (i == 0) != (authority.State == AuthorityActive) {
			return invalid(i, "the first root signs, and no other one")
		}
	}
	return Result{}
}

func clusterAuthoritiesDetail(list []ClusterAuthority) map[string]any {
	type entry struct {
		Fingerprint string         `json:"fingerprint"`
		State       AuthorityState `json:"state"`
	}
	entries := make([]entry, len(list))
	for i := range list {
		state := list[i].State
		if state == AuthorityActive {
			state = "active"
		}
		entries[i] = entry{Fingerprint: list[i].Fingerprint(), State: state}
	}
	return map[string]any{"authorities": entries}
}

// ClusterCA is the CA of the connections between nodes, if there is one.
func (v *View) ClusterCA() (*ClusterCA, bool) {
	return get[ClusterCA](v, TableClusterCA, indexID, nil)
}
