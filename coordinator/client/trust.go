package client

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/trust"
	"github.com/certctl/certctl/shared/wire"
)

// maxTrustAnswer bounds the signed chain: MaxGenerations in base64.
const maxTrustAnswer = 8 << 20

// FollowTrust asks a coordinator for the signed chain of what it is trusted by,
// and follows it from roots, PEM of exactly one generation such as an earlier
// root.pem, to the newest. It sends nothing but the question and trusts nothing
// but the chain's signatures, so that the coordinator's certificate need not
// verify. The result is PEM, and the number of its generation.
func FollowTrust(ctx context.Context, server, roots string) (newest string, generation uint64, err error) {
	base, err := ParseServer(server)
	if err != nil {
		return "", 0, err
	}
	held, err := pki.ParseChainPEM([]byte(roots))
	if err != nil {
		return "", 0, fmt.Errorf("the CA certificates that are trusted now: %w", err)
	}
	body, err := json.Marshal(wire.TrustRequest{Protocol: wire.Protocol})
	if err != nil {
		return "", 0, fmt.Errorf("encode the request: %w", err)
	}
	transport := &http.Transport{TLSClientConfig: tlsutil.UnverifiedClientConfig(), Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	asking := &http.Client{
		Timeout: requestTimeout, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, base.String()+wire.TrustPath, bytes.NewReader(body))
	if err != nil {
		return "", 0, fmt.Errorf("make the request: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := asking.Do(request)
	if err != nil {
		return "", 0, unreachable(base, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxTrustAnswer))
	if err != nil {
		return "", 0, unreachable(base, err)
	}
	var answer wire.TrustResponse
	if response.StatusCode != http.StatusOK || json.Unmarshal(text, &answer) != nil {
		return "", 0, fmt.Errorf("%s answered %s instead of its trust chain; check the URL, and that the coordinator's version is at least this certctl's", base, response.Status)
	}
	next, err := trust.Held{Roots: held}.Follow(answer.Generations)
	if errors.Is(err, trust.ErrNotContinued) {
		return "", 0, fmt.Errorf("what answers at %s is not the coordinator that is trusted here, or not one that followed it: %w; fetch its root.pem by a way that you trust and log in again with --ca-file", base, err)
	}
	if err != nil {
		return "", 0, fmt.Errorf("the trust chain of %s was refused: %w", base, err)
	}
	return encodeRoots(next.Roots), next.Number, nil
}

func encodeRoots(roots []*x509.Certificate) string { return string(pki.EncodeChainPEM(roots)) }
