package acme

import (
	"context"
	"crypto/x509"
	"fmt"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/shared/pki"
)

// download gets the certificate with its chains and chooses one.
func (r *issuance) download(ctx context.Context) (*issuer.Issued, error) {
	var offered []acme.Certificate
	err := call(ctx, stepCertificate, func(ctx context.Context) error {
		var err error
		offered, err = r.session.client.GetCertificateChain(ctx, r.account, r.state.Certificate)
		return err
	})
	if err != nil {
		return nil, err
	}
	chains := make([][]*x509.Certificate, 0, len(offered))
	for n, certificate := range offered {
		chain, err := pki.ParseChainPEM(certificate.ChainPEM)
		if err == nil {
			chain, err = pki.SortChain(chain)
		}
		if err != nil && n == 0 {
			// The whole answer has come, and will be the same the next time: to
			// ask for it again would be to ask for ever.
			return nil, &issuer.Error{Class: issuer.ClassOrderGone, Err: fmt.Errorf("%s: %s: %w", stepCertificate, certificate.URL, err)}
		}
		if err != nil {
			r.log.Warn("an alternate chain is not usable", "url", certificate.URL, "err", err)
			continue
		}
		chains = append(chains, chain)
	}
	chain, matched := prefer(chains, r.config.PreferredChain)
	if !matched {
		r.log.Warn("the authority offers no chain with the preferred issuer; using its default chain",
			"preferred_chain", r.config.PreferredChain, "offered", topIssuers(chains))
	}
	r.log.Info("certificate downloaded", "serial", pki.SerialHex(chain[0]), "not_after", chain[0].NotAfter)
	return &issuer.Issued{Chain: chain}, nil
}

// prefer returns the chain whose top-most certificate was issued by the given
// common name, or the first chain, which is the authority's default.
func prefer(chains [][]*x509.Certificate, commonName string) (chain []*x509.Certificate, matched bool) {
	if commonName == "" {
		return chains[0], true
	}
	for _, chain := range chains {
		if chain[len(chain)-1].Issuer.CommonName == commonName {
			return chain, true
		}
	}
	return chains[0], false
}

func topIssuers(chains [][]*x509.Certificate) []string {
	names := make([]string, len(chains))
	for n, chain := range chains {
		names[n] = chain[len(chain)-1].Issuer.CommonName
	}
	return names
}
