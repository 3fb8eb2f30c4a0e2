package clock

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"
)

const (
	// Tolerance is how far the wall clock may be off before its time is
	// corrected and a person is told.
	Tolerance = time.Minute
	// stepLimit is by how much the wall clock and the clock that counts since
	// the start of the machine may drift apart between two looks, a tick of the
	// agent, before that is a step and no slewing.
	stepLimit = 15 * time.Second
	// implausible is a jump that needs a witness before anything costly is begun
	// because of it.
	implausible = 7 * 24 * time.Hour
	// patience is how long a step forward is held back while nobody can be
	// asked. Real time may have passed, in a virtual machine that was paused, and
	// to believe it costs early renewals where not to costs expiry.
	patience = time.Hour
)

// Config of a Clock. Only Log is required.
type Config struct {
	// Wall is the wall clock; nil is time.Now.
	Wall func() time.Time
	// Elapsed counts from the start of the machine, also while it sleeps, and is
	// never set; nil is the system's.
	Elapsed func() time.Duration
	// BootID names this run of the machine, so that readings of Elapsed from
	// before a restart of the agent can be used; "" is the system's, where it has
	// one.
	BootID string
	// Save, when set, stores the mark. It is called by Run alone.
	Save func(Mark) error
	// OnCorrection, when set, is called after the correction has changed by more
	// than the tolerance. It must return at once.
	OnCorrection func(Reading)
	Log          *slog.Logger
}

// Basis says where trusted time comes from.
type Basis string

// Bases.
const (
	BasisWall     Basis = "wall"     // the wall clock: nothing speaks against it
	BasisObserved Basis = "observed" // servers that tell another time than the wall clock
	BasisHeld     Basis = "held"     // the time before the wall clock was set, and what has passed since
	BasisMark     Basis = "mark"     // the wall clock is behind a time that has been: it is at least that late
)

// Mark is a time that has been, for the store. Elapsed and BootID are readings
// taken with it: within one run of the machine they carry the time over a
// restart of the agent exactly.
type Mark struct {
	Time    time.Time     `json:"time"`
	Elapsed time.Duration `json:"elapsed,omitempty"`
	BootID  string        `json:"boot_id,omitempty"`
	// Vouched says that a server has told this time, or one shortly before.
	Vouched bool `json:"vouched,omitempty"`
}

// Clock is safe for concurrent use.
type Clock struct {
	cfg  Config
	boot string
	seek chan struct{} // capacity 1; held while sources are asked
	wake chan struct{} // holds at most one; Run is to look at once

	mu sync.Mutex // guards the rest
	// wall and elapsed are the last readings.
	wall       time.Time
	elapsed    time.Duration
	correction time.Duration // trusted time is wall plus this
	basis      Basis
	confirmed  bool
	vouched    bool // some server has, now or before
	disputed   bool
	changedAt  time.Duration // elapsed time of the last step or start
	offsets    map[string]offset
	sources    []source
	soughtAt   time.Duration // elapsed time when all sources had last been asked
	heardAt    time.Duration // elapsed time of the last observation
	sought     bool          // they were, since the last step or start
	mark       Mark
	saved      Mark
}

// New checks the configuration. Until Restore the time is that of the wall.
func New(cfg Config) (*Clock, error) {
	if cfg.Log == nil {
		return nil, errors.New("clock: Log is missing")
	}
	if cfg.Wall == nil {
		cfg.Wall = time.Now
	}
	if cfg.Elapsed == nil {
		cfg.Elapsed = sinceBoot
	}
	c := &Clock{
		cfg: cfg, boot: cmp.Or(cfg.BootID, bootID()),
		seek: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		basis: BasisWall, confirmed: true, offsets: make(map[string]offset),
	}
	c.wall, c.elapsed = c.read()
	c.changedAt = c.elapsed
	return c, nil
}

// read takes the wall clock without its monotonic part, which stands still
// while the machine sleeps.
func (c *Clock) read() (time.Time, time.Duration) {
	return c.cfg.Wall().Round(0).UTC(), c.cfg.Elapsed()
}

// Restore takes over the mark of an earlier run, zero if there is none.
func (c *Clock) Restore(mark Mark) {
	c.mu.Lock()
	c.mark, c.saved = mark, mark
	c.wall, c.elapsed = c.read()
	c.begin()
	reading := c.reading()
	c.mu.Unlock()
	c.say(reading)
	c.nudge()
}

