package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/settings"
)

// Kinds of issuers, as their sections are called.
const (
	KindDigiCert   = "digicert"
	KindEntrust    = "entrust"
	KindGlobalSign = "globalsign"
	KindSectigo    = "sectigo"
	KindVault      = "vault"
)

func (s *Settings) validateIssuers(report func(string, error)) {
	for name := range s.Issuers {
		switch {
		case name == BuiltinIssuer || name == managed.CoordinatorIssuer:
			report("issuers."+name, errors.New("this name stands for the built-in CA; use another one"))
		case !managed.ValidIssuerName(name):
			report(fmt.Sprintf("issuers[%q]", name), errors.New("expected a name of 1 to 63 lower-case letters, digits and hyphens, with a letter or a digit first and last"))
		}
	}
}

// PollBudget is the budget of an issuer's orders: its own, else that of its kind. 0 is
// that of all.
func (s *Settings) PollBudget(i *Issuer) time.Duration {
	if i.PollMaxWait > 0 {
		return i.PollMaxWait
	}
	seconds := map[string]int{
		KindDigiCert: s.Orders.DigiCertPollMaxWait, KindEntrust: s.Orders.EntrustPollMaxWait,
		KindGlobalSign: s.Orders.GlobalSignPollMaxWait, KindSectigo: s.Orders.SectigoPollMaxWait,
	}[i.Kind()]
	return time.Duration(seconds) * time.Second
}

// kinds are the kinds whose sections are there.
func (i *Issuer) kinds() (list []string) {
	for kind, given := range map[string]bool{
		KindDigiCert: i.DigiCert != nil, KindEntrust: i.Entrust != nil, KindGlobalSign: i.GlobalSign != nil, KindSectigo: i.Sectigo != nil, KindVault: i.Vault != nil,
	} {
		if given {
			list = append(list, kind)
		}
	}
	slices.Sort(list)
	return list
}

// Kind is the issuer's kind, as its section is called.
func (i *Issuer) Kind() string {
	if list := i.kinds(); len(list) > 0 {
		return list[0]
	}
	return ""
}

// shortest is the shortest validity that a kind can be told.
var shortest = map[string]time.Duration{KindDigiCert: 24 * time.Hour, KindSectigo: 24 * time.Hour, KindGlobalSign: time.Hour, KindEntrust: time.Minute, KindVault: time.Minute}

// Validate implements settings.Validator.
func (i *Issuer) Validate(report func(string, error)) {
	if list := i.kinds(); len(list) != 1 {
		text := "an issuer needs one section that says what it is"
		if len(list) > 1 {
			text = "an issuer is one account, and here are " + strings.Join(list, " and ")
		}
		report("", fmt.Errorf("%s; expected exactly one of digicert, entrust, globalsign, sectigo and vault", text))
	}
	for field, given := range map[string]time.Duration{"validity": i.Validity, "max_validity": i.MaxValidity} {
		if least := shortest[i.Kind()]; given > 0 && given < least {
			report(field, fmt.Errorf("cannot use %s; expected at least %s for this authority, or 0s to leave it to it",
				settings.FormatDuration(given), settings.FormatDuration(least)))
		}
	}
	if i.MaxValidity > 0 && i.Validity > i.MaxValidity {
		report("validity", fmt.Errorf("cannot use %s; expected at most max_validity, which is %s",
			settings.FormatDuration(i.Validity), settings.FormatDuration(i.MaxValidity)))
	}
	checkFile("chain_file", i.ChainFile, report)
}

// Validate implements settings.Validator.
func (d *DigiCert) Validate(report func(string, error)) {
	checkURL("url", d.URL, report)
	checkSecret("api_key", d.APIKey, report)
	if strings.ContainsFunc(d.Product, func(r rune) bool { return r <= ' ' || r == '/' || r > '~' }) {
		report("product", fmt.Errorf("cannot use %q; expected the authority's name of a product, without blanks and slashes", d.Product))
	}
	d.APIServer.validate(report)
}

// Validate implements settings.Validator.
func (e *Entrust) Validate(report func(string, error)) {
	checkURL("url", e.URL, report)
	if !printable(e.ClientID) {
		report("client_id", fmt.Errorf("cannot use %q; expected printable ASCII", e.ClientID))
	}
	for field, value := range map[string]string{"ca": e.CA, "profile": e.Profile} {
		if value == "" {
			report(field, errors.New("it is empty; expected an id at the gateway"))
		}
	}
	e.APIClient.validate(report)
	e.APIServer.validate(report)
}

// oid is an object identifier in its usual form.
var oid = regexp.MustCompile(`^[0-2](\.(0|[1-9][0-9]{0,18})){1,20}$`)

// Validate implements settings.Validator.
func (g *GlobalSign) Validate(report func(string, error)) {
	checkURL("url", g.URL, report)
	checkSecret("api_key", g.APIKey, report)
	checkSecret("api_secret", g.APISecret, report)
	if _, given := g.Subject["common_name"]; given {
		report("subject", errors.New("the common name comes from each order; leave it out"))
	}
	for i, text := range g.Usages {
		if !oid.MatchString(text) {
			report(fmt.Sprintf("extended_key_usages[%d]", i), fmt.Errorf("cannot use %q; expected an object identifier such as 1.3.6.1.5.5.7.3.1", text))
		}
	}
	g.APIClient.validate(report)
	g.APIServer.validate(report)
}

