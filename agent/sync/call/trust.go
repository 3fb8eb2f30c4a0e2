package call

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

// DialFunc connects; nil is the network.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Trust asks server for the signed generations of trust that follow a position.
// It takes whatever answers: the connection is not verified, nothing but the
// position is told on it, and no identity is shown. The answer is to be judged
// by its signatures alone (package trust).
func Trust(ctx context.Context, dial DialFunc, server string, at wire.TrustPosition, timeout time.Duration) ([][]byte, error) {
	body, err := json.Marshal(wire.TrustRequest{Protocol: wire.Protocol, Trust: at})
	if err != nil {
		return nil, fmt.Errorf("ask for the trust chain: %w", err)
	}
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dial, TLSClientConfig: tlsutil.UnverifiedClientConfig(),
		DisableKeepAlives: true, TLSHandshakeTimeout: 10 * time.Second,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(timeout, 30*time.Second))
	defer cancel()
	answer := new(wire.TrustResponse)
	if _, err := Post(ctx, client, server, wire.TrustPath, body, answer); err != nil {
		return nil, fmt.Errorf("ask for the trust chain: %w", err)
	}
	return answer.Generations, nil
}
