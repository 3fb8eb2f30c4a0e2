package control

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/windows"

	"github.com/certctl/certctl/internal/winetest"
)

// forever are goroutines that do not end: go-winio has one for all that it waits for.
var forever = []goleak.Option{goleak.IgnoreAnyFunction("github.com/Microsoft/go-winio.ioCompletionProcessor")}

// badPath is what is said of a path that cannot be one.
const badPath = "name of a pipe"

var pipes atomic.Int64

func socketPath(*testing.T) string {
	return fmt.Sprintf(`%scertctl-test-%d-%d`, pipePrefix, os.Getpid(), pipes.Add(1))
}

// A client that comes before the agent accepts anybody waits, and is served
// then. go-winio holds the pipe's name with a first instance that it never
// serves and that Windows keeps disconnected, since it was opened neither to
// read nor to write. wine lets the first client connect to it all the same, who
// then waits for an answer in vain: there, and only there, is the first call to
// an agent that has just started lost.
func TestClientThatComesBeforeTheAgentAccepts(t *testing.T) {
	path := socketPath(t)
	server, err := New(Config{Path: path, Backend: &agent{status: sample(time.Now())}, Log: quiet})
	require.NoError(t, err)
	require.NoError(t, server.Listen(t.Context()))
	gaveUp, cancel := context.WithCancel(t.Context())
	cancel()
	if winetest.Wine() {
		conn, err := dial(t.Context(), path)
		require.NoError(t, err, "wine has learned it: look at the first call of scripts/test-windows-service.sh too")
		require.NoError(t, conn.Close())
	} else {
		early, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		_, err := dial(early, path)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	_, err = dial(gaveUp, path)
	require.ErrorIs(t, err, context.Canceled)

	type answer struct {
		client *Client
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		client, err := Dial(t.Context(), path)
		answered <- answer{client, err}
	}()
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	got := <-answered
	require.NoError(t, got.err)
	_, err = got.client.Status(t.Context())
	require.NoError(t, err)
	got.client.Close()
	end()
	require.NoError(t, <-done)
}

func TestPipeIsTakenOnce(t *testing.T) {
	path := socketPath(t)
	serve(t, path, &agent{}, quiet)
	second, err := New(Config{Path: path, Backend: &agent{}, Log: quiet})
	require.NoError(t, err)
	err = second.Listen(t.Context())
	if winetest.Wine() {
		// It takes the wish to make a pipe that must not be there (FILE_CREATE) for one to have it.
		require.NoError(t, err)
		require.NoError(t, second.listener.Close())
	} else {
		require.ErrorContains(t, err, "somebody has this pipe already")
	}

	grouped, err := New(Config{Path: socketPath(t), Group: "x", Backend: &agent{}, Log: quiet})
	require.NoError(t, err)
	assert.ErrorContains(t, grouped.Listen(t.Context()), "leave control.group empty")
}

func TestPipeIsNotForEverybody(t *testing.T) {
	path := socketPath(t)
	serve(t, path, &agent{}, quiet)
	conn, err := dial(t.Context(), path)
	require.NoError(t, err)
	defer conn.Close()
	sd, err := windows.GetSecurityInfo(windows.Handle(conn.(interface{ Fd() uintptr }).Fd()), windows.SE_KERNEL_OBJECT,
		windows.DACL_SECURITY_INFORMATION)
	require.NoError(t, err)
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	require.NoError(t, err)
	// Windows turns what is granted of everything (GA) into what there is of a file (FA).
	assert.Equal(t, fmt.Sprintf("D:P(D;;FA;;;NU)(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;%s)", user.User.Sid),
		strings.ReplaceAll(sd.String(), ";;GA;", ";;FA;"))
}
