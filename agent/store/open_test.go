package store

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/wire"
	bolt "go.etcd.io/bbolt"
)

func TestOpenCreatesAndReopens(t *testing.T) {
	path := testPath(t)
	// The rest of a creation that a power cut ended is no obstacle.
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path+".new", []byte("half a file"), 0o600))
	leftover := filepath.Join(filepath.Dir(path), ".certctl-1234.tmp")
	require.NoError(t, os.WriteFile(leftover, nil, 0o600))

	s := openAt(t, path, Options{})
	instance, boot := s.InstanceID(), s.BootID()
	assert.Len(t, instance, 32)
	assert.Len(t, boot, 32)
	assert.Equal(t, path, s.Path())
	require.NoError(t, s.Close())
	assert.NoFileExists(t, path+".new")
	assert.NoFileExists(t, leftover)
	if runtime.GOOS != "windows" {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}

	s = openAt(t, path, Options{})
	defer s.Close()
	assert.Equal(t, instance, s.InstanceID())
	assert.NotEqual(t, boot, s.BootID())
}

func TestOpenRefusesBadOptions(t *testing.T) {
	path := testPath(t)
	_, err := Open(path, Options{OutboxLimit: -1})
	require.ErrorContains(t, err, "outbox limit -1")
	assert.NoFileExists(t, path)
}

func TestSecondOpenIsRefused(t *testing.T) {
	path := testPath(t)
	s := openAt(t, path, Options{})
	_, err := Open(path, Options{})
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, "stop the other certctl-agent")
	put(t, s, "web", epoch, epoch)
	require.NoError(t, s.Close())
	require.NoError(t, openAt(t, path, Options{}).Close())

	// Another program that has the file open respects only bbolt's own lock.
	db, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	_, err = Open(path, Options{})
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, db.Close())
	require.NoError(t, openAt(t, path, Options{}).Close())
}

func TestOpenRefusesDirectoriesOfOthers(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("access on Windows is by DACL, which durable's tests cover")
		return
	}
	path := testPath(t)
	dir := filepath.Dir(path)
	require.NoError(t, openAt(t, path, Options{}).Close())
	for mode, text := range map[os.FileMode]string{
		0o777: "may be written by other users", 0o730: "may be written by other users", 0o500: "is read-only", 0o600: "is read-only",
	} {
		require.NoError(t, os.Chmod(dir, mode))
		_, err := Open(path, Options{})
		require.ErrorIs(t, err, ErrReadOnly, "%o", mode)
		require.ErrorContains(t, err, text)
		require.ErrorContains(t, err, "chmod 0700 "+dir)
	}
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, openAt(t, path, Options{}).Close(), "that others may look is for the caller to see to")
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(dir, 12345, -1))
		_, err := Open(path, Options{})
		require.ErrorIs(t, err, ErrReadOnly)
		require.ErrorContains(t, err, "belongs to user id 12345")
		require.ErrorContains(t, err, "chown -R 0 "+dir)
	}

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Open(filepath.Join(file, "state.db"), Options{})
	require.ErrorContains(t, err, "state.db")
}

// What the system says about a file that it does not let us write.
func TestAccessErrorsNameTheMend(t *testing.T) {
	s := &source{path: "/state.db"}
	for cause, mend := range map[error]string{
		syscall.EROFS:  "mount the file system writable",
		syscall.EACCES: "the owner of the state directory",
		syscall.EPERM:  "the owner of the state directory",
	} {
		err := s.access(&os.PathError{Op: "open", Path: "/state.db", Err: cause})
		require.ErrorIs(t, err, ErrReadOnly)
		require.ErrorIs(t, err, cause)
		require.ErrorContains(t, err, mend)
	}
	err := s.access(syscall.EIO)
	require.ErrorIs(t, err, syscall.EIO)
	require.NotErrorIs(t, err, ErrReadOnly)
	require.ErrorContains(t, err, "/state.db")
	require.ErrorContains(t, err, "check the disk")
}

