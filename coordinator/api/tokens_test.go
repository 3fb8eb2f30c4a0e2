package api_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

const (
	enrollmentTokens = "/api/v1/enrollment-tokens"
	apiTokens        = "/api/v1/tokens"
)

func ptr[T any](v T) *T { return &v }

func enrollmentTokenID(t resource.EnrollmentToken) string { return t.ID }
func apiTokenID(t resource.APIToken) string               { return t.ID }

func TestEnrollmentTokens(t *testing.T) {
	w := start(t)
	operator := w.Token(fleet.RoleOperator, 0)
	w = w.as(operator.Reveal())

	plain := post[resource.CreatedEnrollmentToken](w, enrollmentTokens, resource.CreateEnrollmentToken{}, http.StatusCreated)
	assert.Equal(t, resource.TokenUsable, plain.State)
	assert.EqualValues(t, 1, plain.MaxUses)
	assert.Zero(t, plain.Uses)
	assert.Empty(t, plain.NamePatterns)
	assert.WithinDuration(t, w.Now().Add(time.Hour), plain.ExpiresAt, time.Minute)
	assert.Equal(t, "api_token:"+operator.ID, plain.CreatedBy)
	token, err := wire.ParseEnrollmentToken(plain.Token)
	require.NoError(t, err)
	assert.Equal(t, plain.ID, token.ID)
	assert.Equal(t, wire.PinOf(w.CA.Root()), token.RootPin, "a new agent knows whom to trust")
	assert.Equal(t, "certctl-agent enroll --server "+apitest.EnrollmentURL+" --token-file -", plain.EnrollCommand)
	stored, ok := w.State().View().EnrollmentToken(plain.ID)
	require.True(t, ok)
	assert.Equal(t, token.SecretHash(), stored.SecretHash)

	w.Sleep(time.Second)
	full := post[resource.CreatedEnrollmentToken](w, enrollmentTokens, resource.CreateEnrollmentToken{
		Description: "web servers", Labels: map[string]string{"env": "prod"}, NamePatterns: []string{"*.Example.com", "10.0.0.0/8"},
		MaxUses: ptr(uint32(0)), TTLSeconds: 60,
	}, http.StatusCreated)
	assert.Equal(t, "web servers", full.Description)
	assert.Equal(t, map[string]string{"env": "prod"}, full.Labels)
	assert.ElementsMatch(t, []string{"*.example.com", "10.0.0.0/8"}, full.NamePatterns)
	assert.Zero(t, full.MaxUses)
	w.Sleep(time.Second)
	spent := w.Agent("agent1", "web1.example.com", nil) // with the token tagent1
	w.Sleep(time.Second)
	revoked := post[resource.CreatedEnrollmentToken](w, enrollmentTokens, resource.CreateEnrollmentToken{}, http.StatusCreated)
	ended := post[resource.EnrollmentToken](w, enrollmentTokens+"/"+revoked.ID+"/revoke", nil, http.StatusOK)
	assert.Equal(t, resource.TokenRevoked, ended.State)
	assert.Equal(t, "api_token:"+operator.ID, ended.RevokedBy)
	again := post[resource.EnrollmentToken](w, enrollmentTokens+"/"+revoked.ID+"/revoke", nil, http.StatusOK)
	assert.Equal(t, ended, again, "revoking it again changes nothing")
	w.Sleep(2 * time.Minute)

	for query, want := range map[string][]string{
		"":              {revoked.ID, "t" + spent.ID(), full.ID, plain.ID}, // newest first
		"state=usable":  {plain.ID},
		"state=used":    {"t" + spent.ID()},
		"state=expired": {full.ID},
		"state=revoked": {revoked.ID},
	} {
		for _, limit := range []string{"1", "500"} {
			items, _ := all[resource.EnrollmentToken](w, enrollmentTokens+"?"+query, limit)
			assert.Equal(t, want, idsOf(items, enrollmentTokenID), query)
		}
	}
	w.ask(http.MethodPost, enrollmentTokens+"/none/revoke", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)
}

