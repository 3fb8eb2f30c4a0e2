package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/trust"
	"github.com/certctl/certctl/shared/wire"
)

func text(n int) string { return strings.Repeat("x", n) }

// Bounds that stand where the parts of commands come from.
const (
	actorText  = 64       // "api_token:" and an id
	keyText    = 64       // SHA-256, hex
	serialText = 40       // of the built-in CA, hex
	labels     = 32       // of a token: of a key of 63 and a value of 255 bytes
	patterns   = 100      // of a token
	leafDER    = 40 << 10 // far more than a certificate with pki.MaxNames of 253 bytes
	caDER      = 2 << 10  // twice a certificate of the built-in CA
	sealed     = 600      // twice one of its sealed keys
)

func largestIdentity() fleet.Identity {
	return fleet.Identity{Certificate: make([]byte, 4<<10), Fingerprint: text(keyText), PublicKeyFingerprint: text(keyText), Serial: text(serialText), NotAfter: longTime()}
}

func longTime() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 123456789, time.UTC) }

func largestNames(t *testing.T) pki.Names {
	var list []string
	for i := range pki.MaxNames {
		label := text(61)
		list = append(list, fmt.Sprintf("x%02d%s.%s.%s.%s", i, text(58), label, label, label))
	}
	names, err := pki.ParseNames(list)
	require.NoError(t, err)
	return names
}

func largestHost() wire.HostReport {
	until := longTime()
	host := wire.HostReport{Hostname: text(255), OS: text(255), Arch: text(255), Version: text(255), StartedAt: until, SafeUntil: &until,
		NotSafe: wire.MaxNotSafe, EventsDropped: 1 << 63, ClockSkewSeconds: -1 << 62}
	for range wire.MaxHostWarnings {
		host.Warnings = append(host.Warnings, text(wire.MaxHostWarningLen))
	}
	return host
}

func largestProblem() wire.Problem {
	return wire.Problem{Type: text(255), Title: text(255), Status: 422, Detail: text(8 << 10), Code: wire.CodeInvalid, Field: text(255), Mend: text(1024)}
}

func largestNode() fleet.ClusterNode {
	node := fleet.ClusterNode{
		ID: text(64), Address: text(300), URL: text(512), Version: text(128), Level: 1 << 31, KeyFingerprint: text(keyText), Signer: text(keyText),
		CertificateNotAfter: longTime(), JoinedAt: longTime(), UpdatedAt: longTime(), ModifyIndex: 1 << 63,
	}
	for range fleet.MaxClusterAuthorities {
		node.Trusts = append(node.Trusts, text(keyText))
	}
	return node
}

func largestHandle() fleet.OrderHandle {
	return fleet.OrderHandle{Order: text(fleet.MaxOrderHandle), Certificate: text(fleet.MaxOrderHandle), Request: text(fleet.MaxOrderHandle)}
}

func largestBrokering() fleet.Brokering {
	b := fleet.Brokering{
		Reference: text(32), Attempt: 1 << 31, Claim: fleet.OrderClaim{Node: text(64), Term: 1 << 63, At: longTime()},
		Cancel:      &fleet.OrderCancel{By: text(actorText), Note: text(fleet.MaxOrderText), At: longTime()},
		SubmittedAt: longTime(), ReadyAt: longTime(), FetchedAt: longTime(), DeliveredAt: longTime(), CancelledAt: longTime(),
		NeedsPersonSince: longTime(), UnknownSince: longTime(), SearchedAt: longTime(), RestoredAt: longTime(),
		Handle: largestHandle(), Raw: text(1 << 20), Detail: text(1 << 20), Mend: text(1 << 20), Failure: text(1 << 20),
		FailedAt: longTime(), Failures: 1 << 31, Since: longTime(), Asked: 1 << 31, Next: longTime(), Polls: 1 << 31, Searches: 1 << 31,
		WrongCertificates: 1 << 31, Renews: largestHandle(),
	}
	for range 3 * fleet.MaxOrderCandidates {
		b.Candidates = append(b.Candidates, largestHandle())
	}
	return b
}

