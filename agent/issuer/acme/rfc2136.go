package acme

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/settings"
)

const (
	defaultTTL         = time.Minute
	dnsTimeout         = 15 * time.Second
	defaultPropagation = 2 * time.Minute
	tsigFudge          = 300 // seconds, as RFC 8945 section 10 recommends
)

// DNS01RFC2136 answers dns-01 challenges by dynamic updates (RFC 2136) signed
// with TSIG (RFC 8945), over TCP.
type DNS01RFC2136 struct {
	// Server is the zone's primary server, "host" or "host:port".
	Server string
	// Zone is the zone to update; "" asks the server for it.
	Zone string
	// TSIG signs the updates; a nil one sends them unsigned, which only a server
	// that decides by address accepts.
	TSIG *TSIG
	// TTL of the records, in whole seconds; 0 is one minute.
	TTL time.Duration
	// PropagationTimeout is how long to wait until the server itself answers with
	// the record; 0 is two minutes. PropagationWait is added for its secondaries.
	PropagationTimeout time.Duration
	PropagationWait    time.Duration
}

// TSIG is a key shared with a DNS server.
type TSIG struct {
	Name string
	// Algorithm is "hmac-sha256" (also for ""), "hmac-sha224", "hmac-sha384",
	// "hmac-sha512" or "hmac-sha1".
	Algorithm string
	// Secret is in base64, as key files have it.
	Secret settings.Secret
}

var tsigAlgorithms = []string{"hmac-sha256", "hmac-sha224", "hmac-sha384", "hmac-sha512", "hmac-sha1"}

// ChallengeType is "dns-01".
func (DNS01RFC2136) ChallengeType() string { return challengeDNS01 }

func (s DNS01RFC2136) validate() error {
	var problems []error
	add := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("dns-01 rfc2136: "+format, args...))
	}
	if s.Server == "" {
		add("server is empty: give the primary server of the zone, host or host:port")
	}
	if _, ok := dns.IsDomainName(s.Zone); s.Zone != "" && !ok {
		add("zone %q is not a domain name", s.Zone)
	}
	if s.TTL < 0 || s.TTL > 24*time.Hour || s.TTL%time.Second != 0 {
		add("ttl %v: want whole seconds up to one day", s.TTL)
	}
	if s.PropagationTimeout < 0 || s.PropagationTimeout > maxWait || s.PropagationWait < 0 || s.PropagationWait > maxWait {
		add("propagation_wait %v, and PropagationTimeout %v: want 0 to %v", s.PropagationWait, s.PropagationTimeout, maxWait)
	}
	if k := s.TSIG; k != nil {
		if _, ok := dns.IsDomainName(k.Name); k.Name == "" || !ok {
			add("tsig_key_name %q: want the key's name as the server knows it", k.Name)
		}
		if k.Algorithm != "" && !slices.Contains(tsigAlgorithms, strings.ToLower(k.Algorithm)) {
			add("tsig_algorithm %q: want one of %s", k.Algorithm, strings.Join(tsigAlgorithms, ", "))
		}
		if secret, err := base64.StdEncoding.DecodeString(k.Secret.Reveal()); err != nil || len(secret) == 0 {
			add("tsig_secret: want the base64 text of the key file") // the text itself is a secret
		} else if tooShort(secret) {
			add("tsig_secret: %s", shortSecret)
		}
	}
	return errors.Join(problems...)
}

func (s DNS01RFC2136) presenter(*Listeners) presenter {
	p := &dnsUpdate{config: s, server: s.Server, client: &dns.Client{Net: "tcp", Timeout: dnsTimeout}}
	if _, _, err := net.SplitHostPort(s.Server); err != nil {
		p.server = net.JoinHostPort(strings.Trim(s.Server, "[]"), "53")
	}
	if p.config.TTL == 0 {
		p.config.TTL = defaultTTL
	}
	if p.config.PropagationTimeout == 0 {
		p.config.PropagationTimeout = defaultPropagation
	}
	if k := s.TSIG; k != nil {
		p.keyName = dns.CanonicalName(k.Name)
		p.algorithm = dns.HmacSHA256
		if k.Algorithm != "" {
			p.algorithm = dns.Fqdn(strings.ToLower(k.Algorithm))
		}
		p.client.TsigSecret = map[string]string{p.keyName: k.Secret.Reveal()}
	}
	return p
}

type dnsUpdate struct {
	config    DNS01RFC2136
	server    string // with port
	client    *dns.Client
	keyName   string // "" without TSIG
	algorithm string
}

func (p *dnsUpdate) present(ctx context.Context, challenge acme.Challenge) error {
	name, value := challenge.DNS01TXTRecordName()+".", challenge.DNS01KeyAuthorization()
	if err := p.update(ctx, name, value, (*dns.Msg).Insert); err != nil {
		return err
	}
	if err := p.awaitVisible(ctx, name, value); err != nil {
		return err
	}
	return backoff.Wait(ctx, p.config.PropagationWait)
}

