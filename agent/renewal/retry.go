package renewal

import (
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/backoff"
)

// pace is a ladder of pauses: the first after the first failed attempt, the
// last for ever. Nothing is ever given up.
type pace []time.Duration

var (
	normalPace = pace{time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour}
	// orderPace is for orders that the authority ends, most often because it could
	// not validate a name. Public authorities count those: Let's Encrypt bears
	// five in an hour for one name and account. This makes four.
	orderPace = pace{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour}
	// slowPace is for what will not change until a person changes it.
	slowPace = pace{time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 20 * time.Hour}
	// waitPace is for an authority that is still at it and did not say how long.
	waitPace = pace{time.Minute}
)

const (
	// maxPause bounds every stored pause. A stored moment further ahead can only
	// come from a wall clock that was set back, and counts as reached.
	maxPause = 2 * backoff.MaxRetryAfter

	retryJitter = 0.1

	// While the certificate in service is valid, a pause is at most this part
	// of what is left of it, so that attempts come closer together as expiry
	// nears; and always at most that part of a whole lifetime.
	remainingParts = 8
	lifetimeParts  = 20
	// An authority's Retry-After is honoured up to this part of what is left: a
	// host that obeyed a longer one would serve an expired certificate.
	retryAfterParts = 2
	// unservedPause bounds pauses while no valid certificate is in service.
	unservedPause = 30 * time.Minute

	// A pause is never below a five-hundredth of the lifetime within these.
	minFloor, maxFloor = time.Second, time.Minute
	floorParts         = 500
)

func (p pace) at(attempt int) time.Duration {
	return p[min(max(attempt, 1), len(p))-1]
}

// pause is how long to wait after the given failed attempt (the first is 1).
// inService is nil if there is no certificate yet, and lifetime is then what
// was asked for, or 0. u is uniform in [0,1).
func (p pace) pause(attempt int, retryAfter time.Duration, inService *store.Generation, lifetime time.Duration, now time.Time, u float64) time.Duration {
	var remaining time.Duration
	if inService != nil {
		lifetime = usable(inService)
		remaining = inService.End().Sub(now)
	}
	floor, limit := maxFloor, maxPause
	if lifetime > 0 {
		floor = min(max(lifetime/floorParts, minFloor), maxFloor)
		limit = lifetime / lifetimeParts
	}
	switch {
	case remaining > 0:
		limit = min(limit, remaining/remainingParts)
	default:
		limit = min(limit, max(unservedPause, p.at(1)))
	}
	jittered := func(d time.Duration) time.Duration { return fraction(d, 1+retryJitter*(2*u-1)) }
	pause := jittered(max(floor, min(p.at(attempt), limit)))
	if retryAfter > 0 {
		asked := min(retryAfter, backoff.MaxRetryAfter)
		// Those who were all told the same must not come back in one moment.
		asked += fraction(min(asked/10, time.Minute), u)
		if remaining > 0 {
			asked = min(asked, remaining/retryAfterParts)
		}
		pause = max(pause, asked)
	}
	return pause
}

// reached reports whether a stored moment has come.
func reached(at, now time.Time) bool {
	return !now.Before(at) || at.Sub(now) > maxPause
}

const (
	// attentionAttempts is after how many failures in a row a person is asked
	// to look, whatever their class.
	attentionAttempts = 5
	// attentionPart is the end of a lifetime in which every failure is.
	attentionPart = 1.0 / 10
)

// worry says why failures that would cure themselves need a person after all;
// "" if they do not.
func worry(rec *store.Certificate, now time.Time) string {
	cur := rec.Current
	switch {
	case isRevoked(cur):
		return revokedText(cur.Revoked)
	case expired(cur, now):
		return "the certificate in service expired on " + stamp(cur.NotAfter)
	case rec.Attempt > 0 && late(cur, now):
		return "the certificate in service expires on " + stamp(cur.NotAfter) + " and its renewal fails"
	case rec.Attempt >= attentionAttempts:
		return "the last attempts have all failed"
	}
	return ""
}

// late reports whether the certificate in service is in the last tenth of its
// lifetime, or beyond, which a revoked one is.
func late(cur *store.Generation, now time.Time) bool {
	return cur != nil && cur.End().Sub(now) < fraction(usable(cur), attentionPart)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