// largestSync has everything that a valid request may have, but for what is too
// much for one body together with the rest.
func largestSync(t *testing.T) fleet.SyncAgent {
	host := largestHost()
	p := fleet.SyncAgent{
		AgentID: text(64), BootID: text(64), Sequence: 1 << 63, Host: &host, BaseRevision: 1 << 62, Revision: 1<<62 + wire.MaxRows, HeadRevision: 1 << 63,
		ResyncID: text(64), DesiredDigest: text(keyText),
	}
	names := largestNames(t).Strings()
	for i := range wire.MaxRows {
		name, revision := fmt.Sprintf("%04d%s", i, text(wire.MaxNameLen-4)), 1<<62+1+uint64(i)
		if i%2 == 0 {
			p.Removed = append(p.Removed, fleet.Removal{Name: name, Revision: revision})
			continue
		}
		p.Rows = append(p.Rows, fleet.Row{Name: name, Revision: revision, Data: make([]byte, wire.MaxRowBytes), Columns: fleet.Columns{
			Names: names, State: wire.State(text(wire.MaxNameLen)), Issuer: text(wire.MaxNameLen), Serial: text(wire.MaxNameLen),
			Fingerprint: text(wire.MaxNameLen), NotAfter: longTime(), Attention: true,
		}})
	}
	for i := range wire.MaxEvents {
		p.Events = append(p.Events, wire.Event{Sequence: 1<<62 + uint64(i), At: longTime(), Kind: wire.EventKind(text(wire.MaxNameLen)),
			Certificate: text(wire.MaxNameLen), Serial: text(wire.MaxNameLen), Detail: text(wire.MaxTextLen), Count: 1 << 63, Issuer: text(wire.MaxNameLen), Reason: wire.Reason(text(wire.MaxReasonLen))})
	}
	bad := largestProblem()
	for i := range wire.MaxOrders {
		p.Orders = append(p.Orders, fleet.OrderPlacement{
			ID: fmt.Sprintf("%04d%s", i, text(60)), Certificate: text(wire.MaxNameLen), Issuer: text(wire.MaxNameLen), CSR: make([]byte, pki.MaxCSR),
			Names: largestNames(t), PublicKeyFingerprint: text(keyText), Validity: 1 << 62, Problem: &bad,
		})
		p.Collected = append(p.Collected, text(64))
	}
	for range wire.MaxAssignments {
		p.Reports = append(p.Reports, wire.AssignmentReport{Name: text(wire.MaxNameLen), Revision: 1 << 63, State: wire.AssignmentActive, Detail: text(wire.MaxTextLen)})
		p.ReportsGone = append(p.ReportsGone, text(wire.MaxNameLen))
	}
	for range wire.MaxCommands {
		p.Commands = append(p.Commands, fleet.CommandReport{ID: text(64), State: wire.CommandState(text(16)), Detail: text(wire.MaxTextLen), At: longTime(),
			Campaign: text(16), Certificate: text(wire.MaxNameLen)})
	}
	return p
}

