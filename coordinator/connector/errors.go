package connector

import (
	"errors"
	"fmt"
	"time"
)

// Class is what kind of failure a connector met; what the engine does about it
// follows from the class and from NotPlaced alone.
type Class string

const (
	// ClassRetry is the network, or the authority, for a while. The same question is
	// asked again.
	ClassRetry Class = "retry"
	// ClassBusy is an authority that limits the account (429, 503). Nothing is asked
	// of the account before RetryAfter.
	ClassBusy Class = "busy"
	// ClassNotReady is no failure; what was asked for is not there yet.
	ClassNotReady Class = "not_ready"
	// ClassCredentials is an authority that does not accept who asks (401, 403). The
	// account is paused until the credentials change or somebody says to go on; no
	// order fails for it.
	ClassCredentials Class = "credentials"
	// ClassRefused is an authority that will not issue what is asked for.
	ClassRefused Class = "refused"
	// ClassNeedsPerson is one that will, once somebody has done something there:
	// approved, validated a domain, paid, raised a quota.
	ClassNeedsPerson Class = "needs_person"
	// ClassNotFound is an authority that knows no such order. Shortly after it was
	// placed that may pass.
	ClassNotFound Class = "not_found"
	// ClassConfig is for settings of the issuer that are wrong.
	ClassConfig Class = "config"
	// ClassAnswer is an answer that cannot be understood: another program answered,
	// or the authority says something new.
	ClassAnswer Class = "answer"
)

// ErrTooLarge is within the Error of an answer of which no more is read.
var ErrTooLarge = errors.New("the answer is larger than is read")

// Error is a classified failure at an authority. It holds no secret: what an
// authority sent is in it only as far as Detail and Code say.
type Error struct {
	Class Class
	// NotPlaced says that no order can have come of it: the request never left, or
	// the authority's own answer refused it. Without that, an order that failed to
	// be placed is looked for and never placed again before it is known not to be
	// there.
	NotPlaced bool
	// Status is the HTTP status of the answer; 0 if there was none.
	Status int
	// Code is the authority's own code for what is wrong.
	Code string
	// Detail is what the authority says, at most 512 bytes.
	Detail string
	// Mend tells an operator what to do, in plain words; "" if nothing is to be done
	// but wait.
	Mend string
	// RetryAfter is the shortest pause that the authority asked for; 0 if none.
	RetryAfter time.Duration
	Err        error
}

func (e *Error) Error() string {
	text := e.Detail
	if text == "" && e.Err != nil {
		text = e.Err.Error()
	}
	switch {
	case e.Code != "" && e.Status != 0:
		text = fmt.Sprintf("%s (%s, HTTP status %d)", text, e.Code, e.Status)
	case e.Status != 0:
		text = fmt.Sprintf("%s (HTTP status %d)", text, e.Status)
	case e.Code != "":
		text = fmt.Sprintf("%s (%s)", text, e.Code)
	}
	if e.Mend == "" {
		return text
	}
	return text + "; " + e.Mend
}

func (e *Error) Unwrap() error { return e.Err }

// Classify is the *Error within err, or one of ClassRetry around it, of which
// nothing is known.
func Classify(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Class: ClassRetry, Err: err}
}
