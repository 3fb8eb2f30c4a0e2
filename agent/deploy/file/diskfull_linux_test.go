package file

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/shared/durable"
)

const inNamespace = "CERTCTL_TEST_MOUNT_NAMESPACE"

// TestDiskThatFails runs the tests below in a process with mounts of its own, so
// that nothing stays mounted whatever happens.
func TestDiskThatFails(t *testing.T) {
	if os.Getenv(inNamespace) != "" {
		t.Run("full at once", testDiskFullAtOnce)
		t.Run("full on the way back", testDiskFullOnTheWayBack)
		t.Run("read-only", testDiskReadOnly)
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestDiskThatFails$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("this machine permits no mount namespace, so that no small file system can be mounted: %v", err)
	}
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "--- PASS: TestDiskThatFails/read-only", "%s", out)
}

// newSmallDisk is a host whose program reads from a file system of 64 KiB.
func newSmallDisk(t *testing.T) (*host, Config, map[string]pair) {
	t.Helper()
	require.NoError(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	h, pairs := newHost(t), map[string]pair{"old": newPair(t), "new": newPair(t)}
	require.NoError(t, os.Mkdir(h.dir, 0o755))
	require.NoError(t, syscall.Mount("tmpfs", h.dir, "tmpfs", 0, "size=64k,mode=0755"))
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(h.dir, 0)) })
	config := h.config(LayoutFiles)
	config.AllowUntrustedDirectories = os.Getuid() != 0 || !rootOwnsRoot(t)
	h.mustDeploy(t, config, pairs["old"], 1)
	return h, config, pairs
}

// rootOwnsRoot is false in a user namespace, where the machine's root is nobody.
func rootOwnsRoot(t *testing.T) bool {
	t.Helper()
	info, err := os.Stat("/")
	require.NoError(t, err)
	return info.Sys().(*syscall.Stat_t).Uid == 0
}

// fill leaves no page free on the small disk.
func (h *host) fill(t *testing.T) {
	t.Helper()
	err := os.WriteFile(filepath.Join(h.dir, "filler"), make([]byte, 1<<20), 0o600)
	require.ErrorIs(t, err, syscall.ENOSPC)
}

func (h *host) free(t *testing.T) {
	t.Helper()
	require.NoError(t, os.Remove(filepath.Join(h.dir, "filler")))
}

func testDiskFullAtOnce(t *testing.T) {
	h, config, pairs := newSmallDisk(t)
	h.fill(t)
	_, err := newTarget(t, config).Deploy(context.Background(), h.task(pairs["new"], 2))
	failed := requireFailure(t, err, deploy.StagePrepare)
	require.ErrorIs(t, err, syscall.ENOSPC)
	assert.Contains(t, failed.Mend, "free some space")
	assert.Equal(t, "old", h.found(t, pairs))
	h.free(t)
	h.requireTidy(t)
	h.mustDeploy(t, config, pairs["new"], 2)
	assert.Equal(t, "new", h.found(t, pairs))
}

// testDiskFullOnTheWayBack: the new pair stays whole, and the next attempt can still go back to the old one.
func testDiskFullOnTheWayBack(t *testing.T) {
	h, config, pairs := newSmallDisk(t)
	target := newTarget(t, config)
	target.hook = func(s durable.Step, _ string, done bool) error {
		if s == stepCheck && !done {
			h.fill(t)
			return errors.New("check failed")
		}
		return nil
	}
	_, err := target.Deploy(context.Background(), h.task(pairs["new"], 2))
	failed := requireFailure(t, err, deploy.StageCheck)
	assert.False(t, failed.RolledBack)
	require.ErrorIs(t, failed.RollbackErr, syscall.ENOSPC)
	assert.Contains(t, failed.Mend, "free some space")
	assert.Equal(t, "new", h.found(t, pairs), "whole, though not wanted")

	h.free(t)
	config.Check = shell("exit 1")
	_, err = newTarget(t, config).Deploy(context.Background(), h.task(pairs["new"], 2))
	assert.True(t, requireFailure(t, err, deploy.StageCheck).RolledBack)
	assert.Equal(t, "old", h.found(t, pairs))
	h.requireTidy(t)
}

func testDiskReadOnly(t *testing.T) {
	h, config, pairs := newSmallDisk(t)
	remount := func(flags uintptr) {
		require.NoError(t, syscall.Mount("", h.dir, "", syscall.MS_REMOUNT|flags, ""))
	}
	remount(syscall.MS_RDONLY)
	_, err := newTarget(t, config).Deploy(context.Background(), h.task(pairs["new"], 2))
	failed := requireFailure(t, err, deploy.StagePrepare)
	require.ErrorIs(t, err, syscall.EROFS)
	assert.Contains(t, failed.Mend, "mount that file system writable")
	assert.Contains(t, failed.Mend, "ReadWritePaths=", "what systemd does looks the same")
	assert.Equal(t, "old", h.found(t, pairs))
	h.requireTidy(t)

	remount(0)
	target := newTarget(t, config)
	target.hook = func(s durable.Step, _ string, done bool) error {
		if s == stepRename && done {
			remount(syscall.MS_RDONLY) // in the middle of the renames
		}
		return nil
	}
	_, err = target.Deploy(context.Background(), h.task(pairs["new"], 2))
	failed = requireFailure(t, err, deploy.StageWrite)
	require.ErrorIs(t, failed.RollbackErr, syscall.EROFS)
	assert.Equal(t, "mixed", h.found(t, pairs))
	remount(0)
	h.mustDeploy(t, config, pairs["new"], 2)
	assert.Equal(t, "new", h.found(t, pairs))
	h.requireTidy(t)
}
