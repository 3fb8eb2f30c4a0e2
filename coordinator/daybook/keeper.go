package daybook

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/jitter"
)

const (
	// lookInterval is how often the leader looks whether there is anything to record.
	lookInterval = 5 * time.Minute
	// settled is how long after its end a day is recorded at the earliest: clocks of
	// leaders differ a little, and the journal is a moment behind the state.
	settled = 2 * time.Minute
	// forGaps is how long a day waits for facts that the other nodes have.
	forGaps = time.Hour
	// punctual is until when after a day's end the fleet is counted for it. Later it
	// would be the standing of another time.
	punctual = 6 * time.Hour
	// runningInterval is how often a running day is recorded, if anything came in.
	runningInterval = 15 * time.Minute
	// reach is how many days that nobody has recorded are counted afterwards.
	reach = 90
)

// Node is the replicated state; *cluster.Node is one.
type Node interface {
	State() *fleet.State
	Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error)
}

// Journal has the facts; *history.Journal is one.
type Journal interface {
	history.Reader
	Status() (history.Status, error)
}

// Config of a Keeper. All but Presence and Now are required.
type Config struct {
	Node    Node
	Journal Journal
	// Pause is how long hosts are told to wait between syncs, at present. Who was silent
	// for several of them counts as cut off.
	Pause func() time.Duration
	// Presence knows when agents were last heard of; nil: the replicated state alone does.
	Presence Presence
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now
}

// Presence knows when agents were last heard of; *agentapi.Service is one.
type Presence interface {
	LastSeen(agentID string) (time.Time, bool)
}

// Keeper records days while its node leads.
type Keeper struct {
	config Config

	// What follows belongs to the goroutine that keeps.
	counted  *counted // nil: nothing is counted yet
	recorded time.Time
	early    bool // it was said that a member is still to be upgraded
}

// New checks the configuration.
func New(c Config) (*Keeper, error) {
	if c.Node == nil || c.Journal == nil || c.Pause == nil || c.Log == nil {
		return nil, errors.New("daybook: one of Node, Journal, Pause and Log is missing")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Keeper{config: c}, nil
}

// Leadership is where the leader's work is registered; *cluster.Node is one.
type Leadership interface {
	Lead(name string, work func(ctx context.Context) error)
}

// Lead registers what the keeper does while this node leads. It is called before the
// node runs.
func (k *Keeper) Lead(node Leadership) { node.Lead("days", k.keep) }

// keep records days until ctx is done. What was counted in an earlier term is gone on
// with: other leaders have counted the same.
func (k *Keeper) keep(ctx context.Context) error {
	soon := make(chan struct{}, 1)
	soon <- struct{}{} // for the days that nobody has recorded
	jitter.Loop(ctx, lookInterval, jitter.DefaultSchedulerJitter, soon, k.look)
	return nil
}

// look records what is to be recorded.
func (k *Keeper) look(ctx context.Context) {
	err := k.record(ctx)
	switch {
	case err == nil:
		k.early = false
	case ctx.Err() != nil:
	case errors.As(err, new(*cluster.LevelError)):
		if !k.early {
			k.config.Log.Info("days are recorded once all coordinators have been upgraded", "err", err)
		}
		k.early = true
	default:
		k.config.Log.Warn("what this day came to was not recorded; it is tried again", "err", err)
	}
}

func (k *Keeper) record(ctx context.Context) error {
	now := k.config.Now().UTC()
	if err := k.count(ctx, now); err != nil {
		return err
	}
	for _, tally := range k.counted.days {
		var err error
		if now.Before(tally.end) {
			err = k.running(ctx, tally, now)
		} else {
			err = k.finish(ctx, tally, now)
		}
		if err != nil {
			return err
		}
	}
	k.counted.forget()
	return nil
}

// finish records a day that is over.
func (k *Keeper) finish(ctx context.Context, tally *tally, now time.Time) error {
	view := k.config.Node.State().View()
	if stored, ok := view.Day(tally.date); ok && stored.Final {
		tally.done = true
		return nil
	}
	late := now.Sub(tally.end)
	if late < settled || late < forGaps && tally.lacking {
		return nil
	}
	day, err := k.day(ctx, view, tally, now)
	if err != nil {
		return err
	}
	if day == nil { // nothing is known of it, and nothing is made up
		tally.done = true
		return nil
	}
	recorded, err := k.propose(ctx, day)
	if err != nil {
		return err
	}
	tally.done = true
	if recorded {
		k.config.Log.Info("day recorded", "date", day.Date, "renewed", day.Activity.Renewed, "failed", day.Activity.Failed,
			"standing", day.Standing != nil, "partial", day.Activity.Partial)
	}
	return nil
}

// day is what is recorded of a day that is over; nil if nothing is known of it.
func (k *Keeper) day(ctx context.Context, view *fleet.View, tally *tally, now time.Time) (*fleet.Day, error) {
	if tally.told != nil {
		return tally.told, nil
	}
	day := &fleet.Day{Date: tally.date, Final: true, Activity: tally.sum()}
	if now.Sub(tally.end) < punctual && tally.begun {
		standing, err := k.standing(ctx, view, now)
		if err != nil {
			return nil, err
		}
		day.Standing = standing
		day.Activity.EventsDropped = dropped(view, tally, standing)
	}
	if day.Standing == nil && !tally.any {
		return nil, nil
	}
	return day, nil
}

// dropped is how many facts hosts had to drop since the day before was counted, if it
// was. Those of hosts that were retired since, or set up anew, are not counted any more,
// so that it can seem less than it was, and never less than none.
func dropped(view *fleet.View, tally *tally, standing *fleet.DayStanding) *uint64 {
	before, ok := view.Day(fleet.DateOf(tally.begin.Add(-time.Hour)))
	if !ok || before.Standing == nil {
		return nil
	}
	n := uint64(0)
	if standing.EventsDropped > before.Standing.EventsDropped {
		n = standing.EventsDropped - before.Standing.EventsDropped
	}
	return &n
}

// running records what has come in today so far, if that is more than what is recorded.
func (k *Keeper) running(ctx context.Context, tally *tally, now time.Time) error {
	if since := now.Sub(k.recorded); since >= 0 && since < runningInterval {
		return nil
	}
	sum := tally.sum()
	stored, ok := k.config.Node.State().View().Day(tally.date)
	if !ok && sum.Renewed+sum.Failed == 0 || ok && (stored.Final || same(&stored.Activity, &sum)) {
		return nil
	}
	if _, err := k.propose(ctx, &fleet.Day{Date: tally.date, Activity: sum}); err != nil {
		return err
	}
	k.recorded = now
	return nil
}

func (k *Keeper) propose(ctx context.Context, day *fleet.Day) (recorded bool, err error) {
	command, err := fleet.NewCommand(k.config.Now(), fleet.RecordDay{Day: *day})
	if err != nil {
		return false, err
	}
	results, err := k.config.Node.Propose(ctx, command)
	if err != nil {
		return false, err
	}
	var outcome fleet.RecordedDay
	err = results[0].Decode(&outcome)
	return outcome.Recorded, err
}
