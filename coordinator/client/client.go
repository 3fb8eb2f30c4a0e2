// Package client talks to the coordinator's API. It is what the operator's
// command line is made of, and holds nothing of the coordinator but the
// documents that the two exchange.
package client

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
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// maxAnswer bounds an answer: a page holds at most 500 items.
	maxAnswer = 64 << 20
	// PageSize is how many items List asks for at a time.
	PageSize       = 500
	requestTimeout = 30 * time.Second
	// readPatience bounds one node's answer to a read while there are others that
	// can be asked: longer than a node itself waits to have what it is asked for.
	readPatience = 15 * time.Second
	// waitPatience bounds how long a read waits altogether because the token is used too
	// often.
	waitPatience = 15 * time.Second
	// Of a connection while there are other nodes, so that those that are down do not
	// take long.
	dialPatience      = 3 * time.Second
	handshakePatience = 5 * time.Second
)

// ErrUnreachable says that there was no answer of a coordinator.
var ErrUnreachable = errors.New("the coordinator cannot be reached")

// Config says which coordinator, and as whom.
type Config struct {
	// Servers are https URLs of the coordinator's nodes, one or several. The first
	// is asked first, and the others in turn when it does not answer.
	Servers []string
	Token   apitoken.Token
	// Roots is PEM: the CA certificates to trust for the coordinator. Empty
	// trusts the system's.
	Roots string
	// Written makes reads see earlier changes; nil makes one of the client's own.
	Written *Written
	// Consistent makes reads see every change that was acknowledged before, whoever
	// made it. It needs a leader.
	Consistent bool
	// Moved is told that a server cannot answer, why, and which one is asked in its
	// stead; nil tells nobody.
	Moved func(from, to string, why error)
	// Waits is told that a read was refused because the token is used too often, and is
	// sent again after a pause; nil tells nobody.
	Waits func(pause time.Duration, why error)
}

// Written is the newest state that a client has changed: what it reads afterwards,
// from whichever node, is at least as new. Several clients of one cluster may share
// one. It is safe for concurrent use.
type Written struct{ index atomic.Uint64 }

// Index is the index of that state in the cluster's log, 0 if nothing was changed.
func (w *Written) Index() uint64 { return w.index.Load() }

func (w *Written) note(header http.Header) {
	index, err := strconv.ParseUint(header.Get(resource.Index), 10, 64)
	if err != nil {
		return // a coordinator of an earlier version
	}
	for before := w.index.Load(); before < index && !w.index.CompareAndSwap(before, index); before = w.index.Load() {
	}
}

// Client is safe for concurrent use.
type Client struct {
	servers    *servers
	token      apitoken.Token
	http       *http.Client
	written    *Written
	consistent bool
	kept       *revalidation
	waits      func(pause time.Duration, why error)
	expires    atomic.Pointer[Expiry]
}

// Expiry is when a token ends.
type Expiry struct {
	At    time.Time
	Fixed bool // a rotation does not put it off
}

// TokenExpires is when the client's token ends, if an answer has said that it does so
// soon.
func (c *Client) TokenExpires() (Expiry, bool) {
	if told := c.expires.Load(); told != nil {
		return *told, true
	}
	return Expiry{}, false
}

func (c *Client) noteExpiry(header http.Header) {
	text, fixed := strings.CutSuffix(header.Get(resource.TokenExpires), resource.TokenExpiryFixed)
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		c.expires.Store(&Expiry{At: at, Fixed: fixed})
	}
}

// New checks the configuration. It connects to nothing.
func New(c Config) (*Client, error) {
	servers, err := newServers(c.Servers, c.Moved)
	if err != nil {
		return nil, err
	}
	options := tlsutil.ClientOptions{SystemRoots: c.Roots == ""}
	if c.Roots != "" {
		options.Roots = x509.NewCertPool()
		if !options.Roots.AppendCertsFromPEM([]byte(c.Roots)) {
			return nil, errors.New("the CA file holds no certificate in PEM: give the coordinator's root.pem")
		}
	}
	config, err := tlsutil.ClientConfig(options)
	if err != nil {
		return nil, err
	}
	if c.Written == nil {
		c.Written = new(Written)
	}
	if c.Waits == nil {
		c.Waits = func(time.Duration, error) {}
	}
	by := httpClient(config, len(servers.bases) > 1)
	kept := &revalidation{next: by.Transport}
	by.Transport = kept
	return &Client{servers: servers, token: c.Token, written: c.Written, consistent: c.Consistent, http: by, kept: kept, waits: c.Waits}, nil
}

