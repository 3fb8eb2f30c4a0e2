package main

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/agent/metrics"
	"github.com/certctl/certctl/agent/sync"
)

// newReporter makes what tells Prometheus how the agent stands, and what counts
// the ends of renewals for it.
func newReporter(s *config.Settings, state *localState, syncer *sync.Client, warnings func() ([]string, error), log *slog.Logger) (*metrics.Reporter, *metrics.Outcomes, error) {
	outcomes := new(metrics.Outcomes)
	outcomes.Expect(config.CoordinatorIssuer)
	outcomes.Expect(slices.Sorted(maps.Keys(s.Issuers))...)
	reporter, err := metrics.New(metrics.Config{
		Store: state.store, Link: syncer.State, Clock: state.clock.Reading, Warnings: warnings, Outcomes: outcomes, Started: time.Now(),
		Listen: s.Metrics.Listen, TextFile: s.Metrics.TextFile, TextFileInterval: s.Metrics.TextFileInterval,
		Log: log.With("part", "metrics"),
	})
	return reporter, outcomes, err
}
