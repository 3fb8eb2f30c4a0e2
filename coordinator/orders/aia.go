package orders

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
)

const (
	// maxIssuer bounds one certificate, or message of PKCS#7, that is fetched.
	maxIssuer = 64 << 10
	// maxSteps bounds how many issuers above each other are fetched, and maxPlaces
	// how many places of one certificate are tried.
	maxSteps, maxPlaces = 3, 2
	fetchTimeout        = 10 * time.Second
)

// issuerClient fetches issuers. It follows no redirection: a certificate names the
// place itself.
var issuerClient = &http.Client{
	Timeout: fetchTimeout,
	Transport: &http.Transport{ // a proxy is the administrator's choice, and decides where it goes
		Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: maxIssuer,
		DialContext: (&net.Dialer{Timeout: fetchTimeout, Control: reachable}).DialContext,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// reachable refuses addresses of the link: metadata services of clouds answer there, and
// the place is named by a certificate of which nothing has been proved yet. An authority
// of one's own may be anywhere else.
func reachable(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if ip := at.Addr().Unmap(); ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
		return fmt.Errorf("%s is an address at which no issuer is fetched", ip)
	}
	return nil
}

// fetchIssuers follows the caIssuers of a certificate (RFC 5280 section 4.2.2.1), where
// the issuer's settings allow that: the places are named by the certificate. What
// comes back is used only as far as its signatures vouch for the certificate.
func (a *account) fetchIssuers(ctx context.Context, _ *connector.Request, last *x509.Certificate) ([]*x509.Certificate, error) {
	if !a.issuer.FetchIssuers {
		return nil, nil
	}
	var found []*x509.Certificate
	for range maxSteps {
		issuer, err := a.fetchIssuer(ctx, last)
		if err != nil || issuer == nil {
			return found, err
		}
		found = append(found, issuer)
		if path, whole := climb(issuer, nil); whole || len(path) == 0 {
			break
		}
		last = issuer
	}
	return found, nil
}

// fetchIssuer fetches the certificate that has signed another one; nil if the other
// does not say where it is.
func (a *account) fetchIssuer(ctx context.Context, cert *x509.Certificate) (*x509.Certificate, error) {
	var failure error
	for _, place := range cert.IssuingCertificateURL[:min(len(cert.IssuingCertificateURL), maxPlaces)] {
		data, err := a.get(ctx, place)
		if err == nil {
			var bundle *connector.Bundle
			if bundle, err = connector.ParseBundle(data); err == nil {
				if issuer := issuerIn(bundle.Certificates, cert, nil); issuer != nil {
					return issuer, nil
				}
				err = errors.New("what is there has not signed the certificate")
			}
		}
		failure = &connector.Error{Class: connector.ClassRetry, Err: fmt.Errorf("fetch the issuer of the certificate from %.200q: %w", place, err)}
	}
	return nil, failure
}

// httpGet fetches what is at a URL of the scheme http, which is what RFC 5280 has such
// places be: it needs no trust, as signatures are checked.
func httpGet(ctx context.Context, place string) ([]byte, error) {
	u, err := url.Parse(place)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.User != nil {
		return nil, errors.New("it is no http URL")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := issuerClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d", response.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxIssuer+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxIssuer {
		return nil, fmt.Errorf("it is larger than %d bytes", maxIssuer)
	}
	return data, nil
}
