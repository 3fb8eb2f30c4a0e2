package pebble

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/certctl/certctl/internal/testca"
	"github.com/certctl/certctl/shared/pki"
)

const (
	readyLimit = time.Minute
	// portTries is how often a start is repeated because a port was taken between
	// its choice and its use.
	portTries = 5
)

// Server is a running Pebble. Its methods are safe for concurrent use.
type Server struct {
	// DirectoryURL is where an ACME client begins (RFC 8555 section 7.1.1).
	DirectoryURL string
	// ServerRoots verify Pebble's own TLS certificate; RootFile is the same as PEM.
	// They have nothing to do with the certificates that it issues.
	ServerRoots *x509.CertPool
	RootFile    string
	// ManagementURL is Pebble's management interface.
	ManagementURL string
	// HTTPPort and TLSPort are where challenges are validated, on 127.0.0.1.
	HTTPPort, TLSPort int
	// DNSAddress answers Pebble's queries. DNSManagementURL is where its records
	// are set, "" if Options.DNSServer was given.
	DNSAddress       string
	DNSManagementURL string

	options Options
	bin     string
	dir     string
	tls     *testca.ServerTLS
	ports   ports
	client  *http.Client
	dns     *testca.Process

	mu      sync.Mutex
	process *testca.Process // nil while Pebble is down
	ledger  Ledger
}

type ports struct{ directory, management, dns, dnsManagement int }

// Ledger is what Pebble has recorded since it was first started.
type Ledger struct {
	Accounts int
	Orders   int
	// Replacements are orders that were accepted with a replaces field, Replaced
	// those of them that led to a certificate (RFC 9773 section 5).
	Replacements, Replaced int
	// Issued are the serial numbers of all certificates, in hexadecimal.
	Issued []string
}

// TB is the part of testing.TB that Run needs.
type TB interface {
	Helper()
	Cleanup(func())
	Context() context.Context
	Fatalf(format string, args ...any)
}

// Run starts Pebble for a test and stops it at the test's end.
func Run(t TB, options Options) *Server {
	t.Helper()
	server, err := Start(t.Context(), options)
	if err != nil {
		t.Fatalf("start pebble: %v", err)
	}
	t.Cleanup(server.Close)
	return server
}

// Start installs Pebble if necessary, starts it and returns when it answers.
// ctx bounds the start only; Close ends what was started.
func Start(ctx context.Context, options Options) (*Server, error) {
	bin, err := testca.Install(ctx, "pebble")
	if err != nil {
		return nil, fmt.Errorf("install pebble: %w", err)
	}
	for try := 1; ; try++ {
		s := &Server{options: options, bin: bin}
		err := s.start(ctx)
		if err == nil {
			return s, nil
		}
		s.Close()
		// Exiting at once is what a port that is taken looks like.
		if try == portTries || !errors.Is(err, testca.ErrExited) {
			return nil, err
		}
	}
}

func (s *Server) start(ctx context.Context) error {
	if err := s.prepare(); err != nil {
		return err
	}
	if s.options.DNSServer == "" {
		if err := s.startDNS(ctx); err != nil {
			return err
		}
	}
	return s.Restart(ctx)
}

// prepare chooses ports and writes the files.
func (s *Server) prepare() error {
	dir := s.options.Dir
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "pebble-"); err != nil {
			return err
		}
	}
	s.dir = dir
	chosen, err := testca.Ports(6)
	if err != nil {
		return err
	}
	s.ports = ports{directory: chosen[0], management: chosen[1], dns: chosen[2], dnsManagement: chosen[3]}
	s.HTTPPort = cmp.Or(s.options.HTTPPort, chosen[4])
	s.TLSPort = cmp.Or(s.options.TLSPort, chosen[5])
	if s.tls, err = testca.NewServerTLS(dir); err != nil {
		return err
	}
	s.DirectoryURL = "https://" + loopback(s.ports.directory) + "/dir"
	s.ManagementURL = "https://" + loopback(s.ports.management)
	s.RootFile = s.tls.RootFile
	s.ServerRoots = x509.NewCertPool()
	s.ServerRoots.AddCert(s.tls.Root)
	s.DNSAddress = s.options.DNSServer
	if s.DNSAddress == "" {
		s.DNSAddress = loopback(s.ports.dns)
		s.DNSManagementURL = "http://" + loopback(s.ports.dnsManagement)
	}
	s.client = &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: s.ServerRoots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true, // leaves no goroutine behind
		},
	}
	return s.writeConfig()
}

