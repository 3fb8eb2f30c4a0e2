// Package globalsign orders certificates at GlobalSign Atlas, by its HVCA API
// version 2.
//
// An order there is named by the serial number of the certificate to come, which the
// answer to it tells in its Location field. One question tells the state and the
// certificate, without its chain. No order waits for a person: names are vetted
// before, by claims of domains, and what does not fit the account's policy is refused
// at once. The authority keeps no reference of ours; a lost order is found by its
// public key.
package globalsign

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
)

// URL is where the API is for most accounts.
const URL = "https://emea.api.hvca.globalsign.com:8443/v2"

// jsonType is the one type of a body that the vendor takes.
const jsonType = "application/json;charset=utf-8"

const (
	// tokenLife is how long a token is good where the settings do not say, and early
	// how long before its end it is not used any more.
	tokenLife = 10 * time.Minute
	early     = 30 * time.Second
	// policyLife and chainLife are how long the account's policy and the issuing
	// certificates are not asked for again.
	policyLife = time.Hour
	chainLife  = 24 * time.Hour
	// defaultVisible is how long a new order may take to be listed: it is only when
	// its certificate is issued. The vendor says nothing about it.
	defaultVisible = 5 * time.Minute
	// skew is what the clocks may differ.
	skew = 15 * time.Minute
	// serverAuth is id-kp-serverAuth (RFC 5280 section 4.2.1.12).
	serverAuth = "1.3.6.1.5.5.7.3.1"
)