func (p *dnsUpdate) withdraw(ctx context.Context, challenge acme.Challenge) error {
	// Remove deletes the one record with this value; one that is not there is
	// no error (RFC 2136 section 3.4.2.4).
	return p.update(ctx, challenge.DNS01TXTRecordName()+".", challenge.DNS01KeyAuthorization(), (*dns.Msg).Remove)
}

func (p *dnsUpdate) update(ctx context.Context, name, value string, change func(*dns.Msg, []dns.RR)) error {
	zone := dns.Fqdn(p.config.Zone)
	if p.config.Zone == "" {
		var err error
		if zone, err = p.zoneOf(ctx, name); err != nil {
			return err
		}
	}
	message := new(dns.Msg).SetUpdate(zone)
	change(message, []dns.RR{&dns.TXT{
		Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(p.config.TTL / time.Second)},
		Txt: []string{value},
	}})
	answer, err := p.exchange(ctx, message)
	if err != nil {
		return fmt.Errorf("dns-01 rfc2136: update %s at %s: %w", name, p.server, err)
	}
	return p.checkCode(answer.Rcode, fmt.Sprintf("update of %s in zone %s", name, zone))
}

// zoneOf finds the zone that holds the name: a server that has it answers a
// query for the SOA with the zone's SOA, in the answer or, for a name without
// one, in the authority section (RFC 2308 section 3).
func (p *dnsUpdate) zoneOf(ctx context.Context, name string) (string, error) {
	query := new(dns.Msg).SetQuestion(name, dns.TypeSOA)
	query.RecursionDesired = false
	answer, err := p.exchange(ctx, query)
	if err != nil {
		return "", fmt.Errorf("dns-01 rfc2136: ask %s for the zone of %s: %w", p.server, name, err)
	}
	for _, record := range slices.Concat(answer.Answer, answer.Ns) {
		if soa, ok := record.(*dns.SOA); ok && dns.IsSubDomain(soa.Hdr.Name, name) {
			return soa.Hdr.Name, nil
		}
	}
	if answer.Rcode != dns.RcodeNameError && answer.Rcode != dns.RcodeSuccess {
		return "", p.checkCode(answer.Rcode, "query for the zone of "+name)
	}
	return "", &issuer.Error{
		Class: issuer.ClassConfig,
		Err:   fmt.Errorf("dns-01 rfc2136: %s has no zone that holds %s", p.server, name),
		Mend:  "set server to the primary server of the zone, or set zone",
	}
}

// awaitVisible returns when the server itself answers with the record.
func (p *dnsUpdate) awaitVisible(ctx context.Context, name, value string) error {
	limited, cancel := context.WithTimeout(ctx, p.config.PropagationTimeout)
	defer cancel()
	policy := backoff.Policy{Initial: 100 * time.Millisecond, Max: 5 * time.Second, Multiplier: 2, Jitter: 0.1}
	for attempt := 1; ; attempt++ {
		query := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
		query.RecursionDesired = false
		answer, err := p.exchange(limited, query)
		if err == nil && holdsTXT(answer, value) {
			return nil
		}
		if backoff.Wait(limited, policy.Delay(attempt, nil)) == nil {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			err = errors.New("its answers do not hold it")
		}
		return &issuer.Error{
			Class: issuer.ClassConfig,
			Err:   fmt.Errorf("dns-01 rfc2136: the TXT record %s cannot be seen at %s after %v: %w", name, p.server, p.config.PropagationTimeout, err),
			Mend:  "check that the server answers for the zone that it lets itself be updated in",
		}
	}
}

func holdsTXT(answer *dns.Msg, value string) bool {
	return slices.ContainsFunc(answer.Answer, func(record dns.RR) bool {
		txt, ok := record.(*dns.TXT)
		return ok && strings.Join(txt.Txt, "") == value
	})
}

func (p *dnsUpdate) exchange(ctx context.Context, message *dns.Msg) (*dns.Msg, error) {
	if p.keyName != "" {
		message.SetTsig(p.keyName, p.algorithm, tsigFudge, time.Now().Unix())
	}
	answer, _, err := p.client.ExchangeContext(ctx, message, p.server)
	// A refusal of the key is signed badly or not at all (RFC 8945 section 5.3),
	// so the code says more than the failed check of the signature.
	if answer != nil && answer.Rcode == dns.RcodeNotAuth {
		return answer, nil
	}
	return answer, err
}

func (p *dnsUpdate) checkCode(code int, what string) error {
	if code == dns.RcodeSuccess {
		return nil
	}
	failure := &issuer.Error{
		Class: issuer.ClassConfig,
		Err:   fmt.Errorf("dns-01 rfc2136: %s refuses the %s: %s", p.server, what, dns.RcodeToString[code]),
	}
	switch code {
	case dns.RcodeNotAuth:
		failure.Mend = "check the TSIG key's name, algorithm and secret, the clocks of both hosts, and that the server is the zone's primary"
	case dns.RcodeRefused:
		failure.Mend = "let the server's update policy allow this key to change TXT records of that name"
	case dns.RcodeNotZone:
		failure.Mend = "set zone to the zone that holds the name"
	default:
		failure.Class = issuer.ClassRetry
	}
	return failure
}
