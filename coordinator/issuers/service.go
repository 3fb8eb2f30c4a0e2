package issuers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/orders"
)

// Errors of what is asked of a Service.
var (
	ErrUnknown    = errors.New("there is no such issuer in the settings")
	ErrNotLeading = errors.New("this node does not lead the cluster")
)

// testTime bounds the test of an account: whoever waits for it has half a minute.
const testTime = 20 * time.Second

// Engine takes orders through the authorities. *orders.Engine is one.
type Engine interface {
	Status() []orders.IssuerStatus
	Test(ctx context.Context, issuer string) (*connector.Account, error)
	Resume(issuer string) error
}

// Config of a Service. Everything but Now is required.
type Config struct {
	Registry *Registry
	Engine   Engine
	// Leads reports whether this node does the leader's work.
	Leads func() bool
	// Open counts the orders of each issuer that wait for something at its authority.
	Open func() map[string]int
	Log  *slog.Logger
	Now  func() time.Time // nil is time.Now
}

// Service tells operators how issuers stand, and tests their accounts. It is safe for
// concurrent use.
type Service struct{ config Config }

// NewService checks c.
func NewService(c Config) (*Service, error) {
	if c.Registry == nil || c.Engine == nil || c.Leads == nil || c.Open == nil || c.Log == nil {
		return nil, errors.New("issuers: one of Registry, Engine, Leads, Open and Log is missing")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Service{config: c}, nil
}

// List are the issuers by name, and whether this node knows how they stand.
func (s *Service) List() (list []resource.Issuer, leads bool) {
	if !s.config.Leads() {
		return nil, false
	}
	open, now := s.config.Open(), s.config.Now()
	for _, standing := range s.config.Engine.Status() {
		if !standing.Leading {
			return nil, false // the engine has yet to begin
		}
		one := describe(&standing, now)
		one.Orders = open[standing.Name]
		if i := s.config.Registry.Issuer(standing.Name); i != nil {
			one.PollMaxWaitSeconds = int64(i.Budget() / time.Second)
			one.Limits = resource.IssuerLimits{Rate: i.Limits.Rate, Burst: i.Limits.Burst, Concurrency: i.Limits.Concurrency}
		}
		list = append(list, one)
	}
	return list, true
}

func describe(s *orders.IssuerStatus, now time.Time) resource.Issuer {
	one := resource.Issuer{
		Name: s.Name, Kind: s.Kind, State: resource.IssuerReady, Due: s.Orders, Calls: s.Open, NextAt: s.Next.UTC(),
		PausedFor: s.PausedFor, Reason: s.CircuitReason, Failures: s.Failures, LastError: s.LastError,
		PausedUntil: s.PausedUntil.UTC(), CircuitOpenUntil: s.CircuitUntil.UTC(), LastErrorAt: s.LastErrorAt.UTC(), LastAnswerAt: s.LastAnswerAt.UTC(),
	}
	switch {
	case !s.Configured:
		one.State = resource.IssuerUnknown
	case s.PausedUntil.After(now):
		one.State = resource.IssuerPaused
	case s.CircuitUntil.After(now):
		one.State = resource.IssuerFailing
	}
	return one
}

// halted reports whether an issuer is not asked at present, or hardly.
func (s *Service) halted(name string) bool {
	now := s.config.Now()
	for _, standing := range s.config.Engine.Status() {
		if standing.Name == name {
			return describe(&standing, now).State != resource.IssuerReady
		}
	}
	return false
}

// Test finds out whether an account can be used. It asks from this node, which leads;
// orders that waited for the account go on when the answer is yes.
func (s *Service) Test(ctx context.Context, name, actor string) (*resource.IssuerTest, error) {
	i := s.config.Registry.Issuer(name)
	switch {
	case !s.config.Leads():
		return nil, ErrNotLeading
	case i == nil:
		return nil, fmt.Errorf("issuer %q: %w", name, ErrUnknown)
	}
	ctx, cancel := context.WithTimeout(ctx, testTime)
	defer cancel()
	began := time.Now()
	account, err := s.config.Engine.Test(ctx, name) // which counts it
	done := &resource.IssuerTest{
		Name: name, Kind: i.Kind, OK: err == nil, Facts: []resource.IssuerFact{}, Warnings: []string{}, TookMillis: time.Since(began).Milliseconds(),
	}
	if err != nil {
		s.refused(done, err, ctx.Err() != nil)
		s.config.Log.Info("an issuer's account was tested, and cannot be used", "issuer", name, "actor", actor, "class", done.Class, "err", err)
		return done, nil
	}
	i.addClient(account)
	done.Account = account.Name
	for _, fact := range account.Facts {
		done.Facts = append(done.Facts, resource.IssuerFact{Name: fact.Name, Value: fact.Value})
	}
	done.Warnings = append(done.Warnings, account.Warnings...)
	if s.halted(name) {
		done.Resumed = s.config.Engine.Resume(name) == nil // else another node leads by now, which begins anew
	}
	s.config.Log.Info("an issuer's account was tested, and can be used", "issuer", name, "actor", actor, "warnings", len(done.Warnings), "resumed", done.Resumed)
	return done, nil
}

func (s *Service) refused(done *resource.IssuerTest, err error, late bool) {
	e := *connector.Classify(err)
	done.Class, done.Code, done.HTTPStatus, done.Mend = string(e.Class), e.Code, e.Status, e.Mend
	e.Mend = "" // it is told by itself
	done.Error = e.Error()
	if late {
		done.Error = fmt.Sprintf("the authority did not answer within %d seconds: %s", testTime/time.Second, done.Error)
	}
	if done.Mend == "" {
		done.Mend = "see that the issuer's URL is right, and that this node reaches it; else try again later"
	}
}

// Resume has an account be asked again at once.
func (s *Service) Resume(name, actor string) error {
	switch {
	case !s.config.Leads():
		return ErrNotLeading
	case s.config.Registry.Issuer(name) == nil:
		return fmt.Errorf("issuer %q: %w", name, ErrUnknown)
	}
	if err := s.config.Engine.Resume(name); err != nil {
		return fmt.Errorf("%w: %w", ErrNotLeading, err)
	}
	s.config.Log.Info("an issuer is asked again, as an operator wants it", "issuer", name, "actor", actor)
	return nil
}
