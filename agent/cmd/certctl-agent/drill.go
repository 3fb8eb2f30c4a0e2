package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/issuer/coordinator"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/settings"
)

// span is a duration on the command line, with days.
type span struct{ time.Duration }

func (s *span) String() string { return settings.FormatDuration(s.Duration) }
func (s *span) Type() string   { return "duration" }

func (s *span) Set(text string) error {
	d, err := settings.ParseDuration(text)
	if err == nil && d < 0 {
		err = errors.New("must not be negative")
	}
	s.Duration = d
	return err
}

// spans are durations by the name of an issuer.
type spans map[string]time.Duration

func (s spans) String() string { return "" }
func (s spans) Type() string   { return "issuer=duration" }

func (s spans) Set(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return errors.New("expected ISSUER=DURATION, such as letsencrypt=10d")
	}
	var d span
	if err := d.Set(value); err != nil {
		return err
	}
	s[name] = d.Duration
	return nil
}

// outages are what a drill supposes.
type outages struct {
	coordinator, ca, network, host, ahead span
	takes                                 span // one call of a CA
	issuers, delays                       spans
	seed                                  uint64
}

func (a *agentCommand) drillCommand() *cobra.Command {
	o := outages{ahead: span{400 * 24 * time.Hour}, takes: span{30 * time.Second}, issuers: spans{}, delays: spans{}}
	var output cli.Output
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Show what would happen if coordinator, CAs or network were gone",
		Long: `Lets the scheduler run over virtual time, on a copy of this host's state, with
simulated authorities and programs, and shows when the first expired certificate
would be served, which and why, and what happens before. Nothing real is touched:
no network, no key, no file. Every outage begins now.

The copy comes from the running agent, or, if none runs, from the state file. What
is known to be so now stays so: a coordinator that this host is not enrolled at, or
that has retired it, issues nothing, and a deployment that fails goes on failing.

All certificates are renewed together, with the limits of this host as they are
configured: issuers.NAME.limits, of whose orders those of the last hours count as
used, and renewal.concurrency, of which a renewal uses one while a CA is asked
(--call-takes). Where something expires because it waits for these, the drill says
how many certificates do, which is the first and when, and to what the limit would
have to be raised so that nothing does: it holds the drill again with that.

Exit status: 0 nothing expires and everything is in service at the end, 1
something expires or is not in service, or the drill could not be held.`,
		Example: `  certctl-agent drill --coordinator-down 30d --ca-down 5d
  certctl-agent drill --network-down 60d --for 90d
  certctl-agent drill --issuer-down letsencrypt=10d --issuer-delay coordinator=2d
  certctl-agent drill --host-down 21d --output json | jq '.first_expired, .shortages'`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			now := time.Now()
			subjects, refuses, err := a.subjects(cmd.Context(), now)
			if err != nil {
				return err
			}
			scenario, err := o.scenario(subjects, refuses, now)
			if err != nil {
				return err
			}
			forecast, err := renewal.Drill(subjects, scenario)
			if err != nil {
				return err
			}
			err = output.Write(cmd.OutOrStdout(), forecast, func(out io.Writer) error { return control.RenderForecast(out, forecast) })
			if err == nil && !forecast.Well() {
				err = exitStatus(1)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.Var(&o.coordinator, "coordinator-down", "how long the coordinator is gone, and with it its CA")
	flags.Var(&o.ca, "ca-down", "how long every CA is gone")
	flags.Var(&o.network, "network-down", "how long the network is gone")
	flags.Var(o.issuers, "issuer-down", "how long one issuer is gone, such as letsencrypt=10d; may be repeated")
	flags.Var(o.delays, "issuer-delay", "how long one issuer takes from an order to its certificate, such as coordinator=2d; may be repeated")
	flags.Var(&o.takes, "call-takes", "how long a CA takes to answer one call, in which a renewal uses one of renewal.concurrency")
	flags.Var(&o.host, "host-down", "how long this host is off: it neither renews nor serves")
	flags.Var(&o.ahead, "for", "how far to look ahead")
	flags.Uint64Var(&o.seed, "seed", 1, "of what is drawn; the same seed draws the same")
	output.Bind(cmd, cmd.Flags())
	return cmd
}

// subjects are copies of everything that decisions depend on, and what the
// coordinator is known to answer to every order of this host; nil if it may issue.
func (a *agentCommand) subjects(ctx context.Context, now time.Time) ([]*renewal.Subject, *issuer.Error, error) {
	client, err := a.dial(ctx)
	if errors.Is(err, control.ErrNotRunning) {
		return a.subjectsAtRest(now)
	}
	if err != nil {
		return nil, nil, err
	}
	defer client.Close()
	status, err := client.Status(ctx)
	if err != nil {
		return nil, nil, err
	}
	subjects, err := client.Subjects(ctx)
	problem := ""
	if status.Enrollment != nil {
		problem = status.Enrollment.IdentityProblem
	}
	return subjects, refusal(sync.Standing(status.Coordinator.State), problem), err
}

// refusal is what a coordinator that cannot be asked answers, as far as it is
// known that this lasts until somebody mends it.
func refusal(standing sync.Standing, identityProblem string) *issuer.Error {
	if refused := coordinator.Refusal(standing); refused != nil {
		return refused
	}
	waits := &issuer.Error{Class: issuer.ClassPending, Committed: true, Mend: "enrol the host with a new token: \"certctl-agent enroll --replace\""}
	switch {
	case identityProblem != "":
		waits.Err, waits.Mend = errors.New(identityProblem), "" // it has its own
	case standing == sync.Unknown:
		waits.Err = errors.New("the coordinator does not know this host")
	default:
		return nil
	}
	return waits
}

// subjectsAtRest are those of an agent that does not run.
func (a *agentCommand) subjectsAtRest(now time.Time) ([]*renewal.Subject, *issuer.Error, error) {
	s, report, err := a.load()
	if err != nil {
		return nil, nil, err
	}
	p := &parts{
		settings: s, report: report, accountKeys: nowhere{}, issuerState: nowhere{}, coordinator: absentAt,
		log: slog.New(slog.DiscardHandler),
	}
	managed, err := p.managed()
	if err != nil {
		return nil, nil, err
	}
	rest, err := store.ReadAtRest(filepath.Join(s.StateDir, "state.db"))
	if errors.Is(err, fs.ErrNotExist) {
		rest, err = new(store.AtRest), nil
	}
	if err != nil {
		return nil, nil, err
	}
	assigned, _ := p.assigned(rest.Assignments, rest.Accepted, rest.Identity)
	problem := ""
	if rest.Identity != nil && keys.Missing(filepath.Join(s.Keys(), identityKeysName), rest.Identity.KeyID) {
		problem = "the private key of this host's identity is missing; enrol the host with a new token: \"certctl-agent enroll --replace\""
	}
	subjects, err := renewal.SubjectsOf(append(managed, assigned...), renewal.Rest{Records: rest.Certificates, Turns: rest.Turns}, s.Renewal.Concurrency, now)
	return subjects, refusal(sync.StandingOf(rest.Identity), problem), err
}

// absent stands for the coordinator's issuers where none is called.
type absent struct{}

func absentAt(string) issuer.Issuer { return absent{} }

func (absent) Kind() string { return coordinator.Kind }

func (absent) Issue(context.Context, *issuer.Order) (*issuer.Issued, error) {
	return nil, errNowhere
}

// scenario puts together what each issuer of the subjects would do.
// refuses is the coordinator's answer to all orders, nil if it issues.
func (o *outages) scenario(subjects []*renewal.Subject, refuses *issuer.Error, now time.Time) (renewal.Scenario, error) {
	scenario := renewal.Scenario{
		From: now, Span: o.ahead.Duration, HostDown: o.host.Duration, Seed: o.seed,
		Issuers: make(map[string]renewal.SimulatedIssuer),
	}
	for _, subject := range subjects {
		for _, i := range subject.Issuers {
			brokered := i.Kind == coordinator.Kind
			simulated := renewal.SimulatedIssuer{Brokered: brokered, Delay: o.delays[i.Name], Takes: o.takes.Duration}
			suppose := func(down time.Duration, why string) {
				if down > simulated.Down {
					simulated.Down, simulated.Why = down, why
				}
			}
			suppose(o.network.Duration, "the network is down")
			suppose(o.ca.Duration, "every CA is down")
			if brokered {
				simulated.Refuses = refuses
				simulated.Takes = 0 // an order is stored, and waits elsewhere
				suppose(o.coordinator.Duration, "the coordinator is down")
			}
			suppose(o.issuers[i.Name], "it is down")
			scenario.Issuers[i.Name] = simulated
		}
	}
	for flag, named := range map[string]spans{"issuer-down": o.issuers, "issuer-delay": o.delays} {
		for name := range named {
			if _, known := scenario.Issuers[name]; !known {
				names := make([]string, 0, len(scenario.Issuers))
				for known := range scenario.Issuers {
					names = append(names, known)
				}
				slices.Sort(names)
				return scenario, fmt.Errorf("flag --%s: no certificate of this host has an issuer %q; its issuers are: %s", flag, name, strings.Join(names, ", "))
			}
		}
	}
	return scenario, nil
}
