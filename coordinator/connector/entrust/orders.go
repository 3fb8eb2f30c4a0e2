package entrust

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/pki"
)

const (
	// unnamed is the handle of an enrollment that has neither certificate nor id.
	unnamed = "unnamed"
	// maxSerial is the longest serial number, in hex digits (RFC 5280 section 4.1.2.2).
	maxSerial = 40
)

func isSerial(text string) bool {
	return text != "" && len(text) <= maxSerial && strings.Trim(text, "0123456789abcdefABCDEF") == ""
}

type typed struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

type enrollBody struct {
	Profile    string            `json:"profileId"`
	Format     map[string]string `json:"requiredFormat"`
	CSR        string            `json:"csr"` // base64 of DER
	Names      []typed           `json:"subjectAltNames,omitempty"`
	Variables  []typed           `json:"subjectVariables,omitempty"`
	Details    map[string]string `json:"optionalCertificateRequestDetails,omitempty"`
	Properties map[string]string `json:"properties,omitempty"`
	Renewal    bool              `json:"renewal,omitempty"`
}

// period is a duration of ISO 8601.
func period(d time.Duration) string {
	if d%time.Hour == 0 {
		return fmt.Sprintf("PT%dH", d/time.Hour)
	}
	return fmt.Sprintf("PT%dM", d/time.Minute)
}

func (e *Connector) body(r *connector.Request) *enrollBody {
	body := &enrollBody{
		Profile: e.config.Profile, Format: map[string]string{"format": "X509"}, CSR: base64.StdEncoding.EncodeToString(r.CSRDER), Details: map[string]string{},
	}
	for _, name := range r.Names.DNS {
		body.Names = append(body.Names, typed{"dNSName", name})
	}
	for _, ip := range r.Names.IPs {
		body.Names = append(body.Names, typed{"iPAddress", ip.String()})
	}
	for _, name := range slices.Sorted(maps.Keys(e.config.Variables)) {
		body.Variables = append(body.Variables, typed{name, e.config.Variables[name]})
	}
	subject := e.config.Subject
	if r.CommonName != "" {
		subject = strings.TrimSuffix("CN="+r.CommonName+","+subject, ",")
	}
	if subject != "" {
		body.Details["subjectDn"] = subject
	}
	lasts := e.config.Validity
	if r.Validity > 0 {
		lasts = max(r.Validity, time.Minute)
	}
	if lasts > 0 {
		body.Details["validityPeriod"] = period(lasts)
	}
	for name, value := range e.config.Properties {
		if body.Properties == nil {
			body.Properties = map[string]string{}
		}
		body.Properties[name] = strings.ReplaceAll(value, ReferencePlace, r.Reference)
	}
	if e.config.LinkRenewals && r.Renews != nil && isSerial(r.Renews.Order) {
		if body.Properties == nil {
			body.Properties = map[string]string{}
		}
		body.Renewal, body.Properties["RenewalSerialNumber"] = true, r.Renews.Order
	}
	return body
}

// Place implements connector.Connector.
func (e *Connector) Place(ctx context.Context, r *connector.Request) (*connector.Status, error) {
	timeout := e.config.Timeout
	if timeout == 0 {
		timeout = placeTime
	}
	answer, err := e.client.Do(ctx, connector.Call{Method: http.MethodPost, Path: e.path("enrollments"), Body: e.body(r), Places: true, Timeout: timeout})
	if err != nil {
		return nil, err
	}
	return e.enrolled(answer)
}

type enrollment struct {
	ID     string   `json:"id"`
	Status string   `json:"status"`
	Serial string   `json:"serialNumber"`
	Body   string   `json:"body"`
	Chain  []string `json:"chain"`
}

// enrolled reads the answer to an enrollment. It is decided by the certificate, and
// not by the word beside it.
func (e *Connector) enrolled(answer *connector.Answer) (*connector.Status, error) {
	var body struct {
		Message    json.RawMessage `json:"message"`
		Enrollment *enrollment     `json:"enrollment"`
	}
	if err := answer.Decode(&body); err != nil {
		return nil, err
	}
	if body.Enrollment == nil {
		if failed := problem(answer); failed != nil {
			failed.Status = answer.Status
			if failed.Class == "" {
				failed.Class = connector.ClassRefused
			}
			failed.NotPlaced = failed.Class == connector.ClassRefused || failed.Class == connector.ClassNeedsPerson
			failed.Detail, failed.Code = connector.Detail(failed.Detail), connector.Raw(failed.Code)
			return nil, failed
		}
		return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the answer to the order has no enrollment"}
	}
	n := body.Enrollment
	status := e.enrollments.Status(n.Status)
	status.PlacedAt = answer.At
	status.Handle.Request = connector.Raw(n.ID)
	if isSerial(n.Serial) {
		status.Handle.Order = n.Serial
	}
	if strings.TrimSpace(n.Body) == "" {
		status.Detail = messageOf(body.Message)
		if status.Handle.IsZero() {
			status.Handle.Request = unnamed
		}
		return &status, nil
	}
	bundle, err := read(n.Body, n.Chain)
	if err != nil {
		return nil, err
	}
	if status.Handle.Order == "" {
		status.Handle.Order = strings.ToUpper(pki.SerialHex(bundle.Certificates[0]))
	}
	status.State, status.Mend, status.Bundle = connector.Issued, "", bundle
	return &status, nil
}

