package command

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/windows"
)

const defaultPath = `C:\Windows\System32;C:\Windows`

// Most programs of Windows do not start, or find no files, without these.
var inherited = []string{"PATH", "PATHEXT", "SystemRoot", "SystemDrive", "windir", "ComSpec", "TEMP", "TMP",
	"ProgramData", "ProgramFiles", "ProgramFiles(x86)", "USERPROFILE", "PSModulePath"}

func rootDir() string { return filepath.VolumeName(os.Getenv("SystemRoot")) + `\` }

// group is the job object of a command, by which its children are reached. A
// child that the command starts before it was put into the job stays outside,
// since os/exec cannot start a process suspended.
type group struct {
	cmd *exec.Cmd
	job windows.Handle
}

func newGroup(cmd *exec.Cmd) (*group, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return nil, fmt.Errorf("creating a job object: %w", err)
	}
	return &group{cmd: cmd, job: job}, nil
}

func (g *group) started() error {
	process, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(g.cmd.Process.Pid))
	if err != nil {
		// It is not in the job: leaving it to itself would lose the time limit.
		return fmt.Errorf("opening the process: %w", g.endAlone(err))
	}
	defer windows.CloseHandle(process) //nolint:errcheck // nothing depends on it
	if err := windows.AssignProcessToJobObject(g.job, process); err != nil {
		var code uint32
		if windows.GetExitCodeProcess(process, &code) == nil && code != stillActive {
			return nil // it has ended already
		}
		return fmt.Errorf("putting the process into its job object: %w", g.endAlone(err))
	}
	return nil
}

// stillActive is STILL_ACTIVE, the exit code of a process that runs.
const stillActive = 259

func (g *group) endAlone(err error) error {
	_ = g.cmd.Process.Kill()
	return err
}

// terminate ends the job at once: Windows has no signal that asks.
func (g *group) terminate() error { return windows.TerminateJobObject(g.job, 1) }

func (g *group) kill() { _ = windows.TerminateJobObject(g.job, 1) }

// close drops the handle; what still runs in the job goes on.
func (g *group) close() { _ = windows.CloseHandle(g.job) }
