package revocation

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // what requests are made with (RFC 5019, section 2.1.1)
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// readOCSP reads a response about leaf and decides whether it is believed. The
// signature has to be the issuer's own, or that of a responder which the issuer
// has certified for that (RFC 6960, section 4.2.2.2).
func readOCSP(body []byte, leaf, issuer *x509.Certificate, now time.Time) (answer, error) {
	response, err := ocsp.ParseResponseForCert(body, leaf, nil)
	if err != nil {
		if refused, ok := errors.AsType[ocsp.ResponseError](err); ok {
			return answer{}, fmt.Errorf("the responder refused the question: %s", refused.Status)
		}
		return answer{}, fmt.Errorf("the response cannot be read: %w", err)
	}
	if err := checkResponder(response, issuer, now); err != nil {
		return answer{}, err
	}
	if err := checkCertID(response, issuer); err != nil {
		return answer{}, err
	}
	if err := fresh(response.ThisUpdate, response.NextUpdate, now); err != nil {
		return answer{}, fmt.Errorf("the response cannot be used: %w", err)
	}
	a := answer{nextUpdate: response.NextUpdate}
	switch response.Status {
	case ocsp.Good:
		a.result = ResultGood
	case ocsp.Revoked:
		a.result, a.revokedAt, a.reason = ResultRevoked, response.RevokedAt, response.RevocationReason
	default:
		a.result = ResultUnknown
	}
	return a, nil
}

// checkResponder checks who signed. A certificate that came with the response has
// been checked to be the signer's.
func checkResponder(response *ocsp.Response, issuer *x509.Certificate, now time.Time) error {
	delegate := response.Certificate
	if delegate == nil || delegate.Equal(issuer) {
		if err := response.CheckSignatureFrom(issuer); err != nil {
			return fmt.Errorf("the response is not signed by the issuer: %w", err)
		}
		return nil
	}
	switch {
	case !bytes.Equal(delegate.RawIssuer, issuer.RawSubject) || delegate.CheckSignatureFrom(issuer) != nil:
		return errors.New("the response is signed by a responder that the issuer has not certified")
	case !slices.Contains(delegate.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return errors.New("the response is signed with a certificate that is not for OCSP")
	case now.Before(delegate.NotBefore.Add(-clockTolerance)) || now.After(delegate.NotAfter.Add(clockTolerance)):
		return errors.New("the responder's certificate is not valid now")
	}
	return nil
}

// certIDs is what the parsed response leaves out: whose serial numbers it is about
// (RFC 6960, section 4.2.1).
type certIDs struct {
	Version     int `asn1:"optional,default:0,explicit,tag:0"`
	ResponderID asn1.RawValue
	ProducedAt  time.Time `asn1:"generalized"`
	Responses   []struct{ CertID certID }
}

type certID struct {
	Hash         pkix.AlgorithmIdentifier
	NameHash     []byte
	KeyHash      []byte
	SerialNumber *big.Int
}

// checkCertID checks that the answer is about a certificate of this issuer: a
// responder may serve several.
func checkCertID(response *ocsp.Response, issuer *x509.Certificate) error {
	var about certIDs
	if rest, err := asn1.Unmarshal(response.TBSResponseData, &about); err != nil || len(rest) > 0 {
		return errors.New("the response does not say what it is about")
	}
	name, key, err := issuerHashes(issuer, response.IssuerHash)
	if err != nil {
		return err
	}
	for _, r := range about.Responses {
		// The first one of the serial number is the one that was read.
		if r.CertID.SerialNumber != nil && r.CertID.SerialNumber.Cmp(response.SerialNumber) == 0 {
			if bytes.Equal(r.CertID.NameHash, name) && bytes.Equal(r.CertID.KeyHash, key) {
				return nil
			}
			break
		}
	}
	return errors.New("the response is about a certificate of another issuer")
}

func issuerHashes(issuer *x509.Certificate, hash crypto.Hash) (name, key []byte, err error) {
	if !hash.Available() {
		return nil, nil, errors.New("the response uses a hash that is not known")
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &info); err != nil {
		return nil, nil, fmt.Errorf("key of the issuer: %w", err)
	}
	digest := func(b []byte) []byte {
		h := hash.New()
		h.Write(b) // never fails
		return h.Sum(nil)
	}
	return digest(issuer.RawSubject), digest(info.PublicKey.RightAlign()), nil
}
