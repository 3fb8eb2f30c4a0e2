package upgrade

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/wire"
)

// TestStoredStateIsRead: an earlier version's log, snapshot and journal give the
// state and the facts that it had. Nobody leads here, so that nothing is written
// and nothing ends with time.
func TestStoredStateIsRead(t *testing.T) {
	eachStored(t, func(s *stored) {
		journal, err := history.Open(history.Config{Path: filepath.Join(s.data, "journal.db"), Log: quiet, MaxAge: 10 * 365 * 24 * time.Hour})
		require.NoError(t, err)
		defer func() { require.NoError(t, journal.Close()) }()
		node, err := cluster.Open(cluster.Config{Dir: s.data, NodeID: s.text(s.data, "node-id"), Journal: journal, Log: quiet})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- node.Run(ctx) }()
		require.Eventually(t, func() bool { return node.Ready().Ready() && node.IsLeader() }, patience, 10*time.Millisecond)
		s.sameState(node.State().View())
		stop()
		require.NoError(t, <-ended)
		s.sameFacts(journal)
	})
}

func (s *stored) sameState(view *fleet.View) {
	t := s.t
	for _, want := range said[resource.Agent](s, "agents.json") {
		agent, ok := view.Agent(want.ID)
		require.True(t, ok, "agent %s", want.ID)
		assert.EqualValues(t, want.State, agent.State)
		assert.Equal(t, want.Labels, agent.Labels)
		assert.Equal(t, want.NamePatterns, agent.NamePatterns)
		assert.Equal(t, want.EnrollmentTokenID, agent.TokenID)
		assert.Equal(t, want.Hostname, agent.Host.Hostname)
		assert.Equal(t, want.Identity.Fingerprint, agent.Current.Fingerprint)
		assert.Equal(t, want.Certificates, agent.Certificates)
		assert.Len(t, view.CertificatesOf(agent.ID), want.Certificates)
		found, _, ok := view.AgentByIdentity(want.Identity.Fingerprint)
		require.True(t, ok)
		assert.Equal(t, agent, found)
	}
	certificates := said[resource.Certificate](s, "certificates.json")
	for _, want := range certificates {
		row, ok := view.Certificate(want.AgentID, want.Name)
		require.True(t, ok, "certificate %s of %s", want.Name, want.AgentID)
		assert.Equal(t, want.Names, row.Columns.Names)
		assert.EqualValues(t, want.State, row.Columns.State)
		assert.Equal(t, want.Serial, row.Columns.Serial)
		assert.Equal(t, want.Fingerprint, row.Columns.Fingerprint)
		assert.True(t, want.NotAfter.Equal(row.Columns.NotAfter))
		if want.Issuer == "coordinator" && want.Serial != "" {
			issued, ok := view.Issued(want.Serial)
			require.True(t, ok, "serial %s", want.Serial)
			assert.Equal(t, want.AgentID, issued.Agent)
		}
	}
	assert.Equal(t, len(certificates), view.Rows(fleet.TableCertificates))
	_, ok := view.Revocation(s.text(s.expected, "revoked-serial.txt"))
	assert.True(t, ok)

	s.sameTokens(view)
	for _, want := range said[resource.ListedAssignment](s, "assignments.json") {
		got, ok := view.Assignment(want.Name)
		require.True(t, ok, "assignment %s", want.Name)
		assert.Equal(t, want.Selector, got.Selector)
		assert.Equal(t, want.Revision, got.Revision)
		assert.JSONEq(t, string(want.Certificate), string(got.Template))
		states := map[wire.AssignmentState]int{}
		for _, report := range view.AssignmentReports(want.Name) {
			states[report.State]++
		}
		assert.Equal(t, want.Hosts.Active, states[wire.AssignmentActive])
		assert.Equal(t, want.Hosts.Refused, states[wire.AssignmentRefused])
	}
	for _, want := range said[resource.Renewals](s, "renewals.json") {
		got, ok := view.Campaign(want.ID)
		require.True(t, ok, "renewal %s", want.ID)
		assert.Equal(t, want.Targets, got.Targets)
		assert.Equal(t, want.Reason, got.Reason)
	}

	want := s.authority()
	ca, ok := view.CA()
	require.True(t, ok)
	require.Len(t, ca.Authorities, len(want.Authorities))
	for i, authority := range ca.Authorities {
		assert.Equal(t, want.Authorities[i].Name, authority.Name)
		sum := sha256.Sum256(authority.Certificate)
		assert.Equal(t, want.Authorities[i].Fingerprint, hex.EncodeToString(sum[:]))
	}
	assert.EqualValues(t, want.TrustGeneration, len(ca.Generations))
}

