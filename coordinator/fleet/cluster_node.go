package fleet

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/certctl/certctl/shared/wire"
)

// Bounds of what is known about nodes. A cluster has three or five; the others
// are nodes that are joining, or that were lost and not removed yet.
const (
	MaxClusterNodes = 32

	maxNodeID          = 64
	maxNodeAddress     = 300
	maxNodeURL         = 512
	maxNodeVersion     = 128
	maxNodeFingerprint = 64 // SHA-256, hex
	maxRestoreText     = 256
)

// ClusterNode is what a node of the cluster says about itself. Whether it is a
// member, and has a vote, is in Raft's configuration and not here.
type ClusterNode struct {
	ID      string `cbor:"1,keyasint"`
	Address string `cbor:"2,keyasint"`           // at which the other nodes reach it
	URL     string `cbor:"3,keyasint,omitempty"` // at which its API is reached
	Version string `cbor:"4,keyasint,omitempty"` // of the program
	// Level is the commands that it understands; see [Level].
	Level uint32 `cbor:"5,keyasint"`
	// KeyFingerprint is that of its node key: SHA-256 of the
	// SubjectPublicKeyInfo, lower-case hex.
	KeyFingerprint string `cbor:"6,keyasint,omitempty"`
	// Trusts lists the fingerprints of the cluster's roots that it trusts.
	Trusts []string `cbor:"7,keyasint,omitempty"`
	// Signer is the fingerprint of the root that signed its certificate.
	Signer              string    `cbor:"8,keyasint,omitempty"`
	CertificateNotAfter time.Time `cbor:"9,keyasint,omitzero"`
	JoinedAt            time.Time `cbor:"10,keyasint,omitzero"`
	UpdatedAt           time.Time `cbor:"11,keyasint,omitzero"` // when one of these changed last
	ModifyIndex         uint64    `cbor:"12,keyasint,omitempty"`
}

// AnnounceNode stores what a member says about itself. Its times and its
// ModifyIndex are the state's own. What is known changes nothing.
//
// Codes: CodeInvalid, CodeOverloaded.
type AnnounceNode struct {
	Node ClusterNode `cbor:"1,keyasint"`
}

// ForgetNode removes the record of a node that is no member any more. A join
// token that it was let in by does not let it in again. An unknown id gives
// CodeNotFound.
type ForgetNode struct {
	Actor string `cbor:"1,keyasint,omitempty"`
	ID    string `cbor:"2,keyasint"`
}

// NoteRestore puts into the audit trail that the state was replaced by a
// snapshot. It is the first command after it.
//
// Codes: CodeInvalid.
type NoteRestore struct {
	Actor string `cbor:"1,keyasint,omitempty"`
	// Snapshot names what was restored: a file, or an id.
	Snapshot string    `cbor:"2,keyasint"`
	TakenAt  time.Time `cbor:"3,keyasint,omitzero"`
	// SnapshotIndex is the index that it was taken at, ReplacedIndex the last one
	// of the state that it replaced.
	SnapshotIndex uint64 `cbor:"4,keyasint"`
	ReplacedIndex uint64 `cbor:"5,keyasint,omitempty"`
	Cluster       string `cbor:"6,keyasint,omitempty"` // id of the cluster that it came from
	Digest        string `cbor:"7,keyasint,omitempty"` // SHA-256 of the content, lower-case hex
}

func (AnnounceNode) commandType() Type { return TypeAnnounceNode }
func (ForgetNode) commandType() Type   { return TypeForgetNode }
func (NoteRestore) commandType() Type  { return TypeNoteRestore }

