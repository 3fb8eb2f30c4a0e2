package digicert

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/pki"
)

// maxListed bounds how many orders of one name are looked through for a lost one.
const maxListed = 500

// pageSize of the list of orders.
const pageSize = 100

// furthest is how far back the vendor tells of changes.
const furthest = 7 * day

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
	if err != nil {
		// The order stands: the certificate is fetched like any other.
		status.Detail = "the certificate in the answer to the order cannot be read"
		return &status, nil
	}
	status.State, status.Bundle, status.Detail, status.Mend = connector.Issued, bundle, "", ""
	return &status, nil
}

const proveMend = "publish the token of each name that is not proven, and have it checked; certctl orders show tells them"

// unproven says which names wait for a proof, "" if none does.
func unproven(domains []domainAnswer) string {
	var names []string
	for _, domain := range domains {
		if domain.Token != nil && !proven(domain.Token.Status) {
			names = append(names, domain.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return connector.Detail("control is not proven of " + strings.Join(names, ", "))
}

// proven are the words for a proof that was found. The vendor's pages show pending
// alone, so that whatever is not one of these waits.
func proven(word string) bool {
	switch strings.ToLower(word) {
	case "approved", "valid", "validated", "complete", "completed", "active":
		return true
	}
	return false
}

type orderAnswer struct {
	ID          number `json:"id"`
	OrderID     number `json:"order_id"`
	Status      string `json:"status"`
	Certificate struct {
		ID           number `json:"id"`
		CommonName   string `json:"common_name"`
		CSR          string `json:"csr"`
		SerialNumber string `json:"serial_number"`
	} `json:"certificate"`
	CertificateID number `json:"certificate_id"`
	DateCreated   string `json:"date_created"`
	Reference     string `json:"alternative_order_id"`
	Note          string `json:"note"`
	Requests      []struct {
		ID number `json:"id"`
	} `json:"requests"`
	Domains []domainAnswer `json:"domains"`
}

// status is what an order of any answer says.
func (d *Connector) status(o *orderAnswer) connector.Status {
	status := d.states.Status(o.Status)
	status.Reference, status.PlacedAt, status.Detail = o.Reference, readDate(o.DateCreated), connector.Detail(o.Note)
	order, cert := o.ID, o.Certificate.ID
	if order == "" {
		order = o.OrderID
	}
	if cert == "" {
		cert = o.CertificateID
	}
	if strings.EqualFold(o.Status, "approved") && cert == "" {
		status.State = connector.Pending
	}
	status.Handle.Order = string(order)
	if len(o.Requests) > 0 {
		status.Handle.Request = string(o.Requests[0].ID)
	}
	// While a reissue waits, the certificate that the order shows is the one that is
	// to be replaced.
	if status.State != connector.Pending && status.State != connector.Unrecognised {
		status.Handle.Certificate = string(cert)
	}
	if status.State == connector.Pending {
		if waiting := unproven(o.Domains); waiting != "" {
			status.State, status.Detail, status.Mend = connector.NeedsPerson, waiting, proveMend
		}
	}
	return status
}

func readDate(text string) time.Time {
	for _, layout := range []string{time.RFC3339, time.DateOnly, time.DateTime} {
		if at, err := time.Parse(layout, text); err == nil {
			return at
		}
	}
	return time.Time{}
}

func (d *Connector) info(ctx context.Context, order string) (*orderAnswer, error) {
	answer, err := d.client.Do(ctx, connector.Call{Path: []string{"order", "certificate", order}})
	if err != nil {
		return nil, err
	}
	var o orderAnswer
	if err := answer.Decode(&o); err != nil {
		return nil, err
	}
	if o.Status == "" {
		return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the order that the authority shows has no state"}
	}
	return &o, nil
}

// Status implements connector.Connector.
func (d *Connector) Status(ctx context.Context, _ *connector.Request, h connector.Handle) (*connector.Status, error) {
	if h.Order == "" {
		return nil, errNoOrder()
	}
	o, err := d.info(ctx, h.Order)
	if err != nil {
		return nil, err
	}
	status := d.status(o)
	if status.Handle.Order == "" {
		status.Handle.Order = h.Order
	}
	return &status, nil
}

func errNoOrder() error {
	return &connector.Error{Class: connector.ClassNotFound, NotPlaced: true, Err: errors.New("the order has no number at the authority")}
}

// Changes implements connector.Changer.
func (d *Connector) Changes(ctx context.Context, since time.Time) ([]connector.Status, error) {
	span := d.config.Now().Sub(since)
	if span > furthest-time.Minute {
		return nil, &connector.Error{Class: connector.ClassRefused, NotPlaced: true, Err: fmt.Errorf("the authority tells of changes within %v; ask about each order", furthest)}
	}
	// A minute more: the clocks differ, and the minutes are whole ones.
	minutes := int(max(span, 0)/time.Minute) + 2
	answer, err := d.client.Do(ctx, connector.Call{
		Path: []string{"order", "certificate", "status-changes"}, Query: url.Values{"minutes": {strconv.Itoa(min(minutes, int(furthest/time.Minute)))}},
	})
	if err != nil {
		return nil, err
	}
	return d.listed(answer)
}

func (d *Connector) listed(answer *connector.Answer) ([]connector.Status, error) {
	var body struct {
		Orders []orderAnswer `json:"orders"`
	}
	if err := answer.Decode(&body); err != nil {
		return nil, err
	}
	list := make([]connector.Status, 0, len(body.Orders))
	for i := range body.Orders {
		status := d.status(&body.Orders[i])
		if status.Handle.Order == "" {
			return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "an order in the authority's list has no number"}
		}
		list = append(list, status)
	}
	return list, nil
}

// Visible implements connector.Searcher.
func (d *Connector) Visible() time.Duration { return d.config.Visible }

// Search implements connector.Searcher: by our reference, and if no order has it,
// by the common name and then the key, among the orders of about that time.
func (d *Connector) Search(ctx context.Context, r *connector.Request) ([]connector.Status, error) {
	if !d.config.NoReference {
		found, err := d.byReference(ctx, r)
		if err != nil || len(found) > 0 {
			return found, err
		}
	}
	return d.byKey(ctx, r)
}

func (d *Connector) byReference(ctx context.Context, r *connector.Request) ([]connector.Status, error) {
	answer, err := d.client.Do(ctx, connector.Call{Path: []string{"order", "alternate", r.Reference}})
	if err != nil {
		if e := connector.Classify(err); e.Class == connector.ClassNotFound {
			return nil, nil
		}
		return nil, err
	}
	found, err := d.listed(answer)
	for i := range found {
		found[i].Reference = r.Reference
	}
	return found, err
}

func (d *Connector) byKey(ctx context.Context, r *connector.Request) ([]connector.Status, error) {
	body, err := d.body(r)
	if err != nil {
		return nil, err
	}
	var found []connector.Status
	since := r.CommittedAt.Add(-skew)
	for offset := 0; ; offset += pageSize {
		answer, err := d.client.Do(ctx, connector.Call{Path: []string{"order", "certificate"}, Query: url.Values{
			"filters[common_name]": {body.Certificate.CommonName}, "sort": {"-date_created"}, "limit": {strconv.Itoa(pageSize)}, "offset": {strconv.Itoa(offset)},
		}})
		if err != nil {
			return nil, err
		}
		var page struct {
			Orders []orderAnswer `json:"orders"`
		}
		if err := answer.Decode(&page); err != nil {
			return nil, err
		}
		for _, row := range page.Orders {
			created := readDate(row.DateCreated)
			// The list is said to begin with the newest. That is not relied on: an
			// older order is passed over, and the list is read to its end.
			if row.ID == "" || !created.IsZero() && created.Before(since) {
				continue
			}
			o, err := d.info(ctx, string(row.ID))
			if err != nil {
				return nil, err
			}
			if sameKey(o.Certificate.CSR, r) && (o.Reference == "" || o.Reference == r.Reference) {
				found = append(found, d.status(o))
			}
		}
		switch {
		case len(page.Orders) < pageSize:
			return found, nil
		case offset+pageSize >= maxListed:
			return nil, &connector.Error{
				Class: connector.ClassNeedsPerson, Detail: fmt.Sprintf("the account has more than %d orders for %s", maxListed, body.Certificate.CommonName),
				Mend: "look for the order in CertCentral, and tell its number with certctl orders resolve",
			}
		}
	}
}

func sameKey(text string, r *connector.Request) bool {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return false
	}
	csr, err := pki.ParseCSR(block.Bytes)
	return err == nil && pki.SamePublicKey(csr.PublicKey, r.CSR.PublicKey)
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
