package config

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/settings"
	"github.com/certctl/certctl/shared/wire"
)

// CoordinatorIssuer is the name of the issuer that every agent has: the
// built-in CA of its coordinator.
const CoordinatorIssuer = managed.CoordinatorIssuer

// Keys is the key directory: the one configured, or keys in the state directory.
func (s *Settings) Keys() string {
	if s.KeyDir != "" {
		return s.KeyDir
	}
	return filepath.Join(s.StateDir, "keys")
}

// Validate implements settings.Validator.
func (s *Settings) Validate(report func(string, error)) {
	if !filepath.IsAbs(s.StateDir) {
		report("state_dir", fmt.Errorf("cannot use %q; expected an absolute path", s.StateDir))
	}
	if s.KeyDir != "" && !filepath.IsAbs(s.KeyDir) {
		report("key_dir", fmt.Errorf("cannot use %q; expected an absolute path", s.KeyDir))
	}
	if _, taken := s.Issuers[CoordinatorIssuer]; taken {
		report("issuers."+CoordinatorIssuer, errors.New("this name stands for the coordinator's built-in CA; use another one"))
	}
	for name := range s.Issuers {
		switch {
		case strings.HasPrefix(name, CoordinatorIssuer+"/"):
			report(fmt.Sprintf("issuers[%q]", name), errors.New("names that begin so stand for issuers of the coordinator's settings; use another one"))
		case !wire.ValidName(name):
			report(fmt.Sprintf("issuers[%q]", name), fmt.Errorf("expected a name of 1 to %d characters without control characters", wire.MaxNameLen))
		}
	}
	s.validateTimes(report)
	for i, text := range s.Coordinator.Servers {
		if _, err := wire.ParseServer(text); err != nil {
			report(fmt.Sprintf("coordinator.servers[%d]", i), err)
		}
	}
	for i, dir := range s.Assignments.AllowPaths {
		if !filepath.IsAbs(dir) {
			report(fmt.Sprintf("assignments.allow_paths[%d]", i), fmt.Errorf("cannot use %q; expected an absolute path", dir))
		}
	}
	for i, text := range s.Assignments.AllowVerify {
		if _, err := ParseReach(text); err != nil {
			report(fmt.Sprintf("assignments.allow_verify[%d]", i), err)
		}
	}
	names := make(map[string]int, len(s.Certificates))
	files := NewOwners()
	for i := range s.Certificates {
		c := &s.Certificates[i]
		path := fmt.Sprintf("certificates[%d]", i)
		if first, twice := names[c.Name]; twice {
			report(path+".name", fmt.Errorf("%q is the name of certificates[%d] already; names are unique on a host", c.Name, first))
		}
		names[c.Name] = i
		s.ValidateIssuers(path+".", &c.Certificate, report)
		for j := range c.Deployments {
			for _, f := range c.Deployments[j].Files.Paths() {
				if !filepath.IsAbs(f.Path) { // nor is one of another operating system
					report(fmt.Sprintf("%s.deployments[%d].files.%s", path, j, f.Key), fmt.Errorf("cannot use %q; expected an absolute path of this operating system", f.Path))
				}
			}
		}
		files.Claim(&c.Certificate, func(field string, err error) { report(path+"."+field, err) })
		files.Give(&c.Certificate, fmt.Sprintf("certificate %q", c.Name))
	}
}

// validateTimes reports challenges that could never be over in the time that
// one attempt at an authority has.
func (s *Settings) validateTimes(report func(string, error)) {
	if i := s.Revocation.Interval; i > 0 && i < time.Minute {
		report("revocation.interval", fmt.Errorf("cannot use %s; expected at least 1m, or 0s for no checks", settings.FormatDuration(i)))
	}
	for name, iss := range s.Issuers {
		if iss.ACME == nil || iss.ACME.Challenge != "dns-01" {
			continue
		}
		dns := iss.ACME.DNS01
		needs := dns.PropagationWait
		if dns.Exec != nil {
			needs += dns.Exec.Timeout
		}
		if needs >= s.Renewal.IssueTimeout {
			report("issuers."+name+".acme.dns_01", fmt.Errorf("propagation_wait and exec.timeout together may take %s, as long as a whole attempt (renewal.issue_timeout, %s); raise that, or lower these",
				settings.FormatDuration(needs), settings.FormatDuration(s.Renewal.IssueTimeout)))
		}
	}
}

