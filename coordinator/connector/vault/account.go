package vault

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/settings"
)

const (
	// maxIssuers bounds how many issuers of a mount are looked through for the one of a
	// certificate.
	maxIssuers = 32
	// soon is what an operator is told of in time: the end of a token, or of the
	// certificate that signs.
	soon = 30 * 24 * time.Hour
	// maxSkew is what the clocks may differ without a word.
	maxSkew = time.Minute
)

// issuer is the certificate of one issuer of the mount, and its chain.
func (v *Connector) issuer(ctx context.Context, ref string) ([]*x509.Certificate, error) {
	answer, err := v.do(ctx, connector.Call{Path: v.path("issuer", ref, "json")})
	if err != nil {
		return nil, err
	}
	return issuers(answer)
}

// issuers reads certificates that sign.
func issuers(answer *connector.Answer) ([]*x509.Certificate, error) {
	var body struct {
		Data struct {
			Certificate string       `json:"certificate"`
			Chain       certificates `json:"ca_chain"`
		} `json:"data"`
	}
	if err := answer.Decode(&body); err != nil {
		return nil, err
	}
	bundle, err := read(body.Data.Certificate, body.Data.Chain...)
	if err != nil {
		return nil, err
	}
	if len(bundle.Certificates) == 0 {
		return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the answer has no certificate of an issuer"}
	}
	return bundle.Certificates, nil
}

// Issuers implements connector.Completer.
func (v *Connector) Issuers(ctx context.Context, _ *connector.Request) ([]*x509.Certificate, error) {
	ref := v.config.Issuer
	if ref == "" {
		ref = "default"
	}
	certs, err := v.issuer(ctx, ref)
	if err == nil || v.config.Issuer != "" || connector.Classify(err).Class != connector.ClassConfig {
		return certs, err
	}
	// A server from before there were several issuers in a mount.
	answer, err := v.do(ctx, connector.Call{Path: v.path("cert", "ca_chain")})
	if err != nil {
		return nil, err
	}
	return issuers(answer)
}

// issuersOf is the chain of a certificate: that of the issuer which signs now, or of
// whichever issuer of the mount has signed it.
func (v *Connector) issuersOf(ctx context.Context, cert *x509.Certificate) ([]*x509.Certificate, error) {
	signed := func(by *x509.Certificate) bool { return cert.CheckSignatureFrom(by) == nil }
	certs, err := v.Issuers(ctx, nil)
	if err != nil || slices.ContainsFunc(certs, signed) {
		return certs, err
	}
	answer, err := v.do(ctx, connector.Call{Path: v.path("issuers"), Query: url.Values{"list": {"true"}}})
	if err != nil {
		if connector.Classify(err).Class == connector.ClassConfig { // there are no others
			return certs, nil
		}
		return nil, err
	}
	var body struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	if err := answer.Decode(&body); err != nil {
		return nil, err
	}
	for at, ref := range body.Data.Keys {
		if at >= maxIssuers || !plain(ref) {
			break
		}
		others, err := v.issuer(ctx, ref)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(others, signed) {
			return others, nil
		}
	}
	return certs, nil // what is missing is looked for by who wants the chain
}

// Revoke implements connector.Revoker. The server takes no reason.
func (v *Connector) Revoke(ctx context.Context, c *connector.Revocation) (done bool, err error) {
	serial, ok := serialOf(c.Serial)
	if !ok {
		if serial, ok = serialOf(c.Handle.Order); !ok {
			return false, errNoOrder()
		}
	}
	answer, err := v.do(ctx, connector.Call{Method: http.MethodPost, Path: v.path("revoke"), Body: map[string]string{"serial_number": serial}})
	if err != nil {
		return false, err
	}
	var body struct {
		Data *struct {
			At    json.RawMessage `json:"revocation_time"`
			State string          `json:"state"`
		} `json:"data"`
		Warnings []string `json:"warnings"`
	}
	if err := answer.Decode(&body); err != nil {
		return false, err
	}
	if body.Data == nil || number(body.Data.At) == 0 && body.Data.State == "" {
		detail := spoken(body.Warnings)
		if strings.Contains(detail, "already expired") {
			return false, &connector.Error{Class: connector.ClassRefused, Status: answer.Status, Detail: connector.Detail(detail), Mend: "nothing is left to do: the certificate has ended"}
		}
		return false, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: connector.Detail("the answer to the revocation does not say that it was done; " + detail)}
	}
	return body.Data.State == "" || strings.EqualFold(body.Data.State, wordRevoked), nil
}