// check refuses a record that no node says about itself.
func (n *ClusterNode) check() Result {
	for _, text := range []struct {
		field, value string
		least, most  int
	}{
		{"id", n.ID, 1, maxNodeID}, {"address", n.Address, 1, maxNodeAddress}, {"url", n.URL, 0, maxNodeURL},
		{"version", n.Version, 0, maxNodeVersion}, {"key_fingerprint", n.KeyFingerprint, 0, maxNodeFingerprint},
		{"signer", n.Signer, 0, maxNodeFingerprint},
	} {
		if refusal := checkText("node."+text.field, text.value, text.least, text.most); !refusal.OK() {
			return refusal
		}
	}
	if len(n.Trusts) > MaxClusterAuthorities {
		return refuse(wire.CodeInvalid, "node.trusts", fmt.Sprintf("%d roots, at most %d are accepted", len(n.Trusts), MaxClusterAuthorities), "")
	}
	for _, fingerprint := range n.Trusts {
		if refusal := checkText("node.trusts", fingerprint, 1, maxNodeFingerprint); !refusal.OK() {
			return refusal
		}
	}
	if n.Level == 0 {
		return refuse(wire.CodeInvalid, "node.level", "the node does not say which commands it understands", "")
	}
	return Result{}
}

// checkText refuses a text of another length, or one that would spoil a line.
func checkText(field, text string, least, most int) Result {
	if len(text) < least || len(text) > most {
		return refuse(wire.CodeInvalid, field, fmt.Sprintf("%d bytes; expected %d to %d", len(text), least, most), "")
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return refuse(wire.CodeInvalid, field, "it holds a control character", "")
	}
	return Result{}
}

// says reports whether the node says the same again.
func (n *ClusterNode) says(again *ClusterNode) bool {
	return n.ID == again.ID && n.Address == again.Address && n.URL == again.URL && n.Version == again.Version &&
		n.Level == again.Level && n.KeyFingerprint == again.KeyFingerprint && slices.Equal(n.Trusts, again.Trusts) &&
		n.Signer == again.Signer && n.CertificateNotAfter.Equal(again.CertificateNotAfter)
}

// storeNode stores what a node says. stored is its record, nil for a new one.
func (c *change) storeNode(stored *ClusterNode, said ClusterNode) *ClusterNode {
	said.JoinedAt, said.UpdatedAt, said.ModifyIndex = c.at, c.at, c.index
	if stored == nil {
		c.insert(TableNodes, &said)
		return &said
	}
	said.JoinedAt = stored.JoinedAt
	c.put(TableNodes, &said)
	return &said
}

// roomForNode refuses one node too many.
func (c *change) roomForNode() Result {
	if c.info(TableNodes).Rows >= MaxClusterNodes {
		return refuse(wire.CodeOverloaded, "node", fmt.Sprintf("the cluster knows %d nodes, and takes no more", MaxClusterNodes),
			"remove nodes that are gone")
	}
	return Result{}
}

func (n *ClusterNode) detail() map[string]any {
	return map[string]any{"address": n.Address, "url": n.URL, "version": n.Version, "level": n.Level}
}

func announceNode(c *change, p *AnnounceNode) Result {
	if refusal := p.Node.check(); !refusal.OK() {
		return refusal
	}
	stored := find[ClusterNode](c, TableNodes, indexID, key(p.Node.ID))
	if stored == nil {
		if refusal := c.roomForNode(); !refusal.OK() {
			return refusal
		}
		node := c.storeNode(nil, p.Node)
		c.audit(Fact{Kind: KindNodeJoined, Actor: "system", Object: node.ID}, node.detail()).changed(nil, node.picture())
		return Result{}
	}
	if stored.says(&p.Node) {
		return Result{}
	}
	node := c.storeNode(stored, p.Node)
	if stored.Address != node.Address || stored.URL != node.URL || stored.Version != node.Version || stored.Level != node.Level {
		c.event(Fact{Kind: KindNodeChanged, Actor: "system", Object: node.ID}, node.detail())
	}
	return Result{}
}

