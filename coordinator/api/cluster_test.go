package api_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/jointoken"
	"github.com/certctl/certctl/shared/wire"
)

// initClusterCA stores a CA of the cluster's own.
func initClusterCA(w *world) {
	w.t.Helper()
	key, err := w.CA.SealKey()
	require.NoError(w.t, err)
	root, err := clusterca.Create(key, w.Now())
	require.NoError(w.t, err)
	require.NoError(w.t, w.Do(fleet.InitClusterCA{Authority: root}).Err())
}

func announce(w *world, id, url string) {
	w.t.Helper()
	require.NoError(w.t, w.Do(fleet.AnnounceNode{Node: fleet.ClusterNode{ID: id, Address: id + ":8444", URL: url, Version: "1.2.3", Level: 2}}).Err())
}

func TestMembersAndHealth(t *testing.T) {
	w := start(t)
	announce(w, apitest.NodeID, "https://c1.example.com:8443")
	members := get[resource.Members](w, "/api/v1/cluster/members")
	require.Len(t, members.Items, 1)
	m := members.Items[0]
	assert.Equal(t, apitest.NodeID, m.ID)
	assert.Equal(t, "https://c1.example.com:8443", m.URL)
	assert.True(t, m.Leader)
	assert.True(t, m.Voter)
	assert.Equal(t, resource.MemberHealthy, m.Health)
	assert.Equal(t, apitest.NodeID, members.AnsweredBy)
	assert.Equal(t, apitest.NodeID, members.Leader)
	assert.Positive(t, members.ConfigurationIndex)

	health := get[resource.ClusterHealth](w, "/api/v1/cluster/health")
	assert.True(t, health.Healthy, "%v", health.Problems)
	assert.Equal(t, []int{1, 1, 1, 0}, []int{health.Voters, health.VotersWorking, health.Quorum, health.FailureTolerance})
	assert.Nil(t, health.CARotation)
}

func TestChangesOfTheMembers(t *testing.T) {
	w := start(t)
	var asked []string
	outcome := error(nil)
	w.OnChange(func(id string, prevIndex uint64) error {
		asked = append(asked, id+"@"+string(rune('0'+prevIndex)))
		return outcome
	})
	remove := func(path string) answer { return w.ask(http.MethodDelete, "/api/v1/cluster/members/"+path, nil) }

	decode[resource.Members](t, w.ask(http.MethodPost, "/api/v1/cluster/transfer", map[string]string{"to": apitest.NodeID}), http.StatusOK)
	decode[resource.Members](t, w.ask(http.MethodPost, "/api/v1/cluster/transfer", map[string]string{}), http.StatusOK)
	announce(w, "c", "")
	decode[resource.Members](t, remove("c?prev_index=7"), http.StatusOK)
	assert.Equal(t, []string{apitest.NodeID + "@0", "@0", "c@7"}, asked)
	_, known := w.State().View().ClusterNode("c")
	assert.False(t, known, "the record goes with the member")

	// A removal that was cut off before the record went is completed by another.
	outcome = cluster.ErrNoMember
	announce(w, "d", "")
	decode[resource.Members](t, remove("d"), http.StatusOK)
	p := remove("d").problem(t, http.StatusNotFound, wire.CodeNotFound)
	assert.Equal(t, "id", p.Field)
	w.ask(http.MethodPost, "/api/v1/cluster/transfer", map[string]string{"to": "none"}).problem(t, http.StatusNotFound, wire.CodeNotFound)
	var transfers []string // one that could not be had too
	for _, e := range w.events("/api/v1/audit?kind=leadership.transfer_asked", 3).Items {
		assert.True(t, strings.HasPrefix(e.Actor, "api_token:"), e.Actor)
		transfers = append(transfers, string(e.Detail))
	}
	assert.JSONEq(t, `{"from":"`+apitest.NodeID+`","to":"none"}`, transfers[0])

	announce(w, "e", "")
	for _, c := range []struct {
		err    error
		status int
		code   wire.Code
		detail string
		mend   string
	}{
		{&cluster.ConflictError{Index: 12}, http.StatusConflict, wire.CodeConflict, "their configuration is 12 now", "look at the members again"},
		{&cluster.QuorumError{Reason: "too few would be left"}, http.StatusConflict, wire.CodeConflict, "too few would be left", "bring the other members back"},
		{&cluster.RefusedError{Reason: "not now"}, http.StatusConflict, wire.CodeConflict, "not now", "cluster health"},
		{cluster.ErrNotLeader, http.StatusServiceUnavailable, wire.CodeUnavailable, "cannot store changes", "after the pause"},
		{&cluster.UnknownOutcomeError{Err: errors.New("gone")}, http.StatusServiceUnavailable, wire.CodeUnavailable, "it is not known", "look whether it was"},
	} {
		outcome = c.err
		p := remove("e").problem(t, c.status, c.code)
		assert.Contains(t, p.Detail, c.detail)
		assert.Contains(t, p.Mend, c.mend)
		_, known := w.State().View().ClusterNode("e")
		assert.True(t, known, "the member is still there")
	}
	// Whether it is forced or not, the others are asked in the same way.
	outcome = nil
	decode[resource.Members](t, remove("e?force=true"), http.StatusOK)
	var facts []string
	for _, e := range w.events("/api/v1/audit?kind=node.removed", 3).Items {
		facts = append(facts, e.Actor+" "+e.Object)
	}
	assert.Equal(t, []string{"api_token:" + w.Admin.ID + " e", "api_token:" + w.Admin.ID + " d", "api_token:" + w.Admin.ID + " c"}, facts)
}

