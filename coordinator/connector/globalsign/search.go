package globalsign

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/pki"
)

const (
	// pageSize is the most that a list shows at a time.
	pageSize = 100
	// maxListed bounds how many certificates are looked through for a lost order.
	maxListed = 5000
)

// Visible implements connector.Searcher.
func (g *Connector) Visible() time.Duration { return g.config.Visible }

// Search implements connector.Searcher: the authority keeps no reference of ours. It
// lists what was issued since the order was committed, by serial number, and each of
// those is compared by its public key.
func (g *Connector) Search(ctx context.Context, r *connector.Request, old time.Duration) ([]connector.Status, error) {
	wanted, err := pki.PublicKeyFingerprint(r.CSR.PublicKey)
	if err != nil {
		return nil, &connector.Error{Class: connector.ClassConfig, Err: err}
	}
	serials, err := g.issued.Find(ctx, r.CommittedAt, wanted, old)
	if err != nil {
		return nil, err
	}
	var found []connector.Status
	for _, serial := range serials {
		f, err := g.fetch(ctx, serial)
		if err != nil {
			return nil, err
		}
		found = append(found, f.status)
	}
	return found, nil
}

// newListing is of what the account got.
func (g *Connector) newListing() *connector.Listing {
	return connector.NewListing(connector.ListingConfig{
		Page: g.listIssued, Read: g.readListed, Most: maxListed, Pages: 2 * maxListed / pageSize, Skew: skew, Now: g.config.Now,
		TooMany: &connector.Error{
			Class: connector.ClassNeedsPerson, Detail: fmt.Sprintf("the account got more than %d certificates that may be of the lost order, too many to look through", maxListed),
			Mend: "look for the certificate in GlobalSign Atlas, and tell its serial number with certctl orders resolve",
		},
	})
}

// listIssued is one page of the serial numbers of what the account got.
func (g *Connector) listIssued(ctx context.Context, from, to time.Time, place string) (list []connector.Listed, next string, err error) {
	page := 1
	if place != "" {
		if page, err = strconv.Atoi(place); err != nil {
			return nil, "", &connector.Error{Class: connector.ClassConfig, Err: err}
		}
	}
	answer, err := g.do(ctx, connector.Call{Path: []string{"stats", "issued"}, Query: url.Values{
		"from": {strconv.FormatInt(max(from.Unix(), 0), 10)}, "to": {strconv.FormatInt(to.Unix(), 10)},
		"page": {strconv.Itoa(page)}, "per_page": {strconv.Itoa(pageSize)},
	}})
	if err != nil {
		return nil, "", err
	}
	var rows []struct {
		Serial string `json:"serial_number"`
	}
	if err := answer.Decode(&rows); err != nil {
		return nil, "", err
	}
	for _, row := range rows {
		if !isSerial(row.Serial) {
			return nil, "", &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "a certificate that is listed as issued has no serial number"}
		}
		list = append(list, connector.Listed{ID: row.Serial})
	}
	total, err := strconv.Atoi(answer.Header.Get("Total-Count"))
	if len(rows) == 0 || err != nil && len(rows) < pageSize || err == nil && (page-1)*pageSize+len(rows) >= total {
		return list, "", nil
	}
	return list, strconv.Itoa(page + 1), nil
}

// readListed is the key of a certificate that is listed.
func (g *Connector) readListed(ctx context.Context, serial string) (connector.Listed, error) {
	f, err := g.fetch(ctx, serial)
	if err != nil {
		return connector.Listed{}, err
	}
	if f.bundle == nil {
		// It was listed as issued, and cannot be seen: that it is another's is not
		// known.
		return connector.Listed{}, &connector.Error{Class: connector.ClassRetry, Detail: "a certificate that is listed as issued cannot be fetched"}
	}
	c := connector.Listed{Passing: len(f.bundle.Certificates) != 1}
	for _, cert := range f.bundle.Certificates {
		if key, err := pki.PublicKeyFingerprint(cert.PublicKey); err == nil {
			c.Keys = append(c.Keys, key)
		}
	}
	return c, nil
}
