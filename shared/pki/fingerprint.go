package pki

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
)

// Fingerprint returns the SHA-256 of the certificate's DER encoding as 64 lower-case hexadecimal digits.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// PublicKeyFingerprint returns the SHA-256 of the key's SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7) as 64
// lower-case hexadecimal digits. The error says that the kind of key has no such encoding.
func PublicKeyFingerprint(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("public key fingerprint: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// SerialHex returns the certificate's serial number as lower-case hexadecimal octets, most significant first, without
// separators; zero is "00". A negative number, which RFC 5280 forbids but the wild has, starts with "-".
func SerialHex(cert *x509.Certificate) string {
	octets := cert.SerialNumber.Bytes()
	if len(octets) == 0 {
		octets = []byte{0}
	}
	if cert.SerialNumber.Sign() < 0 {
		return "-" + hex.EncodeToString(octets)
	}
	return hex.EncodeToString(octets)
}