// ValidateIssuers checks every issuer of a certificate: one that only stands in
// would be found wrong on the worst of days. prefix comes before each field that
// is reported.
func (s *Settings) ValidateIssuers(prefix string, c *managed.Certificate, report func(field string, err error)) {
	asked := make(map[string]bool)
	for n, name := range c.Issuers() {
		field := prefix + "issuer"
		if n > 0 {
			field = fmt.Sprintf("%sfallback_issuers[%d]", prefix, n-1)
		}
		if asked[name] {
			report(field, fmt.Errorf("issuer %q is asked already; name each one once", name))
		}
		asked[name] = true
		if _, brokered := managed.Brokered(name); brokered {
			continue
		}
		if strings.HasPrefix(name, CoordinatorIssuer+"/") {
			report(field, fmt.Errorf("cannot use %q; expected coordinator/ and the name of an issuer in the coordinator's settings: 1 to 63 lower-case letters, digits and hyphens", name))
			continue
		}
		iss, known := s.Issuers[name]
		if !known {
			report(field, fmt.Errorf("there is no issuer %q; expected %s", name, s.issuerNames()))
			continue
		}
		if wildcard := unprovable(c.Names, iss); wildcard != "" {
			report(prefix+"names", fmt.Errorf("the wildcard %s needs an issuer whose challenge is dns-01 (RFC 8555, section 8.3 and RFC 8737 exclude wildcards); %q uses %s", wildcard, name, iss.ACME.Challenge))
			return
		}
	}
}

// unprovable is a wildcard of which the issuer's challenge cannot prove control.
func unprovable(names []string, iss Issuer) string {
	parsed, err := pki.ParseNames(names)
	if err != nil || iss.ACME == nil || iss.ACME.Challenge == "dns-01" {
		return ""
	}
	for _, name := range parsed.DNS {
		if strings.HasPrefix(name, "*.") {
			return name
		}
	}
	return ""
}

func (s *Settings) issuerNames() string {
	list := []string{CoordinatorIssuer, CoordinatorIssuer + "/NAME"}
	for name := range s.Issuers {
		list = append(list, name)
	}
	return "one of: " + strings.Join(list, ", ")
}

// Validate implements settings.Validator.
func (i *Issuer) Validate(report func(string, error)) {
	if i.ACME == nil {
		report("", errors.New("an issuer needs a section that says what it is; expected acme"))
	}
}

// Validate implements settings.Validator.
func (a *ACME) Validate(report func(string, error)) {
	if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		report("directory", fmt.Errorf("cannot use %q; expected an https URL", a.Directory))
	}
	if !a.TermsAgreed {
		report("terms_agreed", errors.New("expected true: read the authority's terms of service and agree to them"))
	}
	for i, address := range a.Email {
		if !strings.Contains(address, "@") {
			report(fmt.Sprintf("email[%d]", i), fmt.Errorf("%q is not an e-mail address", address))
		}
	}
	switch a.Challenge {
	case "http-01":
		managed.CheckAddress("http_01.listen", a.HTTP01.Listen, report)
		if a.HTTP01.Webroot != "" && !filepath.IsAbs(a.HTTP01.Webroot) {
			report("http_01.webroot", fmt.Errorf("cannot use %q; expected an absolute path", a.HTTP01.Webroot))
		}
	case "tls-alpn-01":
		managed.CheckAddress("tls_alpn_01.listen", a.TLSALPN01.Listen, report)
	case "dns-01":
		if (a.DNS01.Exec == nil) == (a.DNS01.RFC2136 == nil) {
			report("dns_01", errors.New("expected exactly one of exec and rfc2136"))
		}
	}
}

// Validate implements settings.Validator.
func (e *EAB) Validate(report func(string, error)) {
	if e.HMACKey.Reveal() == "" {
		report("hmac_key", errors.New("missing; expected hmac_key or hmac_key_file"))
	}
}

// Validate implements settings.Validator.
func (r *RFC2136) Validate(report func(string, error)) {
	managed.CheckAddress("server", r.Server, report)
	if (r.TSIGKeyName == "") != (r.TSIGSecret.Reveal() == "") {
		report("tsig_key_name", errors.New("expected tsig_key_name and tsig_secret together, or neither"))
	}
}

// Validate implements settings.Validator.
func (c *Certificate) Validate(report func(string, error)) {
	if !wire.ValidName(c.Name) {
		report("name", fmt.Errorf("cannot use %q; expected 1 to %d characters without control characters", c.Name, wire.MaxNameLen))
	}
	c.Certificate.Validate(report)
	for _, field := range c.Placeholders() {
		report(field, errors.New("placeholders such as ${hostname} are for the coordinator's assignments; write the value itself"))
	}
}
