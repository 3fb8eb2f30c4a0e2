package revocation

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/certctl/certctl/shared/buildinfo"
)

const (
	maxOCSPBody = 64 << 10
	maxCRLBody  = 10 << 20
	// longestGet is up to what length a question is put into the URL, where caches
	// know the answer (RFC 5019, section 5).
	longestGet = 255

	dialPatience = 10 * time.Second
	ocspPatience = 20 * time.Second
	crlPatience  = time.Minute
	maxRedirects = 3
)

// errForbidden says that an address is none that a certificate may send this host
// to.
var errForbidden = errors.New("the address is not one that a certificate may send this host to")

// fetcher makes the requests to addresses that certificates name. Answers are
// signed, and nothing else about them is trusted: neither names nor TLS, which is
// why http is as good as https here.
type fetcher struct {
	direct, proxied *http.Transport
	proxy           func(*http.Request) (*url.URL, error)
}

func newFetcher() *fetcher {
	dialer := &net.Dialer{Timeout: dialPatience, ControlContext: permitted}
	transport := func() *http.Transport {
		return &http.Transport{
			TLSHandshakeTimeout: dialPatience, ResponseHeaderTimeout: ocspPatience, MaxResponseHeaderBytes: 32 << 10,
			IdleConnTimeout: 10 * time.Second, MaxIdleConnsPerHost: 2, DisableCompression: true,
			// A list that names its own authority's certificate could not be had
			// otherwise when that is what was revoked; what comes is signed.
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true},
		}
	}
	f := &fetcher{direct: transport(), proxied: transport(), proxy: http.ProxyFromEnvironment}
	f.direct.DialContext = dialer.DialContext
	f.proxied.Proxy = func(r *http.Request) (*url.URL, error) { return f.proxy(r) }
	return f
}

func (f *fetcher) close() {
	f.direct.CloseIdleConnections()
	f.proxied.CloseIdleConnections()
}

// privateKey marks a context whose requests are for a certificate of an authority
// of one's own.
type privateKey struct{}

// permitted looks at each address that a connection is made to, after names were
// resolved. Metadata services of clouds and neighbours on the link are no place
// for revocation lists, whoever issued the certificate. This host itself and
// private networks are where authorities of one's own are; a certificate of a
// public authority has no business there.
func permitted(ctx context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s", errForbidden, address)
	}
	ip := at.Addr().Unmap()
	own, _ := ctx.Value(privateKey{}).(bool)
	switch {
	case ip.IsLinkLocalUnicast(), ip.IsMulticast(), ip.IsUnspecified(), !own && (ip.IsLoopback() || ip.IsPrivate()):
		return fmt.Errorf("%w: %s", errForbidden, ip)
	}
	return nil
}

// reply is an answer that has been read.
type reply struct {
	code   int
	status string // in words
	tag    string
	body   []byte
}

// send makes one request and reads at most limit octets of its answer; more is an
// error.
func (f *fetcher) send(ctx context.Context, own bool, r *http.Request, limit int64) (*reply, error) {
	transport := f.direct
	if via, err := f.proxy(r); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	} else if via != nil {
		transport = f.proxied // which is the administrator's choice, and decides where it goes
	}
	r.Header.Set("User-Agent", "certctl-agent/"+buildinfo.Version())
	scheme := r.URL.Scheme
	client := &http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		switch {
		case next.URL.Scheme != scheme:
			return fmt.Errorf("a redirect leads from %s to %s", scheme, next.URL.Scheme)
		case len(via) > maxRedirects:
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		return nil
	}}
	response, err := client.Do(r.WithContext(context.WithValue(ctx, privateKey{}, own)))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer: %w", err)
	case int64(len(body)) > limit:
		return nil, fmt.Errorf("the answer has more than %d octets", limit)
	}
	return &reply{code: response.StatusCode, status: response.Status, tag: response.Header.Get("ETag"), body: body}, nil
}

// ask puts a question to an OCSP responder (RFC 6960, appendix A).
func (f *fetcher) ask(ctx context.Context, own bool, at string, question []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, ocspPatience)
	defer cancel()
	r, err := ocspRequest(ctx, at, question)
	if err != nil {
		return nil, err
	}
	got, err := f.send(ctx, own, r, maxOCSPBody)
	if err != nil {
		return nil, err
	}
	if got.code != http.StatusOK {
		return nil, errors.New(got.status)
	}
	return got.body, nil
}

func ocspRequest(ctx context.Context, at string, question []byte) (*http.Request, error) {
	short := strings.TrimSuffix(at, "/") + "/" + url.QueryEscape(base64.StdEncoding.EncodeToString(question))
	if len(short) <= longestGet && !strings.Contains(at, "?") {
		return http.NewRequestWithContext(ctx, http.MethodGet, short, nil)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(question))
	if err == nil {
		r.Header.Set("Content-Type", "application/ocsp-request")
	}
	return r, err
}

// download fetches a list. tag is the entity tag of the one that is there already;
// unchanged says that it still is the newest.
func (f *fetcher) download(ctx context.Context, own bool, at, tag string) (body []byte, newTag string, unchanged bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, crlPatience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, "", false, err
	}
	if tag != "" {
		r.Header.Set("If-None-Match", tag)
	}
	got, err := f.send(ctx, own, r, maxCRLBody)
	switch {
	case err != nil:
		return nil, "", false, err
	case tag != "" && got.code == http.StatusNotModified:
		return nil, tag, true, nil
	case got.code != http.StatusOK:
		return nil, "", false, errors.New(got.status)
	}
	return got.body, got.tag, false, nil
}
