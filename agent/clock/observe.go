package clock

import (
	"cmp"
	"slices"
	"time"
)

const (
	// freshFor is how long an observation counts. The wall clock may be slewed
	// meanwhile, by at most slew of the time that passes.
	freshFor = 7 * 24 * time.Hour
	slew     = 500e-6
	// maxOffsets bounds the servers that are remembered.
	maxOffsets = 64
)

// offset is what one server last told: its time minus that of the wall clock.
type offset struct {
	offset time.Duration
	bound  time.Duration // how far that may be wrong
	at     time.Duration // elapsed time of the observation
}

func (o offset) boundAt(elapsed time.Duration) time.Duration {
	return o.bound + time.Duration(float64(max(elapsed-o.at, 0))*slew)
}

// Stamp is a reading of this host's clocks, taken when a request is sent.
type Stamp struct{ elapsed time.Duration }

// Stamp reads the clocks.
func (c *Clock) Stamp() Stamp { return Stamp{elapsed: c.cfg.Elapsed()} }

// Before is the stamp of a moment that was d earlier.
func (s Stamp) Before(d time.Duration) Stamp { return Stamp{elapsed: s.elapsed - d} }

// Observe takes in the time that an authenticated server told in an answer to a
// request that was sent at sent; it is called when the answer is there. The
// server read its clock somewhere in between. resolution is that of what it
// told: a second for an HTTP Date, 0 for a full timestamp.
//
// The name stands for whose clock it is: several servers that share one have
// one name.
func (c *Clock) Observe(name string, sent Stamp, theirs time.Time, resolution time.Duration) {
	if year := theirs.UTC().Year(); year < 1970 || year > 9999 {
		return // no clock says so
	}
	c.mu.Lock()
	before := c.reading()
	c.look()
	trip := max(c.elapsed-sent.elapsed, 0)
	if _, known := c.offsets[name]; known || len(c.offsets) < maxOffsets {
		c.offsets[name] = offset{
			offset: theirs.Add(resolution / 2).Sub(c.wall.Add(-trip / 2)),
			bound:  trip/2 + resolution/2,
			at:     c.elapsed,
		}
	}
	c.heardAt = c.elapsed
	c.resolve(false)
	after := c.reading()
	c.mu.Unlock()
	if (after.Skew-before.Skew).Abs() > stepLimit || after.Confirmed != before.Confirmed || after.Disputed != before.Disputed {
		c.say(after)
		c.nudge()
	}
}

// opinion is an offset and the servers that share it.
type opinion struct {
	offset
	names int
	wall  bool // the wall clock agrees
}

// opinions lists what the servers say, the best supported first: by more
// servers, then by the wall clock, then nearest to the present trusted time.
func (c *Clock) opinions() []opinion {
	var list []opinion
	for _, o := range c.offsets {
		mine := opinion{offset: o, wall: o.offset.Abs() <= Tolerance+o.boundAt(c.elapsed)}
		for _, other := range c.offsets {
			if (other.offset - o.offset).Abs() <= Tolerance+o.boundAt(c.elapsed)+other.boundAt(c.elapsed) {
				mine.names++
			}
		}
		list = append(list, mine)
	}
	rank := func(agrees bool) int {
		if agrees {
			return 0
		}
		return 1
	}
	slices.SortFunc(list, func(a, b opinion) int {
		return cmp.Or(
			b.names-a.names,
			rank(a.wall)-rank(b.wall),
			cmp.Compare((a.offset.offset-c.correction).Abs().Truncate(Tolerance), (b.offset.offset-c.correction).Abs().Truncate(Tolerance)),
			cmp.Compare(a.bound, b.bound),
			cmp.Compare(a.offset.offset, b.offset.offset),
		)
	})
	return list
}

// resolve derives the correction from what the servers say. With final all that
// could be asked have just been, so that one alone has to do.
func (c *Clock) resolve(final bool) {
	c.disputed = false
	list := c.opinions()
	if len(list) == 0 {
		return
	}
	best := list[0]
	for _, other := range list[1:] {
		if (other.offset.offset - best.offset.offset).Abs() > Tolerance+best.boundAt(c.elapsed)+other.boundAt(c.elapsed) {
			c.disputed = true
		}
	}
	near := (best.offset.offset - c.correction).Abs() <= implausible
	told := c.wall.Add(best.offset.offset)
	least, _ := c.atLeast()
	past := c.mark.Vouched && told.Before(least.Add(-Tolerance))
	if best.names == 1 && !best.wall && !near && (c.vouched || past) {
		// One server alone, against the wall clock and what servers said before.
		// The next opinion decides.
		c.disputed = true
		return
	}
	plausible := c.mark.Vouched && !past && told.Sub(least) <= implausible
	c.confirmed = best.names > 1 || best.wall || c.vouched && near || plausible || final
	c.vouched = c.confirmed
	c.correction, c.basis = best.offset.offset, BasisObserved
	if best.wall {
		c.correction, c.basis = 0, BasisWall
	}
	if c.confirmed {
		// Also backwards: what was remembered is known to be wrong then.
		c.mark = c.marked()
	}
}
