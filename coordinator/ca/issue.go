package ca

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/certctl/certctl/shared/pki"
)

// ErrNotIdentity says that a certificate is no identity of this cluster.
var ErrNotIdentity = errors.New("the certificate is not an identity of this coordinator's cluster")

// ErrOutdated says that an identity was handed out by an identity CA of an
// earlier time, beneath a root that is trusted no more.
var ErrOutdated = errors.New("the identity was issued before the CA was rotated, and leads to no root that is trusted now")

// IssueLeaf issues a certificate for servers and clients. The names are the
// caller's to allow. A lifetime of 0 is Config.LeafLifetime, which is also the
// longest; one below MinLifetime is refused.
func (c *CA) IssueLeaf(names pki.Names, pub crypto.PublicKey, lifetime time.Duration) (*x509.Certificate, error) {
	if lifetime <= 0 || lifetime > c.config.LeafLifetime {
		lifetime = c.config.LeafLifetime
	}
	if names.IsZero() {
		return nil, fmt.Errorf("issue certificate: %w", pki.ErrNoNames)
	}
	template := endEntityTemplate(pub, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
	withNames(template, names)
	return c.issue(template, pub, leafBackdate, lifetime, func(h *hierarchy) authority {
		if url := c.ListURL(keyID(h.issuing.cert)); url != "" {
			template.CRLDistributionPoints = []string{url}
		}
		return h.issuing
	})
}

// IssueServer issues the coordinator's own TLS certificate, for ServerLifetime.
func (c *CA) IssueServer(names pki.Names, pub crypto.PublicKey) (*x509.Certificate, error) {
	if names.IsZero() {
		return nil, fmt.Errorf("issue certificate: %w", pki.ErrNoNames)
	}
	template := endEntityTemplate(pub, x509.ExtKeyUsageServerAuth)
	withNames(template, names)
	return c.issue(template, pub, ownBackdate, ServerLifetime, func(h *hierarchy) authority { return h.issuing })
}

// IssueIdentity issues the identity of an agent, for Config.IdentityLifetime.
func (c *CA) IssueIdentity(agentID string, pub crypto.PublicKey) (*x509.Certificate, error) {
	m, err := c.opened()
	if err != nil {
		return nil, err
	}
	if !validAgentID(agentID) {
		return nil, fmt.Errorf("issue identity: agent id %.80q; expected 1 to %d letters, digits, - or _", agentID, maxCommonName)
	}
	template := endEntityTemplate(pub, x509.ExtKeyUsageClientAuth)
	template.Subject = pkix.Name{CommonName: agentID}
	template.URIs = []*url.URL{identityURI(m.clusterID, agentID)}
	return c.issue(template, pub, leafBackdate, c.config.IdentityLifetime, func(h *hierarchy) authority { return h.identity })
}

func validAgentID(id string) bool {
	return id != "" && len(id) <= maxCommonName && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

func (c *CA) issue(template *x509.Certificate, pub crypto.PublicKey, backdate, lifetime time.Duration, by func(*hierarchy) authority) (*x509.Certificate, error) {
	m, err := c.opened()
	if err != nil {
		return nil, err
	}
	if lifetime < MinLifetime {
		return nil, fmt.Errorf("issue certificate: a lifetime of %v is too short; ask for at least %v", lifetime, MinLifetime)
	}
	if err := pki.CheckPublicKey(pub); err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	issuer, now := by(m.hierarchies[0]), c.now()
	if !now.Before(issuer.cert.NotAfter) {
		return nil, fmt.Errorf("issue certificate: %s, on %s: %w", issuer.cert.Subject.CommonName, issuer.cert.NotAfter.Format(time.RFC3339), ErrExpired)
	}
	template.NotBefore, template.NotAfter = Validity(now, backdate, lifetime, issuer.cert)
	return Sign(template, pub, issuer.cert, issuer.key)
}

// LeafChain is a certificate of IssueLeaf with its issuer, without the root
// (RFC 8446, section 4.4.2).
func (c *CA) LeafChain(leaf *x509.Certificate) ([]*x509.Certificate, error) {
	m, err := c.opened()
	if err != nil {
		return nil, err
	}
	return m.chain(leaf, issuingAuthority)
}

// ServerChain is a certificate of IssueServer with its issuer and the root:
// agents know only the root's fingerprint when they first come. While the root is
// being rotated the way to the other root follows, which the same key leads to
// (RFC 8446, section 4.4.2, allows certificates that a client does not need).
func (c *CA) ServerChain(leaf *x509.Certificate) ([]*x509.Certificate, error) {
	m, err := c.opened()
	if err != nil {
		return nil, err
	}
	chain := []*x509.Certificate{leaf}
	for _, h := range m.hierarchies {
		chain = append(chain, h.issuing.cert, h.root)
	}
	return chain, nil
}

// IdentityChain is an identity with its issuer, without the root. The error wraps
// ErrOutdated if that issuer no longer leads to a root that is trusted.
func (c *CA) IdentityChain(identity *x509.Certificate) ([]*x509.Certificate, error) {
	m, err := c.opened()
	if err != nil {
		return nil, err
	}
	chain, err := m.chain(identity, identityAuthority)
	if err != nil {
		return nil, err
	}
	for _, h := range m.hierarchies {
		if chain[1].CheckSignatureFrom(h.root) == nil {
			return chain, nil
		}
	}
	return nil, fmt.Errorf("identity %s: %w", pki.SerialHex(identity), ErrOutdated)
}

// AgentOf returns the id of the agent whose identity a certificate is: one that
// an identity CA, present or past, issued for this cluster, for the use by
// clients. It says nothing about the time: an expired identity still names its agent, and one of
// the future is this host's clock being set back. Errors wrap ErrSealed or
// ErrNotIdentity.
func (c *CA) AgentOf(cert *x509.Certificate) (string, error) {
	m, err := c.opened()
	if err != nil {
		return "", err
	}
	_, err = cert.Verify(x509.VerifyOptions{
		Roots: m.identities, CurrentTime: cert.NotAfter,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotIdentity, err)
	}
	if len(cert.URIs) != 1 || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) > 0 {
		return "", fmt.Errorf("%w: expected one URI in subjectAltName", ErrNotIdentity)
	}
	uri := cert.URIs[0]
	id, ok := strings.CutPrefix(uri.Path, "/agent/")
	if !ok || !validAgentID(id) || *uri != *identityURI(m.clusterID, id) {
		return "", fmt.Errorf("%w: the URI in subjectAltName is not an agent's of cluster %s", ErrNotIdentity, m.clusterID)
	}
	return id, nil
}
