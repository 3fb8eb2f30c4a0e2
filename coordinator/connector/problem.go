package connector

import (
	"fmt"
	"mime"
	"net/http"
	"time"

	"github.com/certctl/certctl/shared/backoff"
)

// problem is what an answer that is no success says.
func (c *Client) problem(a *Answer) *Error {
	var e *Error
	if c.config.Problem != nil {
		e = c.config.Problem(a)
	}
	known := e != nil
	if !known {
		e = &Error{Detail: foreign(a)}
	}
	e.Status = a.Status
	if pause, ok := backoff.RetryAfter(a.Header, c.now(a)); ok {
		e.RetryAfter = pause
	}
	if e.Class == "" {
		e.Class = classOf(a.Status, known)
	}
	if e.Mend == "" {
		e.Mend = mendOf(a, e.Class, known)
	}
	// A refusal in the authority's own words, or by whoever asks who we are, or how
	// often, made no order. That something is wrong at the other end (5xx), or that
	// it took too long, does not say so.
	switch s := a.Status; {
	case s == http.StatusUnauthorized || s == http.StatusForbidden || s == http.StatusTooManyRequests:
		e.NotPlaced = true
	case s == http.StatusRequestTimeout || s == http.StatusConflict || s == http.StatusTooEarly:
	case s/100 == 4:
		e.NotPlaced = known
	}
	return e
}

// now is what a date in an answer is compared with: the clock that made it, if it
// says what that clock is.
func (c *Client) now(a *Answer) time.Time {
	if !a.At.IsZero() {
		return a.At
	}
	return c.config.Now()
}

func classOf(status int, known bool) Class {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return ClassCredentials
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return ClassBusy
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status/100 == 5 && status != http.StatusNotImplemented:
		return ClassRetry
	case status == http.StatusNotFound && known:
		return ClassNotFound
	case known:
		return ClassRefused
	}
	return ClassAnswer
}

func mendOf(a *Answer, class Class, known bool) string {
	switch {
	case a.Status/100 == 3:
		return fmt.Sprintf("set the issuer's URL to where the authority is; it points to %q", clip(a.Header.Get("Location"), maxRaw*2))
	case class == ClassCredentials:
		return "check the issuer's credentials, and what the account may do"
	case class == ClassAnswer && !known:
		return "see that the issuer's URL is the authority's, and that no proxy answers for it"
	}
	return ""
}

// foreign describes an answer that is not in the authority's form.
func foreign(a *Answer) string {
	kind, _, _ := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if kind == "" {
		kind = "nothing that is named"
	}
	return fmt.Sprintf("the answer is not the authority's: %s, %d bytes", clip(kind, maxRaw), len(a.Body))
}
