package postgres

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/history"
)

// maxBacklog is up to where the facts that wait are counted.
const maxBacklog = 1_000_000

// Status is how the export stands on this node.
type Status struct {
	// Leads tells that this node leads, and so is the one that exports. All that
	// follows but MaxConns is empty on others.
	Leads bool
	// Attached tells that the database is this cluster's and can be read.
	Attached bool
	// Refused tells that the database is not used for a reason that a person has to
	// look at; Err is the reason.
	Refused bool

	ServerVersion string
	MaxConns      int
	Connections   int // that the pool has now
	Granted       int // connections that the server grants
	Warning       string

	Through uint64 // newest log index whose facts are in the database
	Facts   uint64 // that the database was given in all
	// Missing are log indexes up to Through whose facts no leader has had yet.
	Missing history.Gaps
	// Floor is the newest log index of which routine facts were gone before they
	// could be exported; 0 if none were.
	Floor uint64
	// Waiting are the facts that are in the journal and not in the database.
	Waiting history.Backlog

	Exported   uint64    // facts, since this node leads
	ExportedAt time.Time // when the newest of them were stored
	Err        error     // why the last attempt failed; nil if it went well
	ErrAt      time.Time
	Failures   uint64 // since this node leads
}

// Lag is for how long the oldest fact has waited.
func (s Status) Lag(now time.Time) time.Duration {
	if s.Waiting.Oldest.IsZero() {
		return 0
	}
	return max(0, now.Sub(s.Waiting.Oldest))
}

// Status is how the export stands now.
func (e *Exporter) Status() Status {
	e.mu.Lock()
	s, t := e.status, e.tenure
	e.mu.Unlock()
	if t == nil {
		return s
	}
	s.Connections = int(t.pool.Stat().TotalConns())
	s.Waiting = e.backlog.count(e.config.Journal, s.Through)
	return s
}

// countShare bounds what counting may cost: one part in so many of the time of one
// processor, however often it is asked for.
const countShare = 20

// A tally is the last count of the facts that wait. One that took a moment is kept for
// many of them, one that took none is made afresh.
type tally struct {
	mu       sync.Mutex // held while counting: those who ask meanwhile share the result
	last     history.Backlog
	keep     time.Duration
	finished time.Time // by the monotonic clock
}

func (c *tally) count(journal Journal, through uint64) history.Backlog {
	c.mu.Lock()
	defer c.mu.Unlock()
	began := time.Now()
	if began.Sub(c.finished) < c.keep {
		return c.last
	}
	if waiting, err := journal.Backlog(through, maxBacklog); err == nil {
		c.last = waiting
	}
	c.finished = time.Now()
	took := c.finished.Sub(began)
	if c.keep = 0; took > 10*time.Millisecond {
		c.keep = countShare * took
	}
	return c.last
}

// attached notes what the database has said.
func (e *Exporter) attached(about server, warning string, m *mark) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &e.status
	s.Attached, s.Refused, s.ServerVersion, s.Granted, s.Warning = true, false, about.version, about.granted, warning
	s.note(m)
}

func (s *Status) note(m *mark) {
	s.Through, s.Facts, s.Missing, s.Floor = m.through, m.facts, m.gaps, m.floor
}

// exported notes that a portion is stored.
func (e *Exporter) exported(p *portion, m *mark) {
	e.mu.Lock()
	lost := m.floor > e.status.Floor
	e.status.note(m)
	e.status.Exported += uint64(len(p.facts))
	e.status.ExportedAt = e.config.Now()
	e.mu.Unlock()
	if lost {
		e.log.Warn("routine facts were dropped from the journal before they could be exported", "through", m.floor)
	}
}

// recovered notes that the export goes well.
func (e *Exporter) recovered(t *tenure) {
	if t.failures == 0 {
		return
	}
	e.mu.Lock()
	e.status.Err, e.status.ErrAt = nil, time.Time{}
	e.mu.Unlock()
	e.log.Info("the export to the database goes on", "failures", t.failures)
	t.failures, t.wait, t.told = 0, time.Time{}, ""
}

// tellAgain is how soon a failure that goes on is logged again.
const tellAgain = 10 * time.Minute

// failed notes a failure, and when to try again.
func (e *Exporter) failed(t *tenure, err error) {
	t.mark = nil
	if errors.Is(err, errMoved) || errors.Is(err, errBehind) {
		return // the next look begins anew
	}
	now := e.config.Now()
	t.failures++
	pause := e.config.retry.Delay(t.failures, nil)
	t.wait = now.Add(pause)
	if slow(err) {
		t.size = max(t.size/2, minFacts)
	}
	refused := isRefusal(err)
	e.mu.Lock()
	s := &e.status
	s.Err, s.ErrAt, s.Refused = err, now, refused
	s.Failures++
	if refused {
		s.Attached = false
	}
	e.mu.Unlock()
	if text := err.Error(); text != t.told || now.Sub(t.toldAt) >= tellAgain {
		t.told, t.toldAt = text, now
		e.log.Warn("facts cannot be exported to the database; they wait in the journal", "err", err, "failures", t.failures, "retry_in", pause)
	}
}

func isRefusal(err error) bool {
	for _, reason := range []error{ErrOtherCluster, ErrAhead, ErrOtherLife, ErrNewer, ErrForeign, ErrReadOnly, ErrTooOld} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// slow says whether less at once may go better.
func slow(err error) bool {
	c := code(err)
	return c == "57014" || c == "53200" || c == "" && errors.Is(err, context.DeadlineExceeded)
}
