package clock

import (
	"context"
	"slices"
	"time"

	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/jitter"
)

const (
	// lookEvery is how often a step of the wall clock is looked for when nobody
	// asks for the time.
	lookEvery = 10 * time.Second
	// saveEvery is how often the mark is stored: an idle agent must hardly write.
	saveEvery = time.Hour
	// askLimit bounds one question.
	askLimit = 20 * time.Second
	// confirmGap lies between two rounds of questions that decisions ask for.
	confirmGap = time.Minute
)

// asking is the pause between rounds of questions while the time is not certain.
var asking = backoff.Policy{Initial: 30 * time.Second, Max: 30 * time.Minute, Multiplier: 2, Jitter: 0.2}

// Coordinator is the name of the coordinator's servers.
const Coordinator = "coordinator"

// source is somebody who can be asked.
type source struct {
	name string
	ask  func(context.Context) error
}

// AddSource names a server that can be asked for the time. ask returns nil
// after it has called Observe or Probe with that name; it is called by one
// goroutine at a time. A name that is known is asked by the new ask from now on.
func (c *Clock) AddSource(name string, ask func(context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := slices.IndexFunc(c.sources, func(s source) bool { return s.name == name })
	switch {
	case at >= 0:
		// Not in place: who goes through the sources does so on what there was.
		c.sources = slices.Clone(c.sources)
		c.sources[at].ask = ask
	case len(c.sources) < maxOffsets:
		c.sources = append(slices.Clip(c.sources), source{name: name, ask: ask})
	}
}

// RemoveSource has a server not asked any more. What it said still counts for as
// long as it would.
func (c *Clock) RemoveSource(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sources = slices.DeleteFunc(slices.Clone(c.sources), func(s source) bool { return s.name == name })
}

// Run looks for steps of the wall clock, asks the sources while the time is not
// certain, and stores the mark, until ctx is done; then it returns nil.
func (c *Clock) Run(ctx context.Context) error {
	var (
		round   int
		askAt   time.Duration
		savedAt = c.cfg.Elapsed() - saveEvery
	)
	jitter.Loop(ctx, lookEvery, jitter.DefaultSchedulerJitter, c.wake, func(ctx context.Context) {
		c.Now()
		elapsed := c.cfg.Elapsed()
		if !c.uncertain() {
			round, askAt = 0, 0
		} else if elapsed >= askAt || c.news() {
			round++
			if c.askAll(ctx) != nil {
				return // the end
			}
			askAt = c.cfg.Elapsed() + asking.Delay(round, nil)
		}
		if elapsed-savedAt >= saveEvery {
			savedAt = elapsed
			c.save()
		}
	})
	c.save()
	return nil
}

// uncertain reports whether another opinion would be of use.
func (c *Clock) uncertain() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.confirmed || c.disputed || c.basis == BasisHeld || c.basis == BasisMark
}

// news reports whether a server was heard since all were asked, so that others
// may be within reach again too.
func (c *Clock) news() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heardAt > c.soughtAt && c.elapsed-c.soughtAt >= confirmGap
}

// Confirm is asked before something costly is begun for no other reason than
// the time. It returns true when the time is confirmed, if need be after asking
// every source. It returns false only where waiting costs nothing: when the
// named source, without which the thing could not be done anyway, does not
// answer either. "" is for what needs no source.
func (c *Clock) Confirm(ctx context.Context, name string) bool {
	if c.Reading().Confirmed {
		return true
	}
	if c.turn(ctx) != nil {
		return false
	}
	c.mu.Lock()
	due := !c.sought || c.elapsed-c.soughtAt >= confirmGap
	c.mu.Unlock()
	var err error
	if due {
		err = c.round(ctx)
	}
	c.release()
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := slices.ContainsFunc(c.sources, func(s source) bool { return s.name == name })
	heard, answered := c.offsets[name]
	return c.confirmed || !known || answered && c.elapsed-heard.at <= freshFor
}

// askAll asks every source once. Its error is ctx's.
func (c *Clock) askAll(ctx context.Context) error {
	if err := c.turn(ctx); err != nil {
		return err
	}
	defer c.release()
	return c.round(ctx)
}

// round is askAll within a turn.
func (c *Clock) round(ctx context.Context) error {
	c.mu.Lock()
	sources := slices.Clone(c.sources)
	c.mu.Unlock()
	for _, s := range sources {
		limited, cancel := context.WithTimeout(ctx, askLimit)
		err := s.ask(limited)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			c.cfg.Log.Info("a server could not be asked for the time", "source", s.name, "err", err)
		}
	}
	c.mu.Lock()
	before := c.reading()
	c.look()
	c.sought, c.soughtAt = true, c.elapsed
	c.resolve(true)
	after := c.reading()
	c.mu.Unlock()
	if after.Confirmed != before.Confirmed {
		c.say(after)
	}
	return nil
}

// save stores the mark, if it has moved.
func (c *Clock) save() {
	c.mu.Lock()
	c.look()
	c.remember()
	mark, changed := c.mark, c.mark != c.saved
	c.mu.Unlock()
	if !changed || c.cfg.Save == nil {
		return
	}
	if err := c.cfg.Save(mark); err != nil {
		c.cfg.Log.Error("the time could not be stored; after a restart a wrong clock may go unnoticed", "err", err)
		return
	}
	c.mu.Lock()
	c.saved = mark
	c.mu.Unlock()
}