func TestEnrollmentTokenRefusals(t *testing.T) {
	w := start(t)
	index := w.State().Index()
	labels := map[string]string{}
	for i := range 33 {
		labels[fmt.Sprint("l", i)] = ""
	}
	for name, c := range map[string]struct {
		body  any
		field string
	}{
		"a pattern that is none":    {resource.CreateEnrollmentToken{NamePatterns: []string{"web1.example.com", "*x.example.com"}}, "name_patterns"},
		"too many patterns":         {resource.CreateEnrollmentToken{NamePatterns: make([]string, 101)}, "name_patterns"},
		"a label that is none":      {resource.CreateEnrollmentToken{Labels: map[string]string{"a b": ""}}, "labels"},
		"a label without a name":    {resource.CreateEnrollmentToken{Labels: map[string]string{"": "x"}}, "labels"},
		"a long label":              {resource.CreateEnrollmentToken{Labels: map[string]string{strings.Repeat("x", 64): ""}}, "labels"},
		"a long value":              {resource.CreateEnrollmentToken{Labels: map[string]string{"a": strings.Repeat("x", 256)}}, "labels"},
		"a value with an escape":    {resource.CreateEnrollmentToken{Labels: map[string]string{"a": "\x1b[31m"}}, "labels"},
		"too many labels":           {resource.CreateEnrollmentToken{Labels: labels}, "labels"},
		"a long description":        {resource.CreateEnrollmentToken{Description: strings.Repeat("x", 201)}, "description"},
		"a description of lines":    {resource.CreateEnrollmentToken{Description: "a\nb"}, "description"},
		"too short":                 {resource.CreateEnrollmentToken{TTLSeconds: 59}, "ttl_seconds"},
		"no lifetime":               {`{"ttl_seconds": 0}`, "ttl_seconds"},
		"too long":                  {resource.CreateEnrollmentToken{TTLSeconds: 366 * 86400}, "ttl_seconds"},
		"too many uses":             {resource.CreateEnrollmentToken{MaxUses: ptr(uint32(1000001))}, "max_uses"},
		"fewer than no uses":        {`{"max_uses": -1}`, "max_uses"},
		"a field that there is not": {`{"names": ["*.example.com"]}`, "names"},
		"a field of another type":   {`{"name_patterns": "*.example.com"}`, "name_patterns"},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.ask(http.MethodPost, enrollmentTokens, c.body).problem(t, http.StatusBadRequest, wire.CodeInvalid)
			assert.Equal(t, c.field, p.Field, p.Detail)
		})
	}
	assert.Equal(t, index, w.State().Index(), "a refused request changes nothing")
}

func TestAPITokens(t *testing.T) {
	w := start(t)
	forever := post[resource.CreatedAPIToken](w, apiTokens, resource.CreateAPIToken{Name: " grafana ", Role: "viewer"}, http.StatusCreated)
	assert.Equal(t, "grafana", forever.Name)
	assert.Zero(t, forever.ExpiresAt)
	assert.Equal(t, resource.TokenUsable, forever.State)
	assert.Equal(t, "api_token:"+w.Admin.ID, forever.CreatedBy)
	who := get[resource.Identified](w.as(forever.Token), "/api/v1/whoami")
	assert.Equal(t, resource.Identified{TokenID: forever.ID, Name: "grafana", Role: "viewer"}, who)
	w.Sleep(time.Second)

	before := w.Now()
	brief := post[resource.CreatedAPIToken](w, apiTokens, resource.CreateAPIToken{Name: "anna", Role: "operator", TTLSeconds: 60}, http.StatusCreated)
	assert.WithinRange(t, brief.ExpiresAt, before.Add(time.Minute-time.Second), w.Now().Add(time.Minute))
	assert.Equal(t, brief.ExpiresAt, get[resource.Identified](w.as(brief.Token), "/api/v1/whoami").ExpiresAt)
	w.Sleep(time.Second)
	lost := post[resource.CreatedAPIToken](w, apiTokens, resource.CreateAPIToken{Name: "lost", Role: "admin"}, http.StatusCreated)
	assert.Equal(t, resource.TokenRevoked, post[resource.APIToken](w, apiTokens+"/"+lost.ID+"/revoke", nil, http.StatusOK).State)
	w.as(lost.Token).ask(http.MethodGet, "/api/v1/whoami", nil).problem(t, http.StatusUnauthorized, wire.CodeUnauthorized)
	w.Sleep(time.Minute)

	for query, want := range map[string][]string{
		"":              {lost.ID, brief.ID, forever.ID, w.Admin.ID},
		"state=usable":  {forever.ID, w.Admin.ID},
		"state=expired": {brief.ID},
		"state=revoked": {lost.ID},
	} {
		items, _ := all[resource.APIToken](w, apiTokens+"?"+query, "1")
		assert.Equal(t, want, idsOf(items, apiTokenID), query)
	}

	w.ask(http.MethodPost, apiTokens+"/none/revoke", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)
	for name, c := range map[string]struct {
		body  any
		field string
	}{
		"no name":        {`{"role":"viewer"}`, "name"},
		"an empty name":  {resource.CreateAPIToken{Name: " ", Role: "viewer"}, "name"},
		"a long name":    {resource.CreateAPIToken{Name: strings.Repeat("x", 101), Role: "viewer"}, "name"},
		"a name of two":  {resource.CreateAPIToken{Name: "a\x1bb", Role: "viewer"}, "name"},
		"no role":        {`{"name":"x"}`, "role"},
		"another role":   {resource.CreateAPIToken{Name: "x", Role: "root"}, "role"},
		"no lifetime":    {`{"name":"x","role":"viewer","ttl_seconds":0}`, "ttl_seconds"},
		"a negative one": {resource.CreateAPIToken{Name: "x", Role: "viewer", TTLSeconds: -1}, "ttl_seconds"},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.ask(http.MethodPost, apiTokens, c.body).problem(t, http.StatusBadRequest, wire.CodeInvalid)
			assert.Equal(t, c.field, p.Field, p.Detail)
		})
	}
}

