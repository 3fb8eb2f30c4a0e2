package api_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func TestATokenRotatesItself(t *testing.T) {
	w := start(t)
	token := w.Token(fleet.RoleViewer, 24*time.Hour)
	old := w.as(token.Reveal())
	w.Sleep(12 * time.Hour)
	path := "/api/v1/tokens/" + token.ID + "/rotate"
	rotated := post[resource.RotatedAPIToken](old, path, map[string]any{}, http.StatusOK)
	made, err := apitoken.Parse(rotated.Token)
	require.NoError(t, err)
	assert.Equal(t, token.ID, made.ID)
	assert.NotEqual(t, token.Secret, made.Secret)
	assert.Equal(t, "viewer", rotated.Role)
	assert.WithinDuration(t, w.Now().Add(24*time.Hour), rotated.ExpiresAt, time.Minute, "it lives as long again")
	assert.WithinDuration(t, w.Now().Add(time.Hour), rotated.EarlierUntil, time.Minute)
	assert.NotContains(t, w.ask(http.MethodGet, "/api/v1/tokens", nil).body, rotated.Token)

	renewed := w.as(rotated.Token)
	assert.Zero(t, get[resource.Identified](renewed, "/api/v1/whoami").EarlierUntil)
	assert.WithinDuration(t, rotated.EarlierUntil, get[resource.Identified](old, "/api/v1/whoami").EarlierUntil, 0)
	p := old.ask(http.MethodPost, path, map[string]any{}).problem(t, http.StatusForbidden, wire.CodeForbidden)
	assert.Contains(t, p.Detail, "before the last rotation", "who finds an old secret cannot take the token over")
	w.Sleep(time.Hour + time.Minute)
	p = old.ask(http.MethodGet, "/api/v1/whoami", nil).problem(t, http.StatusUnauthorized, wire.CodeUnauthorized)
	assert.Contains(t, p.Detail, "got another secret")
	get[resource.Identified](renewed, "/api/v1/whoami")

	// Without a grace the earlier one ends at once.
	last := post[resource.RotatedAPIToken](renewed, path, map[string]any{"grace_seconds": 0}, http.StatusOK)
	renewed.ask(http.MethodGet, "/api/v1/whoami", nil).problem(t, http.StatusUnauthorized, wire.CodeUnauthorized)
	get[resource.Identified](w.as(last.Token), "/api/v1/whoami")
	require.Eventually(t, func() bool { return w.Journal.Through() >= w.State().Index() }, time.Minute, time.Millisecond)
	events := get[resource.Events](w, "/api/v1/audit?kind=api_token.rotated").Items
	require.Len(t, events, 2)
	assert.Equal(t, "api_token:"+token.ID, events[0].Actor)
	assert.Equal(t, token.ID, events[0].Object)
	assert.NotContains(t, string(events[0].Detail), hex.EncodeToString(made.Secret[:]))
}

// A client that makes the secret itself keeps it before it asks, and may ask again.
func TestRotationWithASecretOfTheClients(t *testing.T) {
	w := start(t)
	token := w.Token(fleet.RoleOperator, 0)
	next := apitoken.Renew(token.ID)
	sum := sha256.Sum256(next.Secret[:])
	body := map[string]any{"secret_sha256": hex.EncodeToString(sum[:])}
	path := "/api/v1/tokens/" + token.ID + "/rotate"
	assert.Empty(t, post[resource.RotatedAPIToken](w.as(token.Reveal()), path, body, http.StatusOK).Token)
	get[resource.Identified](w.as(next.Reveal()), "/api/v1/whoami")
	first := get[resource.Page[resource.APIToken]](w, "/api/v1/tokens").Items
	post[resource.RotatedAPIToken](w.as(next.Reveal()), path, body, http.StatusOK)
	assert.Equal(t, first, get[resource.Page[resource.APIToken]](w, "/api/v1/tokens").Items, "nothing has changed")
	p := w.as(next.Reveal()).ask(http.MethodPost, path, map[string]any{"secret_sha256": "00"}).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	assert.Equal(t, "secret_sha256", p.Field)
}

func TestAdminsRotateTheTokensOfOthers(t *testing.T) {
	w := start(t)
	token, other := w.Token(fleet.RoleOperator, 0), w.Token(fleet.RoleViewer, 0)
	path := "/api/v1/tokens/" + other.ID + "/rotate"
	w.as(token.Reveal()).ask(http.MethodPost, path, map[string]any{}).problem(t, http.StatusForbidden, wire.CodeForbidden)
	rotated := post[resource.RotatedAPIToken](w, path, map[string]any{"grace_seconds": 604800}, http.StatusOK)
	assert.Equal(t, "api_token:"+w.Admin.ID, rotated.RotatedBy)
	assert.Equal(t, other.ID, get[resource.Identified](w.as(rotated.Token), "/api/v1/whoami").TokenID)
	get[resource.Identified](w.as(other.Reveal()), "/api/v1/whoami")
	p := w.ask(http.MethodPost, path, map[string]any{"grace_seconds": 604801}).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	assert.Equal(t, "grace_seconds", p.Field)
	w.ask(http.MethodPost, "/api/v1/tokens/none/rotate", map[string]any{}).problem(t, http.StatusNotFound, wire.CodeNotFound)
	post[resource.APIToken](w, "/api/v1/tokens/"+other.ID+"/revoke", nil, http.StatusOK)
	w.as(other.Reveal()).ask(http.MethodGet, "/api/v1/whoami", nil).problem(t, http.StatusUnauthorized, wire.CodeUnauthorized)
	w.ask(http.MethodPost, path, map[string]any{}).problem(t, http.StatusConflict, wire.CodeConflict)
}
