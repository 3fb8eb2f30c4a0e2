package backoff

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// MaxRetryAfter bounds what a server may ask for: a wrong clock or a slip at
// the other end must not silence a host for months. One day is also the limit
// that RFC 9773 suggests to ACME clients for renewal information.
const MaxRetryAfter = 24 * time.Hour

// RetryAfter returns the delay that the Retry-After field of header asks for,
// counted from now, and whether there is a valid one. It is from 0, which is
// also what a moment in the past gives, to [MaxRetryAfter].
//
// RFC 9110, section 10.2.3: "The Retry-After field value can be either an
// HTTP-date or a number of seconds to delay after receiving the response."
func RetryAfter(header http.Header, now time.Time) (time.Duration, bool) {
	value := strings.Trim(header.Get("Retry-After"), " \t")
	if isDigits(value) {
		// "delay-seconds = 1*DIGIT": any length, so too large a number is still
		// a valid one.
		seconds, err := strconv.ParseUint(value, 10, 64)
		if err != nil || seconds > uint64(MaxRetryAfter/time.Second) {
			return MaxRetryAfter, true
		}
		return time.Duration(seconds) * time.Second, true
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return min(max(date.Sub(now), 0), MaxRetryAfter), true
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
