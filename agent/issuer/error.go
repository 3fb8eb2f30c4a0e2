package issuer

import (
	"errors"
	"fmt"
	"time"
)

// Class is what kind of failure an issuer met; what the engine does about it
// follows from the class alone.
type Class int

// Classes, with what the engine does.
const (
	// ClassRetry: the network, the authority or a limit. The same order is
	// continued after a growing pause, or RetryAfter if that is longer.
	ClassRetry Class = iota
	// ClassPending: no failure; the authority is still at it. Continued after
	// RetryAfter, without counting an attempt.
	ClassPending
	// ClassOrderGone: the order cannot be continued (expired, invalid, unknown
	// there) and no certificate came of it. The state is dropped and a new
	// order is begun after a pause.
	ClassOrderGone
	// ClassRefused: the authority will refuse this request again until its
	// configuration or policy is changed: names not allowed, account not
	// authorised, key refused. Tried again at a slow pace, and needs a person.
	ClassRefused
	// ClassConfig: this host's own configuration or environment is wrong: a
	// port in use, a hook that fails, a directory that cannot be written.
	// Tried again like ClassRetry, and needs a person.
	ClassConfig
	// ClassReenrol: the authority knows this host's identity no more, or wants it
	// no more. Only a person can enrol it again.
	ClassReenrol
	// ClassUnknown: a request that makes the authority issue was sent, and
	// nobody here knows whether it was heard. The same order is continued until
	// that is known; no other one is placed meanwhile.
	ClassUnknown
)

// Classes lists every class, in the order of the documentation.
func Classes() []Class {
	return []Class{ClassRetry, ClassUnknown, ClassPending, ClassOrderGone, ClassRefused, ClassConfig, ClassReenrol}
}

// String is the class's name in logs and reports.
func (c Class) String() string {
	switch c {
	case ClassRetry:
		return "retry"
	case ClassPending:
		return "pending"
	case ClassOrderGone:
		return "order_gone"
	case ClassRefused:
		return "refused"
	case ClassConfig:
		return "config"
	case ClassReenrol:
		return "re_enrol"
	case ClassUnknown:
		return "unknown_outcome"
	}
	return fmt.Sprintf("class(%d)", int(c))
}

// Error is a classified failure of an issuer.
type Error struct {
	Class Class
	// RetryAfter is the shortest pause that the authority asked for; 0 if none.
	RetryAfter time.Duration
	// Mend tells an operator what to do, in plain words; "" if nothing is to be
	// done but wait.
	Mend string
	// Committed says that the authority was asked to issue: a certificate may
	// exist for this order, or come yet. ClassOrderGone and ClassRefused say that
	// none will.
	Committed bool
	// Limited says that the authority limits the account as a whole: for
	// RetryAfter nothing new is asked of it for any certificate.
	Limited bool
	// KeyRefused says that the authority wants no certificate for the order's key:
	// its next order comes with another one.
	KeyRefused bool
	// Waiting is what the order waits for, for people to read, with what they have to
	// do; "" if nothing is known. Person says that it is for one of them. Both are for
	// ClassPending.
	Waiting string
	Person  bool
	Err     error
}

// MayIssue reports whether a certificate may exist for the order, or come yet.
func (e *Error) MayIssue() bool { return e.Committed || e.Class == ClassUnknown }

func (e *Error) Error() string {
	if e.Mend == "" {
		return e.Err.Error()
	}
	return e.Err.Error() + "; " + e.Mend
}

func (e *Error) Unwrap() error { return e.Err }

// Classify is the *Error within err, or one of ClassRetry around it.
func Classify(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Class: ClassRetry, Err: err}
}
