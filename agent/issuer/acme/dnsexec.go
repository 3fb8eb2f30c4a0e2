package acme

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/shared/backoff"
)

const (
	defaultHookTimeout = 2 * time.Minute
	// hookOutput is how much of the end of a hook's output an error repeats.
	hookOutput = 1 << 10
	maxWait    = time.Hour
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
	if len(s.Command) == 0 || s.Command[0] == "" {
		problems = append(problems, errors.New("dns-01 exec: command is empty: give the program and its arguments"))
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
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	name, value := challenge.DNS01TXTRecordName()+".", challenge.DNS01KeyAuthorization()
	args := append(append([]string(nil), p.Command[1:]...), action, name, value)
	cmd := exec.CommandContext(ctx, p.Command[0], args...)
	cmd.Env = append(os.Environ(),
		"CERTCTL_ACME_ACTION="+action,
		"CERTCTL_ACME_NAME="+name,
		"CERTCTL_ACME_VALUE="+value,
		"CERTCTL_ACME_DOMAIN="+challenge.Identifier.Value,
	)
	output := &tail{limit: hookOutput}
	cmd.Stdout, cmd.Stderr = output, output
	// A grandchild that keeps the pipe open must not keep this waiting.
	cmd.WaitDelay = 2 * time.Second
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("not finished after %v: %w", p.Timeout, err)
	}
	if text := output.String(); text != "" {
		err = fmt.Errorf("%w: its output ends with: %s", err, text)
	}
	return &issuer.Error{
		Class: issuer.ClassConfig,
		Err:   fmt.Errorf("dns-01 hook %s %s %s: %w", p.Command[0], action, name, err),
		Mend:  "run the hook by hand with these arguments and mend what it reports",
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	limit int
	kept  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if excess := len(t.kept) - t.limit; excess > 0 {
		t.kept = append(t.kept[:0], t.kept[excess:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	return strings.ToValidUTF8(string(bytes.TrimSpace(t.kept)), "?")
}
