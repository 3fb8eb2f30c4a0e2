package renewal

import (
	"time"

	"github.com/certctl/certctl/agent/store"
)

const (
	// shortLifetime is below what a certificate is renewed at half of its
	// lifetime instead of at two thirds: little would be left to retry in.
	shortLifetime = 10 * 24 * time.Hour

	longCentre, shortCentre = 2.0 / 3, 1.0 / 2
	// windowHalf is half the width of the window that the renewal time is drawn
	// from, as a fraction of the lifetime.
	windowHalf = 1.0 / 20
	// lastPart is the end of a lifetime in which expiry counts more than an
	// authority's wish to wait.
	lastPart = 1.0 / 20
)

// lifetime returns the part of the certificate's validity that this host has:
// from when it was obtained. Authorities backdate notBefore, some by an hour
// whatever the lifetime is; two thirds of a two-minute certificate that begins
// an hour ago would always have passed. A notBefore ahead is a slow clock here,
// and the certificate's life begins then.
func lifetime(g *store.Generation) (start, end time.Time) {
	start = g.NotBefore
	if g.IssuedAt.After(start) {
		start = g.IssuedAt
	}
	return start, g.NotAfter
}

// usable is the length of that lifetime; 0 for nil.
func usable(g *store.Generation) time.Duration {
	if g == nil {
		return 0
	}
	start, end := lifetime(g)
	return max(end.Sub(start), 0)
}

// drawRenewAt turns u, uniform in [0,1), into a moment in the renewal window of
// a certificate with that lifetime. It is called once per certificate and its
// result stored: a point drawn anew at each look is not jitter, since the first
// lucky draw wins.
func drawRenewAt(start, end time.Time, u float64) time.Time {
	life := end.Sub(start)
	if life <= 0 {
		return end
	}
	centre := longCentre
	if life < shortLifetime {
		centre = shortCentre
	}
	return start.Add(fraction(life, centre+windowHalf*(2*u-1)))
}

// moments are what is drawn once for a new pair, from u and v, uniform in [0,1):
// when it is to be renewed, and when its authority is asked about that first.
func moments(g *store.Generation, now time.Time, u, v float64) (renewAt, checkAt time.Time) {
	start, end := lifetime(g)
	return drawRenewAt(start, end, u), firstInfoCheck(g, now, v)
}

// windowEnd is the latest moment that drawRenewAt can give.
func windowEnd(g *store.Generation) time.Time {
	start, end := lifetime(g)
	return drawRenewAt(start, end, 1)
}

func fraction(d time.Duration, f float64) time.Duration {
	return time.Duration(float64(d) * f)
}

// renewalTime is when the certificate in service is to be renewed: the stored
// draw, or what the authority suggests instead (RFC 9773), within limits.
func renewalTime(rec *store.Certificate, informed bool) time.Time {
	cur := rec.Current
	start, end := lifetime(cur)
	at := rec.RenewAt
	if at.IsZero() {
		at = windowEnd(cur)
	}
	if info := rec.RenewalInfo; informed && info != nil && !info.SelectedAt.IsZero() {
		at = info.SelectedAt
		// An authority that calls every certificate overdue would otherwise be
		// asked for a new one at each tick.
		if earliest := start.Add(min(usable(cur)/10, time.Hour)); at.Before(earliest) {
			at = earliest
		}
	}
	if latest := end.Add(-fraction(usable(cur), lastPart)); at.After(latest) {
		at = latest
	}
	return at
}

func expired(g *store.Generation, now time.Time) bool {
	return g != nil && !now.Before(g.NotAfter)
}
