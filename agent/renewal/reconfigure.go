package renewal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
)

// roster is what is configured at one time. It never changes; a reload puts
// another one in its place.
type roster struct {
	managed map[string]*managed
	names   []string // sorted
}

func newRoster(list []Managed) (*roster, error) {
	r := &roster{managed: make(map[string]*managed, len(list))}
	var problems []error
	for _, one := range list {
		m, err := newManaged(one)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if r.managed[m.Name] != nil {
			problems = append(problems, fmt.Errorf("managed certificate %q is listed twice; give each its own name", m.Name))
		}
		r.managed[m.Name] = m
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	r.names = slices.Sorted(maps.Keys(r.managed))
	return r, nil
}

// Changes says what a new configuration changed, by the names of certificates,
// sorted.
type Changes struct {
	Added     []string
	Removed   []string
	Changed   []string
	Unchanged int
}

// Any reports whether there are any.
func (c *Changes) Any() bool { return len(c.Added)+len(c.Removed)+len(c.Changed) > 0 }

// Reconfigure puts another list of managed certificates, the whole one, in the
// place of the present one. It may be called at any time and from any goroutine,
// and does not wait: the records follow soon, in the engine's own time. An error
// names every certificate that is wrong, and changes nothing.
//
// What is under way is never dropped, cancelled or done twice: a certificate that
// is worked on ends its step with the configuration that the step began with, and
// everything after that is decided with the new one, as it would be after a
// restart. A certificate that is not in the list is not worked on any more, and
// kept for Pace.KeepRemoved; if it comes back in time it goes on where it was.
func (e *Engine) Reconfigure(list []Managed) (Changes, error) {
	next, err := newRoster(list)
	if err != nil {
		return Changes{}, fmt.Errorf("renewal: %w", err)
	}
	e.mu.Lock()
	var did Changes
	for _, name := range next.names {
		m, before := next.managed[name], e.roster.managed[name]
		switch {
		case before == nil:
			did.Added = append(did.Added, name)
		case before.sameAs(m):
			did.Unchanged++
		default:
			did.Changed = append(did.Changed, name)
		}
	}
	for _, name := range e.roster.names {
		if next.managed[name] == nil {
			did.Removed = append(did.Removed, name)
		}
	}
	e.roster = next
	// What counts for the records is what they were brought in line with, which
	// may be an earlier configuration than the last one.
	for name, m := range next.managed {
		if before := e.applied[name]; before != nil && before.sameAs(m) {
			e.applied[name] = m
			delete(e.pending, name)
		} else {
			e.pending[name] = true
		}
	}
	for name := range e.applied {
		if next.managed[name] == nil {
			e.pending[name] = true
		}
	}
	for name := range e.pending {
		delete(e.blocked, name) // what was wrong may have been mended
		if next.managed[name] == nil && e.applied[name] == nil {
			delete(e.pending, name) // it came and went before anything was done about it
		}
	}
	e.slots.serve(issuerNames(next.managed))
	e.mu.Unlock()
	e.nudge()
	return did, nil
}

// configured is the present roster.
func (e *Engine) configured() *roster {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.roster
}

// workable returns a certificate's configuration if its record is in line with
// it. Nothing else may be worked on. Call with e.mu held.
func (e *Engine) workable(name string) (*managed, bool) {
	m := e.roster.managed[name]
	return m, m != nil && !e.pending[name]
}

// current is workable for who does not hold e.mu.
func (e *Engine) current(name string) (*managed, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.workable(name)
}

// follow waits until the record of a certificate is in line with its
// configuration, for followWait at most. Its result does not matter: whoever asks
// looks again.
func (e *Engine) follow(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, followWait)
	defer cancel()
	for {
		e.mu.Lock()
		_, ok := e.workable(name)
		over, followed := ok || e.roster.managed[name] == nil, e.followed
		e.mu.Unlock()
		if over {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-followed:
		}
	}
}

// sameAs reports whether neither record nor schedule can tell the two apart.
func (m *managed) sameAs(other *managed) bool {
	return m.digest == other.digest && m.ReuseKey == other.ReuseKey &&
		slices.EqualFunc(m.Issuers, other.Issuers, func(a, b NamedIssuer) bool {
			_, informs := a.Issuer.(issuer.RenewalInformer)
			_, otherInforms := b.Issuer.(issuer.RenewalInformer)
			return a.Name == b.Name && a.Config == b.Config && a.Limits == b.Limits && a.Issuer.Kind() == b.Issuer.Kind() && informs == otherInforms
		}) &&
		slices.EqualFunc(m.Deployments, other.Deployments, func(a, b Deployment) bool {
			return a.ID == b.ID && a.Config == b.Config
		})
}

// application is one certificate whose record is to follow its configuration.
type application struct {
	name string
	m    *managed // nil if it is not configured any more
	// before is what the record is in line with; nil if that is not known.
	before *managed
}

// applicable lists what is to be applied to certificates that nobody works on.
// Only the goroutine that starts work may ask: what it is told is free stays so.
func (e *Engine) applicable(now time.Time) (staying, leaving []application) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(e.pending)) {
		if _, busy := e.working[name]; busy {
			continue // its end asks for another look
		}
		if b, is := e.blocked[name]; is && !reached(b.until, now) {
			continue // it could not be stored a moment ago
		}
		a := application{name: name, m: e.roster.managed[name], before: e.applied[name]}
		if a.m == nil {
			leaving = append(leaving, a)
		} else {
			staying = append(staying, a)
		}
	}
	return staying, leaving
}

