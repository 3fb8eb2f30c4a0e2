//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/wire"
)

func (c *coordinator) authority() resource.CA {
	c.t.Helper()
	var ca resource.CA
	require.NoError(c.t, c.try(http.MethodGet, "/api/v1/ca", nil, &ca))
	return ca
}

// killed ends the coordinator, starts it again, and learns its present roots.
func (c *coordinator) killed() {
	c.t.Helper()
	c.kill()
	c.start()
	c.http = nil
	c.awaitReady(2*time.Minute, func() error {
		c.http = nil // root.pem may just have been written anew
		return c.connect()
	})
}

// The root is rotated twice, and the coordinator killed after each step. One
// agent is there and follows; another one is off all the time, and comes back; an
// enrolment token from before still enrols; and so does the command line follow.
func TestRotationAcrossKills(t *testing.T) {
	t.Parallel()
	c := startCoordinator(t)
	settings := section{"certificates": []section{certificate("www", "coordinator", "www.example")}}
	there, away, late := newAgent(t, "the agent that is there", settings), newAgent(t, "the agent that is off", settings), newAgent(t, "the late agent", settings)
	for _, a := range []*agent{there, away} {
		a.enroll(c, "*.example")
		a.startAndAwait()
		a.awaitReported(c, "www", a.awaitSettled(2 * time.Minute).Certificates[0].Serial, 2*time.Minute)
	}
	away.stop()
	token := c.newToken("*.example").Token
	old := filepath.Join(t.TempDir(), "old.pem")
	roots, err := os.ReadFile(filepath.Join(c.data, "root.pem"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(old, roots, 0o600))

	acknowledged := func() error {
		var ca resource.CA
		if err := c.try(http.MethodGet, "/api/v1/ca", nil, &ca); err != nil {
			return err
		}
		for _, behind := range ca.Rotation.Behind {
			if behind.ID == there.id {
				return fmt.Errorf("it goes by generation %d of %d", behind.TrustGeneration, ca.TrustGeneration)
			}
		}
		return nil
	}
	for rotation := range 2 {
		for _, step := range []string{"publish", "activate", "retire"} {
			if step != "publish" {
				var problem *wire.Problem
				require.ErrorAs(t, c.try(http.MethodPost, "/api/v1/ca/rotate", resource.RotateCA{Authority: "root", Step: step}, nil), &problem)
				require.Equal(t, wire.CodeConflict, problem.Code, "one agent is behind")
			}
			require.NoError(t, c.try(http.MethodPost, "/api/v1/ca/rotate", resource.RotateCA{Authority: "root", Step: step, Force: step != "publish"}, nil))
			c.killed()
			await(t, 2*time.Minute, "the agent that is there follows", acknowledged)
		}
		assert.Equal(t, 1+2*(rotation+1), c.authority().TrustGeneration)
	}
	require.NoError(t, c.try(http.MethodPost, "/api/v1/ca/rotate", resource.RotateCA{Authority: "identity"}, nil))
	require.NoError(t, c.try(http.MethodPost, "/api/v1/ca/rotate", resource.RotateCA{Authority: "issuing"}, nil))

	before := c.facts(away.id)
	away.startAndAwait()
	late.enrolled(late.enrollWith(c.url(), token))
	late.startAndAwait()
	await(t, 2*time.Minute, "everybody goes by the newest generation", func() error {
		if behind := c.authority().Rotation.AgentsBehind; behind > 0 {
			return fmt.Errorf("%d agents are behind", behind)
		}
		return nil
	})
	for _, a := range []*agent{there, away, late} {
		serial := a.awaitSettled(2 * time.Minute).Certificates[0].Serial
		a.awaitReported(c, "www", serial, 2*time.Minute)
		assert.Equal(t, control.ConnectionConnected, a.status().Coordinator.State)
	}
	for _, fact := range c.facts(away.id)[len(before):] {
		assert.NotEqual(t, "order.requested", fact.Kind, "nothing is ordered because roots have changed")
	}

	admin := newOperator(t)
	login := []string{"login", "--server", c.url(), "--token-file", filepath.Join(c.data, "admin.token"), "--ca-file", old}
	refused := admin.call(login...)
	assert.Equal(t, 2, refused.status)
	assert.Contains(t, refused.stderr, `"certctl ca trust"`)
	admin.does("ca", "trust", "--server", c.url(), "--ca-file", old)
	admin.does(login...)
	assert.Contains(t, admin.does("ca", "show"), "none is under way")
}