// Nobody locks everybody out by mistake.
func TestLastAdminToken(t *testing.T) {
	w := start(t)
	p := w.ask(http.MethodPost, apiTokens+"/"+w.Admin.ID+"/revoke", nil).problem(t, http.StatusConflict, wire.CodeConflict)
	assert.Equal(t, "id", p.Field)

	second := w.Token(fleet.RoleAdmin, time.Minute)
	w.Token(fleet.RoleOperator, 0)
	w.Sleep(time.Minute)
	w.ask(http.MethodPost, apiTokens+"/"+w.Admin.ID+"/revoke", nil).problem(t, http.StatusConflict, wire.CodeConflict) // the second has expired
	post[resource.APIToken](w, apiTokens+"/"+second.ID+"/revoke", nil, http.StatusOK)                                  // it may go: it is of no use

	third := w.Token(fleet.RoleAdmin, 0)
	assert.Equal(t, resource.TokenRevoked, post[resource.APIToken](w, apiTokens+"/"+w.Admin.ID+"/revoke", nil, http.StatusOK).State, "one's own too")
	w.ask(http.MethodGet, "/api/v1/whoami", nil).problem(t, http.StatusUnauthorized, wire.CodeUnauthorized)
	get[resource.Identified](w.as(third.Reveal()), "/api/v1/whoami")
}

// Whoever creates a token sees it once. No other answer, no fact of the journal
// and no line of the log has its secret, or what is kept of it.
func TestSecretsAreShownOnce(t *testing.T) {
	w := start(t)
	enrollment := post[resource.CreatedEnrollmentToken](w, enrollmentTokens, resource.CreateEnrollmentToken{}, http.StatusCreated)
	person := post[resource.CreatedAPIToken](w, apiTokens, resource.CreateAPIToken{Name: "anna", Role: "viewer"}, http.StatusCreated)
	agent := w.Agent("agent1", "web1.example.com", nil)
	agent.Report("www", apitest.Valid(w.Now(), time.Hour, "www.example.com"))

	var secrets []string
	hide := func(secret [32]byte) {
		hash := sha256.Sum256(secret[:])
		for _, octets := range [][]byte{secret[:], hash[:]} {
			secrets = append(secrets, base64.RawURLEncoding.EncodeToString(octets), base64.StdEncoding.EncodeToString(octets), hex.EncodeToString(octets))
		}
	}
	whole, err := wire.ParseEnrollmentToken(enrollment.Token)
	require.NoError(t, err)
	hide(whole.Secret)
	given, err := apitoken.Parse(person.Token)
	require.NoError(t, err)
	hide(given.Secret)
	hide(w.Admin.Secret)

	shown := []string{w.Log.String()}
	for _, path := range []string{
		enrollmentTokens, apiTokens, "/api/v1/audit?scope=all", "/api/v1/agents", "/api/v1/agents/agent1", "/api/v1/certificates",
		"/api/v1/certificates/agent1/www", "/api/v1/status", "/api/v1/whoami",
	} {
		answer := w.ask(http.MethodGet, path, nil)
		require.Equal(t, http.StatusOK, answer.StatusCode, path)
		shown = append(shown, answer.body)
	}
	shown = append(shown,
		w.ask(http.MethodPost, enrollmentTokens+"/"+enrollment.ID+"/revoke", nil).body,
		w.ask(http.MethodPost, apiTokens+"/"+person.ID+"/revoke", nil).body)
	for _, text := range shown {
		for _, secret := range secrets {
			assert.NotContains(t, text, secret)
		}
	}
}

// In a cluster a host is given more than one node to enrol at.
func TestEnrollmentOfACluster(t *testing.T) {
	w := start(t)
	announce := func(id, url string) {
		w.Do(fleet.AnnounceNode{Node: fleet.ClusterNode{
			ID: id, Address: id + ".example.com:8444", URL: url, Level: fleet.Level, KeyFingerprint: strings.Repeat("0", 64),
		}})
	}
	command := func() string {
		return post[resource.CreatedEnrollmentToken](w, enrollmentTokens, resource.CreateEnrollmentToken{}, http.StatusCreated).EnrollCommand
	}
	announce("self", apitest.EnrollmentURL)
	assert.Equal(t, "certctl-agent enroll --server "+apitest.EnrollmentURL+" --token-file -", command())
	for _, id := range []string{"a", "b", "c"} {
		announce(id, "https://"+id+".example.com:8443")
	}
	assert.Equal(t, "certctl-agent enroll --server "+apitest.EnrollmentURL+
		" --server https://a.example.com:8443 --server https://b.example.com:8443 --token-file -", command())
}