// Config of a Connector. URL, APIKey, APISecret and Certificate are required.
type Config struct {
	URL string
	// APIKey and APISecret are read anew for each token.
	APIKey, APISecret func() (string, error)
	// Certificate is presented to the server, and read anew for each connection.
	Certificate func() (*tls.Certificate, error)
	// Subject has further fields of the subject by the vendor's names, such as
	// organization, country, state, locality and organizational_unit. Those that the
	// account's policy sets or forbids are left out.
	Subject map[string]string
	// Validity where the order does not say; 0 is as long as the policy has it.
	Validity time.Duration
	// Usages are the extended key usages, by OID; nil is that of a server.
	Usages []string
	// SignatureAlgorithm and HashAlgorithm are for policies that leave them to the
	// order; "" is the first that the policy has, where it wants one.
	SignatureAlgorithm, HashAlgorithm string
	// TokenLife is how long a token is good; 0 is 10 minutes.
	TokenLife time.Duration
	// NeedsPerson are further words by which a refusal is known to be one that
	// somebody can mend at the authority.
	NeedsPerson []string
	// States are further states, or other meanings of those that are known.
	States map[string]connector.State
	// Visible is how long a new order may take to be listed; 0 is 5 minutes.
	Visible time.Duration

	Roots   *x509.CertPool
	Timeout time.Duration
	Now     func() time.Time
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

// Connector speaks with one account. It is safe for concurrent use.
type Connector struct {
	config Config
	base   *url.URL
	client *connector.Client
	states connector.States

	token  *connector.Cached[string]
	policy *connector.Cached[*policy]
	chain  *connector.Cached[[]*x509.Certificate]
	issued *connector.Listing

	shown sync.Mutex // of last
	last  string     // the token, which no error may show
}

var _ interface {
	connector.Connector
	connector.Searcher
	connector.Revoker
	connector.Validator
	connector.Completer
} = (*Connector)(nil)

// New checks c. Close ends its connections.
func New(c Config) (*Connector, error) {
	base, err := url.Parse(c.URL)
	switch {
	case err != nil || base.Host == "":
		return nil, fmt.Errorf("globalsign: url: %q is no URL; it is %s for most accounts", c.URL, URL)
	case c.APIKey == nil || c.APISecret == nil:
		return nil, errors.New("globalsign: the API key or the API secret is missing")
	case c.Certificate == nil:
		return nil, errors.New("globalsign: the client certificate is missing; the authority knows an account by it, besides its API key")
	case c.Validity < 0 || c.Validity > 0 && c.Validity < time.Hour:
		return nil, fmt.Errorf("globalsign: validity: %v; give an hour at least", c.Validity)
	case c.TokenLife < 0 || c.TokenLife > 0 && c.TokenLife <= early:
		return nil, fmt.Errorf("globalsign: token life: %v; give more than %v", c.TokenLife, early)
	case c.Subject[commonName] != "":
		return nil, errors.New("globalsign: subject: common_name is taken from each order; leave it out")
	}
	c.Subject, c.NeedsPerson = maps.Clone(c.Subject), slices.Clone(c.NeedsPerson)
	if c.TokenLife == 0 {
		c.TokenLife = tokenLife
	}
	if c.Visible == 0 {
		c.Visible = defaultVisible
	}
	if c.Usages == nil {
		c.Usages = []string{serverAuth}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	states, err := stateTable.With(c.States)
	if err != nil {
		return nil, fmt.Errorf("globalsign: %w", err)
	}
	g := &Connector{config: c, base: base, states: states}
	g.token, g.policy, g.chain = connector.NewCached[string](c.Now), connector.NewCached[*policy](c.Now), connector.NewCached[[]*x509.Certificate](c.Now)
	g.issued = g.newListing()
	g.client, err = connector.NewClient(connector.ClientConfig{
		BaseURL: base, Roots: c.Roots, Certificate: c.Certificate, Timeout: c.Timeout, Now: c.Now, Dial: c.Dial,
		Authorize: g.authorize, Problem: g.problem, Secrets: g.secrets,
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// Close ends the idle connections.
func (g *Connector) Close() { g.client.Close() }

func (g *Connector) authorize(ctx context.Context, r *http.Request) error {
	token, err := g.token.Get(ctx, g.login)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return nil
}

// login asks for a token.
func (g *Connector) login(ctx context.Context) (string, time.Duration, error) {
	key, err := credential("API key", g.config.APIKey)
	if err != nil {
		return "", 0, err
	}
	secret, err := credential("API secret", g.config.APISecret)
	if err != nil {
		return "", 0, err
	}
	answer, err := g.client.Do(ctx, connector.Call{
		Method: http.MethodPost, Path: []string{"login"}, Body: map[string]string{"api_key": key, "api_secret": secret}, Header: typed(), Anonymous: true,
	})
	if err != nil {
		e := *connector.Classify(err)
		if e.Class == connector.ClassRefused || e.Class == connector.ClassNeedsPerson || e.Class == connector.ClassCredentials {
			e.Class, e.Mend = connector.ClassCredentials, "check the issuer's API key, API secret and client certificate: they belong to each other"
		}
		return "", 0, &e
	}
	var body struct {
		Token string `json:"access_token"`
	}
	if err := answer.Decode(&body); err != nil {
		return "", 0, err
	}
	if !oneLine(body.Token) {
		return "", 0, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Err: errors.New("the authority sent no token")}
	}
	g.shown.Lock()
	g.last = body.Token
	g.shown.Unlock()
	return body.Token, g.config.TokenLife - early, nil
}

func oneLine(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

func credential(name string, read func() (string, error)) (string, error) {
	text, err := read()
	mend := "mend the issuer's " + name
	switch {
	case err != nil:
		return "", &connector.Error{Class: connector.ClassCredentials, NotPlaced: true, Err: fmt.Errorf("the %s: %w", name, err), Mend: mend}
	case !oneLine(text):
		return "", &connector.Error{Class: connector.ClassCredentials, NotPlaced: true, Err: fmt.Errorf("the %s is empty, or is not of one line of ASCII", name), Mend: mend}
	}
	return text, nil
}

func (g *Connector) secrets() []string {
	g.shown.Lock()
	list := []string{g.last}
	g.shown.Unlock()
	for _, read := range []func() (string, error){g.config.APISecret, g.config.APIKey} {
		if text, err := read(); err == nil {
			list = append(list, text)
		}
	}
	return list
}

func typed() http.Header { return http.Header{"Content-Type": {jsonType}} }

// do makes a call. A token that the authority does not take any more is replaced,
// once: what is answered with status 401 has not been acted upon.
func (g *Connector) do(ctx context.Context, call connector.Call) (*connector.Answer, error) {
	if call.Body != nil {
		call.Header = typed()
	}
	used, had := g.token.Fresh()
	if !had {
		// Before the call: whatever was sent by then is none of it.
		if _, err := g.token.Get(ctx, g.login); err != nil {
			e := *connector.Classify(err)
			e.NotPlaced = true
			return nil, &e
		}
	}
	answer, err := g.client.Do(ctx, call)
	if err == nil || !had || connector.Classify(err).Status != http.StatusUnauthorized {
		return answer, err
	}
	g.token.Drop(func(held string) bool { return held == used })
	return g.client.Do(ctx, call)
}

// problem reads {"description":"…","errors":{"field":"…"}} of application/problem+json.
// An answer of another type is not the authority's.
func (g *Connector) problem(a *connector.Answer) *connector.Error {
	kind, _, _ := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if kind != "application/problem+json" && kind != "application/json" {
		return nil
	}
	var body struct {
		Description string            `json:"description"`
		ID          string            `json:"id"`
		Errors      map[string]string `json:"errors"`
	}
	if !a.Reads(&body) || body.Description == "" {
		return nil
	}
	text := body.Description
	for _, field := range slices.Sorted(maps.Keys(body.Errors)) {
		text += "; " + field + ": " + body.Errors[field]
	}
	e := refusal(a.Status, text, g.config.NeedsPerson)
	e.Code, e.Detail = body.ID, text
	return e
}
