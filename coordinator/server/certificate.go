package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
)

const (
	certificateInterval = time.Minute
	// authorityInterval is how soon a change of the CA reaches this node.
	authorityInterval = time.Second
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
	// stored is the CA in the replicated state.
	stored func() (*fleet.CA, bool)
	// rootFile is kept equal to what clients have to trust; "" keeps none.
	rootFile string
}

// begin obtains the first certificate. The CA may be unsealed anew meanwhile, by a
// start that has heard from the leader: then this one is found to be outdated.
func (c *certificate) begin() error {
	of := c.ca.Modified()
	if err := c.obtain(); err != nil {
		return err
	}
	c.ca.NoteServed(of)
	return nil
}

// obtain replaces the certificate, key and all.
func (c *certificate) obtain() error {
	leaf, err := c.issue()
	if err != nil {
		return fmt.Errorf("the server's certificate: %w", err)
	}
	c.log.Info("the server has a new certificate", "serial", pki.SerialHex(leaf), "not_after", leaf.NotAfter, "names", c.names.String())
	if end := c.ca.IssuerExpiry(); end.Sub(c.now()) < issuerWarning {
		c.log.Warn("an issuing CA of the built-in CA expires; certificates end with it; replace it with \"certctl ca rotate\"", "not_after", end)
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

// follow takes over changes of the CA from the replicated state, until ctx is
// done: the CA is unsealed anew, the server's certificate issued by what signs
// now, and the root file rewritten. A step that fails is tried again.
func (c *certificate) follow(ctx context.Context) error {
	jitter.Loop(ctx, authorityInterval, jitter.DefaultSchedulerJitter, nil, func(context.Context) {
		if err := c.adopt(); err != nil {
			c.log.Error("a change of the CA was not taken over; it is tried again", "err", err)
		}
	})
	return nil
}

func (c *certificate) adopt() error {
	stored, ok := c.stored()
	if !ok {
		return nil // restored to a state of before the first start; Bootstrap's matter
	}
	if err := c.ca.Refresh(stored); err != nil {
		return err
	}
	if c.ca.Served() == stored.ModifyIndex {
		return nil
	}
	c.log.Info("the CA has changed", "root_fingerprint", pki.Fingerprint(c.ca.Root()), "trust_generation", len(stored.Generations))
	if c.rootFile != "" {
		if err := writeRoots(c.rootFile, c.ca); err != nil {
			return err
		}
	}
	if err := c.obtain(); err != nil {
		return err
	}
	c.ca.NoteServed(stored.ModifyIndex)
	return nil
}
