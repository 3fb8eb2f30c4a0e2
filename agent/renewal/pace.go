package renewal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certctl/certctl/shared/jitter"
)

// Pace is how much an engine does at a time, and how long it waits. Zero values
// stand for the defaults, that of KeepRemoved for itself.
type Pace struct {
	// Concurrency is how many certificates are worked on at the same time.
	Concurrency int
	// TickInterval is how often the schedule is looked at, and TickBudget how
	// long one look may go on starting work.
	TickInterval time.Duration
	TickBudget   time.Duration
	// IssueTimeout bounds one call of an issuer.
	IssueTimeout time.Duration
	// KeepRemoved is how long the state of a certificate that is not configured
	// any more is kept, in case that it comes back; 0 forgets it at once.
	KeepRemoved time.Duration
}

// checked puts the defaults in.
func (p Pace) checked() (Pace, error) {
	var problems []error
	if p.Concurrency < 0 {
		problems = append(problems, fmt.Errorf("concurrency %d: must be at least 1", p.Concurrency))
	}
	if p.Concurrency == 0 {
		p.Concurrency = DefaultConcurrency
	}
	if p.KeepRemoved < 0 {
		problems = append(problems, fmt.Errorf("retention of removed certificates %v: must not be negative", p.KeepRemoved))
	}
	problems = append(problems,
		orUsual("tick interval", &p.TickInterval, DefaultTickInterval),
		orUsual("tick budget", &p.TickBudget, DefaultTickBudget),
		orUsual("issue timeout", &p.IssueTimeout, DefaultIssueTimeout),
	)
	return p, errors.Join(problems...)
}

// orUsual puts a default in the place of 0.
func orUsual(name string, value *time.Duration, usual time.Duration) error {
	if *value < 0 {
		return fmt.Errorf("%s %v: must be above zero", name, *value)
	}
	if *value == 0 {
		*value = usual
	}
	return nil
}

// SetPace changes the pace, at any time and from any goroutine. Calls that were
// begun end with the time limit that they began with, and a lower Concurrency ends
// nothing. An error changes nothing.
func (e *Engine) SetPace(p Pace) error {
	p, err := p.checked()
	if err != nil {
		return fmt.Errorf("renewal: %w", err)
	}
	e.mu.Lock()
	before := e.pace
	e.pace = p
	if before.TickInterval != p.TickInterval && e.recast != nil {
		e.recast()
	}
	e.mu.Unlock()
	e.slots.resize(p.Concurrency)
	if before.KeepRemoved != p.KeepRemoved {
		e.forgetSoon()
	}
	e.nudge()
	return nil
}

func (e *Engine) currentPace() Pace {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pace
}

// loop ticks until ctx is done. Another interval is another loop; what the ticks
// of the one before have started is not touched by its end.
func (e *Engine) loop(ctx context.Context) {
	for ctx.Err() == nil {
		beat, end := context.WithCancel(ctx)
		e.mu.Lock()
		e.recast = end
		interval := e.pace.TickInterval
		e.mu.Unlock()
		jitter.Loop(beat, interval, jitter.DefaultSchedulerJitter, e.wake, func(context.Context) { e.tick(ctx) })
		end()
	}
}
