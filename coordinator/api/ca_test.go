package api_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

const caPath = "/api/v1/ca"

func TestRotateCA(t *testing.T) {
	w := start(t)
	first := get[resource.CA](w, caPath)
	assert.Equal(t, w.CA.ClusterID(), first.ClusterID)
	assert.Equal(t, 1, first.TrustGeneration)
	assert.Equal(t, "publish", first.Rotation.NextStep)
	assert.Equal(t, w.CA.RootsPEM(), first.RootsPEM)
	assert.Zero(t, first.Rotation.AgentsBehind)
	require.Len(t, first.Authorities, 3)
	for _, a := range first.Authorities {
		assert.Equal(t, "active", a.State)
	}

	one := w.Agent("web1", "web1.example.com", nil)
	two := w.Agent("web2", "web2.example.com", nil)
	published := post[resource.CA](w, caPath+"/rotate", resource.RotateCA{Authority: "root"}, http.StatusOK)
	assert.Equal(t, 2, published.TrustGeneration)
	assert.Equal(t, "activate", published.Rotation.NextStep)
	assert.Equal(t, 2, published.Rotation.AgentsBehind)
	require.Len(t, published.Rotation.Behind, 2)
	assert.NotEmpty(t, published.Rotation.Behind[0].Hostname)
	assert.False(t, published.Rotation.Behind[0].LastSeen.IsZero())

	refuse := func(request resource.RotateCA, status int, code wire.Code, field string) *wire.Problem {
		t.Helper()
		before := w.State().View().Version(fleet.TableCA)
		p := w.ask(http.MethodPost, caPath+"/rotate", request).problem(t, status, code)
		assert.Equal(t, field, p.Field)
		assert.NotEmpty(t, p.Mend)
		assert.Equal(t, before, w.State().View().Version(fleet.TableCA))
		return p
	}
	p := refuse(resource.RotateCA{Authority: "root", Step: "activate"}, http.StatusConflict, wire.CodeConflict, "force")
	assert.Contains(t, p.Detail, "2 active agents")
	refuse(resource.RotateCA{Authority: "root"}, http.StatusConflict, wire.CodeConflict, "step")
	refuse(resource.RotateCA{Authority: "root", Step: "retire", Force: true}, http.StatusConflict, wire.CodeConflict, "step")
	refuse(resource.RotateCA{Authority: "issuing"}, http.StatusConflict, wire.CodeConflict, "step")
	refuse(resource.RotateCA{Authority: "issuing", Step: "publish"}, http.StatusBadRequest, wire.CodeInvalid, "step")

	require.NoError(t, w.Do(fleet.AcknowledgeTrust{AgentID: one.ID(), Generation: 2}).Err())
	p = refuse(resource.RotateCA{Authority: "root", Step: "activate"}, http.StatusConflict, wire.CodeConflict, "force")
	assert.Contains(t, p.Detail, two.ID())
	require.NoError(t, w.Do(fleet.RetireAgent{AgentID: two.ID()}).Err())
	activated := post[resource.CA](w, caPath+"/rotate", resource.RotateCA{Authority: "root", Step: "activate"}, http.StatusOK)
	assert.Equal(t, "retire", activated.Rotation.NextStep)
	retired := post[resource.CA](w, caPath+"/rotate", resource.RotateCA{Authority: "root", Step: "retire"}, http.StatusOK)
	assert.Equal(t, 3, retired.TrustGeneration)
	assert.Equal(t, 1, retired.Rotation.AgentsBehind, "of the newest generation")
	assert.Equal(t, "publish", retired.Rotation.NextStep)
	assert.Equal(t, first.ClusterID, retired.ClusterID)
	assert.NotEqual(t, first.RootsPEM, retired.RootsPEM)

	again := post[resource.CA](w, caPath+"/rotate", resource.RotateCA{Authority: "root"}, http.StatusOK)
	post[resource.CA](w, caPath+"/rotate", resource.RotateCA{Authority: "root", Step: "activate", Force: true}, http.StatusOK)
	assert.Equal(t, 4, again.TrustGeneration)
}

func TestWhoMayRotateTheCA(t *testing.T) {
	w := start(t)
	for _, role := range []fleet.Role{fleet.RoleViewer, fleet.RoleOperator} {
		token := w.Token(role, 0)
		as := w.as(token.Reveal())
		assert.Equal(t, 1, get[resource.CA](as, caPath).TrustGeneration)
		as.ask(http.MethodPost, caPath+"/rotate", resource.RotateCA{Authority: "issuing"}).problem(t, http.StatusForbidden, wire.CodeForbidden)
	}
	before := get[resource.CA](w, caPath)
	for _, authority := range []string{"issuing", "identity"} {
		after := post[resource.CA](w, caPath+"/rotate", resource.RotateCA{Authority: authority}, http.StatusOK)
		assert.Equal(t, before.TrustGeneration, after.TrustGeneration)
		assert.Equal(t, before.RootsPEM, after.RootsPEM)
	}
	last := get[resource.CA](w, caPath)
	assert.Len(t, last.Authorities, 5)
	w.ask(http.MethodPost, caPath+"/rotate", resource.RotateCA{Authority: "everything"}).problem(t, http.StatusBadRequest, wire.CodeInvalid)
}
