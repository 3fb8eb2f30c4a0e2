package digicert

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/certctl/certctl/coordinator/connector"
)

// number is an identity: a JSON number, or a string of one.
type number string

func (n *number) UnmarshalJSON(data []byte) error {
	text := strings.Trim(string(data), `"`)
	if text == "null" {
		return nil
	}
	if _, err := strconv.ParseUint(text, 10, 64); err != nil {
		return fmt.Errorf("%.40q is no number of an order or a certificate", text)
	}
	if *n = number(text); strings.Trim(text, "0") == "" {
		*n = "" // an identity of zero is none
	}
	return nil
}

type validity struct {
	Days int `json:"days"`
}

type certificateBody struct {
	CommonName    string    `json:"common_name,omitempty"`
	DNSNames      []string  `json:"dns_names,omitempty"`
	CSR           string    `json:"csr"`
	SignatureHash string    `json:"signature_hash"`
	CACertificate string    `json:"ca_cert_id,omitempty"`
	Validity      *validity `json:"cert_validity,omitempty"`
}

type organizationBody struct {
	ID int64 `json:"id"`
}

type orderBody struct {
	Certificate   certificateBody   `json:"certificate"`
	Organization  *organizationBody `json:"organization,omitempty"`
	Validity      *validity         `json:"order_validity,omitempty"`
	PaymentMethod string            `json:"payment_method,omitempty"`
	SkipApproval  bool              `json:"skip_approval,omitempty"`
	DCVMethod     string            `json:"dcv_method,omitempty"`
	Reference     string            `json:"alternative_order_id,omitempty"`
	RenewalOf     int64             `json:"renewal_of_order_id,omitempty"`
}

// body is the order for r. Names are sent beside the request: the API takes none
// from it.
func (d *Connector) body(r *connector.Request) (*orderBody, error) {
	names := r.Names.Strings()
	common := r.CommonName
	if common == "" && len(r.Names.IPs) > 0 {
		common = r.Names.IPs[0].String()
	}
	if common == "" {
		return nil, &connector.Error{
			Class: connector.ClassRefused, NotPlaced: true, Detail: "the order has no name that can be the common name, which the authority wants",
			Mend: "give the certificate a DNS name of at most 64 characters",
		}
	}
	body := &orderBody{
		Certificate: certificateBody{
			CommonName: common, DNSNames: names, SignatureHash: d.config.SignatureHash, CACertificate: d.config.CACertificate,
			CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: r.CSRDER})),
		},
		PaymentMethod: d.config.PaymentMethod, SkipApproval: d.config.SkipApproval, DCVMethod: d.config.DCVMethod,
	}
	if d.config.Organization != 0 {
		body.Organization = &organizationBody{ID: d.config.Organization}
	}
	return body, nil
}

// days is how long the certificate of r shall last, in whole days.
func (d *Connector) days(r *connector.Request) *validity {
	lasts := r.Validity
	if lasts <= 0 {
		lasts = d.config.Validity
	}
	return &validity{Days: int(max((lasts+day-1)/day, 1))}
}

// Place implements connector.Connector.
func (d *Connector) Place(ctx context.Context, r *connector.Request) (*connector.Status, error) {
	body, err := d.body(r)
	if err != nil {
		return nil, err
	}
	if d.config.ValidityField != ValidityOfCertificate {
		body.Validity = d.days(r)
	}
	if d.config.ValidityField != ValidityOfOrder {
		body.Certificate.Validity = d.days(r)
	}
	if !d.config.NoReference {
		body.Reference = r.Reference
	}
	if d.config.LinkRenewals && r.Renews != nil {
		body.RenewalOf, _ = strconv.ParseInt(r.Renews.Order, 10, 64) // one that is no number is another authority's
	}
	return d.place(ctx, []string{"order", "certificate", d.config.Product}, body)
}

