package durable

import (
	"bufio"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// holderEnv makes the test program a process that holds the lock until its standard input ends.
const holderEnv = "DURABLE_TEST_HOLD_LOCK"

func TestLockHolderProcess(t *testing.T) {
	path := os.Getenv(holderEnv)
	if path == "" {
		return // an ordinary run: there is nothing to hold
	}
	_, err := Lock(path)
	require.NoError(t, err)
	_, err = os.Stdout.WriteString("locked\n")
	require.NoError(t, err)
	_, _ = os.Stdin.Read(make([]byte, 1))
}

func TestLockExcludesAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	holder := exec.Command(os.Args[0], "-test.run=^TestLockHolderProcess$")
	holder.Env = append(os.Environ(), holderEnv+"="+path)
	_, err := holder.StdinPipe() // open until Wait: the holder holds on
	require.NoError(t, err)
	stdout, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "locked\n", line)

	_, err = Lock(path)
	var held *LockedError
	require.ErrorAs(t, err, &held)
	assert.Equal(t, holder.Process.Pid, held.PID)
	assert.EqualError(t, err, "lock "+path+": held by process "+strconv.Itoa(held.PID)+"; stop it, or use another directory")

	// The system frees the lock of a process that is killed.
	require.NoError(t, holder.Process.Kill())
	require.Error(t, holder.Wait())
	lock, err := Lock(path)
	require.NoError(t, err)
	require.NoError(t, lock.Unlock())
}

func TestLockExcludesThisProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := Lock(path)
	require.NoError(t, err)
	assert.Equal(t, path, lock.Path())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, strconv.Itoa(os.Getpid())+"\n", string(text))

	var held *LockedError
	_, err = Lock(path)
	require.ErrorAs(t, err, &held)
	assert.Equal(t, os.Getpid(), held.PID)

	require.NoError(t, os.WriteFile(path, []byte("not a process id"), 0o600))
	_, err = Lock(path)
	require.ErrorAs(t, err, &held)
	assert.Zero(t, held.PID)
	assert.EqualError(t, err, "lock "+path+": held by another process; stop it, or use another directory")

	var group sync.WaitGroup
	for range 4 {
		group.Go(func() { assert.NoError(t, lock.Unlock()) })
	}
	group.Wait()
	again, err := Lock(path)
	require.NoError(t, err)
	require.NoError(t, lock.Unlock(), "a second Unlock must not free the lock of the next holder")
	_, err = Lock(path)
	require.ErrorAs(t, err, &held)
	require.NoError(t, again.Unlock())

	_, err = Lock(filepath.Join(t.TempDir(), "missing", "lock"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestLockIsHeldByOneAtMost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var inside, most atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				lock, err := Lock(path)
				if err != nil {
					var held *LockedError
					assert.ErrorAs(t, err, &held)
					continue
				}
				most.Store(max(most.Load(), inside.Add(1)))
				inside.Add(-1)
				assert.NoError(t, lock.Unlock())
			}
		})
	}
	group.Wait()
	assert.EqualValues(t, 1, most.Load())
}
