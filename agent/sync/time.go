package sync

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/shared/pki"
)

// AskTime makes the coordinator's time known to the clock, whatever this host's
// clock says, without a sync. It may be called from any goroutine.
func (c *Client) AskTime(ctx context.Context) error {
	if c.cfg.Clock == nil {
		return errors.New("there is no clock to tell the coordinator's time to")
	}
	identity, err := c.identities.Identity()
	if err != nil {
		return err
	}
	if standing := StandingOf(identity); standing != "" {
		return fmt.Errorf("there is no coordinator to ask for the time: this host is %s", standing)
	}
	cred := credentialOf(identity)
	roots, err := pki.ParseChainPEM([]byte(cred.rootsPEM))
	if err != nil {
		return fmt.Errorf("stored identity: roots: %w", err)
	}
	pool := x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	var failures []error
	var known servers
	known.list, known.nodes = serversOf(identity, c.cfg.Servers)
	for _, i := range known.round(time.Now()) {
		err := c.cfg.Clock.Probe(ctx, clock.Coordinator, known.list[i]+"/", clock.VerifyRoots(pool), c.dial)
		if err == nil {
			return nil
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// now is what reports and what is stored go by. Pauses go by time.Now, whose
// monotonic reading nobody sets.
func (c *Client) now() time.Time {
	if c.cfg.Clock == nil {
		return time.Now()
	}
	return c.cfg.Clock.Now()
}

const (
	// skewStep and skewPart are by how much, and by what part of it, the skew has
	// to change to be reported anew: every report of another one is a write of
	// the whole cluster.
	skewStep = 30
	skewPart = 10
)

// skew is what the coordinator is told of the wall clock, in seconds.
func (c *Client) skew() int64 {
	if c.cfg.Clock == nil {
		return 0
	}
	skew := int64(c.cfg.Clock.Reading().Skew / time.Second)
	magnitude := func(n int64) int64 { return max(n, -n) }
	if magnitude(skew-c.reportedSkew) > max(skewStep, magnitude(c.reportedSkew)/skewPart) {
		c.reportedSkew = skew
	}
	if magnitude(skew) < skewStep && magnitude(c.reportedSkew) > skewStep {
		c.reportedSkew = 0
	}
	return c.reportedSkew
}
