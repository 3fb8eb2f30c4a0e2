package acme

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certctl/certctl/agent/deploy/command"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/shared/backoff"
)

const (
	defaultHookTimeout = 2 * time.Minute
	maxWait            = time.Hour
)

// DNS01Exec answers dns-01 challenges by running a command, without a shell:
//
//	COMMAND... present NAME VALUE
//	COMMAND... cleanup NAME VALUE
//
// where NAME is the TXT record's full name with a final dot, such as
// "_acme-challenge.example.com.", and VALUE its text. The same is in the
// environment as CERTCTL_ACME_ACTION, CERTCTL_ACME_NAME and CERTCTL_ACME_VALUE,
// with the name to be validated in CERTCTL_ACME_DOMAIN.
//
// "present" adds a record beside others of that name, as a certificate for a
// domain and its wildcard needs two. "cleanup" removes the one with that value
// and succeeds if there is none. Either may be run again after a crash.
//
// As every command that the agent runs, it gets a small environment and not the
// agent's own: what it needs to know, such as the credentials of a DNS provider,
// it reads from a file of its own.
type DNS01Exec struct {
	Command []string
	// Timeout bounds one run; 0 is two minutes.
	Timeout time.Duration
	// PropagationWait is how long to wait after "present" until all the zone's
	// servers have the record. At most one hour.
	PropagationWait time.Duration
}

// ChallengeType is "dns-01".
func (DNS01Exec) ChallengeType() string { return challengeDNS01 }

func (s DNS01Exec) validate() error {
	var problems []error
	if _, err := command.New(command.Config{Argv: s.Command}); err != nil {
		problems = append(problems, fmt.Errorf("dns-01 exec: command: %w", err))
	}
	if s.Timeout < 0 || s.Timeout > maxWait {
		problems = append(problems, fmt.Errorf("dns-01 exec: timeout %v: want 0 to %v", s.Timeout, maxWait))
	}
	if s.PropagationWait < 0 || s.PropagationWait > maxWait {
		problems = append(problems, fmt.Errorf("dns-01 exec: propagation_wait %v: want 0 to %v", s.PropagationWait, maxWait))
	}
	return errors.Join(problems...)
}

func (s DNS01Exec) presenter(*Listeners) presenter {
	if s.Timeout == 0 {
		s.Timeout = defaultHookTimeout
	}
	return &dnsHook{s}
}

type dnsHook struct{ DNS01Exec }

func (p *dnsHook) present(ctx context.Context, challenge acme.Challenge) error {
	if err := p.run(ctx, "present", challenge); err != nil {
		return err
	}
	return backoff.Wait(ctx, p.PropagationWait)
}

func (p *dnsHook) withdraw(ctx context.Context, challenge acme.Challenge) error {
	return p.run(ctx, "cleanup", challenge)
}

func (p *dnsHook) run(ctx context.Context, action string, challenge acme.Challenge) error {
	name, value := challenge.DNS01TXTRecordName()+".", challenge.DNS01KeyAuthorization()
	hook, err := p.command(action, name, value)
	if err != nil {
		return &issuer.Error{Class: issuer.ClassConfig, Err: fmt.Errorf("dns-01 hook: %w", err)}
	}
	output, err := hook.Run(ctx, map[string]string{
		"CERTCTL_ACME_ACTION": action,
		"CERTCTL_ACME_NAME":   name,
		"CERTCTL_ACME_VALUE":  value,
		"CERTCTL_ACME_DOMAIN": challenge.Identifier.Value,
	})
	if err == nil {
		return nil
	}
	if output != "" {
		err = fmt.Errorf("%w: it printed: %s", err, output)
	}
	err = fmt.Errorf("dns-01 hook %s %s %s: %w", p.Command[0], action, name, err)
	if ctx.Err() != nil {
		return err // whose time is up knows what to do
	}
	return &issuer.Error{
		Class: issuer.ClassConfig, Err: err,
		Mend: "run the hook by hand with these arguments and mend what it reports",
	}
}

func (p *dnsHook) command(arguments ...string) (*command.Command, error) {
	return command.New(command.Config{Argv: slices.Concat(p.Command, arguments), Timeout: p.Timeout})
}
