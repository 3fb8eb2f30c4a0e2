package metrics

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/wire"
)

// Store is the agent's state file; *store.Store is one.
type Store interface {
	Changes(after uint64, limit int) (store.Changes, error)
	Horizon(now time.Time) (store.HostHorizon, error)
	Outbox() (waiting int, dropped uint64, err error)
}

// Config of a Reporter. Listen and TextFile are off when they are empty; all
// else is required.
type Config struct {
	Store Store
	// Link is how the agent stands with its coordinator, and Clock what it knows
	// about the time.
	Link  func() sync.State
	Clock func() clock.Reading
	// Warnings are findings about the host that a person has to look at.
	Warnings func() ([]string, error)
	Outcomes *Outcomes
	// Started is when the agent was started.
	Started time.Time

	// Listen is the address, host:port, that /metrics is served on.
	Listen string
	// TextFile is an absolute path, ending in .prom, that is written anew every
	// TextFileInterval.
	TextFile         string
	TextFileInterval time.Duration

	Log *slog.Logger
}

func (c *Config) validate() error {
	switch {
	case c.Store == nil, c.Link == nil, c.Clock == nil, c.Warnings == nil, c.Outcomes == nil, c.Log == nil:
		return errors.New("metrics: one of Store, Link, Clock, Warnings, Outcomes and Log is missing")
	case c.TextFile != "" && c.TextFileInterval <= 0:
		return fmt.Errorf("metrics: TextFileInterval %s is not positive", c.TextFileInterval)
	}
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			return fmt.Errorf("metrics: Listen: %w", err)
		}
	}
	return nil
}

// Reporter tells how the agent stands.
type Reporter struct {
	cfg       Config
	inventory inventory
	busy      chan struct{} // holds one value for each request that is answered
	listening chan net.Addr // the address, once it is known
}

// New checks the configuration. It touches nothing.
func New(c Config) (*Reporter, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &Reporter{cfg: c, busy: make(chan struct{}, maxRequests), listening: make(chan net.Addr, 1)}, nil
}

// states are those of a certificate, in the order of the output.
var states = []wire.State{wire.StatePending, wire.StateRenewing, wire.StateValid, wire.StateFailed}

// facts are what a report is made of. They are gathered before anything is
// written: a reader that is slow holds up nobody.
type facts struct {
	certificates []*certificate
	horizon      store.HostHorizon
	waiting      int
	dropped      uint64
	warnings     int
	link         sync.State
	clock        clock.Reading
	outcomes     []outcomeCount
}

func (r *Reporter) gather() (f facts, err error) {
	if f.certificates, err = r.inventory.follow(r.cfg.Store.Changes); err != nil {
		return f, fmt.Errorf("metrics: read the certificates: %w", err)
	}
	f.link, f.clock, f.outcomes = r.cfg.Link(), r.cfg.Clock(), r.cfg.Outcomes.list()
	if f.horizon, err = r.cfg.Store.Horizon(f.clock.Now); err != nil {
		return f, fmt.Errorf("metrics: read the offline horizon: %w", err)
	}
	if f.waiting, f.dropped, err = r.cfg.Store.Outbox(); err != nil {
		return f, fmt.Errorf("metrics: read the outbox: %w", err)
	}
	found, err := r.cfg.Warnings()
	if err != nil {
		return f, fmt.Errorf("metrics: read the warnings: %w", err)
	}
	f.warnings = len(found)
	return f, nil
}

// Write writes a report in the text exposition format.
func (r *Reporter) Write(w io.Writer) error {
	f, err := r.gather()
	if err != nil {
		return err
	}
	e := newExposition(w)
	r.writeHost(e, &f)
	writeCertificates(e, f.certificates)
	return e.finish()
}

func (r *Reporter) writeHost(e *exposition, f *facts) {
	build := buildinfo.Get()
	e.begin(buildInfo)
	e.sample(1, build.Version, build.Commit, build.GoVersion, build.Platform)
	e.one(startTime, seconds(r.cfg.Started))

	e.begin(hostSafe)
	if f.horizon.SafeUntil != nil {
		e.moment(*f.horizon.SafeUntil)
	}
	e.one(notSafe, float64(len(f.horizon.NotSafe)))
	counts := make(map[wire.State]int, len(states))
	asking, out := 0, 0
	for _, c := range f.certificates {
		counts[c.state]++
		if c.attention {
			asking++
		}
		if c.safeUntil.IsZero() {
			out++
		}
	}
	e.begin(certificates)
	for _, s := range states {
		e.sample(float64(counts[s]), string(s))
	}
	e.one(attention, float64(asking))
	e.one(unserved, float64(out))
	e.begin(renewals)
	for _, o := range f.outcomes {
		e.sample(float64(o.n), o.issuer, string(o.outcome))
	}

	e.one(warnings, float64(f.warnings))
	e.one(enrolled, truth(f.link.Standing != sync.NotEnrolled))
	e.one(connected, truth(f.link.Standing == sync.Connected))
	e.begin(coordinatorInfo)
	if f.link.Server != "" && f.link.Standing != sync.NotEnrolled && f.link.Standing != sync.Retired {
		e.sample(1, f.link.Server)
	}
	e.begin(lastSync)
	e.moment(f.link.LastSuccess)
	e.begin(cutOffSince)
	e.moment(f.link.CutOffSince)
	e.begin(identityEnd)
	e.moment(f.link.IdentityNotAfter)
	e.one(outbox, float64(f.waiting))
	e.one(dropped, float64(f.dropped))
	e.one(clockSkew, f.clock.Skew.Seconds())
	e.one(clockConfirmed, truth(f.clock.Confirmed))
}

func writeCertificates(e *exposition, list []*certificate) {
	each := func(f *Family, write func(c *certificate)) {
		e.begin(f)
		for _, c := range list {
			write(c)
		}
	}
	each(notAfter, func(c *certificate) { e.moment(c.notAfter, c.name) })
	each(renewAt, func(c *certificate) { e.moment(c.renewAt, c.name) })
	each(safeUntil, func(c *certificate) { e.moment(c.safeUntil, c.name) })
	each(served, func(c *certificate) { e.sample(truth(!c.safeUntil.IsZero()), c.name) })
	each(state, func(c *certificate) {
		for _, s := range states {
			e.sample(truth(c.state == s), c.name, string(s))
		}
	})
	each(needsAttention, func(c *certificate) { e.sample(truth(c.attention), c.name) })
	each(certificateInfo, func(c *certificate) { e.sample(1, c.name, c.issuer) })
}
