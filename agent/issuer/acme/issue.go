package acme

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/pki"
)

const (
	// longestPause is how long a call waits at most between two looks at the
	// order. An authority that wants more gets it, but the engine keeps the time.
	longestPause = 30 * time.Second
	// processingTimeout is how long one call waits for an order to go on.
	processingTimeout = 2 * time.Minute
)

// polling paces looks at something that changes at the authority.
var polling = backoff.Policy{Initial: 250 * time.Millisecond, Max: 10 * time.Second, Multiplier: 1.6, Jitter: 0.1}

// issuance is one call of Issue.
type issuance struct {
	*Issuer
	session *session
	account acme.Account
	order   *issuer.Order
	state   state
	log     *slog.Logger
}

// run takes the order from wherever it is to the certificate.
func (r *issuance) run(ctx context.Context) (*issuer.Issued, error) {
	if r.state.Certificate != "" {
		return r.download(ctx)
	}
	placed := acme.Order{Location: r.state.Order}
	var err error
	if placed.Location == "" {
		placed, err = r.place(ctx)
	} else {
		r.log.Info("continuing the order", "order", placed.Location)
		_, err = r.look(ctx, &placed)
	}
	if err != nil {
		return nil, err
	}

	// The status says what to do next (RFC 8555 section 7.1.6), whoever brought it
	// about: this call or one before a crash.
	var (
		authorized bool
		finalized  bool  // the CSR was sent by this call
		refusal    error // why it was not accepted
		retryAfter time.Duration
	)
	deadline := time.Now().Add(processingTimeout)
	for attempt := 1; ; attempt++ {
		lookAtOnce := false
		switch placed.Status {
		case acme.StatusPending:
			if !authorized {
				if err := r.authorize(ctx, placed); err != nil {
					return nil, err
				}
				authorized, attempt, deadline = true, 1, time.Now().Add(processingTimeout)
				lookAtOnce = true
			}
		case acme.StatusReady:
			if refusal != nil {
				return nil, refusal
			}
			if !finalized {
				retryAfter, refusal, err = r.finalize(ctx, placed)
				if err != nil {
					return nil, err
				}
				finalized, attempt, deadline = true, 1, time.Now().Add(processingTimeout)
				lookAtOnce = refusal != nil
			}
		case acme.StatusProcessing:
		case acme.StatusValid:
			r.state.Certificate = placed.Certificate
			if err := r.save(); err != nil {
				return nil, err
			}
			return r.download(ctx)
		case acme.StatusInvalid:
			return nil, r.invalid(ctx, placed, refusal)
		default:
			return nil, &issuer.Error{Class: issuer.ClassRetry, Err: fmt.Errorf("order %s has the unknown status %q", placed.Location, placed.Status)}
		}
		if !lookAtOnce {
			if err := r.pause(ctx, placed, attempt, retryAfter, deadline); err != nil {
				return nil, err
			}
		}
		if retryAfter, err = r.look(ctx, &placed); err != nil {
			return nil, err
		}
	}
}

// place makes the order at the authority and saves its URL.
func (r *issuance) place(ctx context.Context) (acme.Order, error) {
	request := acme.Order{Profile: r.order.Profile, Identifiers: identifiers(r.order.Names)}
	if offered := r.session.directory.Meta.Profiles; request.Profile != "" && !hasKey(offered, request.Profile) {
		return acme.Order{}, &issuer.Error{
			Class: issuer.ClassRefused,
			Err:   fmt.Errorf("the authority offers no certificate profile %q", request.Profile),
			Mend:  "choose one that it offers: " + offer(offered),
		}
	}
	if r.order.Lifetime > 0 {
		notAfter := r.now().Add(r.order.Lifetime).UTC().Truncate(time.Second)
		request.NotAfter = &notAfter
	}
	if r.order.Replaces != nil {
		request.Replaces = r.replaces(ctx, r.order.Replaces)
	}
	placed, err := r.newOrder(ctx, request)
	if request.Replaces != "" && mayBeReplaces(err) {
		// RFC 9773 section 5 makes replaces a hint. It must never be what stops a
		// renewal, and authorities refuse it in many ways: Pebble with a 500.
		r.log.Warn("the authority refused the order as a replacement; asking again without", "replaces", request.Replaces, "err", err)
		request.Replaces = ""
		placed, err = r.newOrder(ctx, request)
	}
	if err != nil {
		return acme.Order{}, err
	}
	if placed.Location == "" || placed.Finalize == "" {
		return acme.Order{}, &issuer.Error{Class: issuer.ClassRetry, Err: errors.New("place the order: the authority's answer names no order URL or no finalize URL")}
	}
	r.state = state{Directory: r.config.DirectoryURL, Order: placed.Location}
	if err := r.save(); err != nil {
		return acme.Order{}, err
	}
	r.log.Info("order placed", "order", placed.Location, "replaces", request.Replaces, "profile", request.Profile)
	return placed, nil
}

func (r *issuance) newOrder(ctx context.Context, request acme.Order) (acme.Order, error) {
	if err := r.newOrders.wait(ctx); err != nil {
		return acme.Order{}, fmt.Errorf("wait for the client-side limit on orders: %w", err)
	}
	var placed acme.Order
	err := call(ctx, stepNewOrder, func(ctx context.Context) error {
		var err error
		placed, err = r.session.client.NewOrder(ctx, r.account, request)
		return err
	})
	return placed, err
}

