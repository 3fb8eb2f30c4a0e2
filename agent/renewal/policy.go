package renewal

import (
	"fmt"
	"time"

	"github.com/certctl/certctl/agent/issuer"
)

// act is what the engine does about a class of failure. The table of acts is the
// whole policy; docs/reference/renewal.md prints it, and a test compares the two.
type act struct {
	class issuer.Class
	means string // for the documentation
	pace  pace
	// counts: the failure is an attempt, and reported.
	counts bool
	// drops: the order is over, and no certificate came of it; the next attempt
	// makes a new key and order.
	drops bool
	// attention: a person is needed at once, not only when it lasts.
	attention bool
	// leaves is when a stand-in is asked, if the configuration has one.
	leaves leaving
}

// leaving is when a renewal goes over to the next issuer of its list.
type leaving string

const (
	leavesAtOnce leaving = "at once"
	// leavesAtRisk: the certificate in service is in the second half of the time
	// from its renewal to its expiry, or there is none, and the issuer has failed
	// leaveAttempts times.
	leavesAtRisk leaving = "at risk"
)

var acts = []act{
	{issuer.ClassRetry, "network, authority, rate limit", normalPace, true, false, false, leavesAtRisk},
	{issuer.ClassUnknown, "nobody knows whether the authority has issued", normalPace, true, false, false, leavesAtRisk},
	{issuer.ClassPending, "the authority is still at it, or the coordinator cannot be reached", waitPace, false, false, false, leavesAtRisk},
	{issuer.ClassOrderGone, "order expired, invalid, unknown; certificate not usable", orderPace, true, true, false, leavesAtRisk},
	{issuer.ClassRefused, "authority refuses names, key or account", slowPace, true, true, true, leavesAtOnce},
	{issuer.ClassConfig, "this host's configuration or surroundings", normalPace, true, false, true, leavesAtRisk},
	{issuer.ClassReenrol, "the coordinator does not know this host, or has retired it", normalPace, true, false, true, leavesAtOnce},
}

// actFor looks a class up; one that this version does not know is retried.
func actFor(c issuer.Class) act {
	for _, a := range acts {
		if a.class == c {
			return a
		}
	}
	return acts[0]
}

// row is the act in the table of the documentation.
func (a act) row() string {
	order := "continued"
	if a.drops {
		order = "new order, new key"
	}
	var person string
	switch {
	case a.attention:
		person = "at once"
	case a.counts:
		person = fmt.Sprintf("after %d attempts, and late in life", attentionAttempts)
	default:
		person = "when the order waits for one, and late in life"
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s | %s |", a.class, a.means, order, a.pace, person, a.leaves)
}

// String is the ladder as the documentation has it.
func (p pace) String() string {
	text := func(d time.Duration) string {
		if d >= time.Hour {
			return fmt.Sprintf("%d h", d/time.Hour)
		}
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	if len(p) == 1 {
		return "as asked, else " + text(p[0])
	}
	return text(p[0]) + " to " + text(p[len(p)-1])
}
