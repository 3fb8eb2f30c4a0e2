package boltfile_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/certctl/certctl/coordinator/history/boltfile"
)

func database(t testing.TB, pageSize int) (path string, content []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "test.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize})
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("bucket"))
		if err != nil {
			return err
		}
		return b.Put([]byte("key"), make([]byte, 100_000))
	}))
	require.NoError(t, db.Close())
	content, err = os.ReadFile(path)
	require.NoError(t, err)
	return path, content
}

func TestSoundFilesPass(t *testing.T) {
	for _, pageSize := range []int{1024, 4096, 16384, 65536} {
		path, _ := database(t, pageSize)
		require.NoError(t, boltfile.Check(path), "%d", pageSize)
	}
}

func TestOneDamagedHeaderIsWhatBoltLivesWith(t *testing.T) {
	for _, page := range []int{0, 1} {
		path, content := database(t, 4096)
		content[page*4096+20] ^= 0xff
		require.NoError(t, os.WriteFile(path, content, 0o600))
		require.NoError(t, boltfile.Check(path))
		db, err := bbolt.Open(path, 0o600, nil)
		require.NoError(t, err)
		require.NoError(t, db.Close())
	}
}

func TestUnsoundFilesAreTold(t *testing.T) {
	path, content := database(t, 4096)
	require.ErrorIs(t, boltfile.Check(path+".none"), fs.ErrNotExist)
	for name, test := range map[string]struct {
		content []byte
		want    error
	}{
		"empty":     {nil, boltfile.ErrDamaged},
		"foreign":   {[]byte("#!/bin/sh\n"), boltfile.ErrForeign},
		"one page":  {content[:4096], boltfile.ErrDamaged},
		"cut short": {content[:len(content)/2], boltfile.ErrDamaged},
		"no header": {append(make([]byte, 8192), content[8192:]...), boltfile.ErrForeign},
	} {
		require.NoError(t, os.WriteFile(path, test.content, 0o600))
		require.ErrorIs(t, boltfile.Check(path), test.want, name)
	}
}

func TestGuard(t *testing.T) {
	require.NoError(t, boltfile.Guard(func() error { return nil }))
	require.ErrorIs(t, boltfile.Guard(func() error { return fs.ErrClosed }), fs.ErrClosed)
	err := boltfile.Guard(func() error { panic("page 7: not a leaf") })
	require.ErrorIs(t, err, boltfile.ErrDamaged)
	require.ErrorContains(t, err, "page 7")
}

// A file that shrinks under a mapping faults on reading, which ends the program
// unless it is guarded.
func TestGuardCatchesFaultsOfTheMapping(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not let a mapped file be cut")
	}
	path, _ := database(t, 4096)
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, 4096*2))
	err = boltfile.Guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			sum := byte(0)
			for _, octet := range tx.Bucket([]byte("bucket")).Get([]byte("key")) {
				sum += octet
			}
			assert.Fail(t, "read beyond the end", "%d", sum)
			return nil
		})
	})
	require.ErrorIs(t, err, boltfile.ErrDamaged)
}

func FuzzCheck(f *testing.F) {
	_, content := database(f, 1024)
	f.Add(content[:4096])
	f.Add([]byte{})
	path := filepath.Join(f.TempDir(), "fuzz.db")
	f.Fuzz(func(t *testing.T, content []byte) {
		require.NoError(t, os.WriteFile(path, content, 0o600))
		if boltfile.Check(path) == nil {
			require.GreaterOrEqual(t, len(content), 4*1024, "bbolt needs four pages")
		}
	})
}