func (s *Server) writeConfig() error {
	o := s.options
	profiles := map[string]entry{}
	for name, p := range o.Profiles {
		profiles[name] = entry{Description: p.Description, ValidityPeriod: uint64(p.Validity / time.Second)}
	}
	text, err := json.MarshalIndent(file{Pebble: section{
		ListenAddress:                  loopback(s.ports.directory),
		ManagementListenAddress:        loopback(s.ports.management),
		Certificate:                    s.tls.CertFile,
		PrivateKey:                     s.tls.KeyFile,
		HTTPPort:                       s.HTTPPort,
		TLSPort:                        s.TLSPort,
		ExternalAccountBindingRequired: len(o.EAB) > 0,
		ExternalAccountMACKeys:         o.EAB,
		DomainBlocklist:                o.Blocklist,
		KeyAlgorithm:                   cmp.Or(o.KeyAlgorithm, "ecdsa"),
		Profiles:                       profiles,
		RetryAfter: retryAfter{
			Authz: int(cmp.Or(o.RetryAfterAuthz, time.Second) / time.Second),
			Order: int(cmp.Or(o.RetryAfterOrder, time.Second) / time.Second),
		},
	}}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(s.configFile(), text, 0o600)
}

func (s *Server) configFile() string { return filepath.Join(s.dir, "pebble.json") }

func (s *Server) environment() []string {
	o := s.options
	env := []string{
		"PEBBLE_WFE_NONCEREJECT=" + strconv.Itoa(o.NonceReject),
		"PEBBLE_AUTHZREUSE=" + strconv.Itoa(o.AuthzReuse),
		"PEBBLE_ALTERNATE_ROOTS=" + strconv.Itoa(o.AlternateRoots),
		"PEBBLE_CHAIN_LENGTH=" + strconv.Itoa(cmp.Or(o.ChainLength, 1)),
	}
	if seconds := int(o.ValidationSleep / time.Second); seconds > 0 {
		env = append(env, "PEBBLE_VA_NOSLEEP=0", "PEBBLE_VA_SLEEPTIME="+strconv.Itoa(seconds))
	} else {
		env = append(env, "PEBBLE_VA_NOSLEEP=1")
	}
	if o.AlwaysValid {
		env = append(env, "PEBBLE_VA_ALWAYS_VALID=1")
	}
	return env
}

// Restart kills Pebble, if it runs, and starts it again on the same ports. It
// keeps everything in memory: after a restart it knows no account and no order,
// and has a new root.
func (s *Server) Restart(ctx context.Context) error {
	s.Kill()
	process, err := testca.StartProcess(testca.Command{
		Path: filepath.Join(s.bin, "pebble"),
		Args: []string{"-strict", "-config", s.configFile(), "-dnsserver", s.DNSAddress},
		Env:  s.environment(),
		Line: s.record,
		Log:  s.options.Log,
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.process = process
	s.mu.Unlock()
	// Both listeners must be up, and Pebble's own: another program that took the
	// port does not have its TLS certificate.
	return process.AwaitReady(ctx, readyLimit, func(ctx context.Context) error {
		return errors.Join(s.get(ctx, s.DirectoryURL, nil), s.get(ctx, s.ManagementURL+"/roots/0", nil))
	})
}

// Kill ends Pebble at once; Restart brings it back. Its DNS server stays.
func (s *Server) Kill() {
	s.mu.Lock()
	process := s.process
	s.process = nil
	s.mu.Unlock()
	if process != nil {
		process.Kill()
	}
}

// Close ends everything and removes the files.
func (s *Server) Close() {
	s.Kill()
	if s.dns != nil {
		s.dns.Kill()
	}
	if s.options.Dir == "" && s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// record keeps the ledger from what Pebble logs.
func (s *Server) record(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case strings.Contains(line, " accounts in memory"):
		s.ledger.Accounts++
	case strings.Contains(line, "Added order "):
		s.ledger.Orders++
	case strings.Contains(line, " is a replacement of "):
		s.ledger.Replacements++
	case strings.Contains(line, " has been marked as replaced"):
		s.ledger.Replaced++
	}
	if _, rest, found := strings.Cut(line, "Issued certificate serial "); found {
		serial, _, _ := strings.Cut(rest, " ")
		s.ledger.Issued = append(s.ledger.Issued, serial)
	}
}

// Ledger returns what Pebble has recorded until now. Pebble logs a certificate
// just after the order became valid: a reader that waited only for the order
// polls until the number is right.
func (s *Server) Ledger() Ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	ledger := s.ledger
	ledger.Issued = append([]string(nil), s.ledger.Issued...)
	return ledger
}

// IssuerRoots returns the roots of the certificates that Pebble issues, the
// default chain's first.
func (s *Server) IssuerRoots(ctx context.Context) ([]*x509.Certificate, error) {
	var roots []*x509.Certificate
	for i := range 1 + s.options.AlternateRoots {
		var text bytes.Buffer
		if err := s.get(ctx, s.ManagementURL+"/roots/"+strconv.Itoa(i), &text); err != nil {
			return nil, err
		}
		chain, err := pki.ParseChainPEM(text.Bytes())
		if err != nil {
			return nil, fmt.Errorf("root %d of pebble: %w", i, err)
		}
		roots = append(roots, chain[0])
	}
	return roots, nil
}

// Status is what Pebble says of a certificate that it issued: "Valid" or
// "Revoked", with the reason of a revocation.
func (s *Server) Status(ctx context.Context, certificate *x509.Certificate) (status string, reason int, err error) {
	var text bytes.Buffer
	if err := s.get(ctx, s.ManagementURL+"/cert-status-by-serial/"+certificate.SerialNumber.Text(16), &text); err != nil {
		return "", 0, err
	}
	var answer struct {
		Status string
		Reason int
	}
	if err := json.Unmarshal(text.Bytes(), &answer); err != nil {
		return "", 0, fmt.Errorf("status of a certificate: %w", err)
	}
	return answer.Status, answer.Reason, nil
}

// SetRenewalInfo makes Pebble answer with this body when asked for the renewal
// information of the certificate (RFC 9773 section 4.2), from now on.
func (s *Server) SetRenewalInfo(ctx context.Context, certificate *x509.Certificate, body string) error {
	return s.post(ctx, s.ManagementURL+"/set-renewal-info/", map[string]string{
		"Certificate": string(pki.EncodeChainPEM([]*x509.Certificate{certificate})),
		"ARIResponse": body,
	})
}

func (s *Server) get(ctx context.Context, url string, into io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	return s.do(req, into)
}

func (s *Server) post(ctx context.Context, url string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	return s.do(req, nil)
}

func (s *Server) do(req *http.Request, into io.Writer) error {
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", req.Method, req.URL, resp.Status, bytes.TrimSpace(text))
	}
	if into != nil {
		_, err = into.Write(text)
	}
	return err
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