// Validate implements settings.Validator.
func (s *Sectigo) Validate(report func(string, error)) {
	if s.URL != "" {
		checkURL("url", s.URL, report)
	}
	needs := func(field, value string) {
		if value == "" {
			report(field, fmt.Errorf("missing; an account with auth: %s needs it", s.Auth))
		} else if !printable(value) {
			report(field, fmt.Errorf("cannot use %q; expected printable ASCII", value))
		}
	}
	switch s.Auth {
	case "oauth2":
		needs("client_id", s.ClientID)
		checkSecret("client_secret", s.ClientSecret, report)
		checkURL("token_url", s.TokenURL, report)
	default:
		needs("login", s.Login)
		needs("customer_uri", s.CustomerURI)
		if s.Auth == "password" {
			checkSecret("password", s.Password, report)
		} else {
			s.APIClient.validate(report)
		}
	}
	for i, term := range s.Terms {
		if term < 1 || term > 3650 {
			report(fmt.Sprintf("terms[%d]", i), fmt.Errorf("cannot use %d; expected a number of days from 1 to 3650", term))
		}
	}
	if text := s.ExternalRequester; text != "" && (!strings.Contains(text, "{reference}") || !strings.Contains(text, "@")) {
		report("external_requester", fmt.Errorf("cannot use %q; expected an e-mail address with {reference} in it, such as certs+{reference}@example.com", text))
	}
	if s.DCVMode == "EMAIL" && s.DCVEmail == "" {
		report("dcv_email", errors.New("missing; dcv_mode: EMAIL needs it"))
	}
	s.APIServer.validate(report)
}

// vaultPath is a path of the server, without slashes around it.
var vaultPath = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$`)

// Validate implements settings.Validator.
func (v *Vault) Validate(report func(string, error)) {
	checkURL("url", v.URL, report)
	if u, err := url.Parse(v.URL); err == nil && strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), "/v1") {
		report("url", fmt.Errorf("cannot use %q; leave out /v1", hidden(u, v.URL)))
	}
	for field, path := range map[string]string{"namespace": v.Namespace, "mount": v.Mount, "approle_mount": v.AppRoleMount, "role": v.Role, "issuer": v.Issuer} {
		name := field == "role" || field == "issuer"
		if optional := field == "namespace" || field == "issuer"; optional && path == "" {
			continue
		}
		if !vaultPath.MatchString(path) || strings.Contains(path, "..") || name && strings.Contains(path, "/") {
			kind := "a path such as pki/web, without a slash before or after it"
			if name {
				kind = "a name without slashes"
			}
			report(field, fmt.Errorf("cannot use %q; expected %s", path, kind))
		}
	}
	switch token, role, secret := v.Token.IsSet(), v.RoleID.IsSet(), v.SecretID.IsSet(); {
	case token && (role || secret):
		report("token", errors.New("give it, or role_id and secret_id, and not both"))
	case !token && !role && !secret:
		report("token", errors.New("missing; expected it, or \"token_file\", or role_id and secret_id of AppRole"))
	case !token:
		checkSecret("role_id", v.RoleID, report)
		checkSecret("secret_id", v.SecretID, report)
	}
	v.APIServer.validate(report)
}

func (a *APIServer) validate(report func(string, error)) { checkFile("ca_file", a.CAFile, report) }

func (a *APIClient) validate(report func(string, error)) {
	if a.Certificate == "" {
		report("client_certificate_file", errors.New("missing; the authority knows the account by this certificate"))
	}
	checkFile("client_certificate_file", a.Certificate, report)
	checkSecret("client_key", a.Key, report)
}

func checkFile(field, path string, report func(string, error)) {
	if path != "" && !filepath.IsAbs(path) {
		report(field, fmt.Errorf("cannot use %q; expected an absolute path", path))
	}
}

func checkSecret(field string, secret settings.Secret, report func(string, error)) {
	if !secret.IsSet() {
		report(field, fmt.Errorf("missing; expected it, or %q", field+"_file"))
	}
}

// checkURL wants https, as credentials go there; on this host http will do, for what
// ends TLS beside the coordinator.
func checkURL(field, text string, report func(string, error)) {
	u, err := url.Parse(text)
	good := err == nil && u.Hostname() != "" && u.RawQuery == "" && u.Fragment == "" && u.User == nil
	switch {
	case !good || u.Scheme != "https" && u.Scheme != "http":
		report(field, fmt.Errorf("cannot use %q; expected an https URL", hidden(u, text)))
	case u.Scheme == "http" && !loopback(u.Hostname()):
		report(field, fmt.Errorf("cannot use %q; expected https, since credentials go there; http will do for loopback addresses alone", text))
	}
}

// hidden is a URL for a message: a password in it is not shown.
func hidden(u *url.URL, text string) string {
	switch {
	case u != nil && u.User != nil:
		return u.Redacted()
	case strings.Contains(text, "@"):
		return "[redacted]"
	}
	return text
}

func loopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}
