// Package revocation asks the authorities whether the certificates in service
// were revoked, by OCSP (RFC 6960, 5019) or revocation lists (RFC 5280), and
// reports those that were. An authority that cannot be asked is never held
// against a certificate.
package revocation
