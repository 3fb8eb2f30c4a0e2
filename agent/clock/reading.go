package clock

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

const mend = "set the clock of this host, and see that a time service (chrony, systemd-timesyncd, w32time) keeps it"

// Reading is what the clock knows, for reports.
type Reading struct {
	Now  time.Time // trusted
	Wall time.Time
	// Skew is the wall clock minus the trusted time: positive when it is ahead.
	Skew  time.Duration
	Basis Basis
	// Confirmed says that nothing speaks against Now. If not, what is costly is
	// not begun because of it before a server has been asked.
	Confirmed bool
	// Disputed says that servers contradict each other, or one of them everything
	// that is known here.
	Disputed bool
	Sources  []Observation // by name
}

// Observation is what one server told.
type Observation struct {
	Name string
	// Skew is the wall clock minus the server's, and Bound how far that may be
	// wrong.
	Skew, Bound time.Duration
	Age         time.Duration
}

// Reading reads the clock.
func (c *Clock) Reading() Reading {
	c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reading()
}

func (c *Clock) reading() Reading {
	r := Reading{Now: c.now(), Wall: c.wall, Skew: -c.correction, Basis: c.basis, Confirmed: c.confirmed, Disputed: c.disputed}
	for _, name := range slices.Sorted(maps.Keys(c.offsets)) {
		o := c.offsets[name]
		r.Sources = append(r.Sources, Observation{Name: name, Skew: -o.offset, Bound: o.boundAt(c.elapsed), Age: c.elapsed - o.at})
	}
	if best := c.opinions(); c.basis == BasisWall && len(best) > 0 && best[0].wall {
		r.Skew = -best[0].offset.offset // too little to correct, and yet of interest
	}
	return r
}

// Warnings says in one line each what a person has to look at.
func (r Reading) Warnings() []string {
	var list []string
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case r.Basis == BasisObserved:
		list = append(list, fmt.Sprintf("the clock of this host is wrong by %s; it is %s, by the servers that were heard; %s", r.Skew.Round(time.Second), stamp(r.Now), mend))
	case r.Basis == BasisHeld:
		list = append(list, fmt.Sprintf("the clock of this host was set by %s, and no server has confirmed that; it is taken to be %s; %s", r.Skew.Round(time.Second), stamp(r.Now), mend))
	case r.Basis == BasisMark:
		list = append(list, fmt.Sprintf("the clock of this host says %s, which has long been; it is taken to be %s at least; %s", stamp(r.Wall), stamp(r.Now), mend))
	case !r.Confirmed:
		list = append(list, fmt.Sprintf("the clock of this host says %s, much later than when the agent last knew the time; renewals wait until a server confirms it; %s", stamp(r.Wall), mend))
	}
	if r.Disputed {
		text := "the servers that were heard do not agree on the time:"
		for _, o := range r.Sources {
			text += fmt.Sprintf(" %s says %s;", o.Name, stamp(r.Wall.Add(-o.Skew)))
		}
		list = append(list, text+" see to the time service of each")
	}
	return list
}
