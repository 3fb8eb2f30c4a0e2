package daybook

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/report"
)

// slack is by how much the clocks of leaders may differ. The journal is in the order of
// the log, and so only nearly in that of the facts' own times.
const slack = time.Hour

// counted is what was counted of the journal.
type counted struct {
	days    []*tally // that are not recorded for good, in their order; the last one is running
	through uint64   // log index up to which facts are counted
	gaps    history.Gaps
	// restored is when the state was last replaced by that of a backup, which may lack
	// days.
	restored time.Time
}

// tally is the count of one day.
type tally struct {
	date       string
	begin, end time.Time
	activity   *report.Activity
	// begun says that there was a cluster before the day was over, and any that there was
	// one in the day, of which something is known.
	begun, any bool
	// partial says that facts of it are gone, lacking that other nodes may have them.
	partial, lacking bool
	// told is what a fact says that was recorded; nil without one. The state lost it.
	told *fleet.Day
	done bool // recorded for good, or nothing to record
}

func (t *tally) sum() fleet.DayActivity {
	sum := t.activity.Sum()
	sum.Partial = t.partial || t.lacking
	return sum
}

// same reports whether a recorded activity is the one that was counted.
func same(stored, counted *fleet.DayActivity) bool {
	a, b := *stored, *counted
	a.EventsDropped, b.EventsDropped = nil, nil
	return reflect.DeepEqual(a, b)
}

// forget drops the days that are done.
func (c *counted) forget() {
	c.days = slices.DeleteFunc(c.days, func(t *tally) bool { return t.done })
}

// count brings the counts up to the end of the journal. It begins anew when the journal
// was filled up in its middle, or the state was replaced.
func (k *Keeper) count(ctx context.Context, now time.Time) error {
	status, err := k.config.Journal.Status()
	if err != nil {
		return err
	}
	view := k.config.Node.State().View()
	c := k.counted
	if c == nil || !slices.Equal(c.gaps, status.Gaps) || !c.restored.Equal(view.RestoredAt()) || c.elsewhen(now) {
		if c, err = k.begin(ctx, view, &status, now); err != nil {
			return err
		}
	} else {
		if status.Floor > c.through { // dropped for want of room before they were counted
			for _, day := range c.days {
				day.partial = true
			}
		}
		if !now.Before(c.end()) {
			c.days = append(c.days, k.tally(c.end(), true))
		}
	}
	k.counted = nil // until it is whole again
	if err := k.add(ctx, c, &status); err != nil {
		return err
	}
	k.counted = c
	return nil
}

// end is when the last of the days ends.
func (c *counted) end() time.Time { return c.days[len(c.days)-1].end }

// elsewhen reports whether the clock shows another day than the running one or that
// after it: it was wrong, or is, or the machine has slept.
func (c *counted) elsewhen(now time.Time) bool {
	return len(c.days) == 0 || now.Before(c.days[len(c.days)-1].begin) || now.Sub(c.end()) >= 24*time.Hour
}

func (k *Keeper) tally(begin time.Time, begun bool) *tally {
	return &tally{
		date: fleet.DateOf(begin), begin: begin, end: begin.AddDate(0, 0, 1), begun: begun, any: true,
		activity: report.NewActivity(health.Silence(k.config.Pause()), func(agent, certificate string) string {
			// Not of one view all day long, which would hold on to what has changed since.
			row, ok := k.config.Node.State().View().Certificate(agent, certificate)
			if !ok {
				return ""
			}
			return row.Columns.Issuer
		}),
	}
}

