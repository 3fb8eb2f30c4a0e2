package orders

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/wire"
)

// text is what a failure says, without what is to be done about it.
func text(e *connector.Error) string {
	told := *e
	told.Mend = ""
	return told.Error()
}

func mendOf(e *connector.Error) string {
	return cmp.Or(e.Mend, "see the order, or the account, at the authority: somebody has to act there")
}

// lookUp tells an operator how to find out what became of a placement, and what to
// type then.
func lookUp(o *fleet.Order, b *fleet.Brokering) string {
	at := b.Claim.At
	if at.IsZero() {
		at = latest(b.UnknownSince, o.PlacedAt)
	}
	names := strings.Join(o.Names, ", ")
	if len(names) > 120 {
		names = names[:120] + "…"
	}
	name := o.Agent + "/" + o.ID
	return fmt.Sprintf("look at %s for an order of about %s for %s, reference %s, key SHA-256 %s; if it is there: certctl orders resolve %s --adopt NUMBER --note HOW; if not, the same with --place-again, or --give-up: certctl orders show %s says more",
		o.Issuer, at.UTC().Format(time.RFC3339), names, b.Reference, o.PublicKeyFingerprint, name, name)
}

func severalDetail(n int) string {
	return fmt.Sprintf("%d orders at the authority may be this one", n)
}

func several(o *fleet.Order) string {
	name := o.Agent + "/" + o.ID
	return fmt.Sprintf("see which of the candidates is the order, and type certctl orders resolve %s --adopt NUMBER --note HOW; cancel the others at the authority, each of which may cost money", name)
}

func vanished(b *fleet.Brokering) string {
	return fmt.Sprintf("the authority does not know order %s any more: see there what became of it; it is asked for on, until it is cancelled with certctl orders cancel", shown(b.Handle))
}

func wrongMend(b *fleet.Brokering) string {
	return fmt.Sprintf("see order %s at the authority: it hands out a certificate that is not of this order's key and names; once it is right there, it is fetched by itself", shown(b.Handle))
}

func byHand(b *fleet.Brokering) string {
	return fmt.Sprintf("take order %s back at the authority by hand; that is noticed here", shown(b.Handle))
}

func shown(h fleet.OrderHandle) string {
	return cmp.Or(h.Order, h.Certificate, h.Request, "(without a number)")
}

// rejection is what the agent is told of an order that its authority has ended.
func rejection(issuer string, s *connector.Status, what string) *wire.Problem {
	detail := fmt.Sprintf("%s: %s", issuer, what)
	if s.Raw != "" {
		detail += fmt.Sprintf(" (%q)", connector.Raw(s.Raw))
	}
	if s.Detail != "" {
		detail += ": " + connector.Detail(s.Detail)
	}
	return problem.New(wire.CodeForbidden, "issuer", detail, cmp.Or(s.Mend, "see the order at the authority, then ask again"))
}

// refusal is what the agent is told of an order that its authority did not take.
func refusal(issuer string, e *connector.Error) *wire.Problem {
	return problem.New(wire.CodeForbidden, "issuer", fmt.Sprintf("%s does not take the order: %s", issuer, text(e)), cmp.Or(e.Mend, "see what the authority requires, then ask again"))
}

// cancellation is what the agent is told of an order that was taken back.
func cancellation(b *fleet.Brokering, how string) *wire.Problem {
	detail := "the order was cancelled"
	if c := b.Cancel; c != nil {
		detail += " by " + c.By
		if c.Note != "" {
			detail += " (" + c.Note + ")"
		}
	}
	return problem.New(wire.CodeOrderCancelled, "orders", detail+": "+how, "if the certificate is still wanted: certctl renew AGENT CERTIFICATE")
}