func forgetNode(c *change, p *ForgetNode) Result {
	stored := find[ClusterNode](c, TableNodes, indexID, key(p.ID))
	if stored == nil {
		return refuse(wire.CodeNotFound, "id", "there is no node with this id", "list the members to see their ids")
	}
	c.delete(TableNodes, stored)
	c.audit(Fact{Kind: KindNodeRemoved, Actor: p.Actor, Object: p.ID}, stored.detail()).changed(stored.picture(), nil)
	return Result{}
}

// checkNote refuses what would spoil the audit trail.
func checkNote(p *NoteRestore) Result {
	if refusal := checkText("snapshot", p.Snapshot, 0, maxRestoreText); !refusal.OK() {
		return refusal
	}
	if refusal := checkText("cluster", p.Cluster, 0, maxRestoreText); !refusal.OK() {
		return refusal
	}
	return checkText("digest", p.Digest, 0, maxNodeFingerprint)
}

func noteRestore(c *change, p *NoteRestore) Result {
	if refusal := checkNote(p); !refusal.OK() {
		return refusal
	}
	c.restored(p, nil)
	return Result{}
}

// restored puts the restore of a state into the audit trail. head is that of the
// restored state's own audit trail, nil if it had none or it is not known.
func (c *change) restored(p *NoteRestore, head *AuditHead) {
	detail := map[string]any{
		"snapshot": p.Snapshot, "snapshot_index": p.SnapshotIndex, "replaced_index": p.ReplacedIndex,
		"cluster_id": p.Cluster, "sha256": p.Digest,
	}
	if !p.TakenAt.IsZero() {
		detail["taken_at"] = p.TakenAt
	}
	state := func(index uint64, head *AuditHead) picture {
		is := picture{"log_index": index}
		if head != nil {
			is["audit_number"], is["audit_hash"] = head.Number, head.Hash
		}
		return is
	}
	before := state(p.ReplacedIndex, c.position.Chain)
	c.audit(Fact{Kind: KindStateRestored, Actor: p.Actor, Object: "state"}, detail).changed(before, state(p.SnapshotIndex, head))
}

// nodeCommands are how an entry begins the type of a command that says by which
// key a node is known, or forgets it: see [Command].
var nodeCommands = [][]byte{
	{2, 0x18, byte(TypeUseJoinToken)}, {2, 0x18, byte(TypeAnnounceNode)}, {2, 0x18, byte(TypeForgetNode)},
}

// NodeKeys are the fingerprints of the keys by which a log entry makes nodes known,
// by their ids; "" for a node that it forgets. A refusal of the rules is not looked
// for. It is for the entries that are not applied yet, and costs little for those
// that are about something else.
func NodeKeys(entry []byte) map[string]string {
	if !slices.ContainsFunc(nodeCommands, func(begin []byte) bool { return bytes.Contains(entry, begin) }) {
		return nil
	}
	commands, err := DecodeEntry(entry)
	if err != nil {
		return nil // whoever applies it says so
	}
	keys := map[string]string{}
	for _, command := range commands {
		h, ok := handlers[command.Type]
		if !ok || command.Version > h.version {
			continue
		}
		switch command.Type {
		case TypeUseJoinToken, TypeAnnounceNode, TypeForgetNode:
		default:
			continue
		}
		switch p, _ := h.read(command.Payload); p := p.(type) {
		case *UseJoinToken:
			keys[p.Node.ID] = p.Node.KeyFingerprint
		case *AnnounceNode:
			keys[p.Node.ID] = p.Node.KeyFingerprint
		case *ForgetNode:
			keys[p.ID] = ""
		}
	}
	return keys
}

// ClusterNodes lists what the nodes say about themselves, by id.
func (v *View) ClusterNodes() []*ClusterNode {
	return collect[ClusterNode](v.scan(TableNodes, indexID, nil))
}

// ClusterNode looks a node up by its id.
func (v *View) ClusterNode(id string) (*ClusterNode, bool) {
	return get[ClusterNode](v, TableNodes, indexID, key(id))
}
