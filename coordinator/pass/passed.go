package pass

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Fields that travel with a passed request. They mean something on the listener
// of nodes alone, and are taken off every request that comes from elsewhere.
const (
	prefix           = "Certctl-Passed-"
	remoteField      = prefix + "Remote"      // the client's address and port
	patienceField    = prefix + "Patience"    // milliseconds that the client's node waits
	certificateField = prefix + "Certificate" // one for each, DER in base64, the leaf first

	// answerField comes back with what the leader's handler answered, and says
	// whether it is an answer or only that the node does not lead.
	answerField = prefix + "Answer"
	answered    = "answered"
	notLeading  = "not-leading"
)

// Limits of what travels beside a request.
const (
	maxCertificates = 4
	maxCertificate  = 8 << 10 // octets of DER, all together
	maxPatience     = time.Minute
)

// errCertificates is a chain that does not travel.
var errCertificates = fmt.Errorf("the client certificate has more than %d octets", maxCertificate)

// A parcel is what travels beside a request.
type parcel struct {
	remote       netip.AddrPort
	patience     time.Duration
	certificates [][]byte // DER, the leaf first
}

// parcelOf is what the leader has to know of a client. Of a chain that is too
// long it takes what fits: the leaf is what counts. Its error is errCertificates.
func parcelOf(r *http.Request) (parcel, error) {
	var p parcel
	var err error
	if p.remote, err = netip.ParseAddrPort(r.RemoteAddr); err != nil {
		p.remote = netip.AddrPortFrom(netip.IPv4Unspecified(), 0) // not one of a network
	}
	if r.TLS == nil {
		return p, nil
	}
	size := 0
	for i, cert := range r.TLS.PeerCertificates {
		size += len(cert.Raw)
		if i == maxCertificates || size > maxCertificate {
			break
		}
		p.certificates = append(p.certificates, cert.Raw)
	}
	if len(r.TLS.PeerCertificates) > 0 && len(p.certificates) == 0 {
		return p, errCertificates
	}
	return p, nil
}

func (p *parcel) write(header http.Header) {
	header.Set(remoteField, p.remote.String())
	header.Set(patienceField, strconv.FormatInt(p.patience.Milliseconds(), 10))
	for _, der := range p.certificates {
		header.Add(certificateField, base64.StdEncoding.EncodeToString(der))
	}
}

// readParcel reads what another node wrote.
func readParcel(header http.Header) (parcel, error) {
	var p parcel
	one := func(field string) (string, error) {
		values := header.Values(field)
		if len(values) != 1 || len(values[0]) > 64 {
			return "", fmt.Errorf("field %s: expected one short value, found %d", field, len(values))
		}
		return values[0], nil
	}
	text, err := one(remoteField)
	if err != nil {
		return p, err
	}
	if p.remote, err = netip.ParseAddrPort(text); err != nil {
		return p, fmt.Errorf("field %s: %w", remoteField, err)
	}
	if text, err = one(patienceField); err != nil {
		return p, err
	}
	millis, err := strconv.ParseInt(text, 10, 64)
	if err != nil || millis <= 0 || millis > maxPatience.Milliseconds() {
		return p, fmt.Errorf("field %s: expected milliseconds from 1 to %d", patienceField, maxPatience.Milliseconds())
	}
	p.patience = time.Duration(millis) * time.Millisecond
	values := header.Values(certificateField)
	if len(values) > maxCertificates {
		return p, fmt.Errorf("field %s: %d certificates; expected at most %d", certificateField, len(values), maxCertificates)
	}
	size := 0
	for _, value := range values {
		if size += base64.StdEncoding.DecodedLen(len(value)); size > maxCertificate+3*maxCertificates {
			return p, fmt.Errorf("field %s: %w", certificateField, errCertificates)
		}
		der, err := base64.StdEncoding.Strict().DecodeString(value)
		if err != nil {
			return p, fmt.Errorf("field %s: %w", certificateField, err)
		}
		p.certificates = append(p.certificates, der)
	}
	return p, nil
}

// request is r as it would be if the client had come here itself. The
// certificate that r has is the other node's, and does not remain.
func (p *parcel) request(ctx context.Context, r *http.Request) (*http.Request, error) {
	state := &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true}
	for _, der := range p.certificates {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", certificateField, err)
		}
		state.PeerCertificates = append(state.PeerCertificates, cert)
	}
	as := r.Clone(ctx)
	as.TLS, as.RemoteAddr = state, p.remote.String()
	as.Header = forwarded(r.Header)
	return as, nil
}

// hopByHop are fields of one connection (RFC 9110, section 7.6.1), which do not
// travel, nor do those that Connection names.
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Proxy-Authenticate", "Proxy-Authorization", "Content-Length", "Expect",
}

// forwarded is a header without what does not travel.
func forwarded(header http.Header) http.Header {
	out := make(http.Header, len(header))
	for name, values := range header {
		if !strings.HasPrefix(http.CanonicalHeaderKey(name), prefix) {
			out[name] = values
		}
	}
	for _, list := range header.Values("Connection") {
		for name := range strings.SplitSeq(list, ",") {
			out.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		out.Del(name)
	}
	return out
}

type originKey struct{}

// From is the node that passed a request on; passed is false for one that came
// from its client itself.
func From(ctx context.Context) (node string, passed bool) {
	node, passed = ctx.Value(originKey{}).(string)
	return node, passed
}

// errNoNode says that a caller is no node.
var errNoNode = errors.New("only nodes of this cluster pass requests on")
