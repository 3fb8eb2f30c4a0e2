package globalsign

import (
	"context"
	"crypto/x509"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/settings"
)

const (
	verified = "VERIFIED"
	// maxClaims bounds how many claims are looked through.
	maxClaims = 2000
	// soon is how long before its end a claim is warned of.
	soon = 14 * 24 * time.Hour
)

// Revoke implements connector.Revoker.
func (g *Connector) Revoke(ctx context.Context, c *connector.Revocation) (done bool, err error) {
	serial := c.Handle.Order
	if c.Serial != "" && !strings.EqualFold(strings.TrimLeft(serial, "0"), c.Serial) {
		serial = strings.ToUpper(c.Serial)
		if len(serial)%2 != 0 {
			serial = "0" + serial
		}
	}
	if !isSerial(serial) {
		return false, &connector.Error{Class: connector.ClassNotFound, Detail: "there is no serial number of a certificate to revoke"}
	}
	reason := reasons[c.Reason]
	if reason == "" {
		reason = reasons[0]
	}
	_, err = g.do(ctx, connector.Call{Method: http.MethodPatch, Path: []string{"certificates", serial}, Body: map[string]string{"revocation_reason": reason}})
	if err != nil {
		// No documented answer says that it is revoked already.
		if connector.Classify(err).Class == connector.ClassRefused {
			if f, failed := g.fetch(ctx, serial); failed == nil && f.status.State == connector.Revoked {
				return true, nil
			}
		}
		return false, err
	}
	return true, nil
}

type claim struct {
	Status  string `json:"status"`
	Token   string `json:"token"`
	Domain  string `json:"domain"`
	Expires int64  `json:"expires_at"`
	By      int64  `json:"assert_by"`
	Checked int64  `json:"last_verified_at"`
	Method  string `json:"last_verification_method"`
	Log     []struct {
		Status      string `json:"status"`
		Description string `json:"description"`
		Timestamp   int64  `json:"timestamp"`
	} `json:"log"`
}

// covers reports whether the claim is for name or for a domain above it.
func (c *claim) covers(name string) bool {
	domain := strings.ToLower(strings.Trim(c.Domain, "."))
	return domain != "" && strings.HasSuffix("."+strings.TrimPrefix(strings.ToLower(name), "*."), "."+domain)
}

func (c *claim) good(now time.Time) bool {
	return strings.EqualFold(c.Status, verified) && (c.Expires <= 0 || now.Unix() < c.Expires)
}

// claims are the account's. An account whose policy has no domains may have no such
// list.
func (g *Connector) claims(ctx context.Context) ([]claim, error) {
	var all []claim
	for page := 1; len(all) < maxClaims; page++ {
		answer, err := g.do(ctx, connector.Call{
			Path: []string{"claims", "domains"}, Query: url.Values{"page": {strconv.Itoa(page)}, "per_page": {strconv.Itoa(pageSize)}},
		})
		if err != nil {
			if connector.Classify(err).Class == connector.ClassNotFound {
				return all, nil
			}
			return nil, err
		}
		var rows []claim
		if err := answer.Decode(&rows); err != nil {
			return nil, err
		}
		all = append(all, rows...)
		total, err := strconv.Atoi(answer.Header.Get("Total-Count"))
		if len(rows) == 0 || err != nil && len(rows) < pageSize || err == nil && len(all) >= total {
			break
		}
	}
	return all, nil
}

// Validations implements connector.Validator: how the claims stand that cover the
// names. They are the account's, and not the order's.
func (g *Connector) Validations(ctx context.Context, r *connector.Request, _ connector.Handle) ([]connector.Validation, error) {
	claims, err := g.claims(ctx)
	if err != nil {
		return nil, err
	}
	now := g.config.Now()
	list := make([]connector.Validation, 0, len(r.Names.DNS))
	for _, name := range r.Names.DNS {
		var best *claim
		for i := range claims {
			if c := &claims[i]; c.covers(name) && (best == nil || c.good(now) && !best.good(now)) {
				best = c
			}
		}
		if best == nil {
			list = append(list, connector.Validation{Name: name, State: "unclaimed", Todo: "claim the domain in GlobalSign Atlas, and prove control of it"})
			continue
		}
		list = append(list, best.validation(name, now))
	}
	return list, nil
}

