package backoff

import (
	"context"
	"time"
)

// Wait returns nil after d, or ctx's error as soon as ctx is done. If d is not
// positive it does not wait, but still reports a ctx that is done, so that a
// loop around it ends in any case.
func Wait(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
