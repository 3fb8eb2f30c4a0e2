package vault

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/pki"
)

const (
	// maxSerial is the longest serial number, in hex digits (RFC 5280 section 4.1.2.2).
	maxSerial = 40
	// pageSize is how many certificates are listed at a time by servers that can.
	pageSize = 1000
	// maxListed bounds how many certificates are looked through for a lost order, and
	// maxRead how many of them one search reads; the next one goes on from there.
	maxListed = 10_000
	maxRead   = 500
)

// serialOf is a serial number as the server writes it, octets with colons between: what
// it reads may have hyphens, or nothing, between them.
func serialOf(text string) (serial string, ok bool) {
	digits := strings.ToLower(strings.NewReplacer(":", "", "-", "").Replace(text))
	if digits == "" || len(digits) > maxSerial || strings.Trim(digits, "0123456789abcdef") != "" {
		return "", false
	}
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	var octets []string
	for i := 0; i < len(digits); i += 2 {
		octets = append(octets, digits[i:i+2])
	}
	return strings.Join(octets, ":"), true
}

// certificates are texts that have one each, or some.
type certificates []string

// UnmarshalJSON takes one text for a list of one, as some versions write it.
func (c *certificates) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*c = certificates{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(c))
}

// read is the certificates of several texts, each of them once and the first one first.
func read(first string, more ...string) (*connector.Bundle, error) {
	all := &connector.Bundle{}
	for _, text := range append([]string{first}, more...) {
		if strings.TrimSpace(text) == "" {
			continue
		}
		bundle, err := connector.ParseBundle([]byte(text))
		if err != nil {
			return nil, err
		}
		for _, cert := range bundle.Certificates {
			if !slices.ContainsFunc(all.Certificates, cert.Equal) {
				all.Certificates = append(all.Certificates, cert)
			}
		}
	}
	return all, nil
}

type signBody struct {
	CSR        string `json:"csr"`
	CommonName string `json:"common_name,omitempty"`
	Names      string `json:"alt_names,omitempty"`
	IPs        string `json:"ip_sans,omitempty"`
	ExcludeCN  bool   `json:"exclude_cn_from_sans"` // it is among the names, if it is one
	TTL        string `json:"ttl,omitempty"`
	Format     string `json:"format"`
}

func (v *Connector) body(r *connector.Request) *signBody {
	body := &signBody{
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: r.CSRDER})), CommonName: r.CommonName,
		Names: strings.Join(r.Names.DNS, ","), ExcludeCN: true, Format: "pem",
	}
	var ips []string
	for _, ip := range r.Names.IPs {
		ips = append(ips, ip.String())
	}
	body.IPs = strings.Join(ips, ",")
	lasts := v.config.Validity
	if r.Validity > 0 {
		lasts = r.Validity
	}
	if lasts > 0 {
		body.TTL = strconv.Itoa(int(max(lasts, time.Minute)/time.Second)) + "s"
	}
	return body
}

// Place implements connector.Connector. The answer has the certificate.
func (v *Connector) Place(ctx context.Context, r *connector.Request) (*connector.Status, error) {
	path := v.path("sign", v.config.Role)
	if v.config.Issuer != "" {
		path = v.path("issuer", v.config.Issuer, "sign", v.config.Role)
	}
	answer, err := v.do(ctx, connector.Call{Method: http.MethodPost, Path: path, Body: v.body(r), Places: true})
	if err != nil {
		return nil, err
	}
	return v.signed(answer)
}

// Repeatable implements connector.Repeater: nothing is billed here, and what is signed
// for an answer that is lost is for a key that nobody but the agent has.
func (v *Connector) Repeatable() bool { return !v.config.PlaceOnce }

