package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
)

// Bounds of one transaction.
const (
	maxFacts = 5000
	minFacts = 100
	maxBytes = 4 << 20
	// maxGaps bounds the gaps that one look tries to fill.
	maxGaps = 100
)

// A portion is what one transaction stores: the facts of some log indexes, and what
// becomes of the mark.
type portion struct {
	facts   []fleet.Fact
	through uint64       // after it; 0 leaves it
	skipped history.Gaps // that this journal does not have
	filled  history.Gaps // that were skipped before
	floor   uint64       // routine facts of the indexes up to here may have gone
}

// step exports one portion. more says whether there may be another one.
func (e *Exporter) step(ctx context.Context, t *tenure) (more bool, err error) {
	p, err := e.next(t)
	if err != nil || p == nil {
		return false, err
	}
	ctx, cancel := e.bounded(ctx)
	defer cancel()
	if err := e.needMonths(ctx, t, monthsOf(p.facts)); err != nil {
		return false, err
	}
	m, err := e.store(ctx, t, p)
	if err != nil {
		// Whether it was stored is not known if the answer to the commit was lost: the
		// mark says it.
		t.mark = nil
		return false, plain("export facts", err)
	}
	t.mark = m
	t.size = min(2*t.size, maxFacts)
	e.exported(p, m)
	return true, nil
}

// next is the next portion: what comes after the mark, or what fills a gap before it.
// It is nil if there is none.
func (e *Exporter) next(t *tenure) (*portion, error) {
	p := new(portion)
	for from := t.mark.through + 1; ; {
		batch, err := e.config.Journal.Batch(history.Gap{From: from, To: e.config.Journal.Through()}, t.size, maxBytes)
		if errors.Is(err, history.ErrNotHere) {
			break // nothing is left, or only a gap
		}
		if err != nil {
			return nil, err
		}
		if batch.Range.From > from {
			p.skipped = append(p.skipped, history.Gap{From: from, To: batch.Range.From - 1})
		}
		if p.floor = 0; batch.Floor > t.mark.through {
			p.floor = min(batch.Floor, batch.Range.To)
		}
		if len(batch.Facts) > 0 {
			p.facts, p.through = batch.Facts, batch.Range.To
			return p, nil
		}
		from = batch.Range.To + 1 // which is no reason for a transaction
	}
	for _, gap := range t.mark.gaps[:min(maxGaps, len(t.mark.gaps))] {
		batch, err := e.config.Journal.Batch(gap, t.size, maxBytes)
		if errors.Is(err, history.ErrNotHere) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if p.floor = 0; batch.Floor >= batch.Range.From {
			p.floor = min(batch.Floor, batch.Range.To)
		}
		p.facts, p.filled, p.skipped = batch.Facts, history.Gaps{batch.Range}, nil
		return p, nil
	}
	return nil, nil
}

// store is the transaction. It changes nothing if another node has changed the mark.
func (e *Exporter) store(ctx context.Context, t *tenure, p *portion) (*mark, error) {
	var m *mark
	err := pgx.BeginFunc(ctx, t.pool, func(tx pgx.Tx) (err error) {
		if m, err = readMark(ctx, tx, true); err != nil {
			return err
		}
		if !m.same(t.mark) {
			return errMoved
		}
		if len(p.facts) > 0 {
			if _, err := tx.CopyFrom(ctx, pgx.Identifier{"certctl", "facts"}, columns, &factRows{facts: p.facts}); err != nil {
				return err
			}
		}
		m.advance(t.mark, p)
		return m.write(ctx, tx, t.mark)
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// advance makes a mark that of after a portion.
func (m *mark) advance(before *mark, p *portion) {
	m.revision++
	m.through = max(m.through, p.through)
	m.floor = max(m.floor, p.floor)
	m.gaps = history.Union(append(before.gaps.Minus(p.filled), p.skipped...)...)
	m.facts += uint64(len(p.facts))
	for i := range p.facts {
		f := &p.facts[i]
		if f.Index >= m.last.index {
			m.last = place{index: f.Index, ordinal: f.Ordinal}
		}
		if f.Audit > 0 && f.Index >= m.audit.index {
			m.audit = place{index: f.Index, ordinal: f.Ordinal}
		}
	}
	for i := range p.facts {
		f := &p.facts[i]
		for _, at := range []*place{&m.last, &m.audit} {
			if f.Index == at.index && f.Ordinal == at.ordinal {
				at.digest = digest(f)
			}
		}
	}
}

// write stores a mark in place of the one that it was made of.
func (m *mark) write(ctx context.Context, tx pgx.Tx, before *mark) error {
	batch := new(pgx.Batch)
	for _, gap := range before.gaps {
		if !covers(m.gaps, gap) {
			batch.Queue("delete from certctl.export_gaps where first = $1", int64(gap.From))
		}
	}
	for _, gap := range m.gaps {
		if !covers(before.gaps, gap) {
			batch.Queue("insert into certctl.export_gaps (first, last) values ($1, $2)", int64(gap.From), int64(gap.To))
		}
	}
	batch.Queue(`update certctl.export set (revision, through, facts, floor, last_index, last_ordinal, last_digest,
		audit_index, audit_ordinal, audit_digest, changed_at) = ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now())`,
		m.revision, int64(m.through), int64(m.facts), int64(m.floor), int64(m.last.index), int32(m.last.ordinal), m.last.digest,
		int64(m.audit.index), int32(m.audit.ordinal), m.audit.digest)
	return tx.SendBatch(ctx, batch).Close()
}

// covers says whether a gap is one of a list, as it is.
func covers(gaps history.Gaps, one history.Gap) bool {
	for _, gap := range gaps {
		if gap == one {
			return true
		}
	}
	return false
}
