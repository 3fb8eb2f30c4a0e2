package globalsign

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
)

// maxSerial is the longest serial number, in hex digits (RFC 5280 section 4.1.2.2).
const maxSerial = 40

// isSerial reports whether text is a serial number as the authority writes it.
func isSerial(text string) bool {
	return text != "" && len(text) <= maxSerial && strings.Trim(text, "0123456789abcdefABCDEF") == ""
}

// Place implements connector.Connector.
func (g *Connector) Place(ctx context.Context, r *connector.Request) (*connector.Status, error) {
	p, err := g.policy.Get(ctx, g.askPolicy)
	if err != nil {
		e := *connector.Classify(err)
		e.NotPlaced = true
		return nil, &e
	}
	body, err := g.body(p, r, g.config.Now())
	if err != nil {
		return nil, err
	}
	answer, err := g.do(ctx, connector.Call{Method: http.MethodPost, Path: []string{"certificates"}, Body: body, Places: true})
	if err != nil {
		if connector.Classify(err).Class == connector.ClassRefused {
			g.policy.Drop(nil) // it may be another one by now
		}
		return nil, err
	}
	serial := serialIn(answer.Header.Get("Location"))
	if answer.Status != http.StatusCreated || serial == "" {
		return nil, &connector.Error{
			Class: connector.ClassAnswer, Status: answer.Status, Detail: "the answer to the order does not say where the certificate will be",
			Mend: "see that the issuer's URL is the authority's, and that no proxy answers for it",
		}
	}
	status := g.states.Status(wordWorking)
	status.Handle, status.PlacedAt = connector.Handle{Order: serial}, answer.At
	return &status, nil
}

// serialIn is the last part of a URL, or of a path, if it is a serial number.
func serialIn(location string) string {
	u, err := url.Parse(location)
	if err != nil {
		return ""
	}
	path := strings.TrimRight(u.Path, "/")
	if serial := path[strings.LastIndexByte(path, '/')+1:]; isSerial(serial) {
		return serial
	}
	return ""
}

type certificateAnswer struct {
	Certificate string `json:"certificate"`
	Status      string `json:"status"`
}

// fetched is what the authority says of one serial number.
type fetched struct {
	status connector.Status
	bundle *connector.Bundle // nil if it has no certificate there
}

func (g *Connector) fetch(ctx context.Context, serial string) (*fetched, error) {
	if !isSerial(serial) {
		return nil, &connector.Error{Class: connector.ClassNotFound, NotPlaced: true, Err: errors.New("the order has no serial number of a certificate at the authority")}
	}
	answer, err := g.do(ctx, connector.Call{Path: []string{"certificates", serial}})
	if err != nil {
		return nil, err
	}
	return g.read(answer, serial)
}

// read is the state and the certificate in an answer.
func (g *Connector) read(answer *connector.Answer, serial string) (*fetched, error) {
	if answer.Status == http.StatusAccepted {
		f := &fetched{status: g.states.Status(wordWorking)}
		f.status.Handle = connector.Handle{Order: serial}
		return f, nil
	}
	var body certificateAnswer
	if err := answer.Decode(&body); err != nil {
		return nil, err
	}
	if body.Status == "" {
		return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the certificate that the authority shows has no state"}
	}
	f := &fetched{status: g.states.Status(body.Status)}
	f.status.Handle = connector.Handle{Order: serial}
	if strings.TrimSpace(body.Certificate) != "" {
		bundle, err := connector.ParseBundle([]byte(body.Certificate))
		if err != nil {
			return nil, err
		}
		f.bundle = bundle
	} else if f.status.State == connector.Issued {
		f.status.State = connector.Pending // there is nothing to fetch
	}
	return f, nil
}

// Status implements connector.Connector. It has the certificate with it where its
// issuers are known.
func (g *Connector) Status(ctx context.Context, _ *connector.Request, h connector.Handle) (*connector.Status, error) {
	f, err := g.fetch(ctx, h.Order)
	if err != nil {
		return nil, err
	}
	if f.status.State == connector.Issued {
		if issuers, known := g.chain.Fresh(); known && vouchedFor(f.bundle, issuers) {
			f.status.Bundle = &connector.Bundle{Certificates: slices.Concat(f.bundle.Certificates, issuers)}
		}
	}
	return &f.status, nil
}

// Collect implements connector.Connector.
func (g *Connector) Collect(ctx context.Context, _ *connector.Request, h connector.Handle) (*connector.Bundle, error) {
	f, err := g.fetch(ctx, h.Order)
	if err != nil {
		return nil, err
	}
	switch {
	case f.status.State == connector.Revoked:
		return nil, &connector.Error{Class: connector.ClassRefused, Detail: "the certificate is revoked", Mend: "order another one"}
	case f.status.State != connector.Issued:
		return nil, &connector.Error{Class: connector.ClassNotReady, Detail: "the certificate is not there yet: the authority says " + f.status.Raw}
	}
	issuers, err := g.chain.Get(ctx, g.askChain)
	if err != nil {
		return nil, err
	}
	// Another one may sign by now.
	if !vouchedFor(f.bundle, issuers) {
		if issuers, err = g.Issuers(ctx, nil); err != nil {
			return nil, err
		}
	}
	return &connector.Bundle{Certificates: slices.Concat(f.bundle.Certificates, issuers)}, nil
}

// vouchedFor reports whether one of the issuers has signed each certificate.
func vouchedFor(bundle *connector.Bundle, issuers []*x509.Certificate) bool {
	return bundle != nil && !slices.ContainsFunc(bundle.Certificates, func(leaf *x509.Certificate) bool {
		return !slices.ContainsFunc(issuers, func(issuer *x509.Certificate) bool { return leaf.CheckSignatureFrom(issuer) == nil })
	})
}

// Issuers implements connector.Completer.
func (g *Connector) Issuers(ctx context.Context, _ *connector.Request) ([]*x509.Certificate, error) {
	g.chain.Drop(nil)
	return g.chain.Get(ctx, g.askChain)
}

func (g *Connector) askChain(ctx context.Context) ([]*x509.Certificate, time.Duration, error) {
	answer, err := g.do(ctx, connector.Call{Path: []string{"trustchain"}})
	if err != nil {
		return nil, 0, err
	}
	var list []string
	if err := answer.Decode(&list); err != nil {
		return nil, 0, err
	}
	bundle, err := connector.ParseBundle([]byte(strings.Join(list, "\n")))
	if err != nil {
		return nil, 0, err
	}
	return bundle.Certificates, chainLife, nil
}