// signed reads the answer to an order.
func (v *Connector) signed(answer *connector.Answer) (*connector.Status, error) {
	var body struct {
		Data *struct {
			Certificate string       `json:"certificate"`
			Issuing     string       `json:"issuing_ca"`
			Chain       certificates `json:"ca_chain"`
			Serial      string       `json:"serial_number"`
		} `json:"data"`
		Wrapped  *struct{} `json:"wrap_info"`
		Warnings []string  `json:"warnings"`
	}
	if err := answer.Decode(&body); err != nil {
		return nil, err
	}
	switch {
	case body.Data == nil && body.Wrapped != nil:
		// A control group keeps the request itself until it is released.
		return nil, &connector.Error{Class: connector.ClassConfig, NotPlaced: true, Status: answer.Status, Detail: "others have to release the request first", Mend: approveMend}
	case body.Data == nil || strings.TrimSpace(body.Data.Certificate) == "":
		return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the answer to the order has no certificate"}
	}
	bundle, err := read(body.Data.Certificate, append([]string{body.Data.Issuing}, body.Data.Chain...)...)
	if err != nil {
		return nil, err
	}
	status := stateTable.Status(wordIssued)
	serial, ok := serialOf(body.Data.Serial)
	if !ok {
		serial, _ = serialOf(pki.SerialHex(bundle.Certificates[0])) // an empty handle is none
	}
	status.Handle, status.Bundle, status.PlacedAt, status.Detail = connector.Handle{Order: serial}, bundle, answer.At, connector.Detail(spoken(body.Warnings))
	if status.Handle.IsZero() {
		return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the certificate has no serial number that can be used"}
	}
	return &status, nil
}

// number is a number, or the text of one; 0 for anything else.
func number(raw json.RawMessage) int64 {
	n, _ := strconv.ParseInt(strings.Trim(string(raw), `"`), 10, 64)
	return n
}

// shown is what the server keeps of one certificate.
type shown struct {
	status connector.Status
	cert   *x509.Certificate
}

// show reads a certificate.
func (v *Connector) show(ctx context.Context, serial string) (*shown, error) {
	answer, err := v.do(ctx, connector.Call{Path: v.path("cert", serial)})
	if err != nil {
		if e := connector.Classify(err); e.Class == connector.ClassNotFound && e.Mend == "" {
			e.Mend = serialMend
		}
		return nil, err
	}
	return v.kept(answer, serial)
}

func (v *Connector) kept(answer *connector.Answer, serial string) (*shown, error) {
	var body struct {
		Data *struct {
			Certificate string          `json:"certificate"`
			Revoked     json.RawMessage `json:"revocation_time"`
		} `json:"data"`
	}
	if err := answer.Decode(&body); err != nil {
		return nil, err
	}
	if body.Data == nil || strings.TrimSpace(body.Data.Certificate) == "" {
		return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the answer has no certificate in it"}
	}
	bundle, err := read(body.Data.Certificate)
	if err != nil {
		return nil, err
	}
	s := &shown{cert: bundle.Certificates[0]}
	word := wordIssued
	switch {
	case number(body.Data.Revoked) != 0:
		word = wordRevoked
	case v.config.Now().After(s.cert.NotAfter):
		word = wordExpired
	}
	s.status = stateTable.Status(word)
	s.status.Handle = connector.Handle{Order: serial}
	return s, nil
}

func errNoOrder() error {
	return &connector.Error{Class: connector.ClassNotFound, NotPlaced: true, Err: errors.New("the order has no serial number of a certificate"), Mend: serialMend}
}

// Status implements connector.Connector.
func (v *Connector) Status(ctx context.Context, _ *connector.Request, h connector.Handle) (*connector.Status, error) {
	serial, ok := serialOf(h.Order)
	if !ok {
		return nil, errNoOrder()
	}
	s, err := v.show(ctx, serial)
	if err != nil {
		return nil, err
	}
	return &s.status, nil
}

// Collect implements connector.Connector. The certificate is kept without its chain,
// which is asked for.
func (v *Connector) Collect(ctx context.Context, _ *connector.Request, h connector.Handle) (*connector.Bundle, error) {
	serial, ok := serialOf(h.Order)
	if !ok {
		return nil, errNoOrder()
	}
	s, err := v.show(ctx, serial)
	switch {
	case err != nil:
		return nil, err
	case s.status.State != connector.Issued:
		return nil, &connector.Error{Class: connector.ClassRefused, Detail: "the certificate is " + s.status.Raw, Mend: "order another one"}
	}
	issuers, err := v.issuersOf(ctx, s.cert)
	if err != nil {
		return nil, err
	}
	return &connector.Bundle{Certificates: append([]*x509.Certificate{s.cert}, issuers...)}, nil
}

// Visible implements connector.Searcher.
func (v *Connector) Visible() time.Duration { return v.config.Visible }

