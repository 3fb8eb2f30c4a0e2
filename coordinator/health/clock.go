package health

import "time"

// A Clock is what an answer goes by that depends on the time: it shows one moment,
// and notes the next one at which the answer would be another. One goroutine uses it.
type Clock struct {
	Now   time.Time
	Until time.Time // zero: what was asked stays as it is
}

// At is a clock that shows a moment.
func At(now time.Time) *Clock { return &Clock{Now: now} }

// Reached reports whether a moment has come.
func (c *Clock) Reached(moment time.Time) bool {
	if !c.Now.Before(moment) {
		return true
	}
	c.Note(moment)
	return false
}

// Note is for a moment to come at which a part of the answer would be another one; zero
// is none.
func (c *Clock) Note(moment time.Time) {
	if !moment.IsZero() && (c.Until.IsZero() || moment.Before(c.Until)) {
		c.Until = moment
	}
}

// Passed reports whether a moment is over.
func (c *Clock) Passed(moment time.Time) bool { return c.Reached(moment.Add(1)) }