func (c *claim) validation(name string, now time.Time) connector.Validation {
	v := connector.Validation{
		Name: name, Method: connector.Raw(c.Method), State: connector.Raw(c.Status), Done: c.good(now), Checked: moment(c.Checked), Expires: moment(c.Expires),
	}
	if v.Done {
		return v
	}
	domain := strings.Trim(c.Domain, ".")
	switch {
	case strings.EqualFold(c.Status, verified):
		v.Todo = connector.Detail("renew the claim of " + domain + " in GlobalSign Atlas: its proof has expired")
	default:
		v.Todo = connector.Detail("publish the token " + c.Token + " for " + domain + ", by DNS, HTTP or mail, and have GlobalSign Atlas look for it")
		v.Expires = moment(c.By)
	}
	for _, entry := range c.Log {
		if strings.EqualFold(entry.Status, "ERROR") {
			v.Problem = connector.Detail(entry.Description)
		}
		if at := moment(entry.Timestamp); at.After(v.Checked) {
			v.Checked = at
		}
	}
	return v
}

func moment(seconds int64) time.Time {
	if seconds <= 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// Test implements connector.Connector.
func (g *Connector) Test(ctx context.Context) (*connector.Account, error) {
	g.policy.Drop(nil)
	p, err := g.policy.Get(ctx, g.askPolicy)
	if err != nil {
		return nil, err
	}
	account := &connector.Account{Name: g.name()}
	fact := func(name, value string) {
		account.Facts = append(account.Facts, connector.Fact{Name: name, Value: connector.Detail(value)})
	}
	warn := func(text string) { account.Warnings = append(account.Warnings, connector.Detail(text)) }
	fact("longest validity", settings.FormatDuration(time.Duration(min(max(p.Validity.Max, 0), 1<<32))*time.Second))
	fact("keys", strings.TrimSpace(p.Key.Type+" "+p.Key.Format))
	if p.Key.Format == bareKey && p.KeySigned == required {
		warn("the account's policy wants keys signed apart from a request: it cannot be ordered from")
	}
	if _, err := g.subject(p, "www.example.com"); err != nil {
		warn(err.Error())
	}
	for _, counter := range []struct {
		name string
		path []string
	}{{"certificates left", []string{"quotas", "issuance"}}, {"certificates issued", []string{"counters", "certificates", "issued"}}} {
		value, err := g.value(ctx, counter.path)
		switch {
		case err != nil && connector.Classify(err).Class == connector.ClassNotFound:
			continue
		case err != nil:
			return nil, err
		case counter.path[0] == "quotas" && value <= 0:
			warn("no certificates are left of the account's quota")
		}
		fact(counter.name, strconv.FormatInt(value, 10))
	}
	claims, err := g.claims(ctx)
	if err != nil {
		return nil, err
	}
	g.testClaims(claims, fact, warn)
	return account, nil
}

func (g *Connector) testClaims(claims []claim, fact func(name, value string), warn func(text string)) {
	good, now := 0, g.config.Now()
	for i := range claims {
		c := &claims[i]
		if !c.good(now) {
			warn("the claim of " + strings.Trim(c.Domain, ".") + " is not verified")
			continue
		}
		good++
		if c.Expires > 0 && !c.good(now.Add(soon)) {
			warn("the claim of " + strings.Trim(c.Domain, ".") + " ends at " + moment(c.Expires).Format(time.RFC3339))
		}
	}
	fact("verified domains", strconv.Itoa(good))
}

func (g *Connector) value(ctx context.Context, path []string) (int64, error) {
	answer, err := g.do(ctx, connector.Call{Path: path})
	if err != nil {
		return 0, err
	}
	var body struct {
		Value int64 `json:"value"`
	}
	err = answer.Decode(&body)
	return body.Value, err
}

// name is what the client certificate calls the account, else where it is.
func (g *Connector) name() string {
	if pair, err := g.config.Certificate(); err == nil && pair != nil && len(pair.Certificate) > 0 {
		if cert, err := x509.ParseCertificate(pair.Certificate[0]); err == nil && cert.Subject.String() != "" {
			return connector.Detail(cert.Subject.String())
		}
	}
	return g.base.Host
}