type role struct {
	NoStore bool            `json:"no_store"`
	MaxTTL  json.RawMessage `json:"max_ttl"`
	KeyType string          `json:"key_type"`
	Domains []string        `json:"allowed_domains"`
	AnyName bool            `json:"allow_any_name"`
}

func (v *Connector) role(ctx context.Context) (*role, error) {
	answer, err := v.do(ctx, connector.Call{Path: v.path("roles", v.config.Role)})
	if err != nil {
		return nil, err
	}
	var body struct {
		Data *role `json:"data"`
	}
	if err := answer.Decode(&body); err != nil {
		return nil, err
	}
	if body.Data == nil {
		return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the answer has no role in it"}
	}
	return body.Data, nil
}

// Test implements connector.Connector.
func (v *Connector) Test(ctx context.Context) (*connector.Account, error) {
	answer, err := v.do(ctx, connector.Call{Path: []string{"v1", "auth", "token", "lookup-self"}})
	if err != nil {
		return nil, err
	}
	// The token itself is among the fields.
	var body struct {
		Data *struct {
			Name     string    `json:"display_name"`
			Policies []string  `json:"policies"`
			Uses     int       `json:"num_uses"`
			Ends     time.Time `json:"expire_time"`
		} `json:"data"`
	}
	if err := answer.Decode(&body); err != nil {
		return nil, err
	}
	if body.Data == nil {
		return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the answer has no token in it"}
	}
	t := &examined{account: &connector.Account{Name: connector.Detail(body.Data.Name)}, now: v.config.Now()}
	if t.account.Name == "" {
		t.account.Name = v.config.Role
	}
	t.fact("policies", strings.Join(body.Data.Policies, ", "))
	if v.config.Token != nil {
		if !body.Data.Ends.IsZero() {
			t.fact("token ends", body.Data.Ends.UTC().Format(time.RFC3339))
			t.ends("the token", body.Data.Ends, "keep it fresh in a file, or use AppRole: certctl does not renew it")
		}
		if body.Data.Uses > 0 {
			t.warn(fmt.Sprintf("the token is good for %d more requests", body.Data.Uses))
		}
	}
	for _, ask := range []func(context.Context, *examined) error{v.testHealth, v.testPolicies, v.testRole, v.testIssuer} {
		if err := ask(ctx, t); err != nil {
			return nil, err
		}
	}
	return t.account, nil
}

// examined is an account that is being tested.
type examined struct {
	account *connector.Account
	now     time.Time
}

func (t *examined) fact(name, value string) {
	t.account.Facts = append(t.account.Facts, connector.Fact{Name: name, Value: connector.Detail(value)})
}

func (t *examined) warn(text string) {
	t.account.Warnings = append(t.account.Warnings, connector.Detail(text))
}

func (t *examined) ends(what string, at time.Time, mend string) {
	if at.Before(t.now.Add(soon)) {
		t.warn(fmt.Sprintf("%s ends at %s; %s", what, at.UTC().Format(time.RFC3339), mend))
	}
}

// skipped reports whether an answer is one that a token may not have, or that a server
// does not know, and of which no more than a warning comes.
func skipped(err error) bool {
	switch connector.Classify(err).Class {
	case connector.ClassCredentials, connector.ClassNotFound, connector.ClassConfig, connector.ClassRefused:
		return true
	}
	return false
}

