package renewal

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
)

const (
	// RFC 9773, section 4.3.2: "values under one minute could be treated as if
	// they were one minute, and values over one day could be treated as if they
	// were one day".
	minInfoPause = time.Minute
	maxInfoPause = 24 * time.Hour
	// defaultInfoPause is used where the authority names none, and after an
	// error (section 4.3.3 suggests six hours).
	defaultInfoPause = 6 * time.Hour
	// infoLooks is how often a suggestion is asked for in a lifetime at least,
	// however long the authority wants to be left alone: a day is longer than
	// the whole life of some certificates.
	infoLooks = 8
)

var errInvalidWindow = errors.New("renewal information is invalid: its window does not end after it starts")

// infoPause bounds what an authority asks for (0: nothing) by the lifetime.
func infoPause(asked, life time.Duration) time.Duration {
	if asked <= 0 {
		asked = defaultInfoPause
	}
	pause := min(max(asked, minInfoPause), maxInfoPause)
	return max(min(pause, life/infoLooks), time.Second)
}

// firstInfoCheck is when a new certificate's suggestion is asked for.
func firstInfoCheck(g *store.Generation, now time.Time, u float64) time.Time {
	return now.Add(fraction(infoPause(time.Hour, usable(g)), (1+u)/2))
}

// storable reports whether a record can hold these moments. What an authority
// writes must never make a record that cannot be stored.
func storable(moments ...time.Time) bool {
	return !slices.ContainsFunc(moments, func(at time.Time) bool {
		year := at.UTC().Year()
		return year < 1 || year > 9999 // as RFC 3339 has it
	})
}

// applyRenewalInfo stores what the authority answered about the certificate in
// service. A point is drawn once for each window. An error, given or found,
// leaves the last suggestion in place and is returned for the log: it never
// stops a renewal. moved says that there is a suggestion other than before.
func applyRenewalInfo(rec *store.Certificate, info *issuer.RenewalInfo, err error, now time.Time, u float64) (moved bool, _ error) {
	kept := store.RenewalInfo{}
	if rec.RenewalInfo != nil {
		kept = *rec.RenewalInfo
	}
	life := usable(rec.Current)
	again := func(asked time.Duration) time.Time {
		// A little later for some than for others: all certificates of a fleet
		// may have been told the same.
		return now.Add(fraction(infoPause(asked, life), 1+u/10))
	}
	if err == nil && info != nil && !storable(info.WindowStart, info.WindowEnd) {
		err = errors.New("renewal information is invalid: its window is outside the years 1 to 9999")
	}
	if err == nil && info != nil && !info.WindowEnd.After(info.WindowStart) {
		// RFC 9773, section 4.2: "A RenewalInfo object in which the end
		// timestamp equals or precedes the start timestamp is invalid."
		err = fmt.Errorf("%w (%s to %s)", errInvalidWindow, info.WindowStart.UTC().Format(time.RFC3339), info.WindowEnd.UTC().Format(time.RFC3339))
	}
	switch {
	case err != nil:
		kept.CheckAgainAt = again(0)
		rec.RenewalInfo = &kept
		return false, err
	case info == nil:
		rec.RenewalInfo = &store.RenewalInfo{CheckAgainAt: again(0)}
		return !kept.SelectedAt.IsZero(), nil
	}
	next := store.RenewalInfo{
		WindowStart: info.WindowStart.UTC(), WindowEnd: info.WindowEnd.UTC(),
		ExplanationURL: clip(info.ExplanationURL),
		SelectedAt:     kept.SelectedAt,
		CheckAgainAt:   again(info.RetryAfter),
	}
	same := kept.WindowStart.Equal(info.WindowStart) && kept.WindowEnd.Equal(info.WindowEnd) && !kept.SelectedAt.IsZero()
	if !same {
		next.SelectedAt = next.WindowStart.Add(fraction(info.WindowEnd.Sub(info.WindowStart), u))
	}
	rec.RenewalInfo = &next
	return !same, nil
}
