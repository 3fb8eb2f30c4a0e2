package acme

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certctl/certctl/agent/issuer"
)

const (
	// RFC 9773 section 4.3.2: without a Retry-After, "clients SHOULD use a
	// default" such as six hours; and bounds of one minute and one day.
	defaultARIPause = 6 * time.Hour
	minARIPause     = time.Minute
	maxARIPause     = 24 * time.Hour

	// ariLimit is how long an order is held up by the question whether the
	// certificate that it replaces is the authority's.
	ariLimit = 10 * time.Second
)

// RenewalInfo asks the authority when to renew the certificate (RFC 9773). It is
// nil when the authority has no renewal information, for any certificate or for
// this one.
func (i *Issuer) RenewalInfo(ctx context.Context, leaf *x509.Certificate) (*issuer.RenewalInfo, error) {
	s, err := i.session(ctx)
	if err != nil {
		return nil, err
	}
	info, _, err := s.renewalInfo(ctx, leaf)
	return info, err
}

// renewalInfo also returns the certificate's unique identifier (RFC 9773 section
// 4.1).
func (s *session) renewalInfo(ctx context.Context, leaf *x509.Certificate) (*issuer.RenewalInfo, string, error) {
	if s.directory.RenewalInfo == "" || len(leaf.AuthorityKeyId) == 0 {
		return nil, "", nil
	}
	id, err := acme.ARIUniqueIdentifier(leaf)
	if err != nil {
		return nil, "", fmt.Errorf("identifier for renewal information: %w", err)
	}
	var (
		text   []byte
		status int
	)
	retryAfter, err := callRetryAfter(ctx, stepRenewalInfo, func(ctx context.Context) error {
		var err error
		text, err = getJSON(ctx, s.http, strings.TrimSuffix(s.directory.RenewalInfo, "/")+"/"+id)
		if n, ok := ctx.Value(notesKey{}).(*notes); ok {
			status, _ = n.read()
		}
		return err
	})
	if status == http.StatusNotFound || status == http.StatusBadRequest {
		return nil, "", nil // not this authority's certificate; Let's Encrypt says 404 and Pebble 400
	}
	if err != nil {
		return nil, "", err
	}
	info, err := parseRenewalInfo(text)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", stepRenewalInfo, err)
	}
	if retryAfter == 0 {
		retryAfter = defaultARIPause
	}
	info.RetryAfter = min(max(retryAfter, minARIPause), maxARIPause)
	return info, id, nil
}

// parseRenewalInfo reads the object of RFC 9773 section 4.2. "A malformed
// response (e.g. an end timestamp which is equal to or precedes the start
// timestamp)" is an error.
func parseRenewalInfo(text []byte) (*issuer.RenewalInfo, error) {
	var answer struct {
		SuggestedWindow struct {
			Start time.Time `json:"start"`
			End   time.Time `json:"end"`
		} `json:"suggestedWindow"`
		ExplanationURL string `json:"explanationURL"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("malformed renewal information: %w", err)
	}
	w := answer.SuggestedWindow
	if w.Start.IsZero() || !w.End.After(w.Start) {
		return nil, fmt.Errorf("malformed renewal information: window from %v to %v", w.Start, w.End)
	}
	return &issuer.RenewalInfo{WindowStart: w.Start, WindowEnd: w.End, ExplanationURL: answer.ExplanationURL}, nil
}

// replaces is the value of an order's replaces field (RFC 9773 section 5), or ""
// if the certificate is not known to be this authority's.
func (r *issuance) replaces(ctx context.Context, leaf *x509.Certificate) string {
	ctx, cancel := context.WithTimeout(ctx, ariLimit)
	defer cancel()
	_, id, err := r.session.renewalInfo(ctx, leaf)
	if err != nil {
		r.log.Warn("renewal information cannot be had; ordering without a reference to the certificate in service", "err", err)
		return ""
	}
	return id
}
