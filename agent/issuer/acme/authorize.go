package acme

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/sync/errgroup"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/shared/backoff"
)

// withdrawLimit bounds taking an answer away after the caller's time is up.
const withdrawLimit = 30 * time.Second

// authorize completes all authorizations of the order, several at a time. The
// first failure ends the others: the order is lost, or will be continued later.
func (r *issuance) authorize(ctx context.Context, placed acme.Order) error {
	group, groupCtx := errgroup.WithContext(ctx)
	for _, url := range placed.Authorizations {
		select {
		case r.challenges <- struct{}{}:
		case <-groupCtx.Done():
			if err := group.Wait(); err != nil {
				return err
			}
			return ctx.Err()
		}
		group.Go(func() error {
			defer func() { <-r.challenges }()
			return r.authorizeOne(groupCtx, url)
		})
	}
	return group.Wait()
}

func (r *issuance) authorizeOne(ctx context.Context, url string) (err error) {
	authz, err := r.getAuthorization(ctx, url)
	if err != nil {
		return err
	}
	if done, err := r.decided(authz); done {
		return err // also when another order, or this one before a crash, had it validated
	}
	challenge, err := r.choose(authz)
	if err != nil {
		return err
	}
	name := authz.IdentifierValue()
	defer func() {
		// Even when the caller's time is up: what this call has shown, it removes.
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawLimit)
		defer cancel()
		if err := r.presenter.withdraw(cleanup, challenge); err != nil {
			r.log.Warn("the challenge response could not be removed", "name", name, "challenge", challenge.Type, "err", err)
		}
	}()
	if err := r.presenter.present(ctx, challenge); err != nil {
		return fmt.Errorf("answer the %s challenge for %s: %w", challenge.Type, name, err)
	}
	// After a crash the authority may have been told already; telling it again is
	// an error at some.
	if challenge.Status == acme.StatusPending {
		if err := r.announce(ctx, url, challenge); err != nil {
			return err
		}
	}
	return r.awaitValidation(ctx, url, name)
}

func (r *issuance) getAuthorization(ctx context.Context, url string) (authz acme.Authorization, err error) {
	authz, _, err = r.getAuthorizationRetryAfter(ctx, url)
	return authz, err
}

func (r *issuance) getAuthorizationRetryAfter(ctx context.Context, url string) (authz acme.Authorization, retryAfter time.Duration, err error) {
	retryAfter, err = callRetryAfter(ctx, stepAuthz, func(ctx context.Context) error {
		var err error
		authz, err = r.session.client.GetAuthorization(ctx, r.account, url)
		return err
	})
	return authz, retryAfter, err
}

// decided reports whether the authorization has reached a final status
// (RFC 8555 section 7.1.6), and the failure if that is not valid.
func (r *issuance) decided(authz acme.Authorization) (bool, error) {
	switch authz.Status {
	case acme.StatusPending:
		return false, nil
	case acme.StatusValid:
		return true, nil
	}
	return true, r.authorizationFailed(authz)
}

func (r *issuance) authorizationFailed(authz acme.Authorization) error {
	for _, challenge := range authz.Challenges {
		if challenge.Error != nil {
			return challengeFailed(challenge.Type, authz.IdentifierValue(), *challenge.Error)
		}
	}
	return &issuer.Error{
		Class: issuer.ClassOrderGone,
		Err:   fmt.Errorf("the authorization for %s is %s", authz.IdentifierValue(), authz.Status),
	}
}

// choose returns the challenge that the configured solver answers.
func (r *issuance) choose(authz acme.Authorization) (acme.Challenge, error) {
	wanted := r.config.Solver.ChallengeType()
	var offered []string
	for _, challenge := range authz.Challenges {
		if challenge.Type != wanted {
			offered = append(offered, challenge.Type)
			continue
		}
		if err := checkToken(challenge.Token); err != nil {
			return acme.Challenge{}, &issuer.Error{Class: issuer.ClassRefused, Err: fmt.Errorf("authorization for %s: %w", authz.IdentifierValue(), err)}
		}
		return challenge, nil
	}
	return acme.Challenge{}, &issuer.Error{
		Class: issuer.ClassRefused,
		Err:   fmt.Errorf("the authority does not offer %s for %s", wanted, authz.IdentifierValue()),
		Mend:  "configure a solver for a challenge that it offers: " + strings.Join(offered, ", "),
	}
}

// announce tells the authority that the response is in place (RFC 8555 section
// 7.5.1).
func (r *issuance) announce(ctx context.Context, url string, challenge acme.Challenge) error {
	err := call(ctx, stepChallenge, func(ctx context.Context) error {
		_, err := r.session.client.InitiateChallenge(ctx, r.account, challenge)
		return err
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	// The answer to an earlier announcement may have been lost, and the second
	// one refused because the first is being worked on.
	authz, lookErr := r.getAuthorization(ctx, url)
	if lookErr != nil {
		return err
	}
	if authz.Status != acme.StatusPending {
		return nil // awaitValidation says what became of it
	}
	for _, c := range authz.Challenges {
		if c.Token == challenge.Token && c.Type == challenge.Type && c.Status != acme.StatusPending {
			return nil
		}
	}
	return err
}

func (r *issuance) awaitValidation(ctx context.Context, url, name string) error {
	deadline := time.Now().Add(r.config.ValidationTimeout)
	for attempt := 1; ; attempt++ {
		authz, retryAfter, err := r.getAuthorizationRetryAfter(ctx, url)
		if err != nil {
			return err
		}
		if done, err := r.decided(authz); done {
			if err == nil {
				r.log.Info("name validated", "name", name)
			}
			return err
		}
		// The response must stay in place while the authority is at it, so a long
		// Retry-After is cut here and not handed on.
		wait := max(min(retryAfter, longestPause), polling.Delay(attempt, nil))
		if time.Now().Add(wait).After(deadline) {
			return &issuer.Error{
				Class:      issuer.ClassRetry,
				RetryAfter: retryAfter,
				Err:        fmt.Errorf("the authority has not validated %s within %v", name, r.config.ValidationTimeout),
			}
		}
		if err := backoff.Wait(ctx, wait); err != nil {
			return err
		}
	}
}
