package renewal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/certctl/certctl/shared/durable"
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
	// applyBatch is how many records one transaction brings in line with their
	// configuration.
	applyBatch = 500

	// changeSpread is how long a renewal for a changed configuration waits at
	// most, so that a fleet that is configured at one moment does not order at
	// one moment.
	changeSpread = 30 * time.Second
)

// start brings all records in line with the configuration.
func (e *Engine) start(ctx context.Context) error {
	if err := e.makeScratch(e.cfg.ScratchDir); err != nil {
		err = fmt.Errorf("renewal: scratch directory %s: %w; check the disk, and that the agent may write there", e.cfg.ScratchDir, err)
		if !passes(err) {
			return err
		}
		// A deployment makes its own, and says so itself when it cannot.
		e.log.Error("scratch directory cannot be made", "err", err)
	}
	if err := e.turns.load(); err != nil {
		return e.storeFailed(err)
	}
	stored, err := e.cfg.Store.Names()
	if err != nil {
		return e.storeFailed(err)
	}
	e.mu.Lock()
	e.applied = make(map[string]*managed, len(e.roster.names))
	for _, name := range append(stored, e.roster.names...) {
		e.pending[name] = true
	}
	spread := min(time.Duration(len(e.roster.names))*startSpacing, maxStartSpread)
	e.mu.Unlock()
	if err := e.apply(ctx, spread); err != nil {
		return err
	}
	e.sweepScratch()
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
	for _, dir := range append([]Sweeper{e.cfg.Keys}, e.cfg.Swept...) {
		removed, err := dir.Sweep(referenced, orphanAge, now)
		if err != nil {
			e.log.Warn("orphaned keys cannot be removed", "err", err)
		}
		if len(removed) > 0 {
			e.log.Info("orphaned keys removed", "key_ids", removed)
		}
	}
}

func (e *Engine) makeScratch(path string) error {
	return e.cfg.Hook.Around(stepScratch, path, func() error { return durable.MkdirAll(path, 0o700) })
}

// sweepScratch removes the scratch directories of targets that are gone: they
// hold copies of keys. Those of certificates that were set aside are kept with
// them.
func (e *Engine) sweepScratch() {
	known := make(map[string]bool)
	for _, m := range e.configured().managed {
		for id := range m.targets {
			known[e.scratch(m.Name, id)] = true
		}
	}
	removed, err := e.cfg.Store.Removed()
	if err != nil {
		e.log.Warn("unused scratch directories cannot be told", "err", err)
		return
	}
	for _, r := range removed {
		for id := range r.Certificate.Deployments {
			known[e.scratch(r.Certificate.Name, id)] = true
		}
	}
	entries, err := os.ReadDir(e.cfg.ScratchDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.log.Warn("scratch directory cannot be read", "path", e.cfg.ScratchDir, "err", err)
		return
	}
	for _, entry := range entries {
		if path := filepath.Join(e.cfg.ScratchDir, entry.Name()); !known[path] {
			e.dropScratch(path)
		}
	}
}

func (e *Engine) dropScratch(path string) {
	if err := e.cfg.Hook.Around(stepRemoveScratch, path, func() error { return durable.RemoveAll(path) }); err != nil {
		e.log.Warn("unused scratch directory cannot be removed", "path", path, "err", err)
	}
}
