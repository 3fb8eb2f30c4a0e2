package history

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
)

// Edition names what the journal holds at the moment: facts of the audit trail alone,
// or all. Two reads of one edition, on whichever nodes of a cluster, find the same. It
// costs the same however much the journal holds.
func (j *Journal) Edition(auditOnly bool) (string, error) {
	var edition []byte
	err := j.view(func(b buckets) error {
		sum, err := b.ledger()
		if err != nil {
			return err
		}
		gaps, err := b.listGaps()
		if err != nil {
			return err
		}
		// Facts come at the end and in gaps, and go at the beginning: both ends, how
		// many are between them and where there are none says which they are.
		add := func(facts *bbolt.Bucket, count uint64) {
			cursor := facts.Cursor()
			first, _ := cursor.First()
			last, _ := cursor.Last()
			edition = binary.BigEndian.AppendUint64(edition, count)
			edition = append(append(edition, bytes.Clone(first)...), last...)
		}
		add(b.audit, sum.Audit)
		if !auditOnly {
			add(b.routine, sum.Facts)
			// What was dropped elsewhere, before it came here, is missing in the middle.
			edition = binary.BigEndian.AppendUint64(edition, sum.floor())
			edition = binary.BigEndian.AppendUint64(edition, uint64(sum.Bytes)) //nolint:gosec // a size
		}
		for _, gap := range gaps {
			edition = binary.BigEndian.AppendUint64(edition, gap.From)
			edition = binary.BigEndian.AppendUint64(edition, gap.To)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("journal %s: edition: %w", j.config.Path, err)
	}
	return string(edition), nil
}
