package file

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/deploy/command"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
)

// probePause is the wait between two looks at a program that reloads.
var probePause = backoff.Policy{Initial: 50 * time.Millisecond, Max: time.Second, Multiplier: 1.5}

// A program has settled when this many looks in a row, this far apart, agree.
const (
	settledAfter = 4
	settlePause  = 100 * time.Millisecond
)

func mismatch(found, want string) error {
	return fmt.Errorf("the certificate there has the fingerprint %s, not %s", found, want)
}

// Probed reports whether Verify connects to the program that serves.
func (t *Target) Probed() bool { return t.probe != nil }

// Verify connects once, if a probe is configured, and compares the leaf that is
// served with leaf; else it compares the files. It runs no command, since nobody
// promises that a configured one changes nothing.
func (t *Target) Verify(ctx context.Context, leaf *x509.Certificate) error {
	if t.probe == nil {
		return t.onDisk(leaf)
	}
	found, err := t.served(ctx)
	if err != nil {
		return err
	}
	if want := pki.Fingerprint(leaf); found != want {
		return mismatch(found, want)
	}
	return nil
}

// TimeLimit is how long Deploy may take by what is configured: the way forth,
// and the way back from its last step.
func (t *Target) TimeLimit() time.Duration {
	const disks = time.Minute
	limit := disks
	for _, c := range []*command.Command{t.check, t.reload, t.verifyCommand} {
		if c != nil {
			limit += c.Timeout()
		}
	}
	if t.reload != nil {
		limit += t.reload.Timeout() // the way back
	}
	if t.probe != nil {
		// A look before anything is done, and then until the program has settled,
		// twice.
		limit += t.probe.Timeout + 2*(t.probe.Patience+settledAfter*(t.probe.Timeout+settlePause))
	}
	return limit
}

// served returns the fingerprint of the leaf that a new connection is shown.
func (t *Target) served(ctx context.Context) (string, error) {
	chain, err := tlsutil.ProbeServed(ctx, tlsutil.Probe{
		Network: "tcp", Address: t.probe.Address, ServerName: t.probe.ServerName, Timeout: t.probe.Timeout,
	})
	if err != nil {
		return "", err
	}
	return pki.Fingerprint(chain[0]), nil
}

// awaitServed looks until one of the wanted fingerprints is served or the
// probe's patience is at its end. Seen once is not enough: while a program hands
// over to its new processes, as nginx does for a tenth of a second, old and new
// ones answer in turn.
func (t *Target) awaitServed(ctx context.Context, wanted ...string) error {
	patient, cancel := context.WithTimeout(ctx, t.probe.Patience)
	defer cancel()
	var last error
	for attempt, matches := 1, 0; ; attempt++ {
		look := patient
		if attempt == 1 || matches > 0 {
			look = ctx // one look there is always, and what has begun well may be completed
		}
		found, err := t.served(look)
		if err == nil && slices.Contains(wanted, found) {
			if matches++; matches == settledAfter {
				return nil
			}
			if err := backoff.Wait(ctx, settlePause); err != nil {
				return err
			}
			continue
		}
		matches = 0
		switch {
		case err == nil:
			last = fmt.Errorf("%s serves another certificate: %w", t.probe.Address, mismatch(found, wanted[0]))
		case last == nil || patient.Err() == nil:
			last = err // that patience ended during a look says less than the look before
		}
		if backoff.Wait(patient, probePause.Delay(attempt, nil)) == nil {
			continue
		}
		if ended := ctx.Err(); ended != nil {
			return errors.Join(ended, last)
		}
		return fmt.Errorf("after %v: %w", t.probe.Patience, last)
	}
}

// verify is the last step of a deployment.
func (t *Target) verify(ctx context.Context, task *deploy.Task, fingerprint string) error {
	return t.hook.Around(stepVerify, task.Certificate, func() error {
		if t.probe != nil {
			if err := t.awaitServed(ctx, fingerprint); err != nil {
				return err
			}
		}
		if t.verifyCommand != nil {
			if _, err := t.verifyCommand.Run(ctx, t.environment(task, actionDeploy, fingerprint)); err != nil {
				return err
			}
		}
		return nil
	})
}