func httpClient(config *tls.Config, several bool) *http.Client {
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment}
	if several {
		transport.DialContext = (&net.Dialer{Timeout: dialPatience}).DialContext
		transport.TLSHandshakeTimeout = handshakePatience
	}
	return &http.Client{
		Timeout: requestTimeout, Transport: transport,
		// A redirect would carry the token to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ParseServer checks a coordinator's URL.
func ParseServer(text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSuffix(text, "/"))
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.String() != "https://"+u.Host {
		return nil, errors.New("the server's URL is not one: expected such as https://certctl.example.com:8443")
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

// Path joins parts to the path of a request. Each part is one segment, whatever
// it holds.
func Path(parts ...string) string {
	var path strings.Builder
	for _, part := range parts {
		path.WriteByte('/')
		if part == "." || part == ".." {
			// Else taken for a step through the path (RFC 3986, section 5.2.4).
			path.WriteString(strings.Repeat("%2E", len(part)))
			continue
		}
		path.WriteString(url.PathEscape(part))
	}
	return path.String()
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// once sends a request to one server as this client and copies its answer, unless it
// is a refusal, or what the client has.
func (c *Client) once(ctx context.Context, by *http.Client, base *url.URL, request *http.Request, x *exchange, out io.Writer) error {
	request.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	request.Header.Set("User-Agent", "certctl/"+buildinfo.Version())
	response, err := by.Do(request)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("ask %s: %w", base, ctx.Err())
	}
	if err != nil {
		return unreachable(base, err)
	}
	defer response.Body.Close()
	c.noteExpiry(response.Header)
	if response.StatusCode == http.StatusNotModified && request.Header.Get("If-None-Match") != "" {
		x.told(response.Header)
		c.servers.learn(response.Header)
		return ErrNotModified
	}
	refusal, most := new(bytes.Buffer), x.most
	refused := response.StatusCode >= 300
	if refused {
		out, most = refusal, maxAnswer
	}
	n, err := io.Copy(out, io.LimitReader(response.Body, most+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("ask %s: %w", base, ctx.Err())
	case err != nil:
		return &unreachableError{server: base.String(), mend: "try again", cause: fmt.Errorf("the answer broke off: %w", err)}
	case n > most:
		return fmt.Errorf("the answer is larger than %d bytes; ask for less", most)
	case refused:
		problem := &wire.Problem{Status: response.StatusCode}
		if err := json.Unmarshal(refusal.Bytes(), problem); err != nil || problem.Code == "" {
			return fmt.Errorf("%s answered %s, which is not an answer of a coordinator; check the server's URL", base, response.Status)
		}
		return problem
	}
	if request.Method != http.MethodGet {
		c.written.note(response.Header)
	}
	x.told(response.Header)
	c.servers.learn(response.Header)
	return nil
}

// fresh is the query of a call; that of a read says how new the answer has to be.
func (c *Client) fresh(r *call) url.Values {
	index, consistent := max(c.written.Index(), r.index), c.consistent || r.consistent
	if r.method != http.MethodGet || index == 0 && !consistent {
		return url.Values(r.query)
	}
	query := clone(url.Values(r.query))
	if index > 0 {
		query.Set(resource.MinIndex, strconv.FormatUint(index, 10))
	}
	if consistent {
		query.Set(resource.Consistent, "true")
	}
	return query
}

func clone(query url.Values) url.Values {
	copied := make(url.Values, len(query)+2)
	for key, values := range query {
		copied[key] = values
	}
	return copied
}