func (s *stored) sameTokens(view *fleet.View) {
	t := s.t
	tokens := said[resource.EnrollmentToken](s, "tokens.json")
	for _, want := range tokens {
		got, ok := view.EnrollmentToken(want.ID)
		require.True(t, ok, "token %s", want.ID)
		assert.Equal(t, want.Description, got.Description)
		assert.Equal(t, want.NamePatterns, got.NamePatterns)
		assert.Equal(t, want.MaxUses, got.MaxUses)
		assert.Equal(t, want.Uses, got.Uses)
		assert.Equal(t, want.State == "revoked", !got.RevokedAt.IsZero())
		assert.True(t, want.ExpiresAt.Equal(got.ExpiresAt))
	}
	open, err := wire.ParseEnrollmentToken(s.text(s.expected, "open.token"))
	require.NoError(t, err)
	got, ok := view.EnrollmentToken(open.ID)
	require.True(t, ok)
	assert.Equal(t, open.SecretHash(), got.SecretHash)
	for _, id := range s.acknowledged() {
		_, ok := view.EnrollmentToken(id)
		assert.True(t, ok, "token %s, which was acknowledged before the kill", id)
	}
	if len(s.acknowledged()) == 0 {
		assert.Equal(t, len(tokens), view.Rows(fleet.TableEnrollmentTokens))
	}
	apiTokens := said[resource.APIToken](s, "api-tokens.json")
	for _, want := range apiTokens {
		got, ok := view.APIToken(want.ID)
		require.True(t, ok, "API token %s", want.ID)
		assert.Equal(t, want.Name, got.Name)
		assert.EqualValues(t, want.Role, got.Role)
		assert.Equal(t, want.State == "usable", got.Usable(want.CreatedAt))
	}
	assert.Equal(t, len(apiTokens), view.Rows(fleet.TableAPITokens))
}

// sameFacts compares the journal: no fact is gone, changed or there twice.
func (s *stored) sameFacts(journal *history.Journal) {
	t := s.t
	type place struct {
		index   uint64
		ordinal uint32
	}
	kept := map[place]fleet.Fact{}
	for after := ""; ; {
		facts, next, err := journal.Read(history.Query{After: after})
		require.NoError(t, err)
		for _, fact := range facts {
			at := place{fact.Index, fact.Ordinal}
			require.NotContains(t, kept, at)
			kept[at] = fact
		}
		if after = next; next == "" {
			break
		}
	}
	wanted := said[resource.Event](s, "facts.json")
	for _, want := range wanted {
		got, ok := kept[place{want.Index, want.Ordinal}]
		require.True(t, ok, "fact %d/%d %s", want.Index, want.Ordinal, want.Kind)
		assert.EqualValues(t, want.Kind, got.Kind)
		assert.Equal(t, want.Actor, got.Actor)
		assert.Equal(t, want.Object, got.Object)
		assert.Equal(t, want.Audit, got.Audit)
		assert.True(t, want.Time.Equal(got.Time))
		if want.Detail != nil {
			assert.JSONEq(t, string(want.Detail), string(got.Detail))
		}
	}
	if len(s.acknowledged()) == 0 {
		assert.Equal(t, len(wanted), len(kept))
	}
	for _, id := range s.acknowledged() {
		found := false
		for _, fact := range kept {
			found = found || fact.Kind == fleet.KindEnrollmentTokenCreated && fact.Object == id
		}
		assert.True(t, found, "the fact that token %s was made", id)
	}
}
