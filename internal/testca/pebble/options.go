// Package pebble runs Pebble, the ACME test CA, as a child process on loopback
// ports, for tests and for the demo. Pebble resolves every name through its own
// DNS server, to 127.0.0.1, and validates on ports of its own, so nothing
// outside this host is involved and no privilege is needed.
package pebble

import (
	"io"
	"time"
)

// Options are the faults and features that Pebble is asked for. The zero value
// is a CA without faults that validates for real.
type Options struct {
	// NonceReject is the percentage of good nonces that are refused, 0 to 99.
	NonceReject int
	// ValidationSleep lets each validation begin after a random whole number of
	// seconds below this; 0 is at once.
	ValidationSleep time.Duration
	// AlwaysValid accepts every challenge without looking.
	AlwaysValid bool
	// AuthzReuse is the percentage of orders that get an authorization which is
	// valid already, if there is one: 0 to 100.
	AuthzReuse int
	// AlternateRoots is the number of chains offered beside the default one.
	AlternateRoots int
	// ChainLength is the number of intermediate certificates; 0 is 1.
	ChainLength int
	// RetryAfterAuthz and RetryAfterOrder are the Retry-After that Pebble sends,
	// in whole seconds; 0 is 1 s.
	RetryAfterAuthz, RetryAfterOrder time.Duration
	// EAB requires an external account binding: key ids with their HMAC keys in
	// base64url, of at least 32 octets. Empty requires none.
	EAB map[string]string
	// Profiles by name, in whole seconds of validity. Without any, Pebble has one
	// named "default" of 90 days. Pebble picks at random for an order that names
	// none.
	Profiles map[string]Profile
	// KeyAlgorithm of the CA's own keys: "ecdsa" (also for "") or "rsa".
	KeyAlgorithm string
	// Blocklist are domains for which Pebble refuses orders.
	Blocklist []string

	// DNSServer answers Pebble's queries instead of the challenge test server,
	// over TCP: "host:port".
	DNSServer string
	// HTTPPort and TLSPort are the ports on 127.0.0.1 that http-01 and
	// tls-alpn-01 are validated on; 0 chooses free ones.
	HTTPPort, TLSPort int

	// Dir holds Pebble's files. "" makes a directory and removes it with Close.
	Dir string
	// Log receives Pebble's output; nil discards it.
	Log io.Writer
}

// Profile is a certificate profile.
type Profile struct {
	Description string
	Validity    time.Duration
}

// file is the configuration file that Pebble reads.
type file struct {
	Pebble section `json:"pebble"`
}

type section struct {
	ListenAddress                  string            `json:"listenAddress"`
	ManagementListenAddress        string            `json:"managementListenAddress"`
	Certificate                    string            `json:"certificate"`
	PrivateKey                     string            `json:"privateKey"`
	HTTPPort                       int               `json:"httpPort"`
	TLSPort                        int               `json:"tlsPort"`
	ExternalAccountBindingRequired bool              `json:"externalAccountBindingRequired"`
	ExternalAccountMACKeys         map[string]string `json:"externalAccountMACKeys,omitempty"`
	DomainBlocklist                []string          `json:"domainBlocklist,omitempty"`
	KeyAlgorithm                   string            `json:"keyAlgorithm"`
	Profiles                       map[string]entry  `json:"profiles,omitempty"`
	RetryAfter                     retryAfter        `json:"retryAfter"`
}

type entry struct {
	Description    string `json:"description"`
	ValidityPeriod uint64 `json:"validityPeriod"` // seconds
}

type retryAfter struct {
	Authz int `json:"authz"` // seconds
	Order int `json:"order"` // seconds
}
