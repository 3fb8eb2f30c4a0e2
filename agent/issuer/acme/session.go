package acme

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
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/buildinfo"
)

const (
	requestTimeout = 60 * time.Second
	// maxBody bounds every answer; a chain of ten large certificates is a tenth.
	maxBody = 1 << 20
	// directoryLife is how long a directory is used before it is read again. It is
	// above the 12 hours for which acmez keeps its own copy in memory.
	directoryLife = 24 * time.Hour
	// directoryPause is how long the old one is used when that failed.
	directoryPause = 10 * time.Minute
)

// session is an ACME client with the directory that it works by.
type session struct {
	client    *acme.Client
	http      *http.Client
	directory directory
	read      time.Time // guarded by Issuer.sessionTurn
}

// directory is what this package needs of RFC 8555 section 7.1.1.
type directory struct {
	NewNonce    string `json:"newNonce"`
	NewAccount  string `json:"newAccount"`
	NewOrder    string `json:"newOrder"`
	RevokeCert  string `json:"revokeCert"`
	RenewalInfo string `json:"renewalInfo"`
	Meta        struct {
		TermsOfService          string            `json:"termsOfService"`
		ExternalAccountRequired bool              `json:"externalAccountRequired"`
		Profiles                map[string]string `json:"profiles"`
	} `json:"meta"`
}

// session returns the current session, or a new one when its directory is old.
func (i *Issuer) session(ctx context.Context) (*session, error) {
	select {
	case i.sessionTurn <- struct{}{}:
		defer func() { <-i.sessionTurn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if i.current != nil && time.Since(i.current.read) < directoryLife {
		return i.current, nil
	}
	s, err := i.open(ctx)
	if err != nil && i.current != nil {
		// Not by each call anew: they take turns, and one may wait for a minute.
		i.current.read = time.Now().Add(directoryPause - directoryLife)
	}
	if err != nil && i.current != nil && ctx.Err() == nil {
		i.log.Warn("the directory could not be read again; going by the old one", "err", err)
		return i.current, nil
	}
	if err != nil {
		return nil, err
	}
	i.current = s
	return s, nil
}

// open reads the directory and hands acmez a copy. acmez would read it itself,
// but under a lock that all its clients in the process share: one authority that
// hangs would hold up the others. The copy lacks renewalInfo, because acmez asks
// for that after each download and repeats a failed question for seconds; this
// package asks when it wants to know.
func (i *Issuer) open(ctx context.Context) (*session, error) {
	s := &session{read: time.Now()}
	plain := &http.Client{Transport: i.http, Timeout: requestTimeout, CheckRedirect: onlyHTTPS}
	var text []byte
	err := call(ctx, stepDirectory, func(ctx context.Context) error {
		var err error
		text, err = getJSON(ctx, plain, i.config.DirectoryURL)
		return err
	})
	if err != nil {
		return nil, err
	}
	wrong := func(err error) error {
		return &issuer.Error{
			Class: issuer.ClassConfig,
			Err:   fmt.Errorf("%s is not an ACME directory: %w", i.config.DirectoryURL, err),
			Mend:  "correct directory",
		}
	}
	if err := json.Unmarshal(text, &s.directory); err != nil {
		return nil, wrong(err)
	}
	if d := s.directory; d.NewNonce == "" || d.NewAccount == "" || d.NewOrder == "" {
		return nil, wrong(errors.New("newNonce, newAccount or newOrder is missing"))
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, wrong(err)
	}
	delete(all, "renewalInfo")
	copied, err := json.Marshal(all)
	if err != nil {
		return nil, wrong(err)
	}
	s.http = &http.Client{
		Transport:     &withDirectory{next: i.http, url: i.config.DirectoryURL, body: copied},
		Timeout:       requestTimeout,
		CheckRedirect: onlyHTTPS,
	}
	s.client = &acme.Client{
		Directory:  i.config.DirectoryURL,
		HTTPClient: s.http,
		UserAgent:  userAgent(),
		// Any negative value: FinalizeOrder then returns after its POST and this
		// package polls, which knows when to give the turn back.
		PollTimeout: -1,
	}
	if _, err := s.client.GetDirectory(ctx); err != nil {
		return nil, wrong(err)
	}
	return s, nil
}

func userAgent() string { return "certctl-agent/" + buildinfo.Version() }

func newTransport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  requestTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConnsPerHost:    4,
		ForceAttemptHTTP2:      true,
	}
}

func onlyHTTPS(req *http.Request, via []*http.Request) error {
	if req.URL.Scheme != "https" {
		return fmt.Errorf("the authority redirects to %s, which is not https", req.URL.Redacted())
	}
	if len(via) > 5 {
		return errors.New("the authority redirects more than 5 times")
	}
	return nil
}

// withDirectory answers requests for the directory from memory, and bounds and
// notes all other answers.
type withDirectory struct {
	next http.RoundTripper
	url  string
	body []byte
}

// RoundTrip implements http.RoundTripper.
func (t *withDirectory) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet && req.URL.String() == t.url {
		return &http.Response{
			Status: "200 OK", StatusCode: http.StatusOK,
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header:        http.Header{"Content-Type": {"application/json"}},
			Body:          io.NopCloser(bytes.NewReader(t.body)),
			ContentLength: int64(len(t.body)),
			Request:       req,
		}, nil
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	take(req.Context(), resp)
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxBody)
	return resp, nil
}

// getJSON reads a resource that needs no account.
func getJSON(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", userAgent())
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	take(ctx, resp)
	text, err := io.ReadAll(http.MaxBytesReader(nil, resp.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		var problem acme.Problem
		if json.Unmarshal(text, &problem) == nil && problem.Type != "" {
			problem.Status = resp.StatusCode
			return nil, problem
		}
		return nil, fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return text, nil
}

// notes are what acmez does not hand on of the last answer to a call.
type notes struct {
	mu         sync.Mutex // a transport may still run when its caller has given up
	status     int        // 0 if there was no answer
	retryAfter time.Duration
}

type notesKey struct{}

func take(ctx context.Context, resp *http.Response) {
	n, ok := ctx.Value(notesKey{}).(*notes)
	if !ok {
		return
	}
	retryAfter, _ := backoff.RetryAfter(resp.Header, time.Now())
	n.mu.Lock()
	defer n.mu.Unlock()
	n.status, n.retryAfter = resp.StatusCode, retryAfter
}

func (n *notes) read() (status int, retryAfter time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.status, n.retryAfter
}

// call makes one request to the authority, with the retries that acmez does for
// it, and classifies its failure.
func call(ctx context.Context, step step, request func(context.Context) error) error {
	_, err := callRetryAfter(ctx, step, request)
	return err
}

// callRetryAfter is call for answers whose Retry-After matters when all is well:
// 0 if there was none.
func callRetryAfter(ctx context.Context, step step, request func(context.Context) error) (time.Duration, error) {
	n := new(notes)
	err := request(context.WithValue(ctx, notesKey{}, n))
	status, retryAfter := n.read()
	if err != nil {
		return retryAfter, classify(ctx, step, status, retryAfter, err)
	}
	return retryAfter, nil
}
