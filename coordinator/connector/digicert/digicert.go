// Package digicert orders certificates at DigiCert CertCentral, by its Services API
// version 2.
//
// An order there is an object of its own, with a number and a state. It may be
// issued in the very answer to its placement, or wait for an administrator of the
// account, for a proof of control of its names, or for an organization's validation.
// A certificate has a number of its own within the order, another one for every
// reissue.
package digicert

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
)

// Where the API is, by the region of the account.
const (
	URLAmerica = "https://www.digicert.com/services/v2"
	URLEurope  = "https://certcentral.digicert.eu/services/v2"
)

// Formats in which a certificate is fetched. All of them end at the same: what is
// missing of the chain is asked for.
var Formats = []string{"pem_noroot", "pem_all", "pem_nointermediate", "p7b", "cer"}

// Fields of the order that a validity is written to.
const (
	ValidityOfOrder       = "order_validity"
	ValidityOfCertificate = "cert_validity"
	ValidityOfBoth        = "both"
)

// keyHeader carries the API key.
const keyHeader = "X-DC-DEVKEY"

const (
	day = 24 * time.Hour
	// defaultValidity is where neither the order nor the settings say.
	defaultValidity = 90 * day
	// defaultVisible is how long a new order may take to be found. The vendor says
	// nothing about it.
	defaultVisible = 2 * time.Minute
	// skew is what the clocks, and dates without an hour, may differ.
	skew = day
)

// Config of a Connector. URL, Key and Product are required.
type Config struct {
	URL string
	// Key is the API key, read anew for each request.
	Key func() (string, error)
	// Product is what is ordered, by its name_id, such as "ssl_basic".
	Product string
	// Organization is the number of the organization in the certificate; 0 for
	// products without one.
	Organization int64
	// Validity where the order does not say; 0 is 90 days. ValidityField is the field
	// that it is written to; "" is ValidityOfOrder.
	Validity      time.Duration
	ValidityField string
	// CACertificate pins the issuing CA, by its ca_cert_id; "" leaves it to the
	// account.
	CACertificate string
	// SignatureHash; "" is sha256.
	SignatureHash string
	// PaymentMethod; "" leaves it to the account.
	PaymentMethod string
	// DCVMethod is how control of names is proven: email, dns-txt-token,
	// dns-cname-token or http-token; "" leaves it to the account.
	DCVMethod string
	// SkipApproval has orders and revocations not wait for an administrator. It
	// takes an administrator's key.
	SkipApproval bool
	// LinkRenewals tells which order a renewal renews.
	LinkRenewals bool
	// NoReference keeps our reference out of alternative_order_id, for accounts that
	// use the field otherwise. A lost order is then found by name and key.
	NoReference bool
	// Format of certificates, one of Formats; "" is pem_noroot.
	Format string
	// ReasonField is what a revocation's reason is called: the vendor's page and
	// clients of it differ. "" is revocation_reason, "-" leaves the reason out.
	ReasonField string
	// RevokeOrder revokes every certificate of the order, and ends it.
	RevokeOrder bool
	// States are further states, or other meanings of those that are known.
	States map[string]connector.State
	// Visible is how long a new order may take to be found; 0 is 2 minutes.
	Visible time.Duration

	Roots   *x509.CertPool
	Timeout time.Duration
	Now     func() time.Time
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

// Connector speaks with one account. It is safe for concurrent use.
type Connector struct {
	config Config
	client *connector.Client
	states connector.States
}

var _ interface {
	connector.Connector
	connector.Searcher
	connector.Canceller
	connector.Revoker
	connector.Validator
	connector.Reissuer
	connector.Changer
} = (*Connector)(nil)

// New checks c. Close ends its connections.
func New(c Config) (*Connector, error) {
	base, err := url.Parse(c.URL)
	switch {
	case err != nil || base.Host == "":
		return nil, fmt.Errorf("digicert: url: %q is no URL; it is %s or %s for most accounts", c.URL, URLAmerica, URLEurope)
	case c.Key == nil:
		return nil, errors.New("digicert: the API key is missing")
	case c.Product == "" || strings.ContainsAny(c.Product, "/ "):
		return nil, fmt.Errorf("digicert: product: %q is no name_id of a product, such as ssl_basic", c.Product)
	case c.Format != "" && !slices.Contains(Formats, c.Format):
		return nil, fmt.Errorf("digicert: format: %q; use one of %s", c.Format, strings.Join(Formats, ", "))
	case c.ValidityField != "" && !slices.Contains([]string{ValidityOfOrder, ValidityOfCertificate, ValidityOfBoth}, c.ValidityField):
		return nil, fmt.Errorf("digicert: validity field: %q; use %s, %s or %s", c.ValidityField, ValidityOfOrder, ValidityOfCertificate, ValidityOfBoth)
	case c.Validity < 0 || c.Validity > 0 && c.Validity < day:
		return nil, fmt.Errorf("digicert: validity: %v; it is counted in days", c.Validity)
	}
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&c.Format, Formats[0])
	set(&c.ValidityField, ValidityOfOrder)
	set(&c.SignatureHash, "sha256")
	set(&c.ReasonField, "revocation_reason")
	if c.Validity == 0 {
		c.Validity = defaultValidity
	}
	if c.Visible == 0 {
		c.Visible = defaultVisible
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	states, err := stateTable.With(c.States)
	if err != nil {
		return nil, fmt.Errorf("digicert: %w", err)
	}
	d := &Connector{config: c, states: states}
	d.client, err = connector.NewClient(connector.ClientConfig{
		BaseURL: base, Roots: c.Roots, Timeout: c.Timeout, Now: c.Now, Dial: c.Dial, Authorize: d.authorize, Problem: problem, Secrets: d.secrets,
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Close ends the idle connections.
func (d *Connector) Close() { d.client.Close() }

func (d *Connector) authorize(_ context.Context, r *http.Request) error {
	key, err := d.config.Key()
	switch {
	case err != nil:
		return &connector.Error{Class: connector.ClassCredentials, Err: fmt.Errorf("the API key: %w", err), Mend: "mend the issuer's API key"}
	case key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return &connector.Error{Class: connector.ClassCredentials, Err: errors.New("the API key is empty, or is not of one line of ASCII"), Mend: "mend the issuer's API key"}
	}
	r.Header.Set(keyHeader, key)
	return nil
}

func (d *Connector) secrets() []string {
	key, err := d.config.Key()
	if err != nil {
		return nil
	}
	return []string{key}
}

// failures are one object or a list of them: old answers have one.
type failures []failure

type failure struct{ Code, Message string }

func (f *failures) UnmarshalJSON(data []byte) error {
	var list []failure
	err := json.Unmarshal(data, &list)
	if err != nil {
		list = make([]failure, 1)
		err = json.Unmarshal(data, &list[0])
	}
	*f = list
	return err
}

// problem reads {"errors":[{"code","message"}]}.
func problem(a *connector.Answer) *connector.Error {
	var body struct{ Errors failures }
	if !a.Reads(&body) {
		return nil
	}
	list := body.Errors
	list = slices.DeleteFunc(list, func(e failure) bool { return e.Code == "" && e.Message == "" })
	if len(list) == 0 {
		return nil
	}
	texts := make([]string, 0, len(list))
	// The first that is in the table says what to do; all are shown.
	chosen := list[0].Code
	for i := len(list) - 1; i >= 0; i-- {
		if _, known := codeTable.Of(list[i].Code); known {
			chosen = list[i].Code
		}
	}
	for _, e := range list {
		texts = append(texts, e.Message)
	}
	return codeTable.Error(chosen, strings.Join(texts, "; "))
}
