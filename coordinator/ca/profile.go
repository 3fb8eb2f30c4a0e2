package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/certctl/certctl/shared/pki"
)

// Lifetimes.
const (
	RootLifetime    = 20 * 365 * 24 * time.Hour
	IssuingLifetime = 5 * 365 * 24 * time.Hour
	// ServerLifetime is that of the coordinator's own TLS certificate.
	ServerLifetime = 30 * 24 * time.Hour
	// MinLifetime is the shortest that is issued.
	MinLifetime = 10 * time.Second

	// leafBackdate moves notBefore into the past, for clocks that are a little
	// slow. It is no more than a tenth of the lifetime, so that who counts from
	// notBefore is not misled about a short one.
	leafBackdate = time.Minute
	// ownBackdate is the same for the CA and the coordinator's own certificate:
	// a host whose clock is hours slow has to get as far as being told so.
	ownBackdate = 24 * time.Hour
)

// maxCommonName is ub-common-name of RFC 5280, appendix A.1.
const maxCommonName = 64

// Validity is the time from now for which a certificate is made: no longer than
// its issuer's, for it would end with that anyway.
func Validity(now time.Time, backdate, lifetime time.Duration, issuer *x509.Certificate) (notBefore, notAfter time.Time) {
	notBefore = now.Add(-min(backdate, lifetime/10))
	notAfter = now.Add(lifetime)
	if issuer != nil {
		if notBefore.Before(issuer.NotBefore) {
			notBefore = issuer.NotBefore
		}
		if notAfter.After(issuer.NotAfter) {
			notAfter = issuer.NotAfter
		}
	}
	// Certificates count in seconds (RFC 5280, section 4.1.2.5).
	return notBefore.UTC().Truncate(time.Second), notAfter.UTC().Truncate(time.Second)
}

// SerialNumber is 16 octets from the random source, positive and with no
// leading zero (RFC 5280, section 4.1.2.2, allows 20).
func SerialNumber() *big.Int {
	var octets [16]byte
	_, _ = rand.Read(octets[:])
	octets[0] = octets[0]&0x3f | 0x40
	return new(big.Int).SetBytes(octets[:])
}

func authorityTemplate(name pkix.Name, pathLen int, usages ...x509.ExtKeyUsage) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          SerialNumber(),
		Subject:               name,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            pathLen,
		MaxPathLenZero:        pathLen == 0,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:           usages,
	}
}

func endEntityTemplate(pub crypto.PublicKey, usages ...x509.ExtKeyUsage) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber:          SerialNumber(),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usages,
	}
	if _, ok := pub.(*rsa.PublicKey); ok {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment // RSA key exchange of TLS 1.2
	}
	return template
}

// withNames puts names into subjectAltName, and the first DNS name into the
// common name, which some programs still show, if it fits there.
func withNames(template *x509.Certificate, names pki.Names) {
	template.DNSNames = names.DNS
	for _, ip := range names.IPs {
		template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
	}
	if len(names.DNS) > 0 && len(names.DNS[0]) <= maxCommonName {
		template.Subject = pkix.Name{CommonName: names.DNS[0]}
	}
}

// identityURI names an agent of this cluster in subjectAltName.
func identityURI(clusterID, agentID string) *url.URL {
	return &url.URL{Scheme: "certctl", Host: clusterID, Path: "/agent/" + agentID}
}

// Sign makes a certificate. A nil issuer makes it sign itself.
func Sign(template *x509.Certificate, pub crypto.PublicKey, issuer *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	if issuer == nil {
		issuer = template
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	keyID := sha256.Sum256(spki) // RFC 7093, section 2, method 4
	template.SubjectKeyId = keyID[:20]
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, pub, key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return cert, nil
}
