package client_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/shared/wire"
)

// What a client reads after a change is not older than the change, whichever
// client of the same person asks.
func TestReadsSeeWhatWasWritten(t *testing.T) {
	t.Parallel()
	coordinator := apitest.Start(t)
	written := new(client.Written)
	config := client.Config{Servers: []string{coordinator.URL}, Token: coordinator.Admin, Roots: roots(t, coordinator), Written: written}
	c := connect(t, config)
	_, err := whoami(t, c)
	require.NoError(t, err)
	require.Zero(t, written.Index(), "a read changes nothing")

	create := resource.CreateAPIToken{Name: "x", Role: "viewer"}
	made, err := c.CreateAPIToken(t.Context(), create)
	require.NoError(t, err)
	first := written.Index()
	require.Equal(t, coordinator.State().Index(), first)
	_, err = c.RevokeAPIToken(t.Context(), client.RevokeAPITokenParams{ID: made.ID})
	require.NoError(t, err)
	require.Greater(t, written.Index(), first)
	_, err = c.RevokeAPIToken(t.Context(), client.RevokeAPITokenParams{ID: "none"})
	require.Error(t, err)
	_, err = whoami(t, connect(t, config))
	require.NoError(t, err, "this node has it")

	// So does one that asks for the newest there is, and gets it or nothing.
	config.Consistent = true
	c = connect(t, config)
	coordinator.Confirm(func(context.Context) (uint64, error) { return 0, errors.New("no leader") })
	_, err = whoami(t, c)
	problem, refused := errors.AsType[*wire.Problem](err)
	require.True(t, refused, err)
	assert.Contains(t, problem.Detail, "no leader has confirmed it")
}