// begin finds the days that are not recorded, and where the first of them begins in the
// journal.
func (k *Keeper) begin(ctx context.Context, view *fleet.View, status *history.Status, now time.Time) (*counted, error) {
	c := &counted{gaps: status.Gaps, restored: view.RestoredAt(), through: status.Through}
	today, err := fleet.DayBegin(fleet.DateOf(now))
	if err != nil {
		return nil, err
	}
	for back := reach; back >= 0; back-- {
		begin := today.AddDate(0, 0, -back)
		if stored, ok := view.Day(fleet.DateOf(begin)); ok && stored.Final {
			continue
		}
		span, err := k.span(ctx, begin, status.Through)
		if err != nil {
			return nil, err
		}
		day := k.tally(begin, span[2] > 0)
		day.partial = status.Floor > span[0]
		day.lacking = len(status.Gaps.And(history.Gaps{{From: span[0] + 1, To: span[3]}})) > 0
		if back > 0 {
			// Without a fact there was no cluster, or it was down; or all routine facts of
			// the day are gone.
			day.any = span[2] > span[1] && status.Floor < span[2]
		}
		if !day.any && (back > 1 || !day.begun) {
			continue
		}
		c.days = append(c.days, day)
		c.through = min(c.through, span[0])
	}
	return c, nil
}

// span is up to which log indexes facts are of before a day, allowing for the clocks,
// before its beginning, before its end, and of before the next day, allowing for them.
func (k *Keeper) span(ctx context.Context, begin time.Time, through uint64) (indexes [4]uint64, err error) {
	end := begin.AddDate(0, 0, 1)
	for i, at := range []time.Time{begin.Add(-slack), begin, end, end.Add(slack)} {
		if indexes[i], err = k.seek(ctx, at, through); err != nil {
			return indexes, err
		}
	}
	return indexes, nil
}

// seek is the log index up to which facts are of before a moment, by bisection.
func (k *Keeper) seek(ctx context.Context, at time.Time, through uint64) (uint64, error) {
	low, high := uint64(0), through // facts up to low are earlier, those beyond high are not asked for
	for low < high {
		middle := low + (high-low)/2
		facts, _, err := k.config.Journal.Facts(ctx, history.Query{After: after(middle), Limit: 1})
		if err != nil {
			return 0, err
		}
		if len(facts) == 0 || facts[0].Index > high || !facts[0].Time.Before(at) {
			high = middle
			continue
		}
		low = facts[0].Index
	}
	return low, nil
}

// after is the cursor behind all facts up to a log index.
func after(index uint64) string {
	return history.Cursor(fleet.Fact{Index: index, Ordinal: math.MaxUint32})
}

// countedKinds are the facts that are looked at.
var countedKinds = append([]fleet.Kind{fleet.KindDayRecorded}, report.ActivityKinds...)

// add counts the facts that have come in. Each page is a short transaction, so that the
// journal's file is not held up, and the leader's other work goes on beside.
func (k *Keeper) add(ctx context.Context, c *counted, status *history.Status) error {
	query := history.Query{After: after(c.through), Limit: history.MaxLimit, Kinds: countedKinds}
	if c.through == 0 {
		query.After = ""
	}
	for {
		facts, next, err := k.config.Journal.Facts(ctx, query)
		if err != nil {
			return err
		}
		for i := range facts {
			if facts[i].Index <= status.Through {
				c.take(&facts[i])
			}
		}
		if next == "" {
			break
		}
		index, _, err := history.Position(next)
		if err != nil {
			return fmt.Errorf("the place after which the journal goes on: %w", err)
		}
		if index > status.Through {
			break
		}
		query.After = next
	}
	c.through = status.Through
	return nil
}

// take counts one fact.
func (c *counted) take(f *fleet.Fact) {
	if f.Kind == fleet.KindDayRecorded {
		if day := c.of(f.Object); day != nil {
			day.tell(f)
		}
		return
	}
	if day := c.of(fleet.DateOf(f.Time)); day != nil {
		day.activity.Add(f)
	}
}

// of is the tally of a date; nil if it is not wanted. There are few.
func (c *counted) of(date string) *tally {
	for i := len(c.days) - 1; i >= 0; i-- {
		if c.days[i].date == date {
			return c.days[i]
		}
	}
	return nil
}

// tell takes what the day was recorded as, before the state was replaced by an older one.
func (t *tally) tell(f *fleet.Fact) {
	day := new(fleet.Day)
	if json.Unmarshal(f.Detail, day) == nil && day.Date == t.date && day.Final {
		t.told = day
	}
}
