//go:build unix

package store

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/durable"
)

// failAt makes one step fail, before or after it has done its work.
func failAt(step durable.Step, after bool, err error) durable.Hook {
	return func(s durable.Step, _ string, done bool) error {
		if s == step && done == after {
			return err
		}
		return nil
	}
}

// A disk that fails in another way than by being full may have lost what it took
// before. The store does nothing more until it is opened again.
func TestStoreStopsAfterAFailedSync(t *testing.T) {
	for _, after := range []bool{false, true} {
		path := testPath(t)
		s := openAt(t, path, Options{})
		put(t, s, "web", epoch, epoch)
		s.hook = failAt(commitEvent, after, syscall.EIO)
		require.ErrorIs(t, s.Append(eventOf("x", "")), ErrStateUnknown)
		s.hook = nil
		err := s.Append(eventOf("y", ""))
		require.ErrorIs(t, err, ErrStateUnknown, "a later sync that succeeds proves nothing")
		require.ErrorContains(t, err, "check the disk and start certctl-agent again")
		require.ErrorIs(t, s.CheckRoom(), ErrStateUnknown)
		require.NoError(t, s.Close())

		s = openAt(t, path, Options{})
		events, err := s.Events(0)
		require.NoError(t, err)
		assert.Len(t, events, map[bool]int{false: 0, true: 1}[after], "what the disk has, and no more")
		require.NoError(t, s.Append(eventOf("y", "")))
		require.NoError(t, s.Close())
	}
}

// Nothing of a commit that met a full or read-only disk was stored, and the next
// one may work.
func TestStoreOutlivesAFullOrReadOnlyDisk(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		s := openTest(t, Options{})
		put(t, s, "web", epoch, epoch)
		before := dump(t, s)
		s.hook = failAt(commitEvent, false, cause)
		err := s.Append(eventOf("x", ""))
		require.ErrorIs(t, err, cause)
		require.NotErrorIs(t, err, ErrStateUnknown)
		require.Equal(t, before, dump(t, s))
		s.hook = nil
		require.NoError(t, s.Append(eventOf("x", "")))
	}
}

func TestCheckRoomLeavesNothingBehind(t *testing.T) {
	s := openTest(t, Options{})
	written := int64(0)
	s.hook = func(step durable.Step, path string, done bool) error {
		if step == stepRoom && done {
			info, err := os.Stat(path)
			require.NoError(t, err)
			written = info.Size()
		}
		return nil
	}
	require.NoError(t, s.CheckRoom())
	assert.EqualValues(t, resultRoom, written)
	for _, after := range []bool{false, true} {
		s.hook = failAt(stepRoom, after, syscall.ENOSPC)
		err := s.CheckRoom()
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.ErrorContains(t, err, "room for the result of an order")
	}
	s.hook = nil
	matches, err := filepath.Glob(s.Path() + roomSuffix + "*")
	require.NoError(t, err)
	assert.Empty(t, matches)

	// What a crash left is no obstacle.
	require.NoError(t, os.WriteFile(s.Path()+roomSuffix, []byte("rest"), 0o600))
	require.NoError(t, s.CheckRoom())
	assert.NoFileExists(t, s.Path()+roomSuffix)
}

func TestFullDiskNamesTheMend(t *testing.T) {
	path := filepath.Join(privateDir(t), "state.db")
	_, err := Open(path, Options{Hook: failAt(stepMake, false, syscall.ENOSPC)})
	require.ErrorIs(t, err, ErrReadOnly)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "free some space")
	require.NotContains(t, err.Error(), "no such file", "that there was nothing to clear away is no part of the problem")
}

// bbolt writes a new file in one go, of which a disk that fills up takes a part.
func TestFileCutShortByAFullDiskIsNotDamaged(t *testing.T) {
	path := testPath(t)
	require.NoError(t, openAt(t, path, Options{}).Close())
	require.NoError(t, os.Truncate(path, int64(3*os.Getpagesize())))
	fresh := &source{path: path, layout: current}
	err := fresh.openError(&os.PathError{Op: "write", Path: path, Err: syscall.ENOSPC})
	require.ErrorIs(t, err, ErrReadOnly)
	require.NotErrorIs(t, err, ErrDamaged)
	require.ErrorContains(t, err, "free some space")

	_, err = fresh.openFile(false)
	require.ErrorIs(t, err, ErrDamaged, "which it is, when the disk has nothing to say")
}
