package acme

import (
	"context"
	"crypto/fips140"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/mail"
	"net/url"
	"strings"
	"time"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/settings"
)

const (
	// DefaultOrdersPer10s is the client-side limit on new orders. It only keeps
	// this host from being a nuisance; a CA's own limits are answered by its
	// Retry-After.
	DefaultOrdersPer10s = 10
	// DefaultChallenges bounds the authorizations that one issuer works on at the
	// same time.
	DefaultChallenges = 16
	// DefaultValidationTimeout is how long one call of Issue keeps a challenge
	// response in place and waits for the CA to look at it.
	DefaultValidationTimeout = 5 * time.Minute
)

// Config describes one ACME issuer. A field without "required" may be zero.
type Config struct {
	// Name is the issuer's name, under which its account is stored. Required.
	Name string
	// DirectoryURL is the server's directory (RFC 8555 section 7.1.1), https.
	// Required.
	DirectoryURL string
	// RootCAs verify the ACME server's TLS certificate; nil is the system's roots.
	RootCAs *x509.CertPool
	// Contact are e-mail addresses that the CA may write to about the account.
	Contact []string
	// TermsAgreed says that a person has agreed to the CA's terms of service
	// (RFC 8555 section 7.3.3). Must be true.
	TermsAgreed bool
	// EAB binds the account to one that the CA knows otherwise (section 7.3.4).
	EAB *EAB
	// PreferredChain is the common name of the issuer of the top-most certificate
	// of the chain to choose where the CA offers several (section 7.4.2). When
	// none matches, the CA's default chain is used and a warning logged.
	PreferredChain string

	// Solver proves control of names: HTTP01, HTTP01Webroot, TLSALPN01, DNS01Exec
	// or DNS01RFC2136. Required.
	Solver Solver
	// Listeners are shared by all issuers of a process that listen for
	// validation; nil makes a set of the issuer's own.
	Listeners *Listeners

	// Keys keeps the account key, State what belongs to it. Required.
	Keys  KeyStore
	State StateStore

	// OrdersPer10s, Challenges and ValidationTimeout are limits; 0 is the default.
	OrdersPer10s      int
	Challenges        int
	ValidationTimeout time.Duration

	// Clock is the time that the issuer goes by; nil is the wall clock.
	Clock Clock
	// Log is required.
	Log *slog.Logger
}

// Clock is the agent's trusted time; *clock.Clock is one. Servers are known to
// it by the host of their directory.
type Clock interface {
	Now() time.Time
	// Transport learns the time from answers, also where next fails for it.
	Transport(name string, verify clock.Verify, dial clock.Dial, next http.RoundTripper) http.RoundTripper
	// Probe asks a server for the time.
	Probe(ctx context.Context, name, server string, verify clock.Verify, dial clock.Dial) error
}

// EAB is an external account binding (RFC 8555 section 7.3.4).
type EAB struct {
	KeyID string
	// HMACKey is the MAC key in base64url, as CAs hand it out; padding is allowed.
	HMACKey settings.Secret
}

func (c *Config) validate() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }

	if c.Name == "" {
		add("name is empty: give the issuer a name")
	}
	if u, err := url.Parse(c.DirectoryURL); err != nil || u.Scheme != "https" || u.Host == "" || u.Fragment != "" {
		add("directory %q: want an https URL such as https://acme-v02.api.letsencrypt.org/directory", c.DirectoryURL)
	}
	for _, address := range c.Contact {
		if parsed, err := mail.ParseAddress(address); err != nil || parsed.Address != address {
			add("email %q: want a plain e-mail address such as ops@example.com", address)
		}
	}
	if !c.TermsAgreed {
		add("terms_agreed is not true: read the authority's terms of service and set it to true")
	}
	if c.EAB != nil {
		if c.EAB.KeyID == "" {
			add("eab.key_id is empty: enter the key identifier that the authority gave with the HMAC key")
		}
		if key, err := base64.RawURLEncoding.DecodeString(c.EAB.macKey()); err != nil || len(key) == 0 {
			add("eab.hmac_key: want the base64url text that the authority gave") // the text itself is a secret
		} else if tooShort(key) {
			add("eab.hmac_key: %s", shortSecret)
		}
	}
	if c.Solver == nil {
		add("no challenge solver: choose one of http-01, tls-alpn-01 and dns-01")
	} else if err := c.Solver.validate(); err != nil {
		problems = append(problems, err)
	}
	if c.OrdersPer10s < 0 || c.Challenges < 0 || c.ValidationTimeout < 0 {
		add("a limit is negative: use 0 for the default")
	}
	if c.Keys == nil || c.State == nil || c.Log == nil {
		add("Keys, State and Log are required")
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("ACME issuer %q: %w", c.Name, err)
	}
	return nil
}

// A secret of an HMAC has at least 112 bits where nothing else is approved; a
// shorter one would end the program when it is used.
const shortSecret = "has less than 112 bits, which FIPS 140-3 does not allow (GODEBUG=fips140=only); have a longer one made"

func tooShort(secret []byte) bool { return fips140.Enforced() && len(secret)*8 < 112 }

// macKey is the text in the one form that acmez reads.
func (e *EAB) macKey() string { return strings.TrimRight(e.HMACKey.Reveal(), "=") }

// CheckNames reports names that the solver cannot prove control of, so that
// they are refused when the configuration is read and not days later by the CA.
func CheckNames(solver Solver, names pki.Names) error {
	kind := solver.ChallengeType()
	if kind == challengeDNS01 {
		// RFC 8738 section 7: "The existing "dns-01" challenge MUST NOT be used to
		// validate IP identifiers."
		if len(names.IPs) > 0 {
			return fmt.Errorf("address %s cannot be validated by dns-01: use an issuer with http-01 or tls-alpn-01", names.IPs[0])
		}
		return nil
	}
	for _, name := range names.DNS {
		// RFC 8555 section 8.3 and RFC 8737 section 3 validate a host, which a
		// wildcard is not.
		if strings.HasPrefix(name, "*.") {
			return fmt.Errorf("wildcard %s cannot be validated by %s: use an issuer with dns-01", name, kind)
		}
	}
	return nil
}
