//go:build !windows

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/shared/cli"
)

// Whoever could write the configuration could run commands as the agent: no verb
// and no reload uses such a file.
func TestConfigurationThatOthersMayWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.yaml")
	require.NoError(t, os.WriteFile(path, []byte("log: {level: debug}\n"), 0o644))
	check := func() (status int, said string) {
		var out, errs bytes.Buffer
		status = execute([]string{"check-config", "--config", path}, &out, &errs)
		return status, out.String() + errs.String()
	}
	status, said := check()
	assert.Zero(t, status, said)

	require.NoError(t, os.Chmod(path, 0o666))
	status, said = check()
	assert.Equal(t, 1, status)
	assert.Contains(t, said, "run \"chmod go-w "+path+"\"")

	t.Setenv(cli.FileVariable, path)
	a := &agentCommand{source: cli.Source{DefaultFile: config.DefaultFile}}
	_, _, err := a.load() // as run and reload do
	assert.ErrorContains(t, err, "chmod go-w "+path)
}
