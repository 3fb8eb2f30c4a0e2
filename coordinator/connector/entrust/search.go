package entrust

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/pki"
)

const (
	// pageSize is the most events that some gateways show at a time.
	pageSize = 50
	// maxEvents bounds how many events are looked through for a lost order.
	maxEvents = 5000
)

// Visible implements connector.Searcher.
func (e *Connector) Visible() time.Duration { return e.config.Visible }

// Search implements connector.Searcher: the gateway keeps no reference of ours. A
// certificate of r's key is looked for among those that something has happened to since
// r was committed.
func (e *Connector) Search(ctx context.Context, r *connector.Request, old time.Duration) ([]connector.Status, error) {
	return e.lookFor(ctx, r, func(key string) ([]string, error) { return e.events.Find(ctx, r.CommittedAt, key, old) })
}

// issued is what is there of an enrollment that is not lost: nothing follows of its not
// being there yet.
func (e *Connector) issued(ctx context.Context, r *connector.Request) ([]connector.Status, error) {
	return e.lookFor(ctx, r, func(key string) ([]string, error) { return e.events.Latest(ctx, r.CommittedAt, key) })
}

func (e *Connector) lookFor(ctx context.Context, r *connector.Request, find func(key string) ([]string, error)) ([]connector.Status, error) {
	wanted, err := pki.PublicKeyFingerprint(r.CSR.PublicKey)
	if err != nil {
		return nil, &connector.Error{Class: connector.ClassConfig, Err: err}
	}
	serials, err := find(wanted)
	if err != nil {
		return nil, err
	}
	var found []connector.Status
	for _, serial := range serials {
		s, err := e.show(ctx, serial)
		if err != nil {
			return nil, err
		}
		if s.status.State == connector.Issued {
			s.status.Bundle = s.bundle
		}
		found = append(found, s.status)
	}
	return found, nil
}

// newListing is of the certificates that have events.
func (e *Connector) newListing() *connector.Listing {
	return connector.NewListing(connector.ListingConfig{
		Page: e.listEvents, Read: e.readListed, Most: maxEvents, Pages: 2 * maxEvents / pageSize, Skew: skew, Now: e.config.Now,
		TooMany: &connector.Error{
			Class: connector.ClassNeedsPerson, Detail: fmt.Sprintf("more than %d certificates have events that may be of the lost order, too many to look through", maxEvents),
			Mend: "look for the certificate at the gateway, and tell its serial number with certctl orders resolve",
		},
	})
}

type eventsAnswer struct {
	Events []struct {
		Certificate string `json:"certificate"`
		Serial      string `json:"serialNumber"`
	} `json:"events"`
	More bool            `json:"morePages"`
	Next json.RawMessage `json:"nextPageIndex"`
}

// listEvents is one page of events. Those since a moment have no end.
func (e *Connector) listEvents(ctx context.Context, from, _ time.Time, place string) (list []connector.Listed, next string, err error) {
	query := url.Values{
		"startDate": {from.UTC().Format(time.RFC3339)}, "preferredPageSize": {strconv.Itoa(pageSize)}, "$fields": {e.config.EventFields},
	}
	if place != "" {
		query.Set("nextPageIndex", place)
	}
	answer, err := e.client.Do(ctx, connector.Call{Path: e.path("certificate-events"), Query: query})
	if err != nil {
		return nil, "", err
	}
	var page eventsAnswer
	if err := answer.Decode(&page); err != nil {
		return nil, "", err
	}
	if page.Events == nil {
		return nil, "", &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the answer has no list of events"}
	}
	for _, event := range page.Events {
		if !isSerial(event.Serial) {
			continue
		}
		c := connector.Listed{ID: event.Serial}
		if strings.TrimSpace(event.Certificate) != "" {
			if bundle, err := read(event.Certificate, nil); err == nil { // else it is asked for
				c = listed(event.Serial, bundle)
			}
		}
		list = append(list, c)
	}
	if !page.More {
		return list, "", nil
	}
	next = strings.Trim(string(page.Next), `" `)
	if next == "" || next == "null" || next == place {
		return nil, "", &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the list of events has more pages, and does not say where"}
	}
	return list, next, nil
}

// readListed is the key of a certificate that its event does not show.
func (e *Connector) readListed(ctx context.Context, serial string) (connector.Listed, error) {
	s, err := e.show(ctx, serial)
	switch {
	case err != nil:
		return connector.Listed{}, err
	case s.bundle == nil:
		return connector.Listed{}, &connector.Error{Class: connector.ClassRetry, Detail: "a certificate that has events cannot be fetched"}
	}
	return listed(serial, s.bundle), nil
}

// listed is a certificate with its key. One whose serial number is another one is
// stale, and not remembered.
func listed(serial string, bundle *connector.Bundle) connector.Listed {
	cert := bundle.Certificates[0]
	c := connector.Listed{ID: serial, Read: true, Passing: !strings.EqualFold(strings.TrimLeft(serial, "0"), pki.SerialHex(cert))}
	if key, err := pki.PublicKeyFingerprint(cert.PublicKey); err == nil {
		c.Keys = []string{key}
	}
	return c
}
