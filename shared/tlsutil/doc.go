// Package tlsutil builds the TLS 1.3 configurations of both sides: certificates that can be replaced while connections
// run, a root that is trusted by its fingerprint alone, and a probe that looks at what a server presents.
//
// Nothing here speaks TLS 1.2 or older (RFC 8446 only), except the probe, which must see whatever a server of any age
// serves.
package tlsutil
