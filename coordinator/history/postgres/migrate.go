package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"path"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// Advisory locks of this package, which a database's programs share: any numbers that
// nobody else is likely to take.
const (
	lockSetUp      int64 = 7310894126650331
	lockPartitions int64 = 7310894126650332
)

const versionTable = "certctl.schema_version"

// migrateSchema brings the tables up to this version's. Nodes that do so at the same
// time wait for each other. There is no way back: a later version's tables are
// refused and left alone.
func migrateSchema(ctx context.Context, pool *pgxpool.Pool, cluster string) (from, to int32, err error) {
	held, err := pool.Acquire(ctx)
	if err != nil {
		return 0, 0, err
	}
	// The locks of a session end with it, whatever happens.
	conn := held.Hijack()
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		_ = conn.Close(end) // the server sees that it has ended
	}()
	if _, err := conn.Exec(ctx, "select pg_advisory_lock($1)", lockSetUp); err != nil {
		return 0, 0, err
	}
	if err := checkSchema(ctx, conn, cluster); err != nil {
		return 0, 0, err
	}
	if _, err := conn.Exec(ctx, "create schema if not exists certctl"); err != nil {
		return 0, 0, err
	}
	steps, err := migrationFiles.ReadDir("migrations") // sorted by their names, which begin with their numbers
	if err != nil {
		return 0, 0, err
	}
	if from, err = currentVersion(ctx, conn); err != nil {
		return 0, 0, err
	}
	to = int32(len(steps)) //nolint:gosec // a handful
	if from > to {
		return from, to, fmt.Errorf("%w (its tables have version %d, and this coordinator knows %d)", ErrNewer, from, to)
	}
	for version := from + 1; version <= to; version++ {
		text, err := migrationFiles.ReadFile(path.Join("migrations", steps[version-1].Name()))
		if err != nil {
			return from, to, err
		}
		err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, string(text)); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `update `+versionTable+` set "version" = $1`, version)
			return err
		})
		if err != nil {
			return from, to, fmt.Errorf("%s: %w", steps[version-1].Name(), err)
		}
	}
	return from, to, nil
}

// currentVersion is how many of the migrations the tables have had: 0 of none.
func currentVersion(ctx context.Context, conn *pgx.Conn) (version int32, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "create table if not exists "+versionTable+" (version integer not null)")
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "insert into "+versionTable+" select 0 where not exists (select from "+versionTable+")")
		if err != nil {
			return err
		}
		return tx.QueryRow(ctx, "select version from "+versionTable).Scan(&version)
	})
	return version, err
}

// checkSchema refuses tables that are not this cluster's before anything is changed.
func checkSchema(ctx context.Context, conn *pgx.Conn, cluster string) error {
	var version, export, anything bool
	err := conn.QueryRow(ctx, `select to_regclass('certctl.schema_version') is not null, to_regclass('certctl.export') is not null,
		exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'certctl')`).Scan(&version, &export, &anything)
	if err != nil {
		return err
	}
	if anything && !version {
		return ErrForeign
	}
	if !export {
		return nil
	}
	m, err := readMark(ctx, conn, false)
	if errors.Is(err, errMoved) {
		return nil // nobody's yet
	}
	if err == nil && m.cluster != cluster {
		err = fmt.Errorf("%w (this cluster is %s, and the database has %.64q)", ErrOtherCluster, cluster, m.cluster)
	}
	return err
}
