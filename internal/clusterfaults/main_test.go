package clusterfaults

import (
	"context"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/certctl/certctl/shared/backoff"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soaking reports whether there is time: "make soak" sets the variable.
func soaking() bool { return os.Getenv("CERTCTL_SOAK") != "" }

// times is how often something is done: usually, and in a soak.
func times(usually, soak int) int {
	if soaking() {
		return soak
	}
	return usually
}

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) { _ = backoff.Wait(ctx, d) }
