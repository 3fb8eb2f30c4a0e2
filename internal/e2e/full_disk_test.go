//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/counts"
)

// inNamespace marks the process that has mounts of its own.
const inNamespace = "CERTCTL_E2E_SMALL_DISKS"

// The data directory of each of three coordinators is a small file system of its
// own. That of the leader fills up to the last block while hosts sync: the others
// go on without it, and it goes on when there is room, without having ended.
func TestClusterWithAFullDisk(t *testing.T) {
	if os.Getenv(inNamespace) != "" {
		fullDisks(t)
		return
	}
	t.Parallel()
	if out, err := apart(t, inNamespace, syscall.CLONE_NEWNS); errors.Is(err, syscall.EPERM) {
		t.Skipf("this process (uid %d) may not mount file systems: %v", os.Getuid(), err)
	} else {
		require.NoError(t, err, "%s", out)
	}
}

// apart runs this test once more, as a process of its own with namespaces of its
// own, which a variable of its environment marks, and returns what it wrote.
func apart(t *testing.T, mark string, namespaces uintptr) ([]byte, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), mark+"=1", binDirEnv+"="+binDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if passed := "--- PASS: " + t.Name(); err == nil && !bytes.Contains(out, []byte(passed)) {
		err = fmt.Errorf("it did not say %q", passed)
	}
	return out, err
}

func fullDisks(t *testing.T) {
	require.NoError(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	c := &cluster{t: t, program: filepath.Join(binDir, "certctl-coordinator")}
	c.prepare = func(node *coordinator) {
		require.NoError(t, os.Mkdir(node.data, 0o700))
		require.NoError(t, syscall.Mount("tmpfs", node.data, "tmpfs", 0, "size=24m,mode=0700"))
		t.Cleanup(func() { assert.NoError(t, syscall.Unmount(node.data, syscall.MNT_DETACH)) })
	}
	c.start()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := startLoad(ctx, c, 3, 2, 1)
	rounds := times(1, 5)
	for round := range rounds {
		leader := c.nodes[c.leader()]
		l.operate.object.Store(int64(round))
		l.acknowledgedAfter(time.Now())
		filler := filepath.Join(leader.data, "filler")
		stop := fill(t, filler)
		await(t, 2*time.Minute, "another node leads", func() error {
			for _, node := range c.nodes {
				if node == leader {
					continue
				}
				if members, err := node.members(); err == nil && members.Leader != "" && members.Leader != leader.name {
					return nil
				}
			}
			return errors.New("none does")
		})
		l.acknowledgedAfter(time.Now())
		stop()
		require.True(t, leader.running(), "a full disk is no reason to end:\n%s", leader.output.tail())
		require.NoError(t, os.Remove(filler))
	}
	c.leader()
	cancel()
	l.wait()
	found := l.verify()
	counts.Report(t, "cluster-full-disks", rounds, "times that the file system of the leader of three real coordinators filled up under load")
	counts.Report(t, "cluster-full-disks-wrong", found.wrong(), "acknowledged facts lost, facts twice, nodes that differ, histories that cannot be explained")
	assert.Zero(t, found.wrong())
}

// fill leaves no room on a file system, and takes what becomes free, until stop
// is called.
func fill(t *testing.T, path string) (stop func()) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for block := make([]byte, 64<<10); ctx.Err() == nil; {
			if _, err := file.Write(block); err != nil {
				if len(block) > 1<<10 {
					block = block[:len(block)/2]
				}
				pause(ctx, 5*time.Millisecond)
			}
		}
	}()
	return func() {
		cancel()
		<-done
		require.NoError(t, file.Close())
	}
}
