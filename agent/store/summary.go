package store

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Summary is the row that the coordinator is told of this record: no key, no
// PEM, no state of an issuer or target. Texts are cut to wire.MaxTextLen, and
// deployments are sorted by id. It depends on the record alone.
func (c *Certificate) Summary() wire.Summary {
	s := wire.Summary{
		Names:          c.servedNames(),
		State:          c.state(),
		Issuer:         c.Issuer,
		IssuerKind:     c.IssuerKind,
		Renewals:       c.Renewals,
		Attempt:        c.Attempt,
		LastError:      cutText(c.LastError, wire.MaxTextLen),
		LastErrorAt:    c.LastErrorAt,
		NeedsAttention: cutText(c.NeedsAttention, wire.MaxTextLen),
		Waiting:        cutText(c.Waiting, wire.MaxTextLen),
	}
	if c.Attempt > 0 {
		// Otherwise NextAction is housekeeping, and each of its moves would be a change to report.
		s.NextAttempt = c.NextAction
	}
	if g := c.Current; g != nil {
		s.Serial, s.Fingerprint, s.IssuerDN = g.Serial, g.Fingerprint, cutText(g.IssuerDN, wire.MaxTextLen)
		s.KeyAlgorithm = string(g.KeyAlgorithm)
		s.NotBefore, s.NotAfter = g.NotBefore, g.NotAfter
		s.RenewAt = c.PlannedAt
		if s.RenewAt.IsZero() {
			s.RenewAt = c.RenewAt
		}
		s.Former = c.former()
		if g.Issuer != c.Issuer {
			s.IssuedBy = g.Issuer
		}
		if g.Revoked != nil {
			s.RevokedAt, s.RevocationReason = g.Revoked.At, g.Revoked.Reason
		}
	}
	s.SafeUntil = c.Horizon()
	for id, d := range c.Deployments {
		if d.Outcome == "" {
			d.Outcome = wire.DeploymentPending
		}
		s.Deployments = append(s.Deployments, wire.DeploymentSummary{
			ID: id, State: d.Outcome, Fingerprint: d.Fingerprint, At: d.At, Detail: cutText(d.Detail, wire.MaxTextLen),
		})
	}
	slices.SortFunc(s.Deployments, func(a, b wire.DeploymentSummary) int { return strings.Compare(a.ID, b.ID) })
	return s
}

// former reports whether the certificate in service is of an earlier configuration.
func (c *Certificate) former() bool {
	return c.Current != nil && c.Current.ConfigDigest != c.ConfigDigest
}

// servedNames are the names in the certificate in service, and those that are
// configured while there is none. A certificate that cannot be read was checked
// for the names of its configuration; of an earlier one nothing is known then.
func (c *Certificate) servedNames() pki.Names {
	if c.Current == nil {
		return c.Names
	}
	if names, err := c.Current.names(); err == nil {
		return names
	}
	if c.former() {
		return pki.Names{}
	}
	return c.Names
}

// names are those in the certificate.
func (g *Generation) names() (pki.Names, error) {
	block, _ := pem.Decode([]byte(g.ChainPEM)) // the first is the leaf
	if block == nil {
		return pki.Names{}, errors.New("no certificate")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return pki.Names{}, err
	}
	return pki.CertificateNames(leaf)
}

func (c *Certificate) state() wire.State {
	idle := c.Phase == PhaseIdle || c.Phase == ""
	switch {
	case c.Attempt > 0:
		return wire.StateFailed
	case !idle:
		return wire.StateRenewing
	case c.Current == nil:
		return wire.StatePending
	case c.Current.Revoked != nil:
		return wire.StateRenewing // its replacement is due
	}
	return wire.StateValid
}

// encodeRow is the JSON of a summary within wire.MaxRowBytes: a row that the
// coordinator refuses for its size would block all that come after it. What a
// person needs least is cut first: long texts, then the deployments that went
// well, then names.
func encodeRow(s wire.Summary) ([]byte, error) {
	cuts := []func(){
		func() { shortenTexts(&s, 256) },
		func() { shortenTexts(&s, 64) },
		func() { s.Deployments = worstDeployments(s.Deployments, 24) },
		func() { s.Deployments = worstDeployments(s.Deployments, 8) },
		func() { s.Names = firstNames(s.Names, 16) },
		func() { s.Deployments = worstDeployments(s.Deployments, 2) },
		func() { s.Names = firstNames(s.Names, 4) },
	}
	for {
		data, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		if len(data) <= wire.MaxRowBytes {
			return data, nil
		}
		if len(cuts) == 0 {
			return nil, fmt.Errorf("its summary has %d octets, more than the %d that a row may have; shorten the names of its issuer and deployments",
				len(data), wire.MaxRowBytes)
		}
		cuts[0]()
		cuts = cuts[1:]
	}
}

func shortenTexts(s *wire.Summary, limit int) {
	s.LastError = cutText(s.LastError, limit)
	s.NeedsAttention = cutText(s.NeedsAttention, limit)
	s.Waiting = cutText(s.Waiting, limit)
	s.IssuerDN = cutText(s.IssuerDN, limit)
	for i := range s.Deployments {
		s.Deployments[i].Detail = cutText(s.Deployments[i].Detail, limit)
	}
}

// severity orders what a person has to see first.
var severity = []wire.DeploymentState{wire.DeploymentBroken, wire.DeploymentFailed, wire.DeploymentPending,
	wire.DeploymentUnverified, wire.DeploymentVerified}

// omittedID is the entry that stands for deployments left out. No configured
// deployment can have it.
const omittedID = "..."

// worstDeployments keeps the worst, and one entry that says how many were left out.
func worstDeployments(list []wire.DeploymentSummary, keep int) []wire.DeploymentSummary {
	if len(list) <= keep+1 {
		return list
	}
	byRank := slices.Clone(list)
	slices.SortStableFunc(byRank, func(a, b wire.DeploymentSummary) int {
		return slices.Index(severity, a.State) - slices.Index(severity, b.State)
	})
	kept, omitted := byRank[:keep], byRank[keep:]
	count := len(omitted)
	for _, d := range omitted {
		if d.ID == omittedID { // from an earlier, weaker cut
			var earlier int
			if _, err := fmt.Sscan(d.Detail, &earlier); err == nil {
				count += earlier - 1
			}
		}
	}
	kept = slices.DeleteFunc(slices.Clone(kept), func(d wire.DeploymentSummary) bool { return d.ID == omittedID })
	rest := wire.DeploymentSummary{ID: omittedID, State: omitted[0].State, Detail: fmt.Sprintf("%d more on the host", count)}
	slices.SortFunc(kept, func(a, b wire.DeploymentSummary) int { return strings.Compare(a.ID, b.ID) })
	return append(kept, rest)
}

func firstNames(names pki.Names, keep int) pki.Names {
	names.DNS = names.DNS[:min(keep, len(names.DNS))]
	names.IPs = names.IPs[:min(keep, len(names.IPs))]
	return names
}