// messageOf is a text, or an object that has one.
func messageOf(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return connector.Detail(text)
	}
	var object struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &object) == nil {
		return connector.Detail(object.Message)
	}
	return ""
}

// read is a certificate and its chain, each of them base64 of DER, or PEM.
func read(text string, chain []string) (*connector.Bundle, error) {
	all := &connector.Bundle{}
	for _, one := range append([]string{text}, chain...) {
		if strings.TrimSpace(one) == "" {
			continue
		}
		bundle, err := connector.ParseBundle([]byte(one))
		if err != nil {
			return nil, err
		}
		all.Certificates = append(all.Certificates, bundle.Certificates...)
	}
	return all, nil
}

// shown is what the gateway has of one certificate.
type shown struct {
	status connector.Status
	bundle *connector.Bundle // nil if it has no data there
}

func (e *Connector) show(ctx context.Context, serial string) (*shown, error) {
	answer, err := e.client.Do(ctx, connector.Call{Path: e.path("certificates", serial), Query: url.Values{"$fields": {e.config.CertificateFields}}})
	if err != nil {
		return nil, err
	}
	return e.certificate(answer, serial)
}

func (e *Connector) certificate(answer *connector.Answer, serial string) (*shown, error) {
	var body struct {
		Certificate *struct {
			Status string `json:"status"`
			Data   string `json:"certificateData"`
			// Revocation is there for what is revoked, of CAs without a state too.
			Revocation json.RawMessage `json:"revocationInfo"`
		} `json:"certificate"`
		Chain []string `json:"chain"`
	}
	if err := answer.Decode(&body); err != nil {
		return nil, err
	}
	if body.Certificate == nil {
		return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the answer has no certificate in it"}
	}
	word := body.Certificate.Status
	if text := string(body.Certificate.Revocation); word == "" && text != "" && text != "null" {
		word = "revoked"
	}
	s := &shown{status: e.certificates.Status(word)}
	s.status.Handle = connector.Handle{Order: serial}
	if strings.TrimSpace(body.Certificate.Data) != "" {
		bundle, err := read(body.Certificate.Data, body.Chain)
		if err != nil {
			return nil, err
		}
		s.bundle = bundle
	}
	return s, nil
}

// Status implements connector.Connector. An enrollment that has no certificate yet is
// looked for among the events.
func (e *Connector) Status(ctx context.Context, r *connector.Request, h connector.Handle) (*connector.Status, error) {
	return e.stands(ctx, r, h, e.issued)
}

// stands is Status, with a way of looking for an enrollment that has no certificate yet.
func (e *Connector) stands(ctx context.Context, r *connector.Request, h connector.Handle, look func(context.Context, *connector.Request) ([]connector.Status, error)) (*connector.Status, error) {
	if isSerial(h.Order) {
		s, err := e.show(ctx, h.Order)
		if err != nil {
			return nil, err
		}
		if s.status.State == connector.Issued {
			s.status.Bundle = s.bundle
		}
		return &s.status, nil
	}
	if h.IsZero() || r.CSR == nil {
		return nil, errNoOrder()
	}
	found, err := look(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(found) > 0 {
		return &found[0], nil
	}
	status := e.enrollments.Status("PENDING")
	status.Handle, status.Detail = h, "no certificate of this key is among the events of the CA yet"
	if waited := e.config.Now().Sub(r.CommittedAt); waited > e.config.NeedsPersonAfter {
		status.State, status.Mend = connector.NeedsPerson, "see at the CA behind the gateway what became of the enrollment, and approve it if it waits there"
	}
	return &status, nil
}

func errNoOrder() error {
	return &connector.Error{Class: connector.ClassNotFound, NotPlaced: true, Err: errors.New("the order has no certificate at the authority")}
}

// Collect implements connector.Connector. What is missing of the chain is asked for.
func (e *Connector) Collect(ctx context.Context, r *connector.Request, h connector.Handle) (*connector.Bundle, error) {
	if !isSerial(h.Order) {
		status, err := e.stands(ctx, r, h, func(ctx context.Context, r *connector.Request) ([]connector.Status, error) {
			return e.Search(ctx, r, 0)
		})
		if err != nil {
			return nil, err
		}
		if h = status.Handle; !isSerial(h.Order) {
			return nil, &connector.Error{Class: connector.ClassNotReady, Detail: status.Detail}
		}
	}
	s, err := e.show(ctx, h.Order)
	switch {
	case err != nil:
		return nil, err
	case s.status.State == connector.Revoked:
		return nil, &connector.Error{Class: connector.ClassRefused, Detail: "the certificate is " + s.status.Raw, Mend: "order another one"}
	case s.bundle == nil:
		return nil, &connector.Error{Class: connector.ClassNotReady, Detail: "the gateway shows no data of the certificate"}
	}
	if vouchedFor(s.bundle.Certificates) {
		return s.bundle, nil
	}
	issuers, err := e.Issuers(ctx, r)
	if err != nil {
		return nil, err
	}
	s.bundle.Certificates = append(s.bundle.Certificates, issuers...)
	return s.bundle, nil
}

// vouchedFor reports whether another one of the certificates has signed the first.
func vouchedFor(certs []*x509.Certificate) bool {
	return slices.ContainsFunc(certs[1:], func(issuer *x509.Certificate) bool { return certs[0].CheckSignatureFrom(issuer) == nil })
}
