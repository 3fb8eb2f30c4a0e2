package service

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// told collects what people are told.
type told struct{ failure error }

func (t *told) ready()           {}
func (t *told) reloading()       {}
func (t *told) reloaded()        {}
func (t *told) stopping()        {}
func (t *told) status(string)    {}
func (t *told) failed(err error) { t.failure = err }

// serviceRun is a handler with the service manager's ends of its channels.
type serviceRun struct {
	requests chan svc.ChangeRequest
	changes  chan svc.Status
	result   chan [2]uint32 // service specific or not, exit code
	told     *told
}

func startHandler(t *testing.T, main func(context.Context, Lifecycle) int) *serviceRun {
	t.Helper()
	r := &serviceRun{
		requests: make(chan svc.ChangeRequest), changes: make(chan svc.Status),
		result: make(chan [2]uint32, 1), told: new(told),
	}
	h := &handler{ctx: t.Context(), main: main, session: newSession(r.told)}
	go func() {
		specific, code := h.Execute([]string{"certctl-test"}, r.requests, r.changes)
		result := [2]uint32{0, code}
		if specific {
			result[0] = 1
		}
		r.result <- result
	}()
	return r
}

func (r *serviceRun) hears(t *testing.T, want svc.State) svc.Status {
	t.Helper()
	select {
	case got := <-r.changes:
		require.Equal(t, want, got.State)
		return got
	case <-time.After(20 * time.Second):
		require.Fail(t, "nothing was reported", "want state %v", want)
	}
	return svc.Status{}
}

func TestHandlerRunsAtOnceAndStopsWhenMainHas(t *testing.T) {
	release := make(chan struct{})
	r := startHandler(t, func(ctx context.Context, _ Lifecycle) int {
		<-ctx.Done()
		<-release
		return 0
	})
	r.hears(t, svc.StartPending)
	running := r.hears(t, svc.Running)
	assert.Equal(t, svc.AcceptStop|svc.AcceptShutdown|svc.AcceptPreShutdown, running.Accepts)

	r.requests <- svc.ChangeRequest{Cmd: svc.Interrogate}
	assert.Equal(t, running, r.hears(t, svc.Running))

	r.requests <- svc.ChangeRequest{Cmd: svc.Stop}
	stopping := r.hears(t, svc.StopPending)
	assert.Equal(t, uint32(25000), stopping.WaitHint)
	assert.Zero(t, stopping.Accepts)
	r.requests <- svc.ChangeRequest{Cmd: svc.Shutdown} // again, while it stops
	r.requests <- svc.ChangeRequest{Cmd: svc.Interrogate}
	assert.Equal(t, stopping, r.hears(t, svc.StopPending))

	close(release)
	assert.Equal(t, [2]uint32{0, 0}, <-r.result)
}

func TestHandlerReportsTheExitStatus(t *testing.T) {
	cause := errors.New("state.db is damaged")
	r := startHandler(t, func(_ context.Context, life Lifecycle) int {
		life.Failed(cause)
		return 3
	})
	r.hears(t, svc.StartPending)
	r.hears(t, svc.Running)
	assert.Equal(t, [2]uint32{1, 3}, <-r.result, "as a service-specific exit code")
	assert.Equal(t, cause, r.told.failure)
}

func TestHandlerAcceptsParamChangeOnceSomebodyReloads(t *testing.T) {
	reloaded := make(chan struct{})
	r := startHandler(t, func(ctx context.Context, life Lifecycle) int {
		<-life.Reload()
		close(reloaded)
		<-ctx.Done()
		return 0
	})
	r.hears(t, svc.StartPending)
	r.hears(t, svc.Running)
	assert.NotZero(t, r.hears(t, svc.Running).Accepts&svc.AcceptParamChange)
	r.requests <- svc.ChangeRequest{Cmd: svc.ParamChange}
	<-reloaded
	r.requests <- svc.ChangeRequest{Cmd: svc.PreShutdown}
	r.hears(t, svc.StopPending)
	assert.Equal(t, [2]uint32{0, 0}, <-r.result)
}

func TestBindRunAddsAHiddenFlag(t *testing.T) {
	t.Cleanup(func() { startedByManager = false })
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	BindRun(flags)
	assert.True(t, flags.Lookup("service").Hidden)
	require.NoError(t, flags.Parse([]string{"--service"}))
	assert.True(t, startedByManager)
}

func TestExitStatus(t *testing.T) {
	for want, status := range map[int]svc.Status{
		0:    {Win32ExitCode: uint32(windows.ERROR_SERVICE_NEVER_STARTED)},
		3:    {Win32ExitCode: uint32(windows.ERROR_SERVICE_SPECIFIC_ERROR), ServiceSpecificExitCode: 3},
		1067: {Win32ExitCode: uint32(windows.ERROR_PROCESS_ABORTED)},
	} {
		assert.Equal(t, want, exitStatus(status))
	}
}
