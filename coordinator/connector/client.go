package connector

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/certctl/certctl/shared/buildinfo"
)

const (
	// MaxAnswer bounds the body of an answer, in bytes.
	MaxAnswer = 1 << 20
	// maxDetail and maxRaw bound what is kept of an authority's own words, in bytes.
	maxDetail = 512
	maxRaw    = 64
	// callTimeout bounds one request with its answer where the caller sets nothing.
	callTimeout = 30 * time.Second
	// maxHeader bounds the header of an answer, in bytes.
	maxHeader = 64 << 10
	dialTime  = 10 * time.Second
	idleTime  = 60 * time.Second
)

// ClientConfig of a Client. BaseURL is required.
type ClientConfig struct {
	// BaseURL is what the paths of calls are appended to.
	BaseURL *url.URL
	// Roots are what the authority's server is verified with; nil is the system's.
	Roots *x509.CertPool
	// Certificate is presented to the server; nil presents none. It is called for
	// every connection, so that a new one needs no restart. Its errors end the call
	// before anything is sent.
	Certificate func() (*tls.Certificate, error)
	// Authorize adds the credentials to a request, as they are at that moment; nil
	// adds none. Its errors end the call before anything is sent.
	Authorize func(ctx context.Context, r *http.Request) error
	// Problem reads an answer that is no success in the authority's own form. It
	// returns nil for a body that is not in that form; what it leaves out of the
	// error is filled in by the HTTP status. It need not look at the status.
	Problem func(a *Answer) *Error
	// Secrets are texts that no error may show; nil if there are none. An
	// authority, or a proxy, may send back what it got.
	Secrets func() []string
	// Timeout bounds one request with its answer; 0 is 30 s.
	Timeout time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Dial makes the connections; nil dials, through the proxy that the environment
	// names.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client makes requests to one account at an authority. It repeats nothing, follows
// no redirection and reads bounded bodies only. It is safe for concurrent use.
type Client struct {
	config  ClientConfig
	asking  *http.Client
	placing *http.Client
}

// NewClient checks c. Close ends its connections.
func NewClient(c ClientConfig) (*Client, error) {
	if c.BaseURL == nil || c.BaseURL.Host == "" || c.BaseURL.Scheme != "https" && c.BaseURL.Scheme != "http" {
		return nil, errors.New("connector: the authority's URL is missing or is none")
	}
	if c.Timeout == 0 {
		c.Timeout = callTimeout
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	asking := newTransport(c)
	// What places an order gets a connection of its own: on one that is used again
	// the request may have left before the other side closes it, and net/http sends
	// some requests a second time. HTTP/2 has ways of its own of doing so. This one
	// is made anew and is no clone of the other, which would keep the offer of HTTP/2
	// to the server and then not speak it.
	placing := newTransport(c)
	placing.DisableKeepAlives = true
	placing.Protocols = new(http.Protocols)
	placing.Protocols.SetHTTP1(true)
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{
		config: c, asking: &http.Client{Transport: asking, CheckRedirect: stay}, placing: &http.Client{Transport: placing, CheckRedirect: stay},
	}, nil
}

func newTransport(c ClientConfig) *http.Transport {
	transport := &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: dialTime}).DialContext,
		// The authorities' servers are not ours to choose: some end TLS in front of
		// older software.
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.Roots},
		TLSHandshakeTimeout:    dialTime,
		MaxResponseHeaderBytes: maxHeader,
		MaxConnsPerHost:        64,
		IdleConnTimeout:        idleTime,
		Protocols:              new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(true)
	transport.Protocols.SetHTTP2(true)
	if c.Dial != nil {
		transport.Proxy, transport.DialContext = nil, c.Dial
	}
	if c.Certificate != nil {
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.Certificate() }
	}
	return transport
}

// Close ends the idle connections.
func (c *Client) Close() {
	c.asking.CloseIdleConnections()
	c.placing.CloseIdleConnections()
}

// Call is one request.
type Call struct {
	Method string // "" is GET
	// Path is appended to the base URL, element by element, each of which is
	// escaped.
	Path  []string
	Query url.Values
	// Body is sent as JSON; nil sends none.
	Body any
	// Form is sent as a form instead of Body; nil sends none.
	Form url.Values
	// Header is added to the request.
	Header http.Header
	// Places says that the request may make an order: what its failure leaves open
	// is told by Error.NotPlaced.
	Places bool
	// Anonymous leaves out Authorize: for the request that logs in.
	Anonymous bool
	// Timeout is for this call; 0 is the client's.
	Timeout time.Duration
}

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	// At is the authority's clock, from the Date field; zero without.
	At time.Time
}

