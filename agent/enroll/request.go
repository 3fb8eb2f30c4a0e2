package enroll

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/sync/call"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/trust"
	"github.com/certctl/certctl/shared/wire"
)

// nextPatience bounds the exchange with one server while there are others.
const nextPatience = 10 * time.Second

// timeout bounds one exchange.
func (c *Config) timeout() time.Duration {
	timeout := cmp.Or(c.Timeout, DefaultTimeout)
	if len(c.Servers) > 1 {
		timeout = min(timeout, nextPatience)
	}
	return timeout
}

// ask asks one server after the other until one decides. They all get the same
// key, so that it does not matter which of them has carried out what. Of several
// failures the first is told, with its mend.
func ask(ctx context.Context, cfg *Config, key crypto.Signer) (answer *wire.EnrollResponse, roots []*x509.Certificate, err error) {
	var first error
	for _, server := range cfg.Servers {
		answer, roots, err = request(ctx, cfg, server, key)
		if err == nil {
			return answer, roots, nil
		}
		explained := explain(server, err)
		if call.Decided(err) || ctx.Err() != nil {
			return nil, nil, explained
		}
		if first == nil {
			first = explained
		}
		cfg.Log.Info("a server did not enrol this host", "server", server, "err", err)
	}
	return nil, nil, first
}

// request asks one server for the identity. roots are what is trusted for the coordinator
// if that is not the root that the token names.
func request(ctx context.Context, cfg *Config, address string, key crypto.Signer) (answer *wire.EnrollResponse, roots []*x509.Certificate, err error) {
	csr, err := IdentityCSR(key)
	if err != nil {
		return nil, nil, err
	}
	body, err := json.Marshal(wire.EnrollRequest{
		Protocol: wire.Protocol, Token: cfg.Token.Reveal(), CSR: csr, Host: cfg.Host, Names: cfg.Names,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("enrol: %w", err)
	}
	server, err := url.Parse(address)
	if err != nil {
		return nil, nil, fmt.Errorf("enrol: %w", err)
	}
	pin := tlsutil.PinnedRoot(cfg.Token.RootPin)
	answer, err = exchange(ctx, cfg, address, body, tlsutil.ClientOptions{Pin: &pin, ServerName: server.Hostname(), Time: cfg.now})
	if !errors.Is(err, tlsutil.ErrPinMismatch) {
		return answer, nil, err
	}
	// The token may be older than the coordinator's root.
	roots, err = rootsSince(ctx, cfg, address, err)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	answer, err = exchange(ctx, cfg, address, body, tlsutil.ClientOptions{Roots: pool, ServerName: server.Hostname(), Time: cfg.now})
	return answer, roots, err
}

// rootsSince follows the coordinator's signed chain from the root that the token
// names to what is trusted now. mismatch is returned, with what came of it, when
// there is no way.
func rootsSince(ctx context.Context, cfg *Config, address string, mismatch error) ([]*x509.Certificate, error) {
	chain, err := call.Trust(ctx, nil, address, wire.TrustPosition{}, cfg.timeout())
	if err != nil || len(chain) == 0 {
		return nil, mismatch // an earlier version, or no coordinator at all
	}
	held, err := trust.FromPin(cfg.Token.RootPin, chain)
	if err != nil {
		return nil, fmt.Errorf("%w; %w", mismatch, err)
	}
	cfg.Log.Info("the token is older than the coordinator's root; the signed chain leads on", "trust_generation", held.Number)
	return held.Roots, nil
}

func exchange(ctx context.Context, cfg *Config, address string, body []byte, options tlsutil.ClientOptions) (*wire.EnrollResponse, error) {
	config, err := tlsutil.ClientConfig(options)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	var way http.RoundTripper = transport
	if cfg.Clock != nil {
		verify := clock.VerifyRoots(options.Roots)
		if options.Pin != nil {
			verify = func(chain []*x509.Certificate, host string, at time.Time) error {
				_, err := options.Pin.Verify(chain, host, at)
				return err
			}
		}
		way = cfg.Clock.Transport(clock.Coordinator, verify, nil, transport)
	}
	client := &http.Client{
		Transport: way,
		// A redirect would carry the token to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.timeout())
	defer cancel()
	answer := new(wire.EnrollResponse)
	result, err := call.Post(ctx, client, address, wire.EnrollPath, body, answer)
	if err != nil {
		return nil, err
	}
	if cfg.Clock != nil {
		cfg.Clock.Observe(clock.Coordinator, cfg.Clock.Stamp().Before(result.Took), answer.ServerTime, 0)
	}
	return answer, nil
}

func (c *Config) now() time.Time {
	if c.Clock == nil {
		return time.Now()
	}
	return c.Clock.Now()
}
