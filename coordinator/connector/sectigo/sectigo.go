// Package sectigo orders certificates at Sectigo Certificate Manager (SCM), by its
// REST API for administrators.
//
// An order there is a certificate, from its request on: it has a number, the sslId,
// and a state. Its placement is answered with the number alone. A replacement keeps
// the number, and hands out the certificate of before until the new one is there.
package sectigo

import (
	"bytes"
	"context"
	"crypto/tls"
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

// Where the API is for most accounts, by the way of logging in.
const (
	URLPassword    = "https://cert-manager.com/api"
	URLCertificate = "https://cert-manager.com/private/api"
	URLOAuth       = "https://admin.enterprise.sectigo.com/api"
	URLToken       = "https://auth.sso.sectigo.com/auth/realms/apiclients/protocol/openid-connect/token"
)

// Auth is how an account logs in.
type Auth string

// Ways of logging in.
const (
	AuthPassword    Auth = "password"    // header fields with login and password
	AuthCertificate Auth = "certificate" // a TLS client certificate, and the login
	AuthOAuth       Auth = "oauth2"      // an access token for a client's secret
)

// Formats in which a certificate is fetched, with its chain or, as to x509CO and
// pemco, without, in which case the chain is asked for.
var Formats = []string{"x509", "x509R", "x509CO", "pem", "pemco", "pemia", "base64", "bin"}

// ReferencePlace is what stands for our reference in Config.ExternalRequester.
const ReferencePlace = "{reference}"

const (
	day = 24 * time.Hour
	// defaultVisible is how long a new order may take to be listed. The vendor says
	// nothing about it.
	defaultVisible = 2 * time.Minute
	// maxComments and maxExternal are the vendor's bounds, in characters.
	maxComments = 1024
	maxExternal = 512
)

// CustomField is a field that the account's orders have.
type CustomField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Config of a Connector. URL, Auth and what belongs to it, Organization, Profile and
// Terms are required.
type Config struct {
	URL  string
	Auth Auth
	// Login and CustomerURI belong to AuthPassword and AuthCertificate.
	Login, CustomerURI string
	// Password, of AuthPassword, is read anew for each request.
	Password func() (string, error)
	// Certificate, of AuthCertificate, is read anew for each connection.
	Certificate func() (*tls.Certificate, error)
	// TokenURL, ClientID and ClientSecret belong to AuthOAuth; "" is URLToken. The
	// secret is read anew for each token.
	TokenURL, ClientID string
	ClientSecret       func() (string, error)

	// Organization is the orgId, Profile the certType.
	Organization, Profile int64
	// Terms are those of the profile that may be used, in days. The first is for
	// orders that do not say how long; for others it is the longest that is not
	// longer, else the shortest.
	Terms []int
	// Comment begins the comments of an order.
	Comment string
	// ExternalRequester is an e-mail address with {reference} in it, such as
	// certs+{reference}@example.com: the field can be searched for. The vendor may
	// send mail there. "" leaves the field out.
	ExternalRequester string
	// NoComments keeps our reference out of the comments. Without a reference in
	// either field a lost order can be found by a person alone.
	NoComments bool
	// CustomFields are sent with every order.
	CustomFields []CustomField
	// DCVMode is how control of names is proven: CNAME, EMAIL, HTTP, HTTPS, TXT or
	// AUTO; DCVEmail belongs to EMAIL. "" leaves them out.
	DCVMode, DCVEmail string
	// Format of certificates, one of Formats; "" is x509.
	Format string
	// FormatInPath asks for certificates as older clients do.
	FormatInPath bool
	// CollectApplied takes an order in the state Applied for issued: at some
	// accounts its certificate can be fetched by then.
	CollectApplied bool
	// RevokeByOrder names a certificate that is to be revoked by its order and not
	// by its serial number. After a replacement that is the newer one.
	RevokeByOrder bool
	// DateFormat is what is asked for, in the vendor's notation; "" asks for RFC
	// 3339, "-" for nothing.
	DateFormat string
	// States are further states, or other meanings of those that are known.
	States map[string]connector.State
	// Visible is how long a new order may take to be listed; 0 is 2 minutes.
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
	tokens *tokens // nil but with AuthOAuth
	states connector.States
}

var _ interface {
	connector.Connector
	connector.Searcher
	connector.Canceller
	connector.Revoker
	connector.Validator
	connector.Reissuer
} = (*Connector)(nil)

// New checks c. Close ends its connections.
func New(c Config) (*Connector, error) {
	base, err := url.Parse(c.URL)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("sectigo: url: %q is no URL; it is %s, %s or %s for most accounts", c.URL, URLPassword, URLCertificate, URLOAuth)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("sectigo: %w", err)
	}
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&c.Format, Formats[0])
	set(&c.TokenURL, URLToken)
	set(&c.DateFormat, "yyyy-MM-dd'T'HH:mm:ssXXX")
	if c.Visible == 0 {
		c.Visible = defaultVisible
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	table := stateTable
	if c.CollectApplied {
		if table, err = table.With(map[string]connector.State{"Applied": connector.Issued}); err != nil {
			return nil, fmt.Errorf("sectigo: %w", err)
		}
	}
	states, err := table.With(c.States)
	if err != nil {
		return nil, fmt.Errorf("sectigo: %w", err)
	}
	s := &Connector{config: c, states: states}
	client := connector.ClientConfig{
		BaseURL: base, Roots: c.Roots, Timeout: c.Timeout, Now: c.Now, Dial: c.Dial, Authorize: s.authorize, Problem: problem, Secrets: s.secrets,
	}
	if c.Auth == AuthCertificate {
		client.Certificate = c.Certificate
	}
	if s.client, err = connector.NewClient(client); err != nil {
		return nil, err
	}
	if c.Auth == AuthOAuth {
		s.tokens, err = newTokens(c)
	}
	return s, err
}

