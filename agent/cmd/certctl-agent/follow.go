package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/wire"
)

// follow tells what happens to a renewal until a new certificate is in
// service, an attempt fails, or the wait is over.
func follow(ctx context.Context, out io.Writer, client *control.Client, before *control.Certificate, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var (
		last   string
		result error
		over   bool
	)
	look := func(ctx context.Context) {
		now, err := client.Certificate(ctx, before.Name)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			result, over = err, true
		case now.Generation > before.Generation && now.State == wire.StateValid:
			fmt.Fprintf(out, "%s: in service: serial %s, valid until %s\n", now.Name, now.Serial, control.Stamp(now.NotAfter))
			over = true
		case now.State == wire.StateFailed && now.LastErrorAt.After(before.LastErrorAt):
			result = fmt.Errorf("%s: this attempt failed: %s; the next one is at %s", now.Name, now.LastError, control.Stamp(now.NextAttempt))
			over = true
		case string(now.Phase) != last && now.State == wire.StateRenewing:
			last = string(now.Phase)
			fmt.Fprintf(out, "%s: %s\n", now.Name, told(now.Phase))
		}
		if over {
			cancel()
		}
	}
	jitter.Loop(ctx, 200*time.Millisecond, jitter.DefaultSchedulerJitter, nil, look)
	if !over {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("%s: not in service after %v; the agent goes on, \"certctl-agent status\" shows how far it is", before.Name, wait)
		}
		return ctx.Err()
	}
	return result
}

// told is a phase in words.
func told(phase store.Phase) string {
	switch phase {
	case store.PhaseKeyWritten:
		return "its new key is made"
	case store.PhaseOrderPlaced:
		return "ordered; the authority works on it"
	case store.PhaseIssued:
		return "issued; it is put into service"
	case store.PhaseDeployed:
		return "in service everywhere"
	case store.PhaseIdle:
		return "begins"
	}
	return string(phase)
}
