package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/control"
)

// A verb without its argument says what it wants, and where to find it.
func TestRenewWantsOneName(t *testing.T) {
	var out, errs bytes.Buffer
	assert.Equal(t, 1, execute([]string{"renew", "--all", "www"}, &out, &errs))
	assert.Contains(t, errs.String(), "either the name of one certificate or --all")
	for _, args := range [][]string{{"renew"}, {"renew", "www", "mail"}} {
		var out, errs bytes.Buffer
		assert.Equal(t, 1, execute(args, &out, &errs))
		assert.Empty(t, out.String())
		assert.Contains(t, errs.String(), "give the name of one certificate")
		assert.Contains(t, errs.String(), "certctl-agent list")
	}
}

// standInAgent answers on a socket what a test sets.
type standInAgent struct {
	control.Backend // nil: a test asks for nothing else
	status          *control.Status
	reload          error
}

func (a *standInAgent) Status(context.Context) (*control.Status, error) { return a.status, nil }

func (a *standInAgent) Reload(context.Context) (*control.Reload, error) {
	return new(control.Reload), a.reload
}

// standIn runs an agent and returns its socket.
func standIn(t *testing.T, backend control.Backend) string {
	t.Helper()
	socket := shortSocket(t)
	server, err := control.New(control.Config{Path: socket, Backend: backend, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	require.NoError(t, server.Listen(ctx))
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() { cancel(); assert.NoError(t, <-ended) })
	return socket
}

// shortSocket is not in t.TempDir, whose path holds the test's name: sockets have
// short paths.
func shortSocket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	return filepath.Join(dir, "control.sock")
}

// A file with a mistake does not keep anybody from the running agent, which tells
// the mistake itself.
func TestAMistakeInTheFileDoesNotHideTheAgent(t *testing.T) {
	const told = "agent.yaml:2:1: renewel: unknown"
	at := time.Now()
	socket := standIn(t, &standInAgent{
		status: &control.Status{At: at, Agent: control.Agent{Hostname: "web1", StartedAt: at}, Warnings: []string{notInEffect(told)}},
		reload: errors.New(told),
	})
	file := filepath.Join(t.TempDir(), "agent.yaml")
	write := func(socket string) {
		require.NoError(t, os.WriteFile(file, []byte("control: {socket: "+socket+"}\nrenewel: {}\n"), 0o600))
	}
	run := func(args ...string) (status int, out, errs string) {
		var stdout, stderr bytes.Buffer
		status = execute(append([]string{"--config", file}, args...), &stdout, &stderr)
		return status, stdout.String(), stderr.String()
	}

	write(socket)
	status, out, errs := run("status")
	assert.Equal(t, control.ExitAttention, status)
	assert.Contains(t, out, "web1")
	assert.Contains(t, out, "not in effect: "+told)
	assert.Empty(t, errs)
	status, out, _ = run("list")
	assert.Zero(t, status)
	assert.Contains(t, out, "NAME")
	status, _, errs = run("reload")
	assert.Equal(t, 1, status)
	assert.Contains(t, errs, told)

	// One that cannot be read at all leaves the socket to the environment.
	require.NoError(t, os.WriteFile(file, []byte("a: [\n"), 0o600))
	t.Setenv("CERTCTL_AGENT_SOCKET", socket)
	status, out, _ = run("status")
	assert.Equal(t, control.ExitAttention, status)
	assert.Contains(t, out, "web1")

	// Where nobody answers, the mistake may be why.
	t.Setenv("CERTCTL_AGENT_SOCKET", shortSocket(t))
	write(socket)
	status, _, errs = run("status")
	assert.Equal(t, control.ExitNotRunning, status)
	assert.Contains(t, errs, "the agent is not running")
	assert.Contains(t, errs, file+":2:1")
}
