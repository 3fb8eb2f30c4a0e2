package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	stdsync "sync"
	"time"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/settings"
)

// configuration is what the running agent goes by, and the way to another one:
// reload reads it anew, for a signal, the control socket and a change of a file
// alike. Changed assignments go the shorter way of roll.apply.
type configuration struct {
	load   func() (*config.Settings, *settings.Report, error)
	path   string // of the file, whether it is there or not
	roll   *roll
	engine *renewal.Engine
	level  *slog.LevelVar
	tell   func(sync.Made)
	expect func(issuers ...string) // in metrics, before the first renewal
	now    func() time.Time
	log    *slog.Logger

	reloading stdsync.Mutex // one at a time

	mu       stdsync.Mutex // guards what follows
	settings *config.Settings
	report   *settings.Report
	since    time.Time // when it was put into effect
	problem  string    // why what is on disk is not in effect; "" if it is
	tried    snapshot  // the files that were last put into effect, or could not be
}

// live are the settings that can be changed while the agent runs, with all that
// is below them.
var live = []string{"log.level", "renewal", "assignments", "issuers", "certificates"}

func isLive(path string) bool {
	return slices.ContainsFunc(live, func(root string) bool {
		rest, ok := strings.CutPrefix(path, root)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// reload puts what is on disk into effect. An error says in full what is wrong
// there; then everything goes on as it is.
func (c *configuration) reload() (*control.Reload, error) {
	c.reloading.Lock()
	defer c.reloading.Unlock()
	c.mu.Lock()
	before, report := c.settings, c.report
	c.mu.Unlock()
	seen := look(c.files(before, report))
	next, nextReport, err := c.load()
	if err == nil {
		err = c.allowed(report, nextReport)
	}
	var did renewal.Changes
	if err == nil {
		did, err = c.roll.adopt(c.roll.current().with(next, nextReport), c.engine, c.tell)
	}
	if err == nil {
		err = c.engine.SetPace(pace(&next.Renewal))
	}
	if err == nil {
		err = c.level.UnmarshalText([]byte(next.Log.Level))
	}
	if err == nil {
		c.expect(slices.Sorted(maps.Keys(next.Issuers))...)
	}
	var lacks []string
	if err == nil {
		lacks = doubts(next, nextReport)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.tried, c.problem = seen, err.Error()
		return nil, err
	}
	c.tried, c.problem = seen.and(look(c.files(next, nextReport))), ""
	c.settings, c.report, c.since = next, nextReport, c.now()
	for _, warning := range slices.Concat(nextReport.Warnings(), lacks) {
		c.log.Warn("configuration", "warning", warning)
	}
	done := &control.Reload{
		Added: did.Added, Removed: did.Removed, Changed: did.Changed, Unchanged: did.Unchanged,
		Settings: changedSettings(before, report, next, nextReport),
	}
	c.log.Info("configuration is in effect", "added", done.Added, "removed", done.Removed, "changed", done.Changed,
		"unchanged", done.Unchanged, "settings", done.Settings)
	return done, nil
}

// allowed refuses a change of what cannot change while the agent runs, and the
// loss of the whole file: nobody means that by taking it away.
func (c *configuration) allowed(before, after *settings.Report) error {
	if before.FileRead() && !after.FileRead() {
		return fmt.Errorf("%s is not there any more; put it back, or, if it is meant, restart the agent with \"certctl-agent restart\"", c.path)
	}
	var problems []error
	for _, path := range differing(before, after) {
		if !isLive(path) {
			problems = append(problems, after.Problem(path, errors.New("cannot be changed while the agent runs; set it back, or restart the agent with \"certctl-agent restart\"")))
		}
	}
	return errors.Join(problems...)
}

// differing lists the settings whose values differ, sorted. Secrets do not show.
func differing(before, after *settings.Report) []string {
	texts := func(r *settings.Report) map[string]string {
		all := make(map[string]string)
		for _, v := range r.Values() {
			all[v.Path] = v.Text
		}
		return all
	}
	was, is := texts(before), texts(after)
	paths := make(map[string]bool)
	for path, text := range is {
		if old, known := was[path]; !known || old != text {
			paths[path] = true
		}
	}
	for path := range was {
		if _, known := is[path]; !known {
			paths[path] = true
		}
	}
	return slices.Sorted(maps.Keys(paths))
}

// changedSettings lists what changed beside the certificates; of issuers only the
// names, since their secrets may be what changed.
func changedSettings(before *config.Settings, beforeReport *settings.Report, after *config.Settings, afterReport *settings.Report) []string {
	var changed []string
	for _, path := range differing(beforeReport, afterReport) {
		if !strings.HasPrefix(path, "certificates") && !strings.HasPrefix(path, "issuers") {
			changed = append(changed, path)
		}
	}
	names := maps.Clone(before.Issuers)
	if names == nil {
		names = make(map[string]config.Issuer)
	}
	maps.Copy(names, after.Issuers)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, had := before.Issuers[name]
		is, has := after.Issuers[name]
		if had != has || !sameIssuer(was, is) {
			changed = append(changed, "issuers."+name)
		}
	}
	return changed
}

// current are the settings in effect.
func (c *configuration) current() *config.Settings {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settings
}

// standing is since when the configuration is in effect, and why what is on disk
// is not, "" if it is. Files that have changed since, and that watch will come to
// within seconds, are judged here and now: whoever has just saved one asks at once.
func (c *configuration) standing() (since time.Time, problem string) {
	c.mu.Lock()
	since, problem = c.since, c.problem
	tried, report := c.tried, c.report
	c.mu.Unlock()
	seen := look(tried.paths())
	if seen.same(tried) {
		return since, problem
	}
	err := c.unwritten(seen)
	if err == nil {
		var next *settings.Report
		if _, next, err = c.load(); err == nil {
			err = c.allowed(report, next)
		}
	}
	if err != nil {
		problem = err.Error()
	}
	return since, problem
}

// file is the configuration file for status, "" when there is none.
func (c *configuration) file() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.report.FileRead() {
		return c.path
	}
	return ""
}
