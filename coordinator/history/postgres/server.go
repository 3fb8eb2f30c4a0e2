package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
)

// oldestVersion is that of the servers that are made use of, in the server's own
// numbers.
const oldestVersion = 14_00_00

// A server is what a database server says about itself.
type server struct {
	version     string
	granted     int    // connections that this user of this database may have
	grantedText string // how that comes about
}

// inspect asks a server what it is, and refuses one that cannot be used.
func inspect(ctx context.Context, pool *pgxpool.Pool) (s server, err error) {
	var number, most, superuser, reserved, role, database int
	var replica bool
	err = pool.QueryRow(ctx, `select current_setting('server_version'), current_setting('server_version_num')::int, pg_is_in_recovery(),
		current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int,
		coalesce(current_setting('reserved_connections', true), '0')::int,
		(select rolconnlimit from pg_roles where rolname = current_user), (select datconnlimit from pg_database where datname = current_database())`).
		Scan(&s.version, &number, &replica, &most, &superuser, &reserved, &role, &database)
	switch {
	case err != nil:
		return s, err
	case number < oldestVersion:
		return s, fmt.Errorf("%w (it is %s)", ErrTooOld, s.version)
	case replica:
		return s, ErrReadOnly
	}
	s.granted = most - superuser - reserved
	s.grantedText = fmt.Sprintf("max_connections %d less superuser_reserved_connections %d", most, superuser)
	if reserved > 0 {
		s.grantedText += fmt.Sprintf(" and reserved_connections %d", reserved)
	}
	if role >= 0 && role < s.granted {
		s.granted, s.grantedText = role, fmt.Sprintf("connection limit %d of the user", role)
	}
	if database >= 0 && database < s.granted {
		s.granted, s.grantedText = database, fmt.Sprintf("connection limit %d of the database", database)
	}
	return s, nil
}

// warning tells that the pool may become larger than the server lets it.
func (s server) warning(maxConns int) string {
	if maxConns <= s.granted {
		return ""
	}
	return fmt.Sprintf("the pool may take %d connections, and the server grants %d (%s): lower CERTCTL_DATABASE_MAX_CONNS below that, "+
		"with room for backups, psql and other programs, or raise the server's limit", maxConns, s.granted, s.grantedText)
}
