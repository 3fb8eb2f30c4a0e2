package api_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/trail"
)

// recordOf is a fact as somebody who has nothing but the API's answer takes it.
func recordOf(t *testing.T, e resource.Event) trail.Record {
	t.Helper()
	hash := func(text string) (h trail.Hash) {
		if text != "" {
			var err error
			h, err = trail.ParseHash(text)
			require.NoError(t, err)
		}
		return h
	}
	return trail.Record{
		Number: e.Audit, Index: e.Index, Ordinal: e.Ordinal, Time: e.Time, Kind: e.Kind, Actor: e.Actor, Object: e.Object, Agent: e.AgentID,
		Detail: e.Detail, Before: e.Before, After: e.After, Prev: hash(e.Prev), Hash: hash(e.Hash),
	}
}

// The answers of the API are all that a verifier needs, and the head is of the state.
func TestTheHeadOfTheAuditTrail(t *testing.T) {
	w := start(t)
	post[resource.CreatedEnrollmentToken](w, enrollmentTokens, resource.CreateEnrollmentToken{Description: "<rack> \u2028 & \"7\"", NamePatterns: []string{"*.example.com"}}, http.StatusCreated)
	w.Agent("agent1", "web1.example.com", nil)
	head := get[resource.AuditHead](w, "/api/v1/audit/head")
	assert.EqualValues(t, 1, head.ChainedFrom)
	assert.Equal(t, w.Node.ID(), head.Node)
	items := w.events("/api/v1/audit?order=oldest", int(head.Number)).Items
	hash, err := trail.ParseHash(head.Hash)
	require.NoError(t, err)
	verifier := trail.NewVerifier(1, trail.Anchor{Number: head.Number, Hash: hash, From: "the head"})
	for _, e := range items {
		verifier.Add(recordOf(t, e))
	}
	report := verifier.End()
	assert.Empty(t, report.Breaks)
	assert.Equal(t, []uint64{head.Number}, report.Anchors)
	last := items[len(items)-1]
	assert.Equal(t, []any{head.Index, head.Time, head.Hash}, []any{last.Index, last.Time, last.Hash})

	viewer := w.as(w.Token(fleet.RoleViewer, 0).Reveal())
	assert.Equal(t, head.Number+1, get[resource.AuditHead](viewer, "/api/v1/audit/head").Number, "the token's own fact")
}

// A detail that somebody has damaged does not hide the others.
func TestADamagedDetailIsShown(t *testing.T) {
	w := start(t)
	require.NoError(t, w.Journal.Append(1<<40, []fleet.Fact{{Index: 1 << 40, Time: time.Now(), Kind: "x", Audit: 99, Detail: json.RawMessage(`{"a":`), Before: json.RawMessage(`{"a":1}`)}}))
	items := get[resource.Page[resource.Event]](w, "/api/v1/audit?from=99").Items
	require.Len(t, items, 1)
	assert.JSONEq(t, `"{\"a\":"`, string(items[0].Detail))
	assert.JSONEq(t, `{"a":1}`, string(items[0].Before))
}
