package main

import (
	"log/slog"
	"path/filepath"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/command"
	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/issuer/coordinator"
	"github.com/certctl/certctl/agent/metrics"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/revocation"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/settings"
	"github.com/certctl/certctl/shared/wire"
)

// machine is the whole agent, put together and not running yet.
type machine struct {
	state         *localState
	syncer        *sync.Client
	roll          *roll
	engine        *renewal.Engine
	commands      *command.Runner
	checks        *revocation.Loop
	reporter      *metrics.Reporter
	configuration *configuration
	socket        *control.Server
}

// assemble makes every part of the agent, with its state, which stays the caller's.
func (a *agentCommand) assemble(s *config.Settings, report *settings.Report, state *localState, level *slog.LevelVar, log *slog.Logger) (_ *machine, err error) {
	// Sync and engine need each other: results of orders wake the engine, and
	// its changes make a sync worth while. What the centre wants goes the same way.
	m := &machine{state: state}
	warnings := func() ([]string, error) { return hostWarnings(m.configuration, m.roll, state.store) }
	m.syncer, err = sync.New(sync.Config{
		Store: state.store, Keys: state.identityKeys, Host: hostReport(), Warnings: warnings, Timeout: s.Coordinator.SyncTimeout, Servers: s.Coordinator.Servers,
		OnResult:   func(certificate string) { m.engine.Wake(certificate) },
		OnDesired:  func() { m.roll.Changed() },
		OnCommands: func() { m.commands.Wake() },
		// What could not be ordered for want of an identity need not wait for
		// its next attempt, and other names may be allowed now.
		OnEnrolled: func() {
			m.roll.Changed()
			for _, name := range m.roll.brokered() {
				m.engine.Wake(name)
			}
		},
		Clock: state.clock, Log: log.With("part", "sync"),
	})
	if err != nil {
		return nil, err
	}
	state.clock.AddSource(clock.Coordinator, m.syncer.AskTime)
	brokered, err := coordinator.New(coordinator.Config{Orders: state.store, Courier: m.syncer})
	if err != nil {
		return nil, err
	}
	assembly := &parts{
		settings: s, report: report, accountKeys: state.accountKeys, issuerState: state.store,
		coordinator: func(name string) issuer.Issuer { return brokered.At(name) }, clock: state.clock, log: log.With("part", "renewal"),
	}
	if m.roll, err = newRoll(assembly, state.store); err != nil {
		return nil, err
	}
	assembly.askForTime()
	managed, made, err := m.roll.managed()
	if err != nil {
		return nil, err
	}
	m.roll.complain()
	m.syncer.Report(made)
	var outcomes *metrics.Outcomes
	m.reporter, outcomes, err = newReporter(s, state, m.syncer, warnings, log)
	if err != nil {
		return nil, err
	}
	m.engine, err = renewal.New(renewal.Config{
		Store: state.store, Keys: state.keys, Managed: managed,
		Swept:      []renewal.Sweeper{state.identityKeys, state.accountKeys},
		ScratchDir: filepath.Join(s.StateDir, "snapshots"),
		Pace:       pace(&s.Renewal),
		Now:        state.clock.Now, Wall: state.clock.Wall, Confirm: state.clock.Confirm,
		Count: outcomes.Count, Log: log.With("part", "renewal"),
	})
	if err != nil {
		return nil, err
	}
	m.engine.OnChange(m.syncer.Kick)
	m.commands, err = command.New(command.Config{
		Store: state.store, Engine: m.engine, Revoker: m.roll.revoker, Key: state.keys.Load,
		Now: state.clock.Now, OnChange: m.syncer.Kick, Log: log.With("part", "commands"),
	})
	if err != nil {
		return nil, err
	}
	m.engine.OnChange(m.commands.Wake)
	m.checks, err = revocation.New(revocation.Config{
		Names: m.engine.Names, Certificate: state.store.Certificate, Revoked: m.engine.Revoked,
		Report: func(event wire.Event) error { return state.store.Append(event) },
		Key:    state.store.InstanceID(), Interval: checkInterval(s), Now: state.clock.Now, Log: log.With("part", "revocation"),
	})
	if err != nil {
		return nil, err
	}

	file, _ := a.source.File()
	m.configuration = &configuration{
		load: a.load, path: file, roll: m.roll, engine: m.engine, level: level, tell: m.syncer.Report, expect: outcomes.Expect, now: state.clock.Now,
		settings: s, report: report, since: state.clock.Now(), log: log.With("part", "configuration"),
	}
	m.configuration.tried = look(m.configuration.files(s, report))

	m.socket, err = control.New(control.Config{
		Path: s.Control.Socket, Group: s.Control.Group,
		Backend: &backend{configuration: m.configuration, state: state, engine: m.engine, checks: m.checks, syncer: m.syncer, roll: m.roll, started: state.clock.Now(), log: log},
		Log:     log.With("part", "control"),
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}
