package postgres

import (
	"context"
	"net"
	"time"

	"github.com/certctl/certctl/shared/backoff"
)

// Quick makes an exporter look and try again without long pauses, over connections
// that dial makes; nil is the ordinary way.
func (c Config) Quick(dial func(ctx context.Context, network, address string) (net.Conn, error)) Config {
	c.pace = 2 * time.Millisecond
	c.retry = backoff.Policy{Initial: time.Millisecond, Max: 20 * time.Millisecond, Multiplier: 2, Jitter: 0.2}
	c.dial = dial
	return c
}

// Work is what the leader does.
func (e *Exporter) Work(ctx context.Context) error { return e.lead(ctx) }

// MaxFacts is how many facts one transaction has at most.
const MaxFacts = maxFacts
