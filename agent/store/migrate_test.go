package store

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/wire"
)

// schema0 is the sample as a schema without the index of expiries, and without
// what the centre wants, would have it.
func schema0(t *testing.T) string {
	t.Helper()
	path := sample(t)
	tamper(t, path, func(tx *bolt.Tx) error {
		return errors.Join(
			tx.DeleteBucket([]byte(bucketExpiry)), tx.DeleteBucket([]byte(bucketAssignments)), tx.DeleteBucket([]byte(bucketCommands)),
			tx.Bucket([]byte(bucketMeta)).Delete([]byte(metaDesired)), sealMeta(tx, metaSchema, numberKey(0)))
	})
	return path
}

// addExpiries leads from schema 0 to 1.
func addExpiries(tx *bolt.Tx) error {
	index, err := tx.CreateBucket([]byte(bucketExpiry))
	if err != nil {
		return err
	}
	return tx.Bucket([]byte(bucketCertificates)).ForEach(func(key, value []byte) error {
		var record Certificate
		if err := decode(bucketCertificates, key, value, &record); err != nil {
			return err
		}
		if end := record.serviceEnd(); !end.IsZero() {
			return index.Put(momentKey(end, record.Name), nil)
		}
		return nil
	})
}

const bucketNotes = "notes"

// addNotes leads from the schema of this version to one that is to come.
func addNotes(tx *bolt.Tx) error {
	_, err := tx.CreateBucket([]byte(bucketNotes))
	return err
}

func verifyNotes(tx *bolt.Tx) error {
	if tx.Bucket([]byte(bucketNotes)) == nil {
		return damage("its notes are missing")
	}
	return verify(tx)
}

func TestMigration(t *testing.T) {
	path := schema0(t)
	old, err := os.ReadFile(path)
	require.NoError(t, err)
	backup := path + ".v0.bak"
	require.NoError(t, os.WriteFile(backup, []byte("the rest of an attempt that did not end"), 0o600))

	steps := 0
	count := func(step func(*bolt.Tx) error) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error { steps++; return step(tx) }
	}
	l := layout{version: 3, verify: verifyNotes, migrations: map[uint64]func(*bolt.Tx) error{0: count(addExpiries), 1: count(addDesired), 2: count(addNotes)}}
	s, err := open(path, Options{}, l)
	require.NoError(t, err)
	assert.Equal(t, 3, steps)
	horizon, err := s.Horizon(epoch)
	require.NoError(t, err)
	require.NotNil(t, horizon.SafeUntil)
	assert.True(t, horizon.SafeUntil.Equal(epoch))
	record, found, err := s.Certificate("web-39")
	require.NoError(t, err)
	assert.True(t, found)
	assert.Equal(t, "key-of-web-39", record.Current.KeyID)
	put(t, s, "new", epoch, epoch)
	require.NoError(t, s.Close())
	kept, err := os.ReadFile(backup)
	require.NoError(t, err)
	assert.Equal(t, old, kept, "a copy of the file as it was")

	s, err = open(path, Options{}, l)
	require.NoError(t, err)
	assert.Equal(t, 3, steps, "once is enough")
	require.NoError(t, s.Close())

	requireRefused(t, path, ErrNewerSchema) // by the version that knows an older schema only
	_, err = Open(path, Options{})
	require.ErrorContains(t, err, "its schema is 3")

	// The copy is what the message says to restore.
	require.NoError(t, os.WriteFile(path, kept, 0o600))
	s, err = open(path, Options{}, layout{version: 2, verify: verify, migrations: l.migrations})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	assert.NotEmpty(t, dumpFile(t, path))
}

func TestFailedMigrationLeavesTheFile(t *testing.T) {
	broken := errors.New("broken step")
	for name, c := range map[string]struct {
		layout layout
		want   error
	}{
		"step fails": {layout{version: 3, verify: verifyNotes, migrations: map[uint64]func(*bolt.Tx) error{
			0: addExpiries, 1: addDesired, 2: func(*bolt.Tx) error { return broken }}}, broken},
		"step panics": {layout{version: 3, verify: verifyNotes, migrations: map[uint64]func(*bolt.Tx) error{
			0: addExpiries, 1: addDesired, 2: func(*bolt.Tx) error { panic("a mistake") }}}, ErrDamaged},
		"step is missing": {layout{version: 3, verify: verifyNotes, migrations: map[uint64]func(*bolt.Tx) error{0: addExpiries, 1: addDesired}}, ErrDamaged},
		"result is not whole": {layout{version: 2, verify: verify, migrations: map[uint64]func(*bolt.Tx) error{
			1: addDesired, 0: func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte(bucketExpiry)); return err }}}, ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			path := schema0(t)
			before, err := os.ReadFile(path)
			require.NoError(t, err)
			_, err = open(path, Options{}, c.layout)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, path)
			after, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, before, after)
			s, err := open(path, Options{}, layout{version: 2, verify: verify, migrations: map[uint64]func(*bolt.Tx) error{0: addExpiries, 1: addDesired}})
			require.NoError(t, err, "nothing stands in the way of a version without the mistake")
			require.NoError(t, s.Close())
		})
	}
}

// testdata has a file of each schema, written by the first version that had it.
// Every later version must open them.
func testdata(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	content, err := io.ReadAll(z)
	require.NoError(t, err)
	path := filepath.Join(privateDir(t), "state.db")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

func TestOpensFileOfSchema1(t *testing.T) {
	path := testdata(t, "v1.db.gz")
	s := openTestAt(t, path)
	requireSample(t, s)
	wanted, err := s.Wanted()
	require.NoError(t, err)
	assert.Empty(t, wanted)
	commands, err := s.Commands()
	require.NoError(t, err)
	assert.Empty(t, commands)
	assert.FileExists(t, path+".v1.bak")
	// And what the new schema is for can be stored.
	require.NoError(t, s.SaveDesired(&wire.Desired{Digest: "digest-1"}))
	requireWhole(t, s)
}

func TestOpensFileOfSchema2(t *testing.T) {
	s := openTestAt(t, testdata(t, "v2.db.gz"))
	requireSample(t, s)
	desired, err := s.Desired()
	require.NoError(t, err)
	assert.Equal(t, wire.Desired{Digest: "digest-1", Assignments: []wire.Assignment{
		{Name: "www", Revision: 3, Certificate: []byte(`{"names":["www.example.com"]}`)},
	}}, desired)
	commands, err := s.Commands()
	require.NoError(t, err)
	require.Len(t, commands, 1)
	assert.Equal(t, wire.CommandAccepted, commands[0].State)
	assert.Equal(t, "web-01", commands[0].Request.Certificate)
}

func requireSample(t *testing.T, s *Store) {
	t.Helper()
	records, err := s.Certificates()
	require.NoError(t, err)
	require.Len(t, records, 39)
	assert.Equal(t, strings.Repeat("A", 1500), records[0].Current.ChainPEM)
	identity, err := s.Identity()
	require.NoError(t, err)
	assert.Equal(t, "agent-1", identity.AgentID)
	events, err := s.Events(0)
	require.NoError(t, err)
	assert.Len(t, events, 40)
	page, err := s.Changes(0, 0)
	require.NoError(t, err)
	assert.Len(t, page.Rows, 39)
	assert.Len(t, page.Removed, 1)
	order, found, err := s.Order("order-1")
	require.NoError(t, err)
	require.True(t, found)
	assert.Equal(t, wire.OrderRequest{ID: "order-1", CSR: []byte{1, 2, 3}}, order.Request)
}

func openTestAt(t *testing.T, path string) *Store {
	t.Helper()
	s := openAt(t, path, Options{})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}