// Search implements connector.Searcher. The certificates that the mount keeps are read,
// each of them once, as they are listed by numbers that say nothing.
func (v *Connector) Search(ctx context.Context, r *connector.Request, _ time.Duration) ([]connector.Status, error) {
	wanted, err := pki.PublicKeyFingerprint(r.CSR.PublicKey)
	if err != nil {
		return nil, &connector.Error{Class: connector.ClassConfig, Err: err}
	}
	serials, err := v.list(ctx)
	if err != nil {
		return nil, err
	}
	var found []connector.Status
	unread := 0
	for at, serial := range serials {
		if key, known := v.keys.Of(serial); known && key != wanted {
			continue
		} else if !known {
			unread++
		}
		if unread > maxRead {
			return nil, &connector.Error{Class: connector.ClassRetry, Detail: fmt.Sprintf("%d of %d certificates of the mount have been looked through", at, len(serials))}
		}
		s, err := v.show(ctx, serial)
		switch {
		case err != nil && connector.Classify(err).Class == connector.ClassNotFound: // tidied away
			continue
		case err != nil:
			return nil, err
		}
		key, err := pki.PublicKeyFingerprint(s.cert.PublicKey)
		if err != nil {
			continue // a key of a kind that we have none of
		}
		if own, _ := serialOf(pki.SerialHex(s.cert)); own == serial {
			v.keys.Set(serial, key)
		}
		// One from before the order is for a key that is used again.
		if key == wanted && !s.cert.NotBefore.Before(r.CommittedAt.Add(-skew)) {
			found = append(found, s.status)
		}
	}
	if len(found) == 0 {
		return nil, v.keeps(ctx)
	}
	return found, nil
}

// list is the serial numbers of the certificates that the mount keeps.
func (v *Connector) list(ctx context.Context) ([]string, error) {
	tooMany := &connector.Error{
		Class: connector.ClassNeedsPerson, Detail: fmt.Sprintf("the mount keeps more than %d certificates, too many to look through for a lost order", maxListed),
		Mend: "look for the certificate in the mount, and tell its serial number with certctl orders resolve; tidy makes the list shorter",
	}
	var all []string
	seen := map[string]bool{}
	// One kind of server takes these; the other lists everything.
	query := url.Values{"list": {"true"}, "limit": {strconv.Itoa(pageSize)}}
	for {
		answer, err := v.do(ctx, connector.Call{Path: v.path("certs"), Query: query})
		switch {
		case err != nil && connector.Classify(err).Detail == nothing:
			return all, nil
		case errors.Is(err, connector.ErrTooLarge):
			return nil, tooMany
		case err != nil:
			return nil, err
		}
		var body struct {
			Data *struct {
				Keys []string `json:"keys"`
			} `json:"data"`
		}
		if err := answer.Decode(&body); err != nil {
			return nil, err
		}
		if body.Data == nil || body.Data.Keys == nil {
			return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the answer has no list of certificates"}
		}
		fresh := 0
		for _, key := range body.Data.Keys {
			serial, ok := serialOf(key)
			if !ok || seen[serial] {
				continue
			}
			fresh++
			seen[serial] = true
			all = append(all, serial)
		}
		switch {
		case len(all) > maxListed:
			return nil, tooMany
		case fresh == 0 || len(body.Data.Keys) != pageSize: // the last page, or everything
			return all, nil
		}
		// The server compares with what it keeps, which has hyphens.
		query.Set("after", strings.ReplaceAll(all[len(all)-1], ":", "-"))
	}
}

// keeps is an error if the role keeps no certificates: that none is there proves
// nothing then. A role that may not be read is as the settings say.
func (v *Connector) keeps(ctx context.Context) error {
	role, err := v.role(ctx)
	switch class := connector.Classify(err).Class; {
	case err != nil && (class == connector.ClassCredentials || class == connector.ClassNotFound):
		return nil
	case err != nil:
		return err
	case role.NoStore:
		return &connector.Error{
			Class: connector.ClassNeedsPerson, Detail: "the role keeps no certificates (no_store), so that none can be found",
			Mend: "look for the signature in the server's audit log, and tell with certctl orders resolve whether to place the order again",
		}
	}
	return nil
}