// begin derives the time from the wall clock and the mark alone.
func (c *Clock) begin() {
	c.changedAt, c.sought = c.elapsed, false
	c.correction, c.basis, c.confirmed, c.vouched = 0, BasisWall, true, false
	if c.mark.Time.IsZero() {
		return
	}
	least, exact := c.atLeast()
	switch ahead := c.wall.Sub(least); {
	case exact && ahead.Abs() > Tolerance:
		// The agent was restarted and the machine was not: what has passed
		// since the mark is known.
		c.correction, c.basis = -ahead, BasisHeld
	case ahead < -Tolerance:
		c.correction, c.basis, c.confirmed = -ahead, BasisMark, false
	case ahead > implausible && !exact:
		c.confirmed = false
	}
	// Not over a restart of the machine: one without a battery-backed clock
	// begins where it ended, however long it was off.
	c.vouched = exact && c.mark.Vouched
}

// atLeast is a time that has come. It is the present, as it was known before,
// if exact.
func (c *Clock) atLeast() (at time.Time, exact bool) {
	if c.mark.BootID != "" && c.mark.BootID == c.boot && c.elapsed >= c.mark.Elapsed {
		return c.mark.Time.Add(c.elapsed - c.mark.Elapsed), true
	}
	return c.mark.Time, false
}

// Now is the trusted time, in UTC and without a monotonic reading.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	before := c.correction
	c.look()
	now, reading := c.now(), c.reading()
	changed := (c.correction - before).Abs() > stepLimit
	c.mu.Unlock()
	if changed {
		c.say(reading)
		c.nudge()
	}
	return now
}

// Wall is the wall clock, for what is compared with times of others who go by
// it, such as those of files.
func (c *Clock) Wall() time.Time { return c.cfg.Wall().Round(0).UTC() }

func (c *Clock) now() time.Time { return c.wall.Add(c.correction) }

// look reads the clocks and finds out whether the wall clock was set.
func (c *Clock) look() {
	wall, elapsed := c.read()
	step := wall.Sub(c.wall) - (elapsed - c.elapsed)
	c.wall, c.elapsed = wall, elapsed
	maps.DeleteFunc(c.offsets, func(_ string, o offset) bool { return elapsed-o.at > freshFor })
	switch {
	case step.Abs() > stepLimit:
		c.stepped(step)
	case c.basis == BasisHeld && c.correction > 0:
		return // the wall clock was set back, which time does not do
	case c.basis == BasisHeld && c.sought && elapsed-c.changedAt > patience:
		// It was set ahead, and nobody answers. Perhaps it is right.
		c.confirmed = -c.correction < implausible
		c.correction, c.basis, c.vouched = 0, BasisWall, false
	}
}

func (c *Clock) stepped(by time.Duration) {
	for name, o := range c.offsets {
		o.offset -= by
		c.offsets[name] = o
	}
	switch {
	case len(c.offsets) > 0:
		// What was learnt in this run still holds: nothing stepped but the wall.
		c.correction -= by
		c.resolve(false)
	case c.confirmed:
		c.changedAt, c.sought = c.elapsed, false
		c.correction -= by
		c.basis = BasisHeld
		if c.correction.Abs() <= Tolerance {
			c.correction, c.basis = 0, BasisWall
		}
	default:
		// Nobody had vouched for the time before either.
		c.begin()
	}
}

// remember moves the mark on. Time that nobody vouches for would poison it.
func (c *Clock) remember() {
	if c.confirmed && (c.vouched || c.now().After(c.mark.Time)) {
		c.mark = c.marked()
	}
}

func (c *Clock) marked() Mark {
	return Mark{Time: c.now(), Elapsed: c.elapsed, BootID: c.boot, Vouched: c.vouched}
}

// say logs what the agent goes by, after a change.
func (c *Clock) say(r Reading) {
	if r.Basis != BasisWall || !r.Confirmed {
		c.cfg.Log.Warn("this host's clock is not to be trusted", "basis", r.Basis, "confirmed", r.Confirmed,
			"wall", r.Wall, "trusted", r.Now, "skew", r.Skew.String(), "mend", mend)
	} else {
		c.cfg.Log.Info("this host's clock is trusted", "wall", r.Wall)
	}
	if c.cfg.OnCorrection != nil {
		c.cfg.OnCorrection(r)
	}
}

func (c *Clock) nudge() {
	select {
	case c.wake <- struct{}{}:
	default: // one is on its way
	}
}

// turn takes the right to ask sources; release gives it back.
func (c *Clock) turn(ctx context.Context) error {
	select {
	case c.seek <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Clock) release() { <-c.seek }
