package testca

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPortsAreFreeAndHandedOutOnce(t *testing.T) {
	ports, err := Ports(50)
	require.NoError(t, err)
	seen := map[int]bool{}
	for _, port := range ports {
		assert.False(t, seen[port], "port %d twice", port)
		seen[port] = true
		assert.GreaterOrEqual(t, port, firstPort)
		assert.LessOrEqual(t, port, lastPort)
	}
	for _, block := range taken.blocks {
		_, err := net.Listen("tcp", block.Addr().String())
		require.Error(t, err, "no other process gets the same block")
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])))
	require.NoError(t, err)
	assert.False(t, free(ports[0]), "a port in use is not free")
	require.NoError(t, listener.Close())
}

func TestAProcessThatEndsEarlyIsReportedWithItsOutput(t *testing.T) {
	p, err := StartProcess(Command{Path: "/bin/sh", Args: []string{"-c", "echo cannot bind; exit 3"}})
	require.NoError(t, err)
	defer p.Kill()
	err = p.AwaitReady(t.Context(), time.Minute, func(context.Context) error { return errors.New("not yet") })
	require.ErrorIs(t, err, ErrExited)
	assert.Contains(t, err.Error(), "cannot bind")
}

func TestAProcessThatIsNeverReadyIsReported(t *testing.T) {
	p, err := StartProcess(Command{Path: "/bin/sleep", Args: []string{"60"}})
	require.NoError(t, err)
	defer p.Kill()
	notYet := errors.New("not yet")
	err = p.AwaitReady(t.Context(), 50*time.Millisecond, func(context.Context) error { return notYet })
	require.ErrorIs(t, err, notYet)
	assert.NotErrorIs(t, err, ErrExited)
}

func TestKillEndsTheProcessAndCanBeRepeated(t *testing.T) {
	lines := make(chan string, 1)
	p, err := StartProcess(Command{
		Path: "/bin/sh", Args: []string{"-c", "echo up; exec sleep 60"},
		Line: func(line string) { lines <- line },
	})
	require.NoError(t, err)
	assert.Equal(t, "up", <-lines)
	p.Kill()
	p.Kill()
	assert.NotNil(t, p.cmd.ProcessState, "waited for")
}

func TestAMissingProgramIsReported(t *testing.T) {
	_, err := StartProcess(Command{Path: "/nonexistent/program"})
	require.ErrorContains(t, err, "/nonexistent/program")
}
