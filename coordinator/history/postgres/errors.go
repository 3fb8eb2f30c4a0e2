package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Reasons why a database is not used. They wait for a person.
var (
	ErrOtherCluster = errors.New("the database has the history of another cluster: give each cluster a database of its own in CERTCTL_DATABASE_URL")
	ErrAhead        = errors.New("the database has facts of later log entries than this cluster has: the cluster was set back to an earlier state; " +
		"keep this database as an archive and give the cluster an empty one in CERTCTL_DATABASE_URL")
	ErrOtherLife = errors.New("the database has another history of these log entries than the journal: the cluster was set back to an earlier state and has gone on since; " +
		"keep this database as an archive and give the cluster an empty one in CERTCTL_DATABASE_URL")
	ErrNewer    = errors.New("the database was set up by a later version of certctl: upgrade this coordinator")
	ErrForeign  = errors.New("the schema certctl of the database is not one of certctl's history: give the cluster a database of its own in CERTCTL_DATABASE_URL")
	ErrReadOnly = errors.New("the database is a replica that cannot be written: name the primary in CERTCTL_DATABASE_URL, or all servers with target_session_attrs=read-write")
	ErrTooOld   = errors.New("the server is too old: PostgreSQL 14 or later is needed")
)

// ErrAway says that there is no connection to the database now, because this node
// does not lead or because the database does not answer.
var ErrAway = errors.New("the history cannot be read now")

// errMoved says that another leader has exported meanwhile.
var errMoved = errors.New("another node has exported facts meanwhile")

// A databaseError is what the database or the way to it said, without anything of
// the connection string.
type databaseError struct {
	text string
	mend string
	code string // SQLSTATE, "" if the server did not answer
	kept error  // what errors.Is and errors.As may see
}

func (e *databaseError) Error() string {
	if e.mend == "" {
		return e.text
	}
	return e.text + "; " + e.mend
}

func (e *databaseError) Unwrap() error { return e.kept }

// mends say what a person can do about errors of the server, by SQLSTATE.
var mends = map[string]string{
	"28P01": "see the user and the password in CERTCTL_DATABASE_URL",
	"28000": "see the user in CERTCTL_DATABASE_URL and the server's pg_hba.conf",
	"3D000": "create the database, or name another one in CERTCTL_DATABASE_URL",
	"42501": "let the user of CERTCTL_DATABASE_URL own the database",
	"53100": "make room on the disk of the database server",
	"53200": "see the memory of the database server",
	"53300": "let the server grant more (max_connections), or lower CERTCTL_DATABASE_MAX_CONNS or what other programs take",
	"55P03": "something holds a lock on certctl's tables, such as a long ALTER, VACUUM FULL or a psql session that is in a transaction",
	"57014": "the server is slow or something holds a lock: see its load, or raise CERTCTL_DATABASE_STATEMENT_TIMEOUT",
	"23505": "facts that the mark of the export does not cover are there already: keep this database as an archive and give the cluster an empty one",
	"25006": "name the primary in CERTCTL_DATABASE_URL, or all servers with target_session_attrs=read-write",
}

// plain makes an error of pgx one that can be shown. What pgx says may have the
// connection string in it, and what the server adds to its message may have a row.
func plain(what string, err error) error {
	if err == nil {
		return nil
	}
	for _, own := range []error{
		errMoved, ErrOtherCluster, ErrAhead, ErrOtherLife, ErrNewer, ErrForeign, ErrReadOnly, ErrTooOld, ErrAway,
	} {
		if errors.Is(err, own) {
			return err
		}
	}
	if known, ok := errors.AsType[*databaseError](err); ok {
		return known
	}
	out := &databaseError{}
	server, answered := errors.AsType[*pgconn.PgError](err)
	network, cut := errors.AsType[*net.OpError](err)
	dns, lookedUp := errors.AsType[*net.DNSError](err)
	certificate, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case answered:
		out.text, out.code, out.mend = fmt.Sprintf("%s (SQLSTATE %s)", server.Message, server.Code), server.Code, mends[server.Code]
	case errors.Is(err, context.Canceled):
		out.text, out.kept = "stopped", context.Canceled
	case errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		out.text, out.kept, out.mend = "the server does not answer in time", context.DeadlineExceeded, "see its load and the network to it"
	case lookedUp:
		out.text, out.mend = fmt.Sprintf("the server's name cannot be looked up (%s)", dns.Err), "see the host in CERTCTL_DATABASE_URL"
	case cut:
		out.text = fmt.Sprintf("the connection failed (%s: %v)", network.Op, network.Err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, pgconn.ErrConnClosed):
		out.text = "the connection was cut"
	case untrusted:
		out.text, out.mend = fmt.Sprintf("the server's certificate is not accepted (%v)", certificate.Err), "see sslmode and sslrootcert in CERTCTL_DATABASE_URL"
	case strings.Contains(err.Error(), "server refused TLS connection"):
		out.text, out.mend = "the server does not do TLS", "turn it on there, or see sslmode in CERTCTL_DATABASE_URL"
	default:
		// Its words are not known, and so whether there is a secret among them.
		out.text = fmt.Sprintf("the database driver failed (%T)", innermost(err))
	}
	out.text = what + ": " + out.text
	return out
}

func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// code is the server's own word for an error, "" if it has said none.
func code(err error) string {
	if server, ok := errors.AsType[*pgconn.PgError](err); ok {
		return server.Code
	}
	if known, ok := errors.AsType[*databaseError](err); ok {
		return known.code
	}
	return ""
}

// urlError says what is wrong with a connection string, and nothing that stands in
// it but the names of files.
func urlError(err error) error {
	const expected = "expected a URL such as postgres://user:password@db.example.com:5432/certctl?sslmode=verify-full"
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("the file %s cannot be read: %w", file.Path, file.Err)
	}
	return fmt.Errorf("it cannot be read as the address of a PostgreSQL database (it is not shown, since it may have a password in it); %s", expected)
}
