package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/runner"
	"github.com/certctl/certctl/shared/service"
	"github.com/certctl/certctl/shared/wire"
)

func (a *agentCommand) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the agent in the foreground, or as the service that install made",
		Long: `Runs until it is told to stop, by a signal or the service manager. It keeps the
certificates of this host valid from what is on its disk; it needs neither its
coordinator nor a CA to be there when it starts.

Exit status: 0 it was asked to stop, 1 something is wrong.`,
		Example: `  certctl-agent run
  certctl-agent run --config agent.yaml --set log.level=debug`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status := service.Run(cmd.Context(), a.definition(), func(ctx context.Context, life service.Lifecycle) int {
				if err := a.run(ctx, life); err != nil {
					fmt.Fprintf(os.Stderr, "certctl-agent: %v\n", err)
					life.Failed(err)
					return 1
				}
				return 0
			})
			if status != 0 {
				return exitStatus(status)
			}
			return nil
		},
	}
	service.BindRun(cmd.Flags())
	return cmd
}

// run is the agent's life, from its configuration to its last goroutine.
func (a *agentCommand) run(ctx context.Context, life service.Lifecycle) error {
	s, report, err := a.load()
	if err != nil {
		return err
	}
	log, level, err := cli.Logger(os.Stderr, s.Log.Level, s.Log.Format)
	if err != nil {
		return err
	}
	reloads := life.Reload()
	for _, warning := range slices.Concat(report.Warnings(), doubts(s, report)) {
		log.Warn("configuration", "warning", warning)
	}
	log.Info("agent starts", "version", buildinfo.Version(), "state_dir", s.StateDir, "certificates", len(s.Certificates))

	beThrifty()

	// The state comes first: nothing else may begin before it is known to be
	// whole, private and this process's alone.
	state, err := openState(s, log)
	if err != nil {
		return err
	}
	defer state.close(log)

	m, err := a.assemble(s, report, state, level, log)
	if err != nil {
		return err
	}
	if err := m.socket.Listen(ctx); err != nil {
		return err
	}
	if err := state.store.Append(wire.Event{Kind: wire.EventStarted, At: state.clock.Now(), Detail: buildinfo.Version()}); err != nil {
		return err
	}
	// Everything local is in place. Whether coordinator and CAs are there is
	// not a matter of readiness.
	life.Ready()
	inEffect := m.configuration
	err = runner.Run(ctx,
		runner.Task{Name: "clock", Run: state.clock.Run},
		runner.Task{Name: "renewal", Run: m.engine.Run},
		runner.Task{Name: "reload", Run: func(ctx context.Context) error { return inEffect.obey(ctx, life, reloads) }},
		runner.Task{Name: "configuration", Run: func(ctx context.Context) error { return inEffect.watch(ctx, life) }},
		runner.Task{Name: "assignments", Run: func(ctx context.Context) error { return m.roll.run(ctx, m.engine, m.syncer.Report) }},
		runner.Task{Name: "commands", Run: m.commands.Run},
		runner.Task{Name: "revocation checks", Run: m.checks.Run},
		runner.Task{Name: "sync", Run: m.syncer.Run},
		runner.Task{Name: "control", Run: m.socket.Run},
		runner.Task{Name: "metrics", Run: m.reporter.Run},
	)
	if err != nil {
		return err
	}
	log.Info("agent stops")
	return nil
}

// pace is how the engine works.
func pace(r *config.Renewal) renewal.Pace {
	return renewal.Pace{
		Concurrency: r.Concurrency, TickInterval: r.TickInterval, TickBudget: r.TickBudget,
		IssueTimeout: r.IssueTimeout, KeepRemoved: r.KeepRemoved,
	}
}

// checkInterval is that of the revocation checks, negative for none.
func checkInterval(s *config.Settings) time.Duration {
	if s.Revocation.Interval == 0 {
		return -1
	}
	return s.Revocation.Interval
}

// localState is everything of the agent that is on disk.
type localState struct {
	store        *store.Store
	clock        *clock.Clock
	keys         *keys.Dir // of managed certificates
	identityKeys *keys.Dir
	accountKeys  *keys.Dir // of ACME accounts
}

// identityKeysName is the subdirectory of the key directory for the identity.
const identityKeysName = "identity"

// openState opens, and at the first start creates, the state directory.
func openState(s *config.Settings, log *slog.Logger) (_ *localState, err error) {
	if err := durable.EnsurePrivateDir(s.StateDir); err != nil {
		return nil, err
	}
	st := new(localState)
	defer func() {
		if err != nil {
			st.close(log)
		}
	}()
	st.clock, err = clock.New(clock.Config{
		Save: func(mark clock.Mark) error { return st.store.SaveClockMark(store.ClockMark(mark)) },
		Log:  log.With("part", "clock"),
	})
	if err != nil {
		return nil, err
	}
	st.store, err = store.Open(filepath.Join(s.StateDir, "state.db"), store.Options{
		Now: st.clock.Now,
		OnDrop: func(d store.Dropped) {
			log.Warn("the outbox is full; a fact for the coordinator was merged or dropped, and counted",
				"kind", d.Kind, "certificate", d.Certificate, "merged", d.Coalesced)
		},
	})
	if errors.Is(err, store.ErrLocked) {
		return nil, fmt.Errorf("another certctl-agent runs: %w; \"certctl-agent status\" asks the one that runs, \"certctl-agent stop\" stops a service", err)
	}
	if err != nil {
		return nil, err
	}
	mark, err := st.store.ClockMark()
	if err != nil {
		return nil, err
	}
	st.clock.Restore(clock.Mark(mark))
	for _, d := range []struct {
		name string
		dir  **keys.Dir
	}{{"certificates", &st.keys}, {identityKeysName, &st.identityKeys}, {"accounts", &st.accountKeys}} {
		if *d.dir, err = keys.OpenDir(filepath.Join(s.Keys(), d.name)); err != nil {
			return nil, err
		}
	}
	return st, nil
}

func (st *localState) close(log *slog.Logger) {
	if st.store != nil {
		if err := st.store.Close(); err != nil {
			log.Error("state file did not close", "err", err)
		}
	}
}

// hostReport is what the agent says of its host.
func hostReport() wire.HostReport {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "unknown"
	}
	return wire.HostReport{
		Hostname: hostname, OS: runtime.GOOS, Arch: runtime.GOARCH,
		Version: buildinfo.Version(), StartedAt: time.Now().UTC().Truncate(time.Second),
	}
}
