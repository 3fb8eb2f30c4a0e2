package acme

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/certctl/certctl/agent/clock"
)

// TimeSource implements issuer.Timekeeper: the host of the directory, which
// several issuers may share.
func (i *Issuer) TimeSource() string {
	directory, err := url.Parse(i.config.DirectoryURL)
	if err != nil {
		return "" // New has parsed it
	}
	return directory.Host
}

// AskTime makes the authority's time known to the clock, also when this host's
// is so wrong that the authority's certificate does not verify.
func (i *Issuer) AskTime(ctx context.Context) error {
	if i.config.Clock == nil {
		return errors.New("there is no clock to tell the authority's time to")
	}
	return i.config.Clock.Probe(ctx, i.TimeSource(), i.config.DirectoryURL, clock.VerifyRoots(i.config.RootCAs), nil)
}

// now is the trusted time.
func (i *Issuer) now() time.Time {
	if i.config.Clock == nil {
		return time.Now()
	}
	return i.config.Clock.Now()
}
