package ca

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/certctl/certctl/shared/pki"
)

// ErrRequest says that a request for an identity cannot be used.
var ErrRequest = errors.New("identity request refused")

// ParseIdentityRequest takes the public key out of a PKCS #10 request in DER of
// at most pki.MaxCSR octets. It checks the key's strength and the signature,
// which proves possession of the key; subject and extensions are not looked at,
// because the coordinator decides what an identity says. Errors wrap ErrRequest,
// and pki.ErrWeakKey if it is the key.
func ParseIdentityRequest(der []byte) (crypto.PublicKey, error) {
	if len(der) > pki.MaxCSR {
		return nil, fmt.Errorf("%w: %d octets; at most %d are read", ErrRequest, len(der), pki.MaxCSR)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: want PKCS #10 in DER: %w", ErrRequest, err)
	}
	// The strength check stands first: it bounds what the signature check can cost.
	if err := pki.CheckPublicKey(request.PublicKey); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	switch request.SignatureAlgorithm { // CheckSignature would accept SHA-1
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519:
	default:
		return nil, fmt.Errorf("%w: signed with %v; sign with SHA-256 or better, or Ed25519", ErrRequest, request.SignatureAlgorithm)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: the signature does not prove possession of the key: %w", ErrRequest, err)
	}
	return request.PublicKey, nil
}
