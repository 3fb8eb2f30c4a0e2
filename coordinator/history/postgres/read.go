package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
)

var _ history.Reader = (*Exporter)(nil)

// Facts lists facts in the order of the log, as [history.Journal.Facts] does, and with
// the same cursors. An error that wraps ErrAway says that there is no database to ask.
func (e *Exporter) Facts(ctx context.Context, q history.Query) (facts []fleet.Fact, next string, err error) {
	sql, args, err := selectFacts(q)
	if err != nil {
		return nil, "", err
	}
	err = e.use(ctx, func(ctx context.Context, t *tenure) error {
		// The server plans each time, knowing the values: a plan for any of them walks
		// over everything to find a rare one.
		rows, err := t.pool.Query(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
		if err != nil {
			return err
		}
		facts, err = pgx.CollectRows(rows, readRow)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	if limit := q.Limited(); len(facts) > limit {
		facts = facts[:limit]
		next = history.Cursor(facts[limit-1])
	}
	return facts, next, nil
}

// selectFacts is the statement that answers a query, with one row more than a page
// has.
func selectFacts(q history.Query) (sql string, args []any, err error) {
	index, ordinal, err := history.Position(q.After)
	if err != nil {
		return "", nil, err
	}
	if q.Of != nil {
		return "", nil, errors.New("a database does not know which agents are wanted")
	}
	if index > maxIndex {
		return "", nil, history.ErrCursor
	}
	var where []string
	arg := func(value any) string {
		args = append(args, value)
		return fmt.Sprintf("$%d", len(args))
	}
	compare, order := ">", "log_index, ordinal"
	if q.NewestFirst {
		compare, order = "<", "log_index desc, ordinal desc"
	}
	if q.After != "" {
		where = append(where, fmt.Sprintf("(log_index, ordinal) %s (%s, %s)", compare, arg(int64(index)), arg(int64(ordinal))))
	}
	if q.AuditOnly || q.From > 0 {
		where = append(where, "audited")
	}
	if q.From > 0 {
		where = append(where, "audit >= "+arg(int64(min(q.From, maxIndex))))
	}
	if len(q.Kinds) > 0 {
		kinds := make([]string, len(q.Kinds))
		for i, kind := range q.Kinds {
			kinds[i] = text(string(kind))
		}
		where = append(where, "kind = any("+arg(kinds)+")")
	}
	for _, field := range []struct{ column, value string }{{"agent", q.Agent}, {"object", q.Object}, {"actor", q.Actor}} {
		if field.value != "" {
			where = append(where, field.column+" = "+arg(text(field.value)))
		}
	}
	// The first comparison leaves out whole months, the second one is exact.
	if !q.Since.IsZero() {
		at, nanos := instant(q.Since)
		since := arg(at)
		where = append(where, fmt.Sprintf("time >= %s and (time, nanos) >= (%s, %s)", since, since, arg(nanos)))
	}
	if !q.Until.IsZero() {
		at, nanos := instant(q.Until)
		until := arg(at)
		where = append(where, fmt.Sprintf("time <= %s and (time, nanos) < (%s, %s)", until, until, arg(nanos)))
	}
	sql = "select log_index, ordinal, audited, time, nanos, kind, actor, object, agent, detail::text, audit, before::text, after::text, prev, hash from certctl.facts"
	if len(where) > 0 {
		sql += " where " + strings.Join(where, " and ")
	}
	return sql + fmt.Sprintf(" order by %s limit %d", order, q.Limited()+1), args, nil
}

const maxIndex = 1<<63 - 1
