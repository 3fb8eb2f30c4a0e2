package orders

import (
	"time"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/fleet"
)

// about is which order a line is about.
func about(o *fleet.Order) []any {
	return []any{"order_id", o.ID, "agent_id", o.Agent, "issuer", o.Issuer, "certificate", o.Certificate, "stage", o.Stage()}
}

// told writes what a stored turn has changed: a line for each change, none for what
// stays as it was.
func (e *Engine) told(o *fleet.Order, t *turn) {
	before := o.Brokering
	if before == nil {
		before = &fleet.Brokering{}
	}
	now := *o
	now.State, now.Brokering = t.state, &t.b
	attrs := append(about(&now), "authority_order", shown(t.b.Handle), "state", t.b.Raw)
	person := append(attrs[:len(attrs):len(attrs)], "detail", t.b.Detail, "mend", t.b.Mend)
	moved := t.state != o.State
	switch {
	case moved && t.state == fleet.OrderUnknown:
		e.log.Warn("it is not known whether an order was placed", append(person, "err", t.b.Failure)...)
	case moved && t.state == fleet.OrderNeedsPerson:
		e.log.Warn("an order waits for a person", person...)
	case moved && t.state == fleet.OrderRejected:
		e.log.Warn("an order has come to nothing", append(attrs, "detail", detailOf(t))...)
	case moved && t.state == fleet.OrderRequested && t.b.Failure != "":
		line, what := e.log.Debug, "an order was not placed, and is tried again"
		if t.b.Failures <= 1 {
			line = e.log.Warn
		}
		if t.b.Mend != "" {
			what = "an order waits for a person before its authority takes it"
		}
		line(what, append(person, "err", t.b.Failure, "next", t.b.Next)...)
	case moved && t.state == fleet.OrderIssued:
		e.log.Info("the certificate of an order is here", append(attrs, "serial", t.certificate.serial, "waited", t.b.FetchedAt.Sub(o.PlacedAt).Round(time.Second))...)
	case moved:
		e.log.Info("an order has moved on", append(attrs, "was", o.Stage())...)
	case t.b.Mend != "" && t.b.Mend != before.Mend:
		e.log.Warn("an order needs attention", person...)
	case t.b.WrongCertificates > before.WrongCertificates && before.WrongCertificates == 0:
		e.log.Warn("an authority hands out a certificate that is not the order's; it is not delivered", append(attrs, "err", t.b.Failure)...)
	case t.b.Slow && !before.Slow:
		e.log.Info("an order is still under way after its time, and is asked about slowly from here on", append(attrs, "since", t.b.Since)...)
	case t.b.Failure != "" && before.Failure == "":
		e.log.Info("a question about an order had no answer", append(attrs, "err", t.b.Failure, "next", t.b.Next)...)
	}
}

func detailOf(t *turn) string {
	if t.problem == nil {
		return ""
	}
	return t.problem.Detail
}

// accountChanged writes that an account is not asked for a while, or is again.
func (e *Engine) accountChanged(issuer string, s asyncpoll.AccountStatus) {
	now := e.config.Now()
	switch {
	case s.PausedUntil.After(now):
		line := e.log.Info
		if s.PausedUntil.Sub(now) > time.Minute {
			line = e.log.Warn
		}
		line("an account at an authority is paused", "issuer", issuer, "until", s.PausedUntil, "reason", s.PausedFor)
	case s.OpenUntil.After(now):
		e.log.Warn("an authority fails, and is not asked for a while", "issuer", issuer, "until", s.OpenUntil, "failures", s.Failures, "reason", s.Reason)
	default:
		e.log.Info("an authority is asked again", "issuer", issuer)
	}
}