// TestTheLargestCommandOfEachTypeFits: what the bounds of its parts allow fits in
// one log entry, or is cut.
func TestTheLargestCommandOfEachTypeFits(t *testing.T) {
	manyLabels, manyPatterns := map[string]string{}, make([]string, patterns)
	for i := range labels {
		manyLabels[fmt.Sprintf("%02d%s", i, text(61))] = text(255)
	}
	for i := range manyPatterns {
		manyPatterns[i] = text(255)
	}
	// The presence of 5000 agents is one command, with longer ids than agents have.
	seen := fleet.TouchAgents{}
	for i := range 5000 {
		seen.Seen = append(seen.Seen, fleet.Seen{Agent: fmt.Sprintf("%04d%s", i, text(20)), At: longTime()})
	}
	ca := make([]fleet.Authority, fleet.MaxAuthorities)
	for i := range ca {
		ca[i] = fleet.Authority{Name: "identity", Certificate: make([]byte, caDER), SealedKey: make([]byte, sealed), State: fleet.AuthorityPublished}
	}
	generations := [][]byte{make([]byte, trust.MaxGenerationBytes), make([]byte, trust.MaxGenerationBytes)}
	clusterCA := make([]fleet.ClusterAuthority, fleet.MaxClusterAuthorities)
	for i := range clusterCA {
		clusterCA[i] = fleet.ClusterAuthority{Certificate: make([]byte, 8<<10), SealedKey: make([]byte, 4<<10), State: fleet.AuthorityPublished}
	}
	revision := uint64(1 << 63)
	actor := text(actorText)
	bad := largestProblem()
	largest := []fleet.Payload{
		fleet.InitCA{Actor: actor, Authorities: ca[:4]},
		fleet.ChangeCA{Actor: actor, Base: 1 << 63, Authorities: ca, Generations: generations, What: text(255)},
		fleet.AcknowledgeTrust{AgentID: text(64), Generation: 1 << 63},
		fleet.CreateEnrollmentToken{Actor: actor, ID: text(40), Description: text(4 * 200), Labels: manyLabels, NamePatterns: manyPatterns, MaxUses: 1 << 31, ExpiresAt: longTime()},
		fleet.RevokeEnrollmentToken{Actor: actor, ID: text(64)},
		fleet.EnrollAgent{TokenID: text(40), AgentID: text(64), Identity: largestIdentity(), Host: largestHost(), Names: largestNames(t)},
		fleet.SetPendingIdentity{AgentID: text(64), Identity: largestIdentity()},
		fleet.PromoteIdentity{AgentID: text(64), Fingerprint: text(keyText)},
		fleet.NoteSharedIdentity{AgentID: text(64), Remote: text(255)},
		fleet.RetireAgent{Actor: actor, AgentID: text(128), Reason: text(4 * 500)},
		seen,
		fleet.CompleteOrder{Agent: text(64), ID: text(64), ChainPEM: text(leafDER * 3 / 2), Serial: text(serialText), Fingerprint: text(keyText), NotAfter: longTime(), Signer: text(keyText)},
		fleet.RejectOrder{Agent: text(64), ID: text(64), Problem: largestProblem()},
		fleet.CreateAPIToken{Actor: actor, ID: text(40), Name: text(4 * 100), Role: fleet.RoleOperator, ExpiresAt: longTime()},
		fleet.CreateAPIToken{Actor: actor, ID: text(40), Name: text(4 * 100), Role: fleet.RoleOperator, ExpiresAt: longTime(), FixedExpiry: true, Scope: largestScope()},
		fleet.RevokeAPIToken{Actor: actor, ID: text(64)},
		fleet.RotateAPIToken{Actor: actor, ID: text(64), Until: longTime()},
		fleet.PutAssignment{Actor: actor, Name: text(wire.MaxNameLen), Selector: text(4 * 1024), Template: make([]byte, wire.MaxAssignmentBytes), Previous: &revision},
		fleet.DeleteAssignment{Actor: actor, Name: text(wire.MaxNameLen), Previous: &revision},
		fleet.CommandAgent{Actor: actor, Agent: text(128), ID: text(64), Kind: wire.CommandRevoke, Certificate: text(wire.MaxNameLen), Serial: text(128), Reason: 10, RevokedAt: longTime()},
		fleet.BeginCampaign{Actor: actor, ID: text(16), Selector: text(4 * 1024), Issuer: text(4 * 128), ExpiringBefore: longTime(), Over: 1 << 62, Targets: 1 << 30, Reason: text(4 * 500), NamePattern: text(255)},
		fleet.CancelCampaign{Actor: actor, ID: text(64)},
		fleet.RevokeCertificate{Actor: actor, Serial: text(128), Reason: 10},
		fleet.PublishRevocations{ThisUpdate: longTime(), NextUpdate: longTime()},
		fleet.InitClusterCA{Actor: actor, Authority: clusterCA[0]},
		fleet.ChangeClusterCA{Actor: actor, PrevIndex: 1 << 63, Authorities: clusterCA},
		fleet.CreateJoinToken{Actor: actor, ID: text(40), Description: text(256), ExpiresAt: longTime()},
		fleet.RevokeJoinToken{Actor: actor, ID: text(64)},
		fleet.UseJoinToken{ID: text(40), Node: largestNode()},
		fleet.AnnounceNode{Node: largestNode()},
		fleet.ForgetNode{Actor: actor, ID: text(64)},
		fleet.NoteTransfer{Actor: actor, To: text(64), From: text(64)},
		fleet.NoteRestore{Actor: actor, Snapshot: text(256), TakenAt: longTime(), SnapshotIndex: 1 << 63, ReplacedIndex: 1 << 63, Cluster: text(256), Digest: text(keyText)},
		fleet.StageRestore{ID: text(64), Piece: fleet.MaxRestorePieces, Data: make([]byte, fleet.MaxRestorePiece)},
		fleet.ApplyRestore{ID: text(64), Pieces: fleet.MaxRestorePieces, APIToken: text(64), Note: fleet.NoteRestore{Actor: actor, Snapshot: text(256), TakenAt: longTime(), SnapshotIndex: 1 << 63, ReplacedIndex: 1 << 63, Cluster: text(256), Digest: text(keyText)}},
		fleet.DropRestore{ID: text(64)},
		fleet.BeginAuditChain{Actor: actor},
		fleet.NotePrune{Actor: actor, Before: longTime(), Months: 1 << 31, First: text(10), Last: text(10), Facts: 1 << 63},
		fleet.RecordDay{Day: largestDay()},
		fleet.ClaimOrder{Agent: text(64), ID: text(64), Revision: 1 << 63, Node: text(64), Term: 1 << 63, Again: true, Renews: largestHandle()},
		fleet.RecordOrder{
			Agent: text(64), ID: text(64), Revision: 1 << 63, State: fleet.OrderIssued, Brokering: largestBrokering(), Problem: &bad,
			ChainPEM: text(leafDER * 3), Serial: text(serialText), Fingerprint: text(keyText), NotAfter: longTime(),
		},
		fleet.CancelOrder{Actor: actor, Agent: text(64), ID: text(64), Note: text(fleet.MaxOrderText)},
		fleet.RetryOrder{Actor: actor, Agent: text(64), ID: text(64)},
		fleet.RevokeOrder{Actor: actor, Agent: text(64), ID: text(64), Step: fleet.RevocationFailed, Reason: 10, Failure: text(fleet.MaxOrderText)},
		fleet.ResolveOrder{Actor: actor, Agent: text(64), ID: text(64), Action: fleet.ResolvePlaceAgain, Handle: largestHandle(), Note: text(fleet.MaxOrderText)},
	}
	pieces := fleet.SplitSync(largestSync(t), fleet.TargetEntry/2)
	assert.Greater(t, len(pieces), 100)
	for i := range pieces {
		largest = append(largest, pieces[i])
	}
	fitted := map[fleet.Type]int{}
	for _, payload := range largest {
		command, err := fleet.NewCommand(longTime(), payload)
		require.NoError(t, err, "%T", payload)
		entry, err := fleet.EncodeEntry([]fleet.Command{command})
		require.NoError(t, err, "%T", payload)
		fitted[command.Type] = max(fitted[command.Type], len(entry))
	}
	for _, typ := range fleet.RegisteredTypes() {
		require.NotZero(t, fitted[typ], "command type %d has no largest form here: without one, nothing proves that it fits in a log entry", typ)
		t.Logf("type %d: at most %d bytes", typ, fitted[typ])
	}
}

// largestScope has as many octets as a selector may have.
func largestScope() fleet.Scope {
	scope := fleet.Scope{}
	for i := range fleet.MaxScopeLabels {
		scope[string(rune('a'+i))+text(62)] = []string{text(60)}
	}
	return scope
}