// testHealth asks the server how it is. It answers so whoever asks, and in the root
// namespace alone.
func (v *Connector) testHealth(ctx context.Context, t *examined) error {
	well := url.Values{}
	for _, code := range []string{"standbycode", "performancestandbycode", "drsecondarycode"} {
		well.Set(code, "200")
	}
	answer, err := v.client.Do(ctx, connector.Call{Path: []string{"v1", "sys", "health"}, Query: well, Header: http.Header{"X-Vault-Request": {"true"}}, Anonymous: true})
	if err != nil {
		if skipped(err) {
			return nil
		}
		return err
	}
	var body struct {
		Version string `json:"version"`
		Cluster string `json:"cluster_name"`
		Time    int64  `json:"server_time_utc"`
	}
	if err := answer.Decode(&body); err != nil {
		return err
	}
	t.fact("server", strings.TrimSpace(body.Cluster+" "+body.Version))
	if off := t.now.Sub(time.Unix(body.Time, 0)).Abs(); body.Time > 0 && off > maxSkew {
		t.warn(fmt.Sprintf("the server's clock and ours differ by %v", off.Round(time.Second)))
	}
	return nil
}

// testPolicies asks what the token may do.
func (v *Connector) testPolicies(ctx context.Context, t *examined) error {
	mount := strings.Join(v.mount, "/")
	sign := mount + "/sign/" + v.config.Role
	if v.config.Issuer != "" {
		sign = mount + "/issuer/" + v.config.Issuer + "/sign/" + v.config.Role
	}
	wanted := map[string]string{sign: "update", mount + "/revoke": "update", mount + "/certs": "list"}
	paths := []string{sign, mount + "/revoke", mount + "/certs"}
	if v.Repeatable() || v.config.NoStore {
		paths = paths[:2] // nothing is searched for
	}
	answer, err := v.do(ctx, connector.Call{Method: http.MethodPost, Path: []string{"v1", "sys", "capabilities-self"}, Body: map[string][]string{"paths": paths}})
	if err != nil {
		if skipped(err) {
			return nil
		}
		return err
	}
	var body struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	if err := answer.Decode(&body); err != nil {
		return err
	}
	for _, path := range paths {
		var may []string
		if json.Unmarshal(body.Data[path], &may) != nil {
			continue // it is not told
		}
		if !slices.Contains(may, wanted[path]) && !slices.Contains(may, "root") {
			t.warn(fmt.Sprintf("the token's policies do not let it use %s; give it %q there", path, wanted[path]))
		}
	}
	return nil
}

// testRole compares the role with the settings.
func (v *Connector) testRole(ctx context.Context, t *examined) error {
	r, err := v.role(ctx)
	if err != nil {
		if !skipped(err) {
			return err
		}
		if e := connector.Classify(err); e.Class == connector.ClassCredentials {
			t.warn("the role cannot be read, and is taken to be as the settings say; give the token \"read\" on " + strings.Join(v.mount, "/") + "/roles/" + v.config.Role)
		} else {
			t.warn(strings.TrimSuffix("the role "+v.config.Role+" cannot be read: "+e.Detail+"; "+e.Mend, "; "))
		}
		return nil
	}
	t.fact("role", v.config.Role)
	names := strings.Join(r.Domains, ", ")
	if r.AnyName {
		names = "any"
	}
	t.fact("names", names)
	t.fact("keys", r.KeyType)
	if seconds := number(r.MaxTTL); seconds > 0 {
		most := time.Duration(seconds) * time.Second
		t.fact("longest validity", settings.FormatDuration(most))
		if v.config.Validity > most {
			t.warn(fmt.Sprintf("certificates will be valid for %s, as long as the role lets them, and not for %s", settings.FormatDuration(most), settings.FormatDuration(v.config.Validity)))
		}
	}
	switch {
	case r.NoStore && !v.config.NoStore:
		t.warn("the role keeps no certificates; set no_store, as nothing can be searched for or revoked by its number")
	case !r.NoStore && v.config.NoStore:
		t.warn("the role keeps its certificates; leave out no_store")
	}
	if v.config.NoStore && v.config.PlaceOnce {
		t.warn("an order whose answer is lost waits for a person: the role keeps no certificates, and orders are placed once")
	}
	return nil
}

// testIssuer looks at the certificate that signs.
func (v *Connector) testIssuer(ctx context.Context, t *examined) error {
	certs, err := v.Issuers(ctx, nil)
	if err != nil {
		if !skipped(err) {
			return err
		}
		t.warn("the issuing certificate cannot be read: " + connector.Classify(err).Error())
		return nil
	}
	t.fact("issuer", certs[0].Subject.String())
	t.ends("the issuing certificate", certs[0].NotAfter, endMend)
	return nil
}
