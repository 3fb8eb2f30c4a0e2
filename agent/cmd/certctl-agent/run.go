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
	"github.com/certctl/certctl/agent/command"
	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/issuer/coordinator"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/revocation"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync"
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
		Args:  cli.NoArgs,
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

	// Sync and engine need each other: results of orders wake the engine, and
	// its changes make a sync worth while. What the centre wants goes the same way.
	var engine *renewal.Engine
	var roll *roll
	var commands *command.Runner
	var inEffect *configuration
	warnings := func() ([]string, error) { return hostWarnings(inEffect, roll, state.store) }
	syncer, err := sync.New(sync.Config{
		Store: state.store, Keys: state.identityKeys, Host: hostReport(), Warnings: warnings, Timeout: s.Coordinator.SyncTimeout, Servers: s.Coordinator.Servers,
		OnResult:   func(certificate string) { engine.Wake(certificate) },
		OnDesired:  func() { roll.Changed() },
		OnCommands: func() { commands.Wake() },
		// What could not be ordered for want of an identity need not wait for
		// its next attempt, and other names may be allowed now.
		OnEnrolled: func() {
			roll.Changed()
			for _, name := range roll.brokered() {
				engine.Wake(name)
			}
		},
		Clock: state.clock, Log: log.With("part", "sync"),
	})
	if err != nil {
		return err
	}
	state.clock.AddSource(clock.Coordinator, syncer.AskTime)
	brokered, err := coordinator.New(coordinator.Config{Orders: state.store, Courier: syncer})
	if err != nil {
		return err
	}
	assembly := &parts{
		settings: s, report: report, accountKeys: state.accountKeys, issuerState: state.store,
		coordinator: func(name string) issuer.Issuer { return brokered.At(name) }, clock: state.clock, log: log.With("part", "renewal"),
	}
	if roll, err = newRoll(assembly, state.store); err != nil {
		return err
	}
	assembly.askForTime()
	managed, made, err := roll.managed()
	if err != nil {
		return err
	}
	roll.complain()
	syncer.Report(made)
	reporter, outcomes, err := newReporter(s, state, syncer, warnings, log)
	if err != nil {
		return err
	}
	engine, err = renewal.New(renewal.Config{
		Store: state.store, Keys: state.keys, Managed: managed,
		Swept:      []renewal.Sweeper{state.identityKeys, state.accountKeys},
		ScratchDir: filepath.Join(s.StateDir, "snapshots"),
		Pace:       pace(&s.Renewal),
		Now:        state.clock.Now, Wall: state.clock.Wall, Confirm: state.clock.Confirm,
		Count: outcomes.Count, Log: log.With("part", "renewal"),
	})
	if err != nil {
		return err
	}
	engine.OnChange(syncer.Kick)
	commands, err = command.New(command.Config{
		Store: state.store, Engine: engine, Revoker: roll.revoker, Key: state.keys.Load,
		Now: state.clock.Now, OnChange: syncer.Kick, Log: log.With("part", "commands"),
	})
	if err != nil {
		return err
	}
	engine.OnChange(commands.Wake)
	checks, err := revocation.New(revocation.Config{
		Names: engine.Names, Certificate: state.store.Certificate, Revoked: engine.Revoked,
		Report: func(event wire.Event) error { return state.store.Append(event) },
		Key:    state.store.InstanceID(), Interval: checkInterval(s), Now: state.clock.Now, Log: log.With("part", "revocation"),
	})
	if err != nil {
		return err
	}

	file, _ := a.source.File()
	inEffect = &configuration{
		load: a.load, path: file, roll: roll, engine: engine, level: level, tell: syncer.Report, expect: outcomes.Expect, now: state.clock.Now,
		settings: s, report: report, since: state.clock.Now(), log: log.With("part", "configuration"),
	}
	inEffect.tried = look(inEffect.files(s, report))

	socket, err := control.New(control.Config{
		Path: s.Control.Socket, Group: s.Control.Group,
		Backend: &backend{configuration: inEffect, state: state, engine: engine, checks: checks, syncer: syncer, roll: roll, started: state.clock.Now(), log: log},
		Log:     log.With("part", "control"),
	})
	if err != nil {
		return err
	}

	if err := socket.Listen(ctx); err != nil {
		return err
	}
	if err := state.store.Append(wire.Event{Kind: wire.EventStarted, At: state.clock.Now(), Detail: buildinfo.Version()}); err != nil {
		return err
	}
	// Everything local is in place. Whether coordinator and CAs are there is
	// not a matter of readiness.
	life.Ready()
	err = runner.Run(ctx,
		runner.Task{Name: "clock", Run: state.clock.Run},
		runner.Task{Name: "renewal", Run: engine.Run},
		runner.Task{Name: "reload", Run: func(ctx context.Context) error { return inEffect.obey(ctx, life, reloads) }},
		runner.Task{Name: "configuration", Run: func(ctx context.Context) error { return inEffect.watch(ctx, life) }},
		runner.Task{Name: "assignments", Run: func(ctx context.Context) error { return roll.run(ctx, engine, syncer.Report) }},
		runner.Task{Name: "commands", Run: commands.Run},
		runner.Task{Name: "revocation checks", Run: checks.Run},
		runner.Task{Name: "sync", Run: syncer.Run},
		runner.Task{Name: "control", Run: socket.Run},
		runner.Task{Name: "metrics", Run: reporter.Run},
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
