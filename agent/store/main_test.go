package store

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashChildEnv); path != "" {
		if err := crashChild(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// A default that the command line overrides: each step of the model test
	// checks the whole file.
	if err := flag.Set("rapid.checks", "50"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func testPath(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "state", "state.db")
}

// privateDir is t.TempDir as Open demands it, whatever the umask.
func privateDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	return dir
}

func openAt(t testing.TB, path string, opts Options) *Store {
	t.Helper()
	if opts.Now == nil {
		opts.Now = func() time.Time { return epoch }
	}
	s, err := Open(path, opts)
	require.NoError(t, err)
	return s
}

func openTest(t testing.TB, opts Options) *Store {
	t.Helper()
	s := openAt(t, testPath(t), opts)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// requireWhole runs the check of Open on an open store.
func requireWhole(t require.TestingT, s *Store) {
	require.NoError(t, s.view(verify))
}

// lastCommit is the number of the last transaction that was written.
func lastCommit(t require.TestingT, s *Store) int {
	var id int
	require.NoError(t, s.db.View(func(tx *bolt.Tx) error {
		id = tx.ID()
		return nil
	}))
	return id
}

// remove sets a certificate aside and forgets it at once. It returns nil when
// there was none.
func remove(s *Store, name string, events ...wire.Event) (*Certificate, error) {
	_, found, err := s.Certificate(name)
	if err != nil || !found {
		return nil, err
	}
	fact := wire.Event{Kind: wire.EventRemoved, Certificate: name}
	if len(events) > 0 {
		fact, events = events[0], events[1:]
	}
	if err := s.Retire([]string{name}, epoch, func(*Certificate) wire.Event { return fact }); err != nil {
		return nil, err
	}
	removed, err := s.Forget(name, events...)
	if err != nil || removed == nil {
		return nil, err
	}
	return removed.Certificate, nil
}

// put makes a certificate that is in service until notAfter and due at next.
func put(t testing.TB, s *Store, name string, next, notAfter time.Time) {
	t.Helper()
	require.NoError(t, s.Update(name, func(tx *CertificateTx) error {
		tx.Record.Names = pki.MustParseNames(name + ".example.com")
		tx.Record.Issuer, tx.Record.IssuerKind = "letsencrypt", "acme"
		tx.Record.NextAction = next
		tx.Record.Current = nil
		if !notAfter.IsZero() {
			tx.Record.Current = &Generation{Number: 1, KeyID: "key-of-" + name, KeyAlgorithm: pki.ECDSAP256, NotAfter: notAfter}
		}
		return nil
	}))
}
