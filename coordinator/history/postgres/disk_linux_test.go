package postgres_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/testpostgres"
)

// inNamespace marks the process that has mounts of its own.
const inNamespace = "CERTCTL_TEST_SMALL_DATABASE_DISK"

// The database's disk is full up to the last block while facts are exported: they
// wait, and the export goes on when there is room, even if the server has given up.
func TestTheDiskOfTheDatabaseIsFull(t *testing.T) {
	if os.Getenv(inNamespace) != "" {
		fullDisk(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if os.Geteuid() != 0 && err != nil && len(out) == 0 {
		t.Skipf("this process (uid %d) may not mount file systems: %v", os.Geteuid(), err)
	}
	require.NoError(t, err, "%s", out)
	require.True(t, bytes.Contains(out, []byte("--- PASS: "+t.Name())), "%s", out)
}

func fullDisk(t *testing.T) {
	require.NoError(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	disk := t.TempDir()
	for dir := disk; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755)) // the server's user gets there
	}
	require.NoError(t, syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64m,mode=0755"))
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(disk, syscall.MNT_DETACH)) })
	server, err := testpostgres.Start(testpostgres.Options{Durable: true, Data: disk})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, server.Close()) })
	w := newWorld(t, server)
	stop := feed(w, 1)
	e, _ := w.start(w.config)
	for range 2 {
		before := e.Status().Exported
		await(t, "facts are exported", func() bool { return e.Status().Exported > before })
		filler := filepath.Join(disk, "filler")
		fill(t, filler, func() bool { return e.Status().Err != nil })
		t.Log(e.Status().Err)
		waiting := e.Status().Waiting.Facts
		await(t, "facts wait", func() bool { return e.Status().Waiting.Facts > waiting+5 })
		require.NoError(t, os.Remove(filler))
		if err := server.Exec(t.Context(), "postgres", "select 1"); err != nil {
			t.Logf("the server has given up: %v", err)
			require.NoError(t, server.Kill())
			require.NoError(t, server.Run())
		}
	}
	all := stop()
	exported(t, e, all[len(all)-1].Index)
	assert.Equal(t, keysOf(all), w.stored())
}

// fill leaves no room on a file system, and takes what becomes free, until something
// is so.
func fill(t *testing.T, path string, until func() bool) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(t, err)
	block := make([]byte, 64<<10)
	await(t, "the export fails", func() bool {
		for err := error(nil); err == nil; {
			if _, err = file.Write(block); err != nil && len(block) > 1<<10 {
				block, err = block[:len(block)/2], nil
			}
		}
		return until()
	})
	require.NoError(t, file.Close())
}
