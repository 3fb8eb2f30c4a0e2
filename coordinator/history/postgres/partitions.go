package postgres

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certctl/certctl/coordinator/fleet"
)

// monthsAhead are made before they are needed, so that no export waits for one.
const monthsAhead = 3

// A month is the first moment of one, in UTC.
type month time.Time

func monthOf(t time.Time) month {
	t = t.UTC()
	return month(time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC))
}

func (m month) next() month   { return month(time.Time(m).AddDate(0, 1, 0)) }
func (m month) table() string { return "facts_" + time.Time(m).Format("2006_01") }
func (m month) date() string  { return time.Time(m).Format(time.DateOnly) }

func (m month) identifier() string { return pgx.Identifier{"certctl", m.table()}.Sanitize() }

// tablePattern is what names of partitions look like; nothing else is dropped.
var tablePattern = regexp.MustCompile(`^facts_([0-9]{4})_([0-9]{2})$`)

func monthOfTable(name string) (month, bool) {
	if !tablePattern.MatchString(name) {
		return month{}, false
	}
	at, err := time.Parse("2006_01", strings.TrimPrefix(name, "facts_"))
	return month(at), err == nil
}

// monthsOf are those of the routine facts among facts.
func monthsOf(facts []fleet.Fact) (months []month) {
	for i := range facts {
		if facts[i].Audit > 0 {
			continue
		}
		if m := monthOf(facts[i].Time); !slices.Contains(months, m) {
			months = append(months, m)
		}
	}
	return months
}

// monthsFrom are a month and those after it that are made ahead.
func monthsFrom(now time.Time) []month {
	months := []month{monthOf(now)}
	for range monthsAhead {
		months = append(months, months[len(months)-1].next())
	}
	return months
}

// ensureMonths makes the partitions of some months, where they are missing.
func ensureMonths(ctx context.Context, pool *pgxpool.Pool, months []month) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", lockPartitions); err != nil {
			return err
		}
		for _, m := range months {
			var exists bool
			if err := tx.QueryRow(ctx, "select to_regclass($1) is not null", "certctl."+m.table()).Scan(&exists); err != nil {
				return err
			}
			if exists {
				continue
			}
			// Attaching a table takes a lock that lets others read and write, unlike
			// creating it as a partition, for which a long backup would have to end first.
			name := m.identifier()
			if _, err := tx.Exec(ctx, fmt.Sprintf("create table %s (like certctl.facts_routine including all)", name)); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, fmt.Sprintf("alter table certctl.facts_routine attach partition %s for values from ('%s 00:00+00') to ('%s 00:00+00')",
				name, m.date(), m.next().date())); err != nil {
				return err
			}
		}
		return nil
	})
}

// A PrunedMonth is one month of routine facts that goes, or would go.
type PrunedMonth struct {
	Month time.Time // its first moment, in UTC
	Facts int64
	Bytes int64 // with indexes
}

// outdated are the months of routine facts that ended at or before a time. A month
// goes whole or stays. Facts of the audit trail are in none.
func outdated(ctx context.Context, pool *pgxpool.Pool, before time.Time) (months []PrunedMonth, err error) {
	rows, err := pool.Query(ctx, `select c.relname, pg_total_relation_size(c.oid) from pg_inherits i join pg_class c on c.oid = i.inhrelid
		where i.inhparent = 'certctl.facts_routine'::regclass order by c.relname`)
	if err != nil {
		return nil, err
	}
	type table struct {
		Name  string
		Bytes int64
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[table])
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		m, ok := monthOfTable(t.Name)
		if !ok || time.Time(m.next()).After(before) {
			continue
		}
		one := PrunedMonth{Month: time.Time(m), Bytes: t.Bytes}
		if err := pool.QueryRow(ctx, "select count(*) from "+m.identifier()).Scan(&one.Facts); err != nil {
			return nil, err
		}
		months = append(months, one)
	}
	return months, nil
}

// drop removes one month. Readers wait for it, and so it is a transaction by itself.
func (m month) drop(ctx context.Context, pool *pgxpool.Pool) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", lockPartitions); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "drop table if exists "+m.identifier())
		return err
	})
}