func TestWriteThatChangesNothing(t *testing.T) {
	s := openTest(t, Options{})
	put(t, s, "web", epoch, epoch)
	require.NoError(t, s.SaveIdentity(&Identity{AgentID: "a"}))
	require.NoError(t, s.SaveIssuerState("x", []byte(`{}`)))
	require.NoError(t, s.SaveSyncState(SyncState{AckedRevision: 1}))
	before, err := os.ReadFile(s.Path())
	require.NoError(t, err)
	commit := lastCommit(t, s)

	put(t, s, "web", epoch, epoch)
	require.NoError(t, s.Update("new", func(tx *CertificateTx) error {
		require.True(t, tx.New)
		return nil
	}))
	require.NoError(t, s.SaveIdentity(&Identity{AgentID: "a"}))
	require.NoError(t, s.SaveIssuerState("x", []byte(`{}`)))
	require.NoError(t, s.SaveSyncState(SyncState{AckedRevision: 1}))
	require.NoError(t, s.AckEvents(0))
	require.NoError(t, s.ForgetOrders([]string{"none"}))
	require.NoError(t, s.DeleteOrder("none"))
	removed, err := remove(s, "none")
	require.NoError(t, err)
	require.Nil(t, removed)

	require.Equal(t, commit, lastCommit(t, s))
	after, err := os.ReadFile(s.Path())
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestUpdateErrorsStoreNothing(t *testing.T) {
	s := openTest(t, Options{})
	put(t, s, "web", epoch, epoch)
	before := dump(t, s)
	refused := errors.New("refused")
	for name, fn := range map[string]func(tx *CertificateTx) error{
		"error":       func(tx *CertificateTx) error { tx.Record.Attempt = 9; return refused },
		"renamed":     func(tx *CertificateTx) error { tx.Record.Name = "other"; return nil },
		"no record":   func(tx *CertificateTx) error { tx.Record = nil; return nil },
		"bad JSON":    func(tx *CertificateTx) error { tx.Record.OrderState = []byte("{"); return nil },
		"bad event":   func(tx *CertificateTx) error { tx.Record.Attempt = 9; tx.Emit(eventOf("", "web")); return nil },
		"bad subject": func(tx *CertificateTx) error { tx.Emit(eventOf("x", "a\x00b")); return nil },
		"huge issuer": func(tx *CertificateTx) error { tx.Record.Issuer = strings.Repeat("x", wire.MaxRowBytes); return nil },
	} {
		err := s.Update("web", fn)
		require.Error(t, err, name)
		if name == "error" {
			require.Equal(t, refused, err, "as it is")
		}
		require.Equal(t, before, dump(t, s), name)
	}
	for _, name := range []string{"", "a\nb", "a\xff", string(make([]byte, 200))} {
		require.Error(t, s.Update(name, func(*CertificateTx) error { return nil }), "%q", name)
	}
	require.PanicsWithValue(t, "engine bug", func() {
		_ = s.Update("web", func(tx *CertificateTx) error { tx.Record.Attempt = 9; panic("engine bug") })
	})
	require.Equal(t, before, dump(t, s), "after a panic")
	put(t, s, "web", epoch.Add(1), epoch)
}

// A commit that fails after its meta page was written may or may not last: the
// store must not go on as if it knew.
func TestCommitFailsAfter(t *testing.T) {
	path := testPath(t)
	s := openAt(t, path, Options{})
	put(t, s, "web", epoch, epoch)
	s.hook = func(_ durable.Step, _ string, done bool) error {
		if done {
			return syscall.EIO
		}
		return nil
	}
	err := s.Append(eventOf("x", ""))
	require.ErrorIs(t, err, ErrStateUnknown)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorContains(t, err, "start certctl-agent again")
	s.hook = nil
	again := s.Append(eventOf("x", ""))
	require.Equal(t, err, again, "until it is opened again")
	_, found, err := s.Certificate("web")
	require.NoError(t, err)
	require.True(t, found, "reads go on")
	require.NoError(t, s.Close())
	s = openAt(t, path, Options{})
	require.NoError(t, s.Append(eventOf("x", "")))
	require.NoError(t, s.Close())
}

func TestClosed(t *testing.T) {
	s := openAt(t, testPath(t), Options{})
	require.NoError(t, s.Close())
	require.Error(t, s.Append(eventOf("x", "")))
	_, err := s.Certificates()
	require.Error(t, err)
	_, err = s.Due(epoch, 1)
	require.Error(t, err)
}

func TestConcurrentUse(t *testing.T) {
	s := openTest(t, Options{})
	s.db.NoSync = true
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 50 {
				err := s.Update("counter", func(tx *CertificateTx) error {
					tx.Record.Renewals++
					tx.Emit(eventOf("x", "counter"))
					return nil
				})
				assert.NoError(t, err)
				_, err = s.Changes(0, 10)
				assert.NoError(t, err)
				_, err = s.Events(3)
				assert.NoError(t, err)
				_, err = s.Due(epoch, 3)
				assert.NoError(t, err)
			}
		})
	}
	group.Wait()
	record, found, err := s.Certificate("counter")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, uint64(200), record.Renewals, "no update is lost")
	requireWhole(t, s)
}

func TestMomentKeysSortByTime(t *testing.T) {
	times := []time.Time{
		time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(-1, 999_999_999).UTC(),
		time.Unix(0, 0).UTC(), time.Unix(0, 1).UTC(), epoch, epoch.Add(1), time.Date(2262, 5, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	for i, at := range times {
		got, name, err := splitMoment(momentKey(at, "web"))
		require.NoError(t, err)
		require.Equal(t, "web", name)
		require.True(t, at.Equal(got))
		if i > 0 {
			require.Less(t, string(momentKey(times[i-1], "z")), string(momentKey(at, "a")))
		}
	}
	_, _, err := splitMoment(make([]byte, momentSize))
	require.Error(t, err)
}
