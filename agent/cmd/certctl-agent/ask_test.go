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
	"github.com/certctl/certctl/shared/wire"
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
	asked           int // for what changes something
}

func (a *standInAgent) Status(context.Context) (*control.Status, error) { return a.status, nil }

func (a *standInAgent) Reload(context.Context) (*control.Reload, error) {
	a.asked++
	return new(control.Reload), a.reload
}

func (a *standInAgent) Renew(context.Context, string) (bool, error) {
	a.asked++
	return false, nil
}

func (a *standInAgent) Enroll(context.Context, control.EnrollRequest) (*control.Enrollment, error) {
	a.asked++
	return new(control.Enrollment), nil
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

// What changes something is not asked of the agent of another state directory,
// which would be enrolled, or renew, in the place of the one that is meant. What
// only shows is.
func TestAnotherAgentIsNotAsked(t *testing.T) {
	state := t.TempDir()
	agent := &standInAgent{status: &control.Status{Agent: control.Agent{Hostname: "web1", StateDir: state, ConfigFile: "/etc/other.yaml"}}}
	socket := standIn(t, agent)
	token := wire.EnrollmentToken{ID: "abc123", Secret: [32]byte{1, 2, 3}}.Reveal()
	run := func(stateDir string, args ...string) (status int, out, errs string) {
		var stdout, stderr bytes.Buffer
		set := []string{"--config", filepath.Join(t.TempDir(), "agent.yaml"), "--set", "control.socket=" + socket, "--set", "state_dir=" + stateDir}
		require.NoError(t, os.WriteFile(set[1], []byte("certificates: []\n"), 0o600))
		status = execute(append(set, args...), &stdout, &stderr)
		return status, stdout.String(), stderr.String()
	}
	elsewhere := filepath.Join(t.TempDir(), "x2")
	verbs := [][]string{
		{"enroll", "--server", "https://pki.example.com", "--token", token},
		{"renew", "www"}, {"renew", "--all"}, {"reload"},
	}
	for _, verb := range verbs {
		status, out, errs := run(elsewhere, verb...)
		assert.Equal(t, 1, status, verb)
		assert.Empty(t, out, verb)
		for _, said := range []string{"state_dir", elsewhere, state, socket, "/etc/other.yaml", "nothing was asked of it"} {
			assert.Contains(t, errs, said, verb)
		}
	}
	assert.NoDirExists(t, elsewhere)
	assert.Zero(t, agent.asked)

	alias := filepath.Join(t.TempDir(), "alias")
	same := []string{state, state + string(filepath.Separator)}
	if os.Symlink(state, alias) == nil { // which not everybody may on Windows
		same = append(same, alias)
	}
	for _, dir := range same {
		status, _, errs := run(dir, "reload")
		assert.Zero(t, status, errs)
	}
	assert.Equal(t, len(same), agent.asked)
	status, out, _ := run(elsewhere, "list")
	assert.Zero(t, status)
	assert.Contains(t, out, "NAME")
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
