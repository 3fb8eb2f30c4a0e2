package api

import "time"

// A clock is what an answer goes by that depends on the time: it shows one moment,
// and notes the next one at which the answer would be another. One goroutine uses it.
type clock struct {
	now   time.Time
	until time.Time // zero: what was asked stays as it is
}

func clockAt(now time.Time) *clock { return &clock{now: now} }

// reached reports whether a moment has come.
func (c *clock) reached(moment time.Time) bool {
	if !c.now.Before(moment) {
		return true
	}
	c.note(moment)
	return false
}

// note is for a moment to come at which a part of the answer would be another one; zero
// is none.
func (c *clock) note(moment time.Time) {
	if !moment.IsZero() && (c.until.IsZero() || moment.Before(c.until)) {
		c.until = moment
	}
}

// passed reports whether a moment is over.
func (c *clock) passed(moment time.Time) bool { return c.reached(moment.Add(1)) }
