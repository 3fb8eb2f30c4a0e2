package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/certctl/certctl/agent/sync/call"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

// Error is an enrolment that did not succeed, with its mend.
type Error struct {
	// Code is what the coordinator answered, wire.CodeInvalid if what was asked for
	// cannot be done anywhere, and "" if there was no answer.
	Code wire.Code
	Mend string
	Err  error
}

func (e *Error) Error() string {
	if e.Mend == "" {
		return "enrol: " + e.Err.Error()
	}
	return "enrol: " + e.Err.Error() + "; " + e.Mend
}

func (e *Error) Unwrap() error { return e.Err }

const mendNewToken = "make a new one with \"certctl token create\" and enrol with that"

// mends is what to do about a refusal, where the host knows better than the
// coordinator's general answer.
var mends = map[wire.Code]string{
	wire.CodeTokenUnknown: "check that the token was copied whole and belongs to this coordinator, or " + mendNewToken,
	wire.CodeTokenExpired: mendNewToken,
	wire.CodeTokenUsed:    "it has enrolled as many hosts as it was made for, this one among them perhaps: see \"certctl agents list\", and retire an agent that is not yours; " + mendNewToken,
	wire.CodeTokenRevoked: mendNewToken,
	wire.CodeNamesRefused: "take the names out of the certificates of the issuer \"coordinator\" in the configuration, or make a token that allows them with \"certctl token create\"",
	wire.CodeAgentRetired: "the agent that this token was used for has been retired; " + mendNewToken,
	wire.CodeConflict:     "enrol again; if that does not help, " + mendNewToken,
	wire.CodeProtocol:     "upgrade the older one of agent and coordinator",
	wire.CodeOverloaded:   "enrol again later; the same token continues",
	wire.CodeUnavailable:  "enrol again in a moment; the same token continues",
	wire.CodeInternal:     "look at the coordinator's log, then enrol again; the same token continues",
}

// explain adds what to do to a failure of the exchange.
func explain(server string, err error) error {
	if problem, ok := errors.AsType[*wire.Problem](err); ok {
		told := *problem
		mend := mends[problem.Code]
		if mend == "" {
			mend = problem.Mend
		}
		told.Mend = ""
		if wait := call.RetryAfter(err); wait > 0 {
			mend = fmt.Sprintf("come back in %v: %s", wait, mend)
		}
		return &Error{Code: problem.Code, Mend: mend, Err: &told}
	}
	if errors.Is(err, tlsutil.ErrPinMismatch) {
		return &Error{Code: wire.CodeInvalid, Mend: "check the URL and the token; nothing was told to it", Err: &strangerError{server, err}}
	}
	return &Error{Mend: mendContact(server, err), Err: err}
}

// strangerError says in one sentence what a server without the pinned root is.
// What exactly it presented is for the log.
type strangerError struct {
	server string
	err    error
}

func (e *strangerError) Error() string {
	return "something else than the coordinator that made this token answers at " + e.server +
		": another coordinator, or a proxy that opens TLS"
}

func (e *strangerError) Unwrap() error { return e.err }

func mendContact(server string, err error) string {
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "use one of the names that the coordinator's certificate holds"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "check the clock of this host, then the certificate of the coordinator"
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "check the name in the URL, and this host's resolver"
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "check the address and the firewalls between this host and " + server + ", then enrol again; the same token continues"
	case errors.Is(err, context.Canceled):
		return "enrol again; the same token continues"
	}
	return "check the address, and that the coordinator runs there, then enrol again; the same token continues"
}
