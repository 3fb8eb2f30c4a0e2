package renewal

import (
	"context"
	"errors"

	"github.com/certctl/certctl/agent/issuer"
)

// errUnconfirmed keeps a renewal waiting for blockPause.
var errUnconfirmed = errors.New("this host's clock may be wrong, and no server could be asked; the renewal waits, set the clock")

// confirm asks whether the time may be gone by. A clock that was set a year
// ahead must not renew everything.
func (e *Engine) confirm(ctx context.Context, m *managed) error {
	source := ""
	if keeper, ok := m.first().Issuer.(issuer.Timekeeper); ok {
		source = keeper.TimeSource()
	}
	if !e.cfg.Confirm(ctx, source) {
		return errUnconfirmed
	}
	return nil
}
