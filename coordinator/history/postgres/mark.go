package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/certctl/certctl/coordinator/history"
)

// A mark is how far the export has come, as the database says.
type mark struct {
	cluster     string
	incarnation string // of the tables: others have another one
	revision    int64
	through     uint64 // newest log index whose facts are there
	facts       uint64
	floor       uint64
	last, audit place
	gaps        history.Gaps // log indexes up to through whose facts are not there
}

// A place is that of one fact, and what it looks like.
type place struct {
	index   uint64
	ordinal uint32
	digest  []byte
}

// queries are made on a connection or in a transaction.
type queries interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

const selectMark = `select cluster_id, incarnation::text, revision, through, facts, floor,
	last_index, last_ordinal, last_digest, audit_index, audit_ordinal, audit_digest from certctl.export`

// readMark reads the mark; locked keeps others from changing it until the end of the
// transaction.
func readMark(ctx context.Context, q queries, locked bool) (*mark, error) {
	sql := selectMark
	if locked {
		sql += " for update"
	}
	m := new(mark)
	err := q.QueryRow(ctx, sql).Scan(&m.cluster, &m.incarnation, &m.revision, &m.through, &m.facts, &m.floor,
		&m.last.index, &m.last.ordinal, &m.last.digest, &m.audit.index, &m.audit.ordinal, &m.audit.digest)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errMoved // it was there when this was begun
	}
	return m, err
}

// readGaps completes a mark.
func (m *mark) readGaps(ctx context.Context, q queries) error {
	rows, err := q.Query(ctx, "select first, last from certctl.export_gaps order by first")
	if err != nil {
		return err
	}
	gaps, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (gap history.Gap, err error) {
		return gap, row.Scan(&gap.From, &gap.To)
	})
	m.gaps = history.Union(gaps...)
	return err
}

// same says whether nobody has changed the mark since it was read.
func (m *mark) same(other *mark) bool {
	return m.incarnation == other.incarnation && m.revision == other.revision
}

// check refuses a mark that cannot be of facts of this journal.
func (m *mark) check(cluster string, applied uint64, journal Journal) error {
	if m.cluster != cluster {
		return fmt.Errorf("%w (this cluster is %s, and the database has %.64q)", ErrOtherCluster, cluster, m.cluster)
	}
	if m.through > applied {
		return fmt.Errorf("%w (%d, and the log of this cluster has come to %d)", ErrAhead, m.through, applied)
	}
	if journal.Through() < m.last.index {
		return errBehind
	}
	for _, at := range []place{m.last, m.audit} {
		known, err := at.isIn(journal)
		if err != nil {
			return err
		}
		if !known {
			return fmt.Errorf("%w (log entry %d)", ErrOtherLife, at.index)
		}
	}
	return nil
}

// errBehind passes by itself: what is applied gets into the journal at once.
var errBehind = errors.New("the journal is about to be written up to what the database has")

// isIn says whether the journal has the same fact at a place, as far as it can tell.
func (p place) isIn(journal Journal) (bool, error) {
	if p.index == 0 {
		return true, nil
	}
	batch, err := journal.Batch(history.Gap{From: p.index, To: p.index}, 1, 1)
	if errors.Is(err, history.ErrNotHere) {
		return true, nil // it is in a gap
	}
	if err != nil {
		return false, err
	}
	for i := range batch.Facts {
		if f := &batch.Facts[i]; f.Ordinal == p.ordinal {
			return bytes.Equal(digest(f), p.digest), nil
		}
	}
	return batch.Floor >= p.index, nil // retention has dropped it
}
