package globalsign

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
)

// What a policy says of a field.
const (
	required  = "REQUIRED"
	optional  = "OPTIONAL"
	forbidden = "FORBIDDEN"
	static    = "STATIC"
)

const (
	commonName = "common_name"
	unit       = "organizational_unit" // a list of values, of all fields of the subject
	bareKey    = "PKCS8"
)

// policy is what the account's validation policy says of the parts of an order that
// are used here.
type policy struct {
	Validity struct {
		Min      int64 `json:"secondsmin"`
		Max      int64 `json:"secondsmax"`
		Negative int64 `json:"not_before_negative_skew"`
	} `json:"validity"`
	Subject map[string]json.RawMessage `json:"subject_dn"`
	SAN     struct {
		DNS *listRule `json:"dns_names"`
		IP  *listRule `json:"ip_addresses"`
	} `json:"san"`
	Usages *struct {
		List *listRule `json:"ekus"`
	} `json:"extended_key_usages"`
	Signature *struct {
		Algorithm *choiceRule `json:"algorithm"`
		Hash      *choiceRule `json:"hash_algorithm"`
	} `json:"signature"`
	Key struct {
		Type   string `json:"key_type"`
		Format string `json:"key_format"`
	} `json:"public_key"`
	KeySigned string `json:"public_key_signature"`
}

type listRule struct {
	Static bool `json:"static"`
	Max    int  `json:"maxcount"`
	Min    int  `json:"mincount"`
}

type choiceRule struct {
	Presence string   `json:"presence"`
	List     []string `json:"list"`
}

// presence is what the policy says of one field of the subject. What it does not
// name is forbidden.
func (p *policy) presence(field string) string {
	raw, named := p.Subject[field]
	if !named || string(raw) == "null" {
		return forbidden
	}
	if field == unit {
		var rule listRule
		switch err := json.Unmarshal(raw, &rule); {
		case err != nil || rule.Static:
			return static
		case rule.Max == 0:
			return forbidden
		case rule.Min > 0:
			return required
		}
		return optional
	}
	var rule choiceRule
	if json.Unmarshal(raw, &rule) != nil {
		return static // a field of another form: the order does not set it
	}
	return strings.ToUpper(rule.Presence)
}

func (g *Connector) askPolicy(ctx context.Context) (*policy, time.Duration, error) {
	answer, err := g.do(ctx, connector.Call{Path: []string{"validationpolicy"}})
	if err != nil {
		return nil, 0, err
	}
	p := &policy{}
	if err := answer.Decode(p); err != nil {
		return nil, 0, err
	}
	if p.Key.Format == "" && len(p.Subject) == 0 {
		return nil, 0, &connector.Error{
			Class: connector.ClassAnswer, Status: answer.Status, Detail: "the account's validation policy is empty",
			Mend: "see that the issuer's URL is the authority's, and ask GlobalSign for the policy of the account",
		}
	}
	return p, policyLife, nil
}

type orderBody struct {
	Validity  validityBody   `json:"validity"`
	Subject   map[string]any `json:"subject_dn,omitempty"`
	SAN       *sanBody       `json:"san,omitempty"`
	Usages    []string       `json:"extended_key_usages,omitempty"`
	Signature *signatureBody `json:"signature,omitempty"`
	Key       string         `json:"public_key"`
}

type validityBody struct {
	NotBefore int64 `json:"not_before"`
	NotAfter  int64 `json:"not_after"` // 0 is as long as the policy has it
}

type sanBody struct {
	DNS []string `json:"dns_names,omitempty"`
	IP  []string `json:"ip_addresses,omitempty"`
}

type signatureBody struct {
	Algorithm string `json:"algorithm,omitempty"`
	Hash      string `json:"hash_algorithm,omitempty"`
}

// unfit is an order that the policy would refuse: nothing is sent.
func unfit(class connector.Class, mend, format string, args ...any) error {
	return &connector.Error{Class: class, NotPlaced: true, Detail: connector.Detail(fmt.Sprintf(format, args...)), Mend: mend}
}