func TestJoinTokens(t *testing.T) {
	w := start(t)
	announce(w, apitest.NodeID, "https://c1.example.com:8443")
	made := post[resource.CreatedJoinToken](w, "/api/v1/cluster/join-tokens", map[string]any{"description": "c2", "ttl_seconds": 600}, http.StatusCreated)
	token, err := jointoken.Parse(made.Token)
	require.NoError(t, err)
	assert.Equal(t, made.ID, token.ID)
	assert.Equal(t, []string{apitest.EnrollmentURL, "https://c1.example.com:8443"}, token.URLs)
	assert.Equal(t, token.URLs, made.URLs)
	assert.Equal(t, resource.TokenUsable, made.State)
	assert.WithinDuration(t, w.Now().Add(10*time.Minute), made.ExpiresAt, time.Minute)
	stored, ok := w.State().View().JoinToken(token.ID)
	require.True(t, ok)
	assert.Equal(t, token.SecretHash(), stored.SecretHash)

	listed := w.ask(http.MethodGet, "/api/v1/cluster/join-tokens", nil)
	assert.NotContains(t, listed.body, strings.Split(made.Token, ".")[2], "the secret is shown once")
	other := post[resource.CreatedJoinToken](w, "/api/v1/cluster/join-tokens", map[string]any{}, http.StatusCreated)
	ended := decode[resource.JoinToken](t, w.ask(http.MethodDelete, "/api/v1/cluster/join-tokens/"+other.ID, nil), http.StatusOK)
	assert.Equal(t, resource.TokenRevoked, ended.State)
	assert.Equal(t, ended, decode[resource.JoinToken](t, w.ask(http.MethodDelete, "/api/v1/cluster/join-tokens/"+other.ID, nil), http.StatusOK))
	w.ask(http.MethodDelete, "/api/v1/cluster/join-tokens/none", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)

	require.NoError(t, w.Do(fleet.UseJoinToken{ID: token.ID, SecretHash: token.SecretHash(), Node: fleet.ClusterNode{
		ID: "c2", Address: "c2:8444", Level: 2, KeyFingerprint: "00",
	}}).Err())
	w.Sleep(2 * time.Hour)
	late := post[resource.CreatedJoinToken](w, "/api/v1/cluster/join-tokens", map[string]any{"ttl_seconds": 60}, http.StatusCreated)
	w.Sleep(time.Minute)
	states := map[string]resource.TokenState{}
	for _, one := range get[resource.Page[resource.JoinToken]](w, "/api/v1/cluster/join-tokens").Items {
		states[one.ID] = one.State
		if one.ID == token.ID {
			assert.Equal(t, "c2", one.UsedBy)
		}
	}
	assert.Equal(t, map[string]resource.TokenState{token.ID: resource.TokenUsed, other.ID: resource.TokenRevoked, late.ID: resource.TokenExpired}, states)
	assert.Len(t, get[resource.Page[resource.JoinToken]](w, "/api/v1/cluster/join-tokens?state=used").Items, 1)

	p := w.ask(http.MethodPost, "/api/v1/cluster/join-tokens", map[string]any{"ttl_seconds": 604801}).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	assert.Equal(t, "ttl_seconds", p.Field)
	p = w.ask(http.MethodPost, "/api/v1/cluster/join-tokens", map[string]any{"description": "a\nb"}).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	assert.Equal(t, "description", p.Field)
}