// Decode reads the body as JSON into v. Fields that v does not have are passed over:
// authorities add some.
func (a *Answer) Decode(v any) error {
	if err := json.Unmarshal(a.Body, v); err != nil {
		return &Error{
			Class: ClassAnswer, Status: a.Status, Err: fmt.Errorf("the answer cannot be read: %w", err),
			Mend: "see that the issuer's URL is the authority's, and that no proxy answers for it",
		}
	}
	return nil
}

// Reads reports whether the body is JSON that v holds, and reads it into v. It is for
// ClientConfig.Problem, to which another form is no failure.
func (a *Answer) Reads(v any) bool { return json.Unmarshal(a.Body, v) == nil }

// Do makes the request. An answer with a status of 200 to 299 is returned; any other
// is an *[Error], and so is what fails on the way.
func (c *Client) Do(ctx context.Context, call Call) (*Answer, error) {
	timeout := call.Timeout
	if timeout == 0 {
		timeout = c.config.Timeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var wrote atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaderField: func(string, []string) { wrote.Store(true) }})
	request, err := c.request(ctx, call)
	if err != nil {
		return nil, c.clean(err)
	}
	client := c.asking
	if call.Places {
		client = c.placing
	}
	response, err := client.Do(request)
	if err != nil {
		failed := Error{Class: ClassRetry, Err: unwrapURL(err)}
		if own, ok := errors.AsType[*Error](err); ok { // of Certificate
			failed = *own
		}
		failed.NotPlaced = !wrote.Load()
		return nil, c.clean(&failed)
	}
	defer response.Body.Close()
	answer := &Answer{Status: response.StatusCode, Header: response.Header}
	answer.At, _ = http.ParseTime(response.Header.Get("Date"))
	answer.Body, err = io.ReadAll(io.LimitReader(response.Body, MaxAnswer+1))
	if err != nil {
		return nil, c.clean(&Error{Class: ClassRetry, Status: answer.Status, Err: fmt.Errorf("the answer broke off: %w", err)})
	}
	if len(answer.Body) > MaxAnswer {
		return nil, &Error{
			Class: ClassAnswer, Status: answer.Status, Err: fmt.Errorf("%w: %d bytes", ErrTooLarge, MaxAnswer),
			Mend: "see that the issuer's URL is the authority's, and that no proxy answers for it",
		}
	}
	count(ctx, call, answer.Status)
	if answer.Status/100 == 2 {
		return answer, nil
	}
	return nil, c.clean(c.problem(answer))
}

func (c *Client) request(ctx context.Context, call Call) (*http.Request, error) {
	var body io.Reader
	kind := "application/json"
	switch {
	case call.Form != nil:
		body, kind = strings.NewReader(call.Form.Encode()), "application/x-www-form-urlencoded"
	case call.Body != nil:
		data, err := json.Marshal(call.Body)
		if err != nil {
			return nil, &Error{Class: ClassConfig, NotPlaced: true, Err: fmt.Errorf("encode the request: %w", err)}
		}
		body = bytes.NewReader(data)
	}
	target := strings.TrimSuffix(c.config.BaseURL.String(), "/")
	for _, element := range call.Path {
		target += "/" + url.PathEscape(element)
	}
	if len(call.Query) > 0 {
		target += "?" + call.Query.Encode()
	}
	method := call.Method
	if method == "" {
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, &Error{Class: ClassConfig, NotPlaced: true, Err: err}
	}
	request.Header.Set("User-Agent", "certctl-coordinator/"+buildinfo.Version())
	request.Header.Set("Accept", "application/json")
	if body != nil {
		request.Header.Set("Content-Type", kind)
	}
	for name, values := range call.Header {
		request.Header[name] = values
	}
	if c.config.Authorize == nil || call.Anonymous {
		return request, nil
	}
	if err := c.config.Authorize(ctx, request); err != nil {
		e := *Classify(err)
		e.NotPlaced = true
		return nil, &e
	}
	return request, nil
}

// clean bounds an error's texts and takes the secrets out of them.
func (c *Client) clean(err error) error {
	e := Classify(err)
	var secrets []string
	if c.config.Secrets != nil {
		secrets = c.config.Secrets()
	}
	// Before they are cut: half a secret is none that would be found.
	e.Detail, e.Code = clip(redact(e.Detail, secrets), maxDetail), clip(redact(e.Code, secrets), maxRaw)
	if e.Err != nil {
		if text := redact(e.Err.Error(), secrets); text != e.Err.Error() {
			e.Err = errors.New(text)
		}
	}
	return e
}

func redact(text string, secrets []string) string {
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	return text
}

// clip cuts text that came from outside: valid UTF-8 without control characters, of
// at most most bytes.
func clip(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return ' '
		}
		return r
	}, text)
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}

// Raw is a state in an authority's words, as it is kept.
func Raw(word string) string { return clip(word, maxRaw) }

// Detail is what an authority says, as it is kept.
func Detail(text string) string { return clip(text, maxDetail) }

// unwrapURL leaves out the method and URL, which the caller knows.
func unwrapURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
