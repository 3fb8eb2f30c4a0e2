package digicert

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/pki"
)

// maxListed bounds how many orders of one name are listed, and how many of them are
// asked about, for a lost one.
const maxListed = 500

// pageSize of the list of orders.
const pageSize = 100

// Visible implements connector.Searcher.
func (d *Connector) Visible() time.Duration { return d.config.Visible }

// Search implements connector.Searcher: by our reference, and if no order has it,
// by the common name and then the key, among the orders of about that time.
func (d *Connector) Search(ctx context.Context, r *connector.Request, _ time.Duration) ([]connector.Status, error) {
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
	asked := 0
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
			if asked++; asked > maxListed {
				return nil, errTooMany(body.Certificate.CommonName)
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
			return nil, errTooMany(body.Certificate.CommonName)
		}
	}
}

func errTooMany(name string) error {
	return &connector.Error{
		Class: connector.ClassNeedsPerson, Detail: fmt.Sprintf("the account has more than %d orders for %s", maxListed, name),
		Mend: "look for the order in CertCentral, and tell its number with certctl orders resolve",
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