func TestRotationOfTheClusterCA(t *testing.T) {
	w := start(t)
	w.ask(http.MethodPost, "/api/v1/cluster/rotate-ca", nil).problem(t, http.StatusServiceUnavailable, wire.CodeUnavailable)
	initClusterCA(w)
	health := post[resource.ClusterHealth](w, "/api/v1/cluster/rotate-ca", nil, http.StatusOK)
	require.NotNil(t, health.CARotation)
	assert.Equal(t, "activate", health.CARotation.NextStep)
	require.Len(t, health.CARotation.Waiting, 1)
	assert.Equal(t, apitest.NodeID, health.CARotation.Waiting[0].Node)
	assert.NotEmpty(t, health.CARotation.Waiting[0].Why)
	w.ask(http.MethodPost, "/api/v1/cluster/rotate-ca", nil).problem(t, http.StatusConflict, wire.CodeConflict)
	ca, ok := w.State().View().ClusterCA()
	require.True(t, ok)
	require.Len(t, ca.Authorities, 2)
	assert.Equal(t, fleet.AuthorityPublished, ca.Authorities[1].State)
	facts := w.events("/api/v1/audit?kind=cluster_ca.changed", 1).Items
	require.Len(t, facts, 1)
	assert.Equal(t, "api_token:"+w.Admin.ID, facts[0].Actor)
}

func TestDiagnosis(t *testing.T) {
	w := start(t)
	_, _ = w.Recent.Write([]byte("{\"msg\":\"the newest line\"}\n"))
	answer := w.ask(http.MethodGet, "/api/v1/cluster/diagnosis", nil)
	require.Equal(t, http.StatusOK, answer.StatusCode, answer.body)
	assert.Equal(t, "application/gzip", answer.Header.Get("Content-Type"))
	assert.Contains(t, answer.Header.Get("Content-Disposition"), ".tar.gz")
	assert.NotEmpty(t, answer.Header.Get(resource.Index))
	uncompressed, err := gzip.NewReader(strings.NewReader(answer.body))
	require.NoError(t, err)
	files := map[string]string{}
	for archive := tar.NewReader(uncompressed); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		text, err := io.ReadAll(archive)
		require.NoError(t, err)
		_, name, _ := strings.Cut(header.Name, "/")
		files[name] = string(text)
	}
	part := func(name string) string { return files[path.Join("nodes", apitest.NodeID, name)] }
	assert.Contains(t, files["README.txt"], apitest.NodeID)
	assert.Contains(t, files["health.json"], `"healthy": true`)
	assert.Contains(t, files["members.json"], apitest.NodeID)
	assert.Contains(t, part("report.json"), `"term"`)
	assert.Contains(t, part("log.jsonl"), "the newest line")
	assert.Contains(t, part("goroutines.txt"), "goroutine")
}

// What a node that was removed knows may be false by now, tokens that it takes included:
// it says nothing, and clients ask another.
func TestANodeThatWasRemovedAnswersNothing(t *testing.T) {
	w := start(t)
	w.Remove(true)
	for _, path := range []string{"/api/v1/whoami", "/api/v1/cluster/members", "/api/v1/agents"} {
		p := w.ask(http.MethodGet, path, nil).problem(t, http.StatusServiceUnavailable, wire.CodeNotMember)
		assert.Contains(t, p.Detail, apitest.NodeID)
		assert.NotEmpty(t, p.Mend)
	}
	w.ask(http.MethodPost, "/api/v1/tokens", `{"name":"x","role":"viewer"}`).problem(t, http.StatusServiceUnavailable, wire.CodeNotMember)
	w.Remove(false)
	get[resource.Identified](w, "/api/v1/whoami")
}
