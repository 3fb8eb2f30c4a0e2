package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/wire"
)

// servers are the nodes that a client asks.
type servers struct {
	bases []*url.URL
	moved func(from, to string, why error)
	// turn is the one that answered last, which is asked first.
	turn atomic.Int32
	told atomic.Pointer[[]string]
}

func newServers(texts []string, moved func(from, to string, why error)) (*servers, error) {
	list := &servers{moved: moved}
	for _, text := range texts {
		base, err := ParseServer(text)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(list.bases, func(u *url.URL) bool { return u.Host == base.Host }) {
			list.bases = append(list.bases, base)
		}
	}
	switch {
	case len(list.bases) == 0:
		_, err := ParseServer("")
		return nil, err
	case len(list.bases) > 2*wire.MaxServers:
		return nil, fmt.Errorf("%d servers; at most %d are asked", len(list.bases), 2*wire.MaxServers)
	}
	return list, nil
}

// learn keeps what a node tells of the others.
func (s *servers) learn(header http.Header) {
	if list := wire.CleanServers(strings.Fields(header.Get(resource.Servers))); len(list) > 0 {
		s.told.Store(&list)
	}
}

// Nodes are the URLs of the cluster's nodes, as the node that answered last has told
// them; nil if none has.
func (c *Client) Nodes() []string {
	if list := c.servers.told.Load(); list != nil {
		return slices.Clone(*list)
	}
	return nil
}

// Answered is the URL of the server that answered last; at first that of the one
// that will be asked first.
func (c *Client) Answered() string { return c.servers.bases[c.servers.turn.Load()].String() }

// exchange is a request to whichever server answers it.
type exchange struct {
	by   *http.Client
	make func(ctx context.Context, base *url.URL) (*http.Request, error)
	// told is given the header of an answer that is no refusal.
	told func(http.Header)
	out  io.Writer
	most int64 // octets
	// once is set when out cannot forget what was written to it.
	once bool
	// spent is asked before another server is, and reports whether anything of a body
	// that cannot be had again was read; nil if it can. Nothing is read of it after that.
	spent func() bool
	// each bounds the answer to a read while another server is left; 0 is as long as
	// by waits.
	each time.Duration
}

// exchange asks one server after the other until one has answered, and says which.
func (c *Client) exchange(ctx context.Context, x exchange) (base *url.URL, err error) {
	var (
		first   = int(c.servers.turn.Load())
		count   = len(c.servers.bases)
		refusal *wire.Problem // what a server answered that could do nothing
		silent  []string
	)
	for i := range count {
		turn := (first + i) % count
		base = c.servers.bases[turn]
		counted := &countedWriter{w: x.out}
		var connected atomic.Bool
		traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
		request, err := x.make(traced, base)
		if err != nil {
			return base, err
		}
		by := x.by
		if last := i == count-1; !last && x.each > 0 && request.Method == http.MethodGet {
			hurried := *by
			hurried.Timeout = x.each
			by = &hurried
		}
		err = c.once(ctx, by, base, request, &x, counted)
		problem, refused := errors.AsType[*wire.Problem](err)
		if err == nil || errors.Is(err, ErrNotModified) {
			c.servers.turn.Store(int32(turn)) //nolint:gosec // a few
			return base, err
		}
		done := request.Method != http.MethodGet && connected.Load() // for all that is known
		switch {
		case ctx.Err() != nil, x.spent != nil && refused && x.spent():
			return base, err
		case refused && (nothingDone(problem) || !done && passing(problem)):
			refusal = problem
		case refused, !errors.Is(err, ErrUnreachable), x.once && counted.n > 0:
			return base, err
		case done:
			return base, fmt.Errorf("%w; the change was sent and may have been made: look before you ask for it again", err)
		default:
			silent = append(silent, base.String())
		}
		if i == count-1 {
			return base, c.exhausted(err, refusal, silent)
		}
		if c.servers.moved != nil {
			c.servers.moved(base.String(), c.servers.bases[(turn+1)%count].String(), Reason(err))
		}
	}
	return base, err // there is at least one
}

// nothingDone reports whether a server says that it did nothing and another one may.
func nothingDone(problem *wire.Problem) bool {
	return problem.Code == wire.CodeNoLeader || problem.Code == wire.CodeNotMember
}

// passing reports whether another node may do what this one cannot at the moment.
func passing(problem *wire.Problem) bool {
	return problem.Code == wire.CodeUnavailable || problem.Code == wire.CodeOverloaded
}

// exhausted is the error when no server could answer. What one of them said is worth
// more than that the others said nothing.
func (*Client) exhausted(err error, refusal *wire.Problem, silent []string) error {
	switch {
	case refusal != nil:
		return refusal
	case len(silent) > 1:
		return fmt.Errorf("%w; nor at %s", err, strings.Join(silent[:len(silent)-1], ", "))
	}
	return err
}

// Reason is an error without what its reader could do about it.
func Reason(err error) error {
	if problem, refused := errors.AsType[*wire.Problem](err); refused && problem.Detail != "" {
		return errors.New(problem.Detail)
	}
	if away, ok := errors.AsType[*unreachableError](err); ok {
		return away.cause
	}
	return err
}

type countedWriter struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *countedWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// unreachableError is that a server did not answer.
type unreachableError struct {
	server, mend string
	cause        error
}

// Error implements error.
func (e *unreachableError) Error() string {
	return fmt.Sprintf("%v at %s: %v; %s", ErrUnreachable, e.server, e.cause, e.mend)
}

// Unwrap lets errors.Is and errors.As see both.
func (e *unreachableError) Unwrap() []error { return []error{ErrUnreachable, e.cause} }

func unreachable(base *url.URL, err error) error {
	mend := "see whether it runs, and whether the URL and port are right (\"certctl context show\")"
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		resolve  *net.DNSError
		record   tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &unknown):
		mend = "its certificate is not from the CA that this context trusts: if its root was rotated, run \"certctl ca trust\"; else log in again with the coordinator's present root.pem (--ca-file)"
	case errors.As(err, &hostname):
		mend = "use one of the names in its certificate, or add this one to the coordinator's setting server.names"
	case errors.As(err, &invalid):
		mend = "compare the clocks of both machines"
	case errors.As(err, &resolve):
		mend = "check the host name in the URL (\"certctl context show\")"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		mend = "something else than a coordinator listens there; check the port in the URL"
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // the URL is in the message once
	}
	return &unreachableError{server: base.String(), mend: mend, cause: err}
}
