package digicert

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
)

// furthest is how far back the vendor tells of changes.
const furthest = 7 * day

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