// apply brings the records of certificates whose configuration is new in line
// with it: makes those that are missing, takes up again those that were set
// aside, sets aside those that are not configured any more, and draws up their
// schedule. Records of renewals under way stay as they are and are due.
// Verification of what is in service is spread over spread.
func (e *Engine) apply(ctx context.Context, spread time.Duration) error {
	staying, leaving := e.applicable(e.now())
	if len(staying)+len(leaving) == 0 {
		return nil
	}
	for _, step := range []struct {
		list []application
		do   func([]application) error
	}{{leaving, e.retireAll}, {staying, func(batch []application) error { return e.takeUp(batch, spread) }}} {
		for batch := range slices.Chunk(step.list, applyBatch) {
			if stopping(ctx) || e.stopped() {
				return nil
			}
			err := step.do(batch)
			if _, full := errors.AsType[*notStoredError](err); full {
				// What is stored still stands; a later look tries again.
				e.log.Error("certificates cannot follow their configuration", "first", batch[0].name, "certificates", len(batch), "err", err)
				e.blockAll(batch, err)
				continue
			}
			if err != nil {
				return err
			}
			e.appliedAll(batch)
		}
	}
	e.changed()
	return nil
}

func (e *Engine) blockAll(batch []application, err error) {
	until := e.now().Add(blockPause)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range batch {
		e.blocked[a.name] = block{until: until, err: err}
	}
}

// appliedAll notes what records are in line with now.
func (e *Engine) appliedAll(batch []application) {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.followed)
	e.followed = make(chan struct{})
	for _, a := range batch {
		if a.m == nil {
			delete(e.applied, a.name)
			delete(e.looks, a.name)
			delete(e.verifyAt, a.name)
		} else {
			e.applied[a.name] = a.m
		}
		delete(e.blocked, a.name)
		now := e.roster.managed[a.name]
		if now == a.m || now != nil && a.m != nil && now.sameAs(a.m) {
			if now != nil {
				e.applied[a.name] = now
			}
			delete(e.pending, a.name)
		}
	}
}

// takeUp is apply for certificates that are configured. Records that are in line
// already are not written.
func (e *Engine) takeUp(batch []application, spread time.Duration) error {
	byName := make(map[string]application, len(batch))
	names := make([]string, len(batch))
	now := e.now()
	for i, a := range batch {
		names[i], byName[a.name] = a.name, a
		if a.before == nil {
			at := now.Add(fraction(spread, e.draw()))
			e.mu.Lock()
			e.verifyAt[a.name] = at
			e.mu.Unlock()
		}
	}
	if err := e.cfg.Store.Restore(names); err != nil {
		return e.storeFailed(err)
	}
	dropped := make(map[string][]string) // ids of deployments, by certificate
	err := e.cfg.Store.UpdateAll(names, func(tx *store.CertificateTx) error {
		a := byName[tx.Record.Name]
		dropped[a.name] = reconciled(tx.Record, a.m, e.now(), e.draw())
		moved(tx.Record, a.before, a.m)
		mended(tx.Record, a.before, a.m, e.now(), e.draw())
		settle(tx.Record, a.m, e.facts(a.name))
		return nil
	})
	if err != nil {
		return e.storeFailed(err)
	}
	for name, ids := range dropped {
		for _, id := range ids {
			e.dropScratch(e.scratch(name, id))
		}
	}
	return nil
}

// reconciled makes a record what its configuration wants, and returns the
// deployments that it does not want any more.
func reconciled(rec *store.Certificate, m *managed, now time.Time, u float64) (dropped []string) {
	if rec.ConfigDigest != "" && rec.ConfigDigest != m.digest {
		// What failed may have been mended, and is tried again soon. Drawn
		// here, where the change is seen, once.
		rec.OrderAttempt = 0
		backToFirst(rec)
		rec.RetryAt = now.Add(fraction(soon(rec.Current), u))
		if rec.Next == nil {
			wanted(rec, m) // otherwise when that is given up
		}
	}
	rec.Names, rec.ConfigDigest = m.Names, m.digest
	rec.Issuer, rec.IssuerKind = m.first().Name, m.first().Issuer.Kind()
	for id := range rec.Deployments {
		if _, wanted := m.targets[id]; !wanted {
			delete(rec.Deployments, id)
			dropped = append(dropped, id)
		}
	}
	for id := range m.targets {
		if _, known := rec.Deployments[id]; !known {
			// A place that is wanted and serves nothing is to be seen.
			setDeployment(rec, id, store.Deployment{})
		}
	}
	return dropped
}

// moved marks deployments that are configured in another way than before: what
// they serve now is not known, and they are given the pair anew at once.
func moved(rec *store.Certificate, before, m *managed) {
	if before == nil {
		return // verification finds it out
	}
	was := make(map[string]string, len(before.Deployments))
	for _, d := range before.Deployments {
		was[d.ID] = d.Config
	}
	for _, d := range m.Deployments {
		if config, known := was[d.ID]; known && config != d.Config {
			setDeployment(rec, d.ID, anew(rec.Deployments[d.ID]))
		}
	}
}

// mended ends the pause after failures at issuers that are set up in another way
// than before. The order goes on, and the count of failures with it.
func mended(rec *store.Certificate, before, m *managed, now time.Time, u float64) {
	if before == nil || rec.OrderAttempt == 0 {
		return
	}
	was := make(map[string]string, len(before.Issuers))
	for _, i := range before.Issuers {
		was[i.Name] = i.Config
	}
	for _, i := range m.Issuers {
		if config, known := was[i.Name]; known && config != i.Config {
			if soon := now.Add(fraction(soon(rec.Current), u)); rec.RetryAt.After(soon) {
				rec.RetryAt = soon
			}
			return
		}
	}
}
