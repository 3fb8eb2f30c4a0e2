package enroll

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// maxAgentID bounds what is stored and shown of an agent's id.
const maxAgentID = 128

// CheckIdentity decides whether an identity that a coordinator sent may be
// used: the first certificate of chain is for the key pub, is meant for clients
// (RFC 5280, section 4.2.1.12), and leads to one of roots. Both are PEM. Whether
// it is valid now is judged by the coordinator's clock alone: this host's may be
// wrong.
func CheckIdentity(chain, roots string, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	certs, err := pki.ParseChainPEM([]byte(chain))
	if err != nil {
		return nil, fmt.Errorf("chain: %w", err)
	}
	anchors, err := pki.ParseChainPEM([]byte(roots))
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	leaf := certs[0]
	if !pki.SamePublicKey(leaf.PublicKey, pub) {
		return nil, fmt.Errorf("chain: %w", pki.ErrKeyMismatch)
	}
	if leaf.IsCA {
		return nil, fmt.Errorf("chain: %w", pki.ErrNotLeaf)
	}
	if now.Before(leaf.NotBefore) {
		now = leaf.NotBefore
	}
	if now.After(leaf.NotAfter) {
		now = leaf.NotAfter
	}
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, cert := range anchors {
		options.Roots.AddCert(cert)
	}
	for _, cert := range certs[1:] {
		options.Intermediates.AddCert(cert)
	}
	if _, err := leaf.Verify(options); err != nil {
		return nil, fmt.Errorf("chain: %w", err)
	}
	return leaf, nil
}

// checkAnswer checks the rest of an enrolment: above all, that the roots which
// will be trusted from now on contain the one that the token names, or one of
// those that the signed chain has led to from there.
func checkAnswer(answer *wire.EnrollResponse, token wire.EnrollmentToken, since []*x509.Certificate) error {
	if answer.AgentID == "" || len(answer.AgentID) > maxAgentID || !wire.ValidName(answer.AgentID) {
		return fmt.Errorf("agent_id: expected 1 to %d characters", maxAgentID)
	}
	if _, err := pki.ParseNamePatterns(answer.NamePatterns); err != nil {
		return fmt.Errorf("name_patterns: %w", err)
	}
	roots, err := pki.ParseChainPEM([]byte(answer.Roots))
	if err != nil {
		return fmt.Errorf("roots: %w", err)
	}
	for _, root := range roots {
		if wire.PinOf(root) == token.RootPin || slices.ContainsFunc(since, root.Equal) {
			return nil
		}
	}
	return errors.New("roots: the root that the token names is not among them")
}

// DrawRenewAt is when an identity is to be renewed: half way between now and
// its end, give or take a tenth. now is the coordinator's time, and so is the
// result: this host's clock may be wrong. u is uniform in [0,1), drawn once per
// identity, and the result is to be stored.
func DrawRenewAt(leaf *x509.Certificate, now time.Time, u float64) time.Time {
	start := now
	if start.Before(leaf.NotBefore) || start.After(leaf.NotAfter) {
		start = leaf.NotBefore
	}
	life := leaf.NotAfter.Sub(start)
	return start.Add(time.Duration(float64(life) * (0.5 + 0.1*(2*u-1))))
}

// unused stands where pki.ParseCSR wants a name; the coordinator decides what
// the identity is called.
var unused = pki.MustParseNames("agent.invalid")

// IdentityCSR makes the request for an identity. Its name means nothing.
func IdentityCSR(key crypto.Signer) ([]byte, error) {
	der, err := pki.CreateCSR(key, unused)
	if err != nil {
		return nil, fmt.Errorf("identity request: %w", err)
	}
	return der, nil
}