// mayBeReplaces reports whether the refusal of an order could be about replaces:
// any problem that is not surely about something else.
func mayBeReplaces(err error) bool {
	var problem acme.Problem
	if !errors.As(err, &problem) {
		return false
	}
	switch problem.Type {
	case acme.ProblemTypeRateLimited, acme.ProblemTypeBadNonce, acme.ProblemTypeAccountDoesNotExist,
		acme.ProblemTypeRejectedIdentifier, acme.ProblemTypeUnsupportedIdentifier,
		acme.ProblemTypeExternalAccountRequired, acme.ProblemTypeUserActionRequired, problemInvalidProfile:
		return false
	}
	return true
}

// finalize sends the CSR. The intent is durable first: from here on a
// certificate may exist. refusal is a failure that the status of the order has
// to explain, for the request may have been heard although its answer was lost.
func (r *issuance) finalize(ctx context.Context, placed acme.Order) (retryAfter time.Duration, refusal, err error) {
	csr, err := pki.CreateCSR(r.order.Key, r.order.Names)
	if err != nil {
		return 0, nil, &issuer.Error{Class: issuer.ClassConfig, Err: err}
	}
	if !r.state.Finalizing {
		r.state.Finalizing = true
		if err := r.save(); err != nil {
			return 0, nil, err
		}
	}
	retryAfter, refusal = callRetryAfter(ctx, stepFinalize, func(ctx context.Context) error {
		answer, err := r.session.client.FinalizeOrder(ctx, r.account, placed, csr)
		if answer.Status == acme.StatusProcessing || answer.Status == acme.StatusValid {
			return nil // the error is only that acmez was told not to wait
		}
		return err
	})
	if ctx.Err() != nil {
		return 0, nil, refusal
	}
	return retryAfter, refusal, nil
}

// look reads the order again.
func (r *issuance) look(ctx context.Context, placed *acme.Order) (retryAfter time.Duration, err error) {
	return callRetryAfter(ctx, stepOrder, func(ctx context.Context) error {
		// A fresh value: what the authority leaves out must not survive from the
		// answer before.
		answer, err := r.session.client.GetOrder(ctx, r.account, acme.Order{Location: placed.Location})
		if err == nil {
			*placed = answer
		}
		return err
	})
}

// pause waits before the next look at the order, or returns that the engine
// should do so.
func (r *issuance) pause(ctx context.Context, placed acme.Order, attempt int, retryAfter time.Duration, deadline time.Time) error {
	wait := max(retryAfter, polling.Delay(attempt, nil))
	if wait > longestPause || time.Now().Add(wait).After(deadline) {
		return &issuer.Error{
			Class:      issuer.ClassPending,
			RetryAfter: max(wait, longestPause),
			Err:        fmt.Errorf("order %s is still %s", placed.Location, placed.Status),
		}
	}
	return backoff.Wait(ctx, wait)
}

// invalid explains the end of an order: by the authorization that failed, which
// says most, by the order's own error, or by the refusal of its finalization.
func (r *issuance) invalid(ctx context.Context, placed acme.Order, refusal error) error {
	for _, url := range placed.Authorizations {
		authz, err := r.getAuthorization(ctx, url)
		if err != nil {
			break // the explanation is worth no more than one failure
		}
		if authz.Status == acme.StatusInvalid {
			return r.authorizationFailed(authz)
		}
	}
	gone := &issuer.Error{Class: issuer.ClassOrderGone}
	switch {
	case placed.Error != nil:
		gone.Err = fmt.Errorf("order %s is invalid: %w", placed.Location, *placed.Error)
		gone.Mend, gone.KeyRefused = judge(*placed.Error).mend, refusesKey(*placed.Error)
	case refusal != nil:
		gone.Err = fmt.Errorf("order %s is invalid: %w", placed.Location, refusal)
		failure := issuer.Classify(refusal)
		gone.Mend, gone.KeyRefused = failure.Mend, failure.KeyRefused
	default:
		gone.Err = fmt.Errorf("order %s is invalid and the authority does not say why", placed.Location)
	}
	return gone
}

func (r *issuance) save() error {
	raw, err := json.Marshal(r.state)
	if err != nil {
		return fmt.Errorf("encode the state of the order: %w", err)
	}
	if err := r.order.Save(raw); err != nil {
		return fmt.Errorf("save the state of the order: %w", err)
	}
	return nil
}

func identifiers(names pki.Names) []acme.Identifier {
	var list []acme.Identifier
	for _, name := range names.DNS {
		list = append(list, acme.Identifier{Type: identifierDNS, Value: name})
	}
	for _, ip := range names.IPs {
		list = append(list, acme.Identifier{Type: identifierIP, Value: ip.String()})
	}
	return list
}

func hasKey(m map[string]string, key string) bool {
	_, ok := m[key]
	return ok
}

func offer(profiles map[string]string) string {
	if len(profiles) == 0 {
		return "none; leave profile empty"
	}
	var list []string
	for name := range profiles {
		list = append(list, name)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}
