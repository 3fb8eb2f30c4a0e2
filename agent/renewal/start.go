package renewal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// A key without a record is an orphan once it is older than any step takes
	// from making a key to naming it.
	orphanAge     = time.Hour
	sweepInterval = 24 * time.Hour

	// Verifications after a start are spread: one each startSpacing on average,
	// all within maxStartSpread.
	startSpacing   = 100 * time.Millisecond
	maxStartSpread = 5 * time.Minute
	// startBatch is how many records one transaction of the start looks at.
	startBatch = 500

	// changeSpread is how long a renewal for a changed configuration waits at
	// most, so that a fleet that is configured at one moment does not order at
	// one moment.
	changeSpread = 30 * time.Second
)

// start brings the records in line with the configuration: makes those that are
// missing, removes those that are not managed any more, and draws up the
// schedule. Records of renewals under way stay as they are and are due.
func (e *Engine) start(ctx context.Context) error {
	if err := e.makeScratch(e.cfg.ScratchDir); err != nil {
		return fmt.Errorf("renewal: scratch directory: %w", err)
	}
	stored, err := e.cfg.Store.Names()
	if err != nil {
		return e.storeFailed(err)
	}
	for _, name := range stored {
		if e.managed[name] == nil {
			if err := e.remove(name); err != nil {
				return err
			}
		}
	}
	spread := min(time.Duration(len(e.names))*startSpacing, maxStartSpread)
	for names := range slices.Chunk(e.names, startBatch) {
		if stopping(ctx) {
			return nil
		}
		now := e.now()
		for _, name := range names {
			at := now.Add(fraction(spread, e.draw()))
			e.mu.Lock()
			e.verifyAt[name] = at
			e.mu.Unlock()
		}
		if err := e.reconcile(names); err != nil {
			var full *notStoredError
			if !errors.As(err, &full) {
				return err
			}
			// What is stored still stands; the look that follows tries again.
			e.log.Error("certificates cannot be reconciled with their configuration", "first", names[0], "certificates", len(names), "err", err)
			for _, name := range names {
				e.look(name, false)
			}
		}
	}
	e.changed()
	e.sweepScratch()
	return nil
}

// reconcile brings records in line with their configuration, in one transaction.
// Those that are so already are not written.
func (e *Engine) reconcile(names []string) error {
	err := e.cfg.Store.UpdateAll(names, func(tx *store.CertificateTx) error {
		m := e.managed[tx.Record.Name]
		reconciled(tx.Record, m, e.now(), e.draw())
		settle(tx.Record, m, e.facts(m.Name))
		return nil
	})
	if err != nil {
		return e.storeFailed(err)
	}
	return nil
}

// reconciled makes a record what its configuration wants.
func reconciled(rec *store.Certificate, m *managed, now time.Time, u float64) {
	if rec.ConfigDigest != "" && rec.ConfigDigest != m.digest {
		// What failed may have been mended, and is tried again soon. Drawn
		// here, where the change is seen, once.
		rec.OrderAttempt = 0
		backToFirst(rec)
		rec.RetryAt = now.Add(fraction(soon(rec.Current), u))
	}
	rec.Names, rec.ConfigDigest = m.Names, m.digest
	rec.Issuer, rec.IssuerKind = m.first().Name, m.first().Issuer.Kind()
	for id := range rec.Deployments {
		if _, wanted := m.targets[id]; !wanted {
			delete(rec.Deployments, id)
		}
	}
	for id := range m.targets {
		if _, known := rec.Deployments[id]; !known {
			// A place that is wanted and serves nothing is to be seen.
			setDeployment(rec, id, store.Deployment{})
		}
	}
}

// remove forgets a certificate that is not managed any more. What its
// deployments installed stays where it is: a program may well go on using it.
func (e *Engine) remove(name string) error {
	rec, _, err := e.cfg.Store.Certificate(name)
	if err != nil {
		return e.storeFailed(err)
	}
	event := wire.Event{Kind: wire.EventRemoved, Certificate: name, Detail: "no longer in the configuration"}
	if rec != nil && rec.Current != nil {
		event.Serial = rec.Current.Serial
	}
	removed, err := e.cfg.Store.Remove(name, event)
	if err != nil {
		err = e.storeFailed(err)
		var full *notStoredError
		if errors.As(err, &full) {
			// It stays listed until the next start, and nobody works on it.
			e.log.Error("certificate that is not managed any more cannot be removed", "certificate", name, "err", err)
			return nil
		}
		return err
	}
	e.changed()
	e.log.Info("certificate is not managed any more", "certificate", name)
	if removed == nil {
		return nil
	}
	for _, g := range []*store.Generation{removed.Previous, removed.Current, removed.Next} {
		if g != nil {
			e.discardKey(name, g.KeyID)
		}
	}
	return nil
}

// sweep removes keys that no record names: left by a crash between making a key
// and naming it, or between dropping its name and removing it.
func (e *Engine) sweep(now time.Time) {
	referenced, err := e.cfg.Store.KeyIDs()
	if err != nil {
		e.log.Error("orphaned keys cannot be told", "err", e.storeFailed(err))
		return
	}
	removed, err := e.cfg.Keys.Sweep(referenced, orphanAge, now)
	if err != nil {
		e.log.Warn("orphaned keys cannot be removed", "err", err)
	}
	if len(removed) > 0 {
		e.log.Info("orphaned keys removed", "key_ids", removed)
	}
}

func (e *Engine) makeScratch(path string) error {
	return e.cfg.Hook.Around(stepScratch, path, func() error { return durable.MkdirAll(path, 0o700) })
}

// sweepScratch removes the scratch directories of targets that are gone: they
// hold copies of keys.
func (e *Engine) sweepScratch() {
	known := make(map[string]bool)
	for _, m := range e.managed {
		for id := range m.targets {
			known[filepath.Base(e.scratch(m.Name, id))] = true
		}
	}
	entries, err := os.ReadDir(e.cfg.ScratchDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.log.Warn("scratch directory cannot be read", "path", e.cfg.ScratchDir, "err", err)
		return
	}
	for _, entry := range entries {
		if known[entry.Name()] {
			continue
		}
		path := filepath.Join(e.cfg.ScratchDir, entry.Name())
		if err := e.cfg.Hook.Around(stepRemoveScratch, path, func() error { return os.RemoveAll(path) }); err != nil {
			e.log.Warn("unused scratch directory cannot be removed", "path", path, "err", err)
		}
	}
}
