package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

// A deployment over the state would destroy it, and the centre must not write
// what this host goes by.
func TestNothingIsInstalledOverTheAgent(t *testing.T) {
	dir := t.TempDir()
	state, path := filepath.Join(dir, "state"), filepath.Join(dir, "agent.yaml")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, `{"state_dir": %q, "certificates": [
  {"name": "www", "names": ["www.example.com"], "deployments": [{"files": {"fullchain": %q}}]}]}`, state, filepath.Join(state, "state.db")), 0o600))
	var out, errs bytes.Buffer
	assert.Equal(t, 1, execute([]string{"check-config", "--config", path}, &out, &errs))
	assert.Contains(t, errs.String(), "certificates[0].deployments[0]: files.fullchain: "+filepath.Join(state, "state.db")+" is in a directory of the agent itself (state_dir)")

	socket := filepath.Join(dir, "control.sock")
	r := rollOf(t, dir, fmt.Sprintf(`{"state_dir": %q, "control": {"socket": %q}, "assignments": {"allow_paths": [%q]}}`, state, socket, dir))
	require.NoError(t, r.store.SaveIdentity(&store.Identity{NamePatterns: []string{"*.example.com"}}))
	require.NoError(t, r.store.SaveDesired(&wire.Desired{Digest: "d1", Assignments: []wire.Assignment{
		{Name: "a", Revision: 1, Certificate: fmt.Appendf(nil, `{"names":["a.example.com"],"deployments":[{"files":{"combined":%q}}]}`, socket)},
	}}))
	list, made, err := r.managed()
	require.NoError(t, err)
	assert.Empty(t, list)
	require.Len(t, made.Reports, 1)
	assert.Equal(t, wire.AssignmentRefused, made.Reports[0].State)
	assert.Contains(t, made.Reports[0].Detail, "deployments[0]: files.combined: "+socket+" is a file of the agent itself (control.socket)")
}
