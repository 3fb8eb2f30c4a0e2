package connectortest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/internal/fakeca"
)

// Orders of a storm, how many of them are under way at a time, and how often one
// question is asked again.
const (
	stormOrders = 48
	stormAtOnce = 8
	stormTries  = 2000
)

// storm places orders from many sides while every fourth answer to them is lost
// after the fact and many others are failures, and does with each what its error
// says. Every order has its certificate in the end, and none is there twice.
func (s Suite) storm(t *testing.T) {
	f := s.New(t, Options{Fake: fakeca.Config{
		Seed: 3, Rates: fakeca.Rates{Lost: 0.2, Cut: 0.05, Half: 0.03, Errors: 0.1, Busy: 0.05, Pages: 0.05, Dropped: 0.03},
	}})
	searcher, ok := f.Connector.(connector.Searcher)
	if !ok {
		t.Skip("this authority cannot be searched")
	}
	requests := make(chan *connector.Request, stormOrders)
	for i := range stormOrders {
		r, _ := Request(t, fmt.Sprintf("host-%d.example.com", i))
		requests <- r
	}
	close(requests)
	var all sync.WaitGroup
	for range stormAtOnce {
		all.Go(func() {
			for r := range requests {
				h, err := f.order(t, searcher, r)
				if err == nil {
					err = f.bring(t, r, h)
				}
				assert.NoError(t, err, r.Names.String())
			}
		})
	}
	all.Wait()
	assert.Len(t, f.Fake.Core().Ledger(nil), stormOrders)
	assert.Empty(t, f.Fake.Core().Duplicates())
}

// order places r as the engine does: again only if the error, or the authority's own
// list, says that there is no order.
func (f Fixture) order(t *testing.T, searcher connector.Searcher, r *connector.Request) (connector.Handle, error) {
	for range stormTries {
		status, err := f.Connector.Place(t.Context(), r)
		if err == nil {
			return status.Handle, nil
		}
		if f.failure(t, err).NotPlaced {
			continue
		}
		found, err := again(f, t, func() ([]connector.Status, error) { return searcher.Search(t.Context(), r, 0) })
		switch {
		case err != nil:
			return connector.Handle{}, err
		case len(found) > 1:
			return connector.Handle{}, fmt.Errorf("%d orders are there", len(found))
		case len(found) == 1:
			return found[0].Handle, nil
		}
	}
	return connector.Handle{}, fmt.Errorf("not placed in %d tries", stormTries)
}

// bring fetches the certificate of an order.
func (f Fixture) bring(t *testing.T, r *connector.Request, h connector.Handle) error {
	status, err := again(f, t, func() (*connector.Status, error) { return f.Connector.Status(t.Context(), r, h) })
	if err != nil {
		return err
	}
	if status.State != connector.Issued {
		return fmt.Errorf("the order is %s", status.State)
	}
	_, err = again(f, t, func() (*connector.Bundle, error) {
		bundle, err := f.Connector.Collect(t.Context(), r, h.With(status.Handle))
		if err != nil {
			return nil, err
		}
		return f.check(t, r, bundle)
	})
	return err
}

// check is Check, with the issuers asked for until they come.
func (f Fixture) check(t *testing.T, r *connector.Request, bundle *connector.Bundle) (*connector.Bundle, error) {
	whole := *bundle
	if completer, ok := f.Connector.(connector.Completer); ok {
		more, err := completer.Issuers(t.Context(), r)
		if err != nil {
			return nil, err
		}
		whole.Certificates = append(whole.Certificates, more...)
	}
	_, err := Check(t, nil, r, &whole)
	return &whole, err
}

// again asks a question until it is answered.
func again[T any](f Fixture, t *testing.T, ask func() (T, error)) (answer T, err error) {
	for range stormTries {
		if answer, err = ask(); err == nil {
			return answer, nil
		}
		_ = f.failure(t, err) // what is in it is looked at
	}
	return answer, err
}
