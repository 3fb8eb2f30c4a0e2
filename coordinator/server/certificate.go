package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
)

const (
	certificateInterval = time.Minute
	// issuerWarning is how long before the end of an issuing CA the log begins
	// to say so.
	issuerWarning = 180 * 24 * time.Hour
)

// A certificate is the server's own: issued by the built-in CA, held in memory
// alone, and replaced when two thirds of its life are over.
type certificate struct {
	ca     *ca.CA
	names  pki.Names
	source tlsutil.CertSource
	now    func() time.Time
	log    *slog.Logger
}

// obtain replaces the certificate, key and all.
func (c *certificate) obtain() error {
	leaf, err := c.issue()
	if err != nil {
		return fmt.Errorf("the server's certificate: %w", err)
	}
	c.log.Info("the server has a new certificate", "serial", pki.SerialHex(leaf), "not_after", leaf.NotAfter, "names", c.names.String())
	if end := c.ca.IssuerExpiry(); end.Sub(c.now()) < issuerWarning {
		c.log.Warn("an issuing CA of the built-in CA expires; certificates end with it", "not_after", end)
	}
	return nil
}

func (c *certificate) issue() (*x509.Certificate, error) {
	key, err := pki.GenerateKey(pki.ECDSAP256)
	if err != nil {
		return nil, err
	}
	leaf, err := c.ca.IssueServer(c.names, key.Public())
	if err != nil {
		return nil, err
	}
	chain, err := c.ca.ServerChain(leaf)
	if err != nil {
		return nil, err
	}
	return leaf, c.source.Set(chain, key)
}

// renewAt is when two thirds of a certificate's life are over.
func renewAt(cert *x509.Certificate) time.Time {
	return cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) * 2 / 3)
}

// keep renews the certificate in time, until ctx is done. It compares the time
// of day at each tick, because timers stand still while a machine sleeps.
func (c *certificate) keep(ctx context.Context) error {
	jitter.Loop(ctx, certificateInterval, jitter.DefaultSchedulerJitter, nil, func(context.Context) {
		leaf := c.source.Leaf()
		if c.now().Before(renewAt(leaf)) {
			return
		}
		if err := c.obtain(); err != nil {
			c.log.Error("the server's certificate was not renewed; it is tried again", "not_after", leaf.NotAfter, "err", err)
		}
	})
	return nil
}
