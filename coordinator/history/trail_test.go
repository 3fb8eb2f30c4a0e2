package history_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/history/historytest"
	"github.com/certctl/certctl/coordinator/trail"
)

// Whatever somebody changes in the file of a journal, of a fact of the audit trail, is
// found by who reads it: each octet of it, a fact that is gone, or under another's key.
func TestEveryChangeInTheFileIsFound(t *testing.T) {
	c := config(t)
	c.Path = filepath.Join(t.TempDir(), "journal.db")
	j := create(t, c)
	facts := historytest.Facts(60)
	require.NoError(t, j.Append(60, facts))
	require.NoError(t, j.Close())
	last := facts[0]
	for _, f := range facts {
		if f.Audit > 0 {
			last = f
		}
	}
	// change edits the file, and says what a verification comes to.
	change := func(edit func(audit *bbolt.Bucket) error) (broken bool, told string) {
		db, err := bbolt.Open(c.Path, 0o600, &bbolt.Options{NoSync: true})
		require.NoError(t, err)
		require.NoError(t, db.Update(func(tx *bbolt.Tx) error { return edit(tx.Bucket([]byte("audit"))) }))
		require.NoError(t, db.Close())
		j, err := history.Open(c)
		require.NoError(t, err)
		defer func() { assert.NoError(t, j.Close()) }()
		v := trail.NewVerifier(1, trail.Anchor{Number: last.Audit, Hash: last.Hash, From: "a note"})
		for q := (history.Query{AuditOnly: true}); ; {
			page, next, err := j.Read(q)
			if err != nil {
				return true, err.Error()
			}
			for _, f := range page {
				v.Add(f.Record())
			}
			if q.After = next; next == "" {
				report := v.End()
				return report.Broken(), fmt.Sprint(report.Breaks)
			}
		}
	}
	var key, other, value, theirs []byte
	broken, told := change(func(audit *bbolt.Bucket) error {
		cursor := audit.Cursor()
		k, v := cursor.First()
		for range 11 {
			k, v = cursor.Next()
		}
		key, value = append(key, k...), append(value, v...)
		k, v = cursor.Next()
		other, theirs = append(other, k...), append(theirs, v...)
		return nil
	})
	require.False(t, broken, told)

	put := func(k, v []byte) func(audit *bbolt.Bucket) error {
		return func(audit *bbolt.Bucket) error { return audit.Put(k, v) }
	}
	for i := range value {
		for bit := range 8 {
			changed := append([]byte(nil), value...)
			changed[i] ^= 1 << bit
			if value[i] == '.' && changed[i] == ',' {
				continue // before the fraction of a second either means the same
			}
			broken, _ := change(put(key, changed))
			assert.True(t, broken, "octet %d of %d: % x becomes % x", i, len(value), value[i], changed[i])
		}
	}
	broken, told = change(put(key, value))
	require.False(t, broken, "as it was: %s", told)
	broken, told = change(func(audit *bbolt.Bucket) error { return audit.Delete(key) })
	assert.True(t, broken)
	assert.Contains(t, told, "missing 12")
	broken, _ = change(func(audit *bbolt.Bucket) error {
		if err := audit.Put(key, theirs); err != nil {
			return err
		}
		return audit.Put(other, value)
	})
	assert.True(t, broken, "swapped")
}