// Reissue implements connector.Reissuer.
func (d *Connector) Reissue(ctx context.Context, r *connector.Request, of connector.Handle) (*connector.Status, error) {
	body, err := d.body(r)
	if err != nil {
		return nil, err
	}
	// What belongs to the order stays as it was.
	body.Organization, body.PaymentMethod = nil, ""
	return d.place(ctx, []string{"order", "certificate", of.Order, "reissue"}, body)
}

type placedAnswer struct {
	ID       number `json:"id"`
	Requests []struct {
		ID     number `json:"id"`
		Status string `json:"status"`
	} `json:"requests"`
	CertificateID number `json:"certificate_id"`
	Chain         []struct {
		PEM string `json:"pem"`
	} `json:"certificate_chain"`
	RandomValue string         `json:"dcv_random_value"`
	Domains     []domainAnswer `json:"domains"`
}

type domainAnswer struct {
	ID    number `json:"id"`
	Name  string `json:"name"`
	Token *struct {
		Token  string `json:"token"`
		Status string `json:"status"`
	} `json:"dcv_token"`
}

func (d *Connector) place(ctx context.Context, path []string, body *orderBody) (*connector.Status, error) {
	answer, err := d.client.Do(ctx, connector.Call{Method: http.MethodPost, Path: path, Body: body, Places: true})
	if err != nil {
		if e := connector.Classify(err); strings.EqualFold(e.Code, codeDuplicate) {
			e.NotPlaced = false // this very order is there, from before
		}
		return nil, err
	}
	return d.placed(answer)
}

// placed reads the answer to an order, which comes in three shapes: with the
// certificate, with its number, and with neither as long as nobody has approved.
func (d *Connector) placed(answer *connector.Answer) (*connector.Status, error) {
	var placed placedAnswer
	if err := answer.Decode(&placed); err != nil {
		return nil, err
	}
	if placed.ID == "" {
		return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the answer to the order has no number of an order"}
	}
	status := connector.Status{State: connector.Pending, PlacedAt: answer.At}
	if len(placed.Requests) > 0 && placed.CertificateID == "" {
		status = requestTable.Status(placed.Requests[0].Status)
		status.PlacedAt = answer.At
	}
	status.Handle = connector.Handle{Order: string(placed.ID), Certificate: string(placed.CertificateID)}
	if len(placed.Requests) > 0 {
		status.Handle.Request = string(placed.Requests[0].ID)
	}
	if waiting := unproven(placed.Domains); waiting != "" {
		status.State, status.Detail, status.Mend = connector.NeedsPerson, waiting, proveMend
	}
	if len(placed.Chain) == 0 {
		return &status, nil
	}
	var text bytes.Buffer
	for _, entry := range placed.Chain {
		text.WriteString(strings.TrimSpace(entry.PEM) + "\n")
	}
	bundle, err := connector.ParseBundle(text.Bytes())
	if err == nil {
		status.State, status.Bundle, status.Detail, status.Mend = connector.Issued, bundle, "", ""
	} else {
		// The order stands: the certificate is fetched like any other.
		status.Detail = "the certificate in the answer to the order cannot be read"
	}
	return &status, nil
}

// Cancel implements connector.Canceller. An order that waits for an administrator is
// a request still, and is rejected as one.
func (d *Connector) Cancel(ctx context.Context, _ *connector.Request, h connector.Handle, note string) error {
	if h.Order == "" {
		return errNoOrder()
	}
	if note == "" {
		note = "cancelled by certctl"
	}
	_, err := d.client.Do(ctx, connector.Call{
		Method: http.MethodPut, Path: []string{"order", "certificate", h.Order, "status"}, Body: map[string]string{"status": "canceled", "note": note},
	})
	if err == nil || h.Request == "" || connector.Classify(err).Class != connector.ClassRefused {
		return err
	}
	o, failed := d.info(ctx, h.Order)
	if failed != nil || d.states.Status(o.Status).State != connector.NeedsPerson {
		return err
	}
	_, err = d.client.Do(ctx, connector.Call{
		Method: http.MethodPut, Path: []string{"request", h.Request, "status"}, Body: map[string]string{"status": "rejected", "processor_comment": note},
	})
	return err
}
