// Package entrust orders certificates at Entrust CA Gateway, which stands in front of
// the vendor's own CAs and of others'.
//
// An enrollment is answered with its certificate, after the gateway has waited for
// the CA behind it. There is no way of asking about an enrollment: one whose answer is
// lost, or has no certificate, is looked for among the events of certificates, by its
// public key.
package entrust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
)

const (
	// placeTime bounds an enrollment: the gateway itself waits about a minute for some
	// CAs.
	placeTime = 150 * time.Second
	// defaultVisible is how long a certificate may take to be among the events.
	defaultVisible = 15 * time.Minute
	// shortVisible is a time in which some CAs have not issued a certificate yet.
	shortVisible = 2 * time.Minute
	// defaultPerson is how long an enrollment without a certificate is waited for
	// before a person is told.
	defaultPerson = 4 * time.Hour
	// skew is what the clocks may differ.
	skew = 15 * time.Minute
)

// ReferencePlace is what stands for our reference in Config.Properties.
const ReferencePlace = "{reference}"

// Config of a Connector. URL, CA, Profile and Certificate are required.
type Config struct {
	// URL is the gateway's, with its context path, such as
	// https://gateway.example.com/cagw.
	URL string
	// CA and Profile are their ids.
	CA, Profile string
	// Certificate is presented to the gateway, and read anew for each connection.
	Certificate func() (*tls.Certificate, error)
	// ClientID is sent as ca-client-id; "" is not.
	ClientID string
	// Subject is what follows the common name in the subject, such as
	// "O=Example Ltd,C=GB".
	Subject string
	// Variables are the subject variables that the profile wants.
	Variables map[string]string
	// Properties are sent with each enrollment, for the CAs that have some.
	Properties map[string]string
	// Validity where the order does not say; 0 leaves it to the profile.
	Validity time.Duration
	// LinkRenewals tells the serial number of what is renewed, for CAs that bill by it.
	LinkRenewals bool
	// MayWait says that an enrollment may wait for somebody at the CA behind the
	// gateway. Not to be found then does not prove that there is none.
	MayWait bool
	// CAFields, CertificateFields and EventFields are what is asked for beyond what
	// the gateway shows by itself.
	CAFields, CertificateFields, EventFields string
	// States and EnrollmentStates are further states of certificates and of
	// enrollments, or other meanings of those that are known.
	States, EnrollmentStates map[string]connector.State
	// Visible is how long a certificate may take to be among the events; 0 is 15
	// minutes. NeedsPersonAfter is how long an enrollment without a certificate is
	// waited for before a person is told; 0 is 4 hours.
	Visible, NeedsPersonAfter time.Duration

	Roots   *x509.CertPool
	Timeout time.Duration
	Now     func() time.Time
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

// Connector speaks with one CA. It is safe for concurrent use.
type Connector struct {
	config       Config
	client       *connector.Client
	certificates connector.States
	enrollments  connector.States
	events       *connector.Listing
}

var _ interface {
	connector.Connector
	connector.Searcher
	connector.Revoker
	connector.Completer
} = (*Connector)(nil)

// New checks c. Close ends its connections.
func New(c Config) (*Connector, error) {
	base, err := url.Parse(c.URL)
	switch {
	case err != nil || base.Host == "":
		return nil, fmt.Errorf("entrust: url: %q is no URL; it is that of the gateway, with its context path", c.URL)
	case c.CA == "" || c.Profile == "":
		return nil, errors.New("entrust: the id of the CA or of the profile is missing")
	case c.Certificate == nil:
		return nil, errors.New("entrust: the client certificate is missing: the gateway knows its clients by nothing else")
	case c.Validity < 0 || c.Validity > 0 && c.Validity < time.Minute:
		return nil, fmt.Errorf("entrust: validity: %v; give a minute at least", c.Validity)
	case c.ClientID != "" && strings.ContainsFunc(c.ClientID, func(r rune) bool { return r < ' ' || r > '~' }):
		return nil, errors.New("entrust: the client id is not of one line of ASCII")
	}
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&c.CAFields, "ca.certificate,ca.chain")
	set(&c.CertificateFields, "certificate.certificateData,chain")
	set(&c.EventFields, "events.certificate")
	c.Variables, c.Properties = maps.Clone(c.Variables), maps.Clone(c.Properties)
	if c.Visible == 0 {
		c.Visible = defaultVisible
	}
	if c.MayWait {
		c.Visible = -1
	}
	if c.NeedsPersonAfter == 0 {
		c.NeedsPersonAfter = defaultPerson
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	e := &Connector{config: c}
	if e.certificates, err = certificateTable.With(c.States); err != nil {
		return nil, fmt.Errorf("entrust: %w", err)
	}
	if e.enrollments, err = enrollmentTable.With(c.EnrollmentStates); err != nil {
		return nil, fmt.Errorf("entrust: %w", err)
	}
	e.events = e.newListing()
	e.client, err = connector.NewClient(connector.ClientConfig{
		BaseURL: base, Roots: c.Roots, Certificate: c.Certificate, Timeout: c.Timeout, Now: c.Now, Dial: c.Dial, Authorize: e.authorize, Problem: problem,
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Close ends the idle connections.
func (e *Connector) Close() { e.client.Close() }

// authorize sees that the client certificate is there before anything is sent.
func (e *Connector) authorize(_ context.Context, r *http.Request) error {
	if _, err := e.config.Certificate(); err != nil {
		return &connector.Error{Class: connector.ClassCredentials, NotPlaced: true, Err: fmt.Errorf("the client certificate: %w", err), Mend: "mend the issuer's client certificate and key"}
	}
	if e.config.ClientID != "" {
		r.Header.Set("ca-client-id", e.config.ClientID)
	}
	return nil
}

// path is one of the CA's.
func (e *Connector) path(rest ...string) []string {
	return append([]string{"v1", "certificate-authorities", e.config.CA}, rest...)
}

type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// problem reads {"type":"ErrorResponse","error":{"code":"cagw-…","message":"…"}}. Its
// details may show what is behind the gateway, and are left where they are.
func problem(a *connector.Answer) *connector.Error {
	var body struct {
		Message string   `json:"message"`
		Error   *failure `json:"error"`
	}
	if !a.Reads(&body) || body.Error == nil || body.Error.Code == "" && body.Error.Message == "" {
		return nil
	}
	text := body.Error.Message
	if text == "" {
		text = body.Message
	}
	return classify(codeTable.Error(body.Error.Code, text), a.Status)
}
