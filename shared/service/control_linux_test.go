package service

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const answerRunning = `LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
FragmentPath=/etc/systemd/system/certctl-test.service
MainPID=4711
StatusText=3 certificates
ExecMainStatus=0
NRestarts=2
Result=success
`

func TestParseShow(t *testing.T) {
	state, err := parseShow(answerRunning)
	require.NoError(t, err)
	assert.Equal(t, State{
		Installed: true, StartsAtBoot: true, Running: true, Word: "active (running)", PID: 4711,
		Says: "3 certificates", Restarts: 2, Source: "/etc/systemd/system/certctl-test.service",
	}, state)

	state, err = parseShow("LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nUnitFileState=disabled\nExecMainStatus=1\nResult=watchdog\nMainPID=0\n")
	require.NoError(t, err)
	assert.Equal(t, State{Installed: true, Word: "activating (auto-restart), last result: watchdog", ExitStatus: 1}, state)

	state, err = parseShow("LoadState=not-found\nActiveState=inactive\nSubState=dead\nMainPID=0\nResult=success\n")
	require.NoError(t, err)
	assert.False(t, state.Installed)

	for _, bad := range []string{"", "ActiveState=active\n", "LoadState=loaded\nActiveState=active\nMainPID=many\n"} {
		_, err := parseShow(bad)
		assert.Error(t, err, "%q", bad)
	}
}

func FuzzParseShow(f *testing.F) {
	f.Add(answerRunning)
	f.Add("LoadState==\nActiveState=\n=\n\n")
	f.Fuzz(func(t *testing.T, out string) {
		state, err := parseShow(out)
		if err == nil && !strings.Contains(out, "LoadState=") {
			t.Errorf("a state without a LoadState: %+v", state)
		}
	})
}

// fakeSystemctl puts a systemctl before the real one that answers show with
// answer, fails at every other verb with complaint if that is not empty, and
// notes its arguments.
func fakeSystemctl(t *testing.T, answer, complaint string) (calls func() string) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "answer"), []byte(answer), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "complaint"), []byte(complaint), 0o600))
	script := `#!/bin/sh
dir=$(dirname "$0")
echo "$*" >>"$dir/calls"
if [ "$1" = show ]; then exec cat "$dir/answer"; fi
if [ -s "$dir/complaint" ]; then cat "$dir/complaint" >&2; exit 1; fi
`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o700))
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return func() string {
		text, err := os.ReadFile(filepath.Join(dir, "calls"))
		require.NoError(t, err)
		return string(text)
	}
}

func linux(t *testing.T) platform {
	t.Helper()
	p, err := newPlatform(definition())
	require.NoError(t, err)
	return p
}

func TestSystemdIsAskedThroughSystemctl(t *testing.T) {
	calls := fakeSystemctl(t, answerRunning, "")
	p := linux(t)
	state, err := p.state(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "certctl-test", state.Name)
	require.NoError(t, p.start(t.Context()))
	require.NoError(t, p.stop(t.Context()))
	require.NoError(t, p.restart(t.Context()))
	assert.Equal(t, "show certctl-test.service --property="+strings.Join(shown, ",")+
		"\nstart certctl-test.service\nstop certctl-test.service\nrestart certctl-test.service\n", calls())
}

func TestAStartThatFailsGivesTheDaemonsReason(t *testing.T) {
	fakeSystemctl(t, "LoadState=loaded\nActiveState=activating\nStatusText=failed: state.db is damaged\n", "Job failed. See \"systemctl status\".\n")
	err := linux(t).start(t.Context())
	assert.ErrorContains(t, err, "failed: state.db is damaged")
	assert.ErrorContains(t, err, "journalctl -u certctl-test")

	fakeSystemctl(t, "LoadState=loaded\nActiveState=failed\n", "Job failed.\n")
	err = linux(t).restart(t.Context())
	assert.ErrorContains(t, err, "systemctl restart: exit status 1: Job failed.; more in \"journalctl -u certctl-test\"", "without a reason, systemd's words")

	fakeSystemctl(t, "", "Unit is masked.\n")
	assert.ErrorContains(t, linux(t).stop(t.Context()), "Unit is masked.")
}

func TestPathsHiddenFromTheService(t *testing.T) {
	for _, path := range []string{"/root/certctl-agent", "/home/" + "somebody", "/var/tmp/x", filepath.Join(string(filepath.Separator)+"tmp", "x")} {
		assert.ErrorContains(t, checkVisible(path), "hidden from the service", path)
	}
	for _, path := range []string{"run", "/usr/local/bin/certctl-agent", "/rooted/x", "/homework"} {
		assert.NoError(t, checkVisible(path), path)
	}
}

func TestInstallWithABadExecutableTouchesNothing(t *testing.T) {
	p := linux(t)
	program := filepath.Join(t.TempDir(), "program")
	assert.ErrorIs(t, p.install(t.Context(), []string{program, "run"}, false), os.ErrNotExist)
	require.NoError(t, os.WriteFile(program, nil, 0o700))
	require.NoError(t, os.Chmod(program, 0o777)) // whatever the umask
	assert.ErrorContains(t, p.install(t.Context(), []string{program, "run"}, false), "others than root")
}

func TestTheUnitIsNeeded(t *testing.T) {
	def := definition()
	def.Unit = ""
	_, err := NewControl(def)
	assert.ErrorContains(t, err, "unit")
}
