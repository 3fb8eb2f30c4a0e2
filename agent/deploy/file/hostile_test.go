//go:build unix

package file

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy"
)

const stranger = 12345

// A named pipe must not hold up the agent until somebody writes to it.
func TestNamedPipeIsNotWaitedFor(t *testing.T) {
	h, p := newHost(t), newPair(t)
	h.mustDeploy(t, h.config(LayoutFiles), p, 1)
	require.NoError(t, os.Remove(h.paths.Chain))
	require.NoError(t, os.Remove(h.paths.Key))
	require.NoError(t, syscall.Mkfifo(h.paths.Key, 0o600))
	require.NoError(t, syscall.Mkfifo(h.paths.Chain, 0o600))
	done := make(chan error, 2)
	go func() { done <- newTarget(t, h.config(LayoutFiles)).Verify(context.Background(), p.chain[0]) }()
	go func() { _, _, err := openRegular(h.paths.Chain); done <- err }()
	for range 2 {
		select {
		case err := <-done:
			assert.ErrorContains(t, err, "not a regular file")
		case <-time.After(60 * time.Second):
			// Let the goroutines go, or they would be taken for leaks.
			for _, path := range []string{h.paths.Key, h.paths.Chain} {
				if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
					defer func() { _ = f.Close() }()
				}
			}
			t.Fatal("waits for the other end of the pipe")
		}
	}
}

// Who can write to a directory can be there first, with a file of his own in
// place of the key.
func TestKeyIsNotGivenToWhoPutAFileInItsPlace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of another user")
	}
	h, p := newHost(t), newPair(t)
	require.NoError(t, os.Mkdir(h.dir, 0o755))
	require.NoError(t, os.Chmod(h.dir, 0o777|fs.ModeSticky))
	require.NoError(t, os.WriteFile(h.paths.Key, nil, 0o600))
	require.NoError(t, os.Chown(h.paths.Key, stranger, stranger))
	_, err := newTarget(t, h.config(LayoutFiles)).Deploy(context.Background(), h.task(p, 1))
	require.ErrorContains(t, requireFailure(t, err, deploy.StagePrepare), "user id 12345, who may have put it there")

	// Another owner alone would leave him the group.
	config := h.config(LayoutFiles)
	config.Owner = "root"
	_, err = newTarget(t, config).Deploy(context.Background(), h.task(p, 1))
	requireFailure(t, err, deploy.StagePrepare)
	data, err := os.ReadFile(h.paths.Key)
	require.NoError(t, err)
	assert.Empty(t, data)

	// An owner of the operator's choice has the file already, from last time.
	config.Owner = "12345"
	h.mustDeploy(t, config, p, 1)
	h.mustDeploy(t, config, newPair(t), 2)

	// Only who may write to the directory can have put it there.
	require.NoError(t, os.Chmod(h.dir, 0o755))
	h.mustDeploy(t, h.config(LayoutFiles), newPair(t), 3)
	requireAccess(t, h.paths.Key, stranger, stranger, 0o600)
}

// Directories are made and removed only where nobody else decides what a path
// means.
func TestNothingIsMadeOrRemovedBelowADirectoryOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of another user")
	}
	h, p, elsewhere := newHost(t), newPair(t), memoryDir(t)
	home := filepath.Dir(h.dir)
	require.NoError(t, os.Symlink(elsewhere, h.dir))
	require.NoError(t, os.Lchown(h.dir, stranger, stranger))
	own := filepath.Join(home, ".tls.certctl-mine")
	require.NoError(t, os.Mkdir(own, 0o755))
	require.NoError(t, os.Chown(home, stranger, stranger))

	config := h.config(LayoutFiles)
	config.Paths = Paths{Combined: filepath.Join(h.dir, "made", "combined.pem")}
	_, err := newTarget(t, config).Deploy(context.Background(), h.task(p, 1))
	require.ErrorContains(t, requireFailure(t, err, deploy.StagePrepare), "belongs to another user")
	assert.NoDirExists(t, filepath.Join(elsewhere, "made"))

	_, err = newTarget(t, h.config(LayoutDirectory)).Deploy(context.Background(), h.task(p, 1))
	require.ErrorContains(t, requireFailure(t, err, deploy.StagePrepare), "belongs to another user")
	assert.DirExists(t, own)
}

// An interrupted deployment whose files were moved in the configuration must not
// leave half a pair at the old place.
func TestInterruptedDeploymentToOtherFilesIsPutBack(t *testing.T) {
	for _, layout := range layouts() {
		t.Run(string(layout), func(t *testing.T) {
			pairs := map[string]pair{"old": newPair(t), "new": newPair(t)}
			h, config := setUp(t, scenario{layout: layout, before: "old"}, pairs)
			h.crashInTheMiddle(t, config, pairs["new"])

			moved := filepath.Join(filepath.Dir(h.scratch), "moved.pem")
			h.mustDeploy(t, Config{Paths: Paths{Combined: moved}}, pairs["new"], 2)
			assert.Equal(t, "old", h.found(t, pairs), "at the old place")
			data, err := os.ReadFile(moved)
			require.NoError(t, err)
			assert.Equal(t, pairs["new"].contents(t)[kindCombined], data)
			assert.Empty(t, h.state)
			assert.True(t, isEmpty(t, h.scratch))
		})
	}
}
