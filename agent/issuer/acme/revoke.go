package acme

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/shared/pki"
)

// Revoke has the authority revoke a certificate that it issued (RFC 8555, section
// 7.6). The account asks, and the certificate's key where the account may not:
// the certificate may be of an account that the issuer had before. For a
// compromised key it is the other way round, since a request that this key has
// signed proves the compromise, and authorities then refuse the key for good.
func (i *Issuer) Revoke(ctx context.Context, leaf *x509.Certificate, key crypto.Signer, reason int) error {
	s, err := i.session(ctx)
	if err != nil {
		return err
	}
	if s.directory.RevokeCert == "" {
		return &issuer.Error{
			Class: issuer.ClassRefused,
			Err:   errors.New("the authority's directory has no revokeCert"),
			Mend:  "revoke the certificate as the authority's own documentation says",
		}
	}
	if key != nil && pki.MatchKey(leaf, key) != nil {
		key = nil // the authority would take it for somebody else's request
	}
	ways := []crypto.Signer{nil, key} // nil is the account
	switch {
	case key == nil:
		ways = ways[:1]
	case reason == pki.ReasonKeyCompromise:
		ways[0], ways[1] = key, nil
	}
	for _, with := range ways {
		err = i.revokeWith(ctx, s, leaf, with, reason)
		if err == nil {
			i.log.Info("certificate revoked by the authority", "serial", pki.SerialHex(leaf), "reason", pki.ReasonName(reason), "by_account", with == nil)
			return nil
		}
		if ctx.Err() != nil || issuer.Classify(err).Class != issuer.ClassRefused {
			return err
		}
	}
	return err
}

// revokeWith asks once with the certificate's key, or, if that is nil, with the
// account; when the authority does not know the account (any more), once more
// with the one that it then has.
func (i *Issuer) revokeWith(ctx context.Context, s *session, leaf *x509.Certificate, key crypto.Signer, reason int) error {
	for again := false; ; again = true {
		var account acme.Account
		if key == nil {
			var err error
			if account, err = i.accounts.get(ctx, s); err != nil {
				return err
			}
		}
		err := call(ctx, stepRevoke, func(ctx context.Context) error {
			return s.client.RevokeCertificate(ctx, account, leaf, key, reason)
		})
		var problem acme.Problem
		if err == nil || !errors.As(err, &problem) {
			return err
		}
		switch {
		case problem.Type == acme.ProblemTypeAlreadyRevoked:
			return nil
		case problem.Type == acme.ProblemTypeAccountDoesNotExist && key == nil && !again:
			i.log.Warn("the authority does not know the account; registering its key again", "account", account.Location)
			if err := i.accounts.forget(ctx, account.Location); err != nil {
				return err
			}
		default:
			return err
		}
	}
}
