package backup

import (
	"fmt"
	"io"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/snapshotfile"
	"github.com/certctl/certctl/shared/buildinfo"
)

// Write writes the state that is pinned in s into a snapshot file. node is the
// node that knows it, and term Raft's term there.
func Write(w io.Writer, s *fleet.Snapshot, node string, term uint64, now time.Time) (snapshotfile.Summary, error) {
	header, err := Describe(s.View(), node, term, now)
	if err != nil {
		return snapshotfile.Summary{}, err
	}
	return snapshotfile.Write(w, header, s.Persist)
}

// Describe is the header of a snapshot file of a view.
func Describe(v *fleet.View, node string, term uint64, now time.Time) (snapshotfile.Header, error) {
	header := snapshotfile.Header{
		NodeID: node, Index: v.Index(), Term: term, Time: now.UTC().Truncate(time.Second),
		Version: buildinfo.Version(), Level: fleet.Level, Rows: Rows(v),
	}
	if stored, ok := v.CA(); ok {
		id, err := ca.StoredClusterID(stored)
		if err != nil {
			return snapshotfile.Header{}, fmt.Errorf("snapshot: the built-in CA: %w", err)
		}
		header.ClusterID, header.SealKeys = id, ca.SealKeyIDs(stored)
	}
	return header, nil
}

// Rows counts the records of the tables that are of interest to a person.
func Rows(v *fleet.View) map[string]int {
	rows := map[string]int{}
	for _, table := range fleet.Tables() {
		rows[string(table)] = v.Rows(table)
	}
	return rows
}

// Check reads a snapshot file to its end, and proves that the state in it can be
// read by this version.
func Check(r io.Reader) (snapshotfile.Summary, error) {
	file, err := snapshotfile.Open(r)
	if err != nil {
		return snapshotfile.Summary{}, err
	}
	index, err := fleet.CheckSnapshot(file)
	if err != nil {
		// A file that is not what was written says so itself.
		if _, damage := io.Copy(io.Discard, file); damage != nil {
			err = damage
		}
		return snapshotfile.Summary{}, err
	}
	summary, whole := file.Summary()
	if !whole || index != summary.Index {
		return snapshotfile.Summary{}, fmt.Errorf("snapshot: %w: its state is of log index %d and it says %d", snapshotfile.ErrDamaged, index, summary.Index)
	}
	return summary, nil
}