// body is the order of r as the policy wants it.
func (g *Connector) body(p *policy, r *connector.Request, now time.Time) (*orderBody, error) {
	if p.Key.Format == bareKey && p.KeySigned == required {
		return nil, unfit(connector.ClassConfig, "have the account's policy take requests (PKCS10): private keys stay on their hosts", "the account's policy wants keys signed apart from a request")
	}
	body := &orderBody{Validity: p.validity(cmpOr(r.Validity, g.config.Validity), now), Key: keyText(p, r)}
	var err error
	if body.Subject, err = g.subject(p, r.CommonName); err != nil {
		return nil, err
	}
	if body.SAN, err = p.names(r); err != nil {
		return nil, err
	}
	if p.Usages != nil && p.Usages.List != nil && !p.Usages.List.Static && p.Usages.List.Max > 0 {
		body.Usages = g.config.Usages
	}
	if p.Signature != nil {
		s := signatureBody{Algorithm: p.Signature.Algorithm.choose(g.config.SignatureAlgorithm), Hash: p.Signature.Hash.choose(g.config.HashAlgorithm)}
		if s != (signatureBody{}) {
			body.Signature = &s
		}
	}
	return body, nil
}

func cmpOr(a, b time.Duration) time.Duration {
	if a > 0 {
		return a
	}
	return b
}

// validity begins a little before now, as far as the policy lets the clocks differ.
func (p *policy) validity(lasts time.Duration, now time.Time) validityBody {
	margin := min(max(p.Validity.Negative/2, 0), 300)
	v := validityBody{NotBefore: now.Unix() - margin}
	if lasts <= 0 {
		return v
	}
	seconds := max(int64(lasts/time.Second), p.Validity.Min)
	if p.Validity.Max > 0 {
		seconds = min(seconds, p.Validity.Max)
	}
	v.NotAfter = v.NotBefore + seconds
	return v
}

// keyText is the key as the policy wants it.
func keyText(p *policy, r *connector.Request) string {
	block := &pem.Block{Type: "CERTIFICATE REQUEST", Bytes: r.CSRDER}
	if p.Key.Format == bareKey {
		if der, err := x509.MarshalPKIXPublicKey(r.CSR.PublicKey); err == nil {
			block = &pem.Block{Type: "PUBLIC KEY", Bytes: der}
		}
	}
	return string(pem.EncodeToMemory(block))
}

// subject is the fields of the subject that the policy leaves to the order.
func (g *Connector) subject(p *policy, name string) (map[string]any, error) {
	given := maps.Clone(g.config.Subject)
	if given == nil {
		given = map[string]string{}
	}
	given[commonName] = name
	subject := map[string]any{}
	for _, field := range slices.Sorted(maps.Keys(p.Subject)) {
		presence, value := p.presence(field), given[field]
		switch {
		case presence == forbidden || presence == static:
		case value == "" && presence == required && field == commonName:
			return nil, unfit(connector.ClassRefused, "order with a DNS name of at most 64 characters", "the account's policy wants a common name, and no name of the order can be one")
		case value == "" && presence == required:
			return nil, unfit(connector.ClassConfig, "give the issuer a value for it", "the account's policy wants the field %s of the subject", field)
		case value == "":
		case field == unit:
			subject[field] = []string{value}
		default:
			subject[field] = value
		}
	}
	return subject, nil
}

// names are those of the certificate: the authority does not look at those of the
// request.
func (p *policy) names(r *connector.Request) (*sanBody, error) {
	all := sanBody{DNS: r.Names.DNS}
	for _, ip := range r.Names.IPs {
		all.IP = append(all.IP, ip.String())
	}
	for _, kind := range []struct {
		what string
		rule *listRule
		list *[]string
	}{{"DNS names", p.SAN.DNS, &all.DNS}, {"IP addresses", p.SAN.IP, &all.IP}} {
		switch rule, count := kind.rule, len(*kind.list); {
		case rule != nil && rule.Static:
			*kind.list = nil // they are the policy's
		case count > 0 && (rule == nil || count > rule.Max):
			most := 0
			if rule != nil {
				most = rule.Max
			}
			return nil, unfit(connector.ClassRefused, "order certificates with fewer names, or have the account's policy changed", "the order has %d %s, and the account's policy takes %d", count, kind.what, most)
		}
	}
	if len(all.DNS)+len(all.IP) == 0 {
		return nil, nil
	}
	return &all, nil
}

// choose is the value for a field that the policy wants, or that the settings have
// and the policy takes.
func (c *choiceRule) choose(set string) string {
	switch {
	case c == nil || c.Presence == forbidden || c.Presence == static:
		return ""
	case set != "":
		return set
	case c.Presence == required && len(c.List) > 0:
		return c.List[0]
	}
	return ""
}
