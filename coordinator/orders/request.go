package orders

import (
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// maxCommonName is the longest commonName (RFC 5280 appendix A.1, ub-common-name).
const maxCommonName = 64

// newRequest is what is asked of the authority for an order: the same at every call. p
// says why it cannot be asked for.
func newRequest(o *fleet.Order, maxValidity time.Duration) (r *connector.Request, p *wire.Problem) {
	csr, err := pki.ParseCSR(o.CSR)
	if err != nil {
		return nil, problem.New(wire.CodeCSRInvalid, "csr", err.Error(), "make a new certificate request and ask again")
	}
	// What was allowed is what the proposer read; another version of it may have
	// read the request otherwise.
	names, err := pki.ParseNames(o.Names)
	if err != nil || !names.Equal(csr.Names) {
		return nil, problem.New(wire.CodeCSRInvalid, "csr", "the request was read in two ways", "make a new certificate request and ask again")
	}
	r = &connector.Request{
		Reference: reference(o), CSR: csr, CSRDER: o.CSR, Names: names, Validity: o.Validity, CommittedAt: o.PlacedAt,
	}
	for _, name := range names.DNS {
		if len(name) <= maxCommonName {
			r.CommonName = name
			break
		}
	}
	if maxValidity > 0 && r.Validity > maxValidity {
		r.Validity = maxValidity
	}
	if b := o.Brokering; b != nil && !b.Renews.IsZero() {
		h := handleOf(b.Renews)
		r.Renews = &h
	}
	return r, nil
}

// reference is our name of the order at its authority.
func reference(o *fleet.Order) string {
	if b := o.Brokering; b != nil && b.Reference != "" {
		return b.Reference
	}
	return fleet.OrderReference(o.Agent, o.ID)
}

func handleOf(h fleet.OrderHandle) connector.Handle {
	return connector.Handle{Order: h.Order, Certificate: h.Certificate, Request: h.Request}
}

func stored(h connector.Handle) fleet.OrderHandle {
	return fleet.OrderHandle{Order: h.Order, Certificate: h.Certificate, Request: h.Request}
}