func (c *Config) check() error {
	switch c.Auth {
	case AuthPassword, AuthCertificate:
		if c.Login == "" || c.CustomerURI == "" {
			return errors.New("login and customer URI are missing")
		}
		if c.Auth == AuthPassword && c.Password == nil {
			return errors.New("the password is missing")
		}
		if c.Auth == AuthCertificate && c.Certificate == nil {
			return errors.New("the client certificate is missing")
		}
	case AuthOAuth:
		if c.ClientID == "" || c.ClientSecret == nil {
			return errors.New("the client's id or its secret is missing")
		}
	default:
		return fmt.Errorf("auth: %q; use %s, %s or %s", c.Auth, AuthPassword, AuthCertificate, AuthOAuth)
	}
	external := len(c.ExternalRequester) + 32
	switch {
	case c.Organization <= 0:
		return errors.New("organization: it is the orgId of the account's organization, a number")
	case c.Profile <= 0:
		return errors.New("profile: it is the id of a certificate profile, a number")
	case len(c.Terms) == 0 || slices.Min(c.Terms) < 1:
		return errors.New("terms: give at least one of the profile's, in days")
	case c.ExternalRequester != "" && (!strings.Contains(c.ExternalRequester, ReferencePlace) || !strings.Contains(c.ExternalRequester, "@") || external > maxExternal):
		return fmt.Errorf("external requester: %q; it is an e-mail address with %s in it", c.ExternalRequester, ReferencePlace)
	case len(c.Comment) > maxComments/2:
		return fmt.Errorf("comment: %d characters; at most %d", len(c.Comment), maxComments/2)
	case c.Format != "" && !slices.Contains(Formats, c.Format):
		return fmt.Errorf("format: %q; use one of %s", c.Format, strings.Join(Formats, ", "))
	}
	return nil
}

// Close ends the idle connections.
func (s *Connector) Close() {
	s.client.Close()
	if s.tokens != nil {
		s.tokens.client.Close()
	}
}

func (s *Connector) authorize(ctx context.Context, r *http.Request) error {
	if s.tokens != nil {
		token, err := s.tokens.get(ctx)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		return nil
	}
	r.Header.Set("login", s.config.Login)
	r.Header.Set("customerUri", s.config.CustomerURI)
	if s.config.Auth != AuthPassword {
		return nil
	}
	password, err := secret("password", s.config.Password)
	if err != nil {
		return err
	}
	r.Header.Set("password", password)
	return nil
}

// secret reads one that goes into a header field.
func secret(name string, read func() (string, error)) (string, error) {
	text, err := read()
	mend := "mend the issuer's " + name
	switch {
	case err != nil:
		return "", &connector.Error{Class: connector.ClassCredentials, NotPlaced: true, Err: fmt.Errorf("the %s: %w", name, err), Mend: mend}
	case text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", &connector.Error{Class: connector.ClassCredentials, NotPlaced: true, Err: fmt.Errorf("the %s is empty, or is not of one line", name), Mend: mend}
	}
	return text, nil
}

func (s *Connector) secrets() []string {
	if s.tokens != nil {
		return s.tokens.secrets()
	}
	if s.config.Auth != AuthPassword {
		return nil
	}
	password, err := s.config.Password()
	if err != nil {
		return nil
	}
	return []string{password}
}

// do makes a call. A token that the authority has forgotten before its time is
// replaced, once: what is answered with status 401 has not been acted upon.
func (s *Connector) do(ctx context.Context, call connector.Call) (*connector.Answer, error) {
	answer, err := s.client.Do(ctx, call)
	if err == nil || s.tokens == nil || connector.Classify(err).Status != http.StatusUnauthorized || !s.tokens.drop() {
		return answer, err
	}
	return s.client.Do(ctx, call)
}

// problem reads {"code":-16,"description":"…"}.
func problem(a *connector.Answer) *connector.Error {
	var body struct {
		Code        json.RawMessage `json:"code"`
		Description string          `json:"description"`
	}
	if !a.Reads(&body) {
		return nil
	}
	code := string(bytes.Trim(body.Code, `" `))
	if code == "" || code == "null" || strings.Trim(code, "-0123456789") != "" {
		return nil
	}
	return codeTable.Error(code, body.Description)
}
