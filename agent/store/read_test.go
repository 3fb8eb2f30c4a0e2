package store

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/wire"
)

func TestReadAtRestChangesNothing(t *testing.T) {
	dir := privateDir(t)
	path := filepath.Join(dir, "state.db")
	_, err := ReadAtRest(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "no file is made")

	s := openAt(t, path, Options{})
	put(t, s, "web", epoch, epoch.Add(time.Hour))
	put(t, s, "api", epoch, epoch.Add(time.Hour))
	require.NoError(t, s.SaveDesired(&wire.Desired{Digest: "d", Assignments: []wire.Assignment{assignment("www", 1)}}))
	used := map[string]Turns{"ca": {EarnedAt: epoch.Add(time.Hour), Paused: true}}
	require.NoError(t, s.SaveTurns(used))
	_, err = ReadAtRest(path)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, s.Close())
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	rest, err := ReadAtRest(path)
	require.NoError(t, err)
	assert.Equal(t, []wire.Assignment{assignment("www", 1)}, rest.Assignments)
	assert.Nil(t, rest.Identity)
	assert.Equal(t, used, rest.Turns)
	list := rest.Certificates
	require.Len(t, list, 2)
	assert.Equal(t, "api", list[0].Name)
	assert.Equal(t, "key-of-web", list[1].Current.KeyID)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, before, after)

	tamper(t, path, func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucketCertificates)).Put([]byte("web"), []byte("garbage"))
	})
	_, err = ReadAtRest(path)
	require.ErrorIs(t, err, ErrDamaged)
	tamper(t, path, func(tx *bolt.Tx) error { return sealMeta(tx, metaSchema, numberKey(Schema+1)) })
	_, err = ReadAtRest(path)
	require.ErrorContains(t, err, "its schema is")
}
