package command

import (
	"fmt"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

// step is what can come next for a command.
type step int

const (
	stepWait   step = iota // for the time, or for the engine
	stepBind               // decide which certificate it is about
	stepRenew              // have the engine replace the certificate
	stepRevoke             // have the issuer revoke the certificate
	stepEnd                // say what became of it
)

// action is one decision.
type action struct {
	step   step
	state  wire.CommandState // of stepEnd
	detail string            // of stepEnd
}

func ends(state wire.CommandState, format string, args ...any) action {
	return action{step: stepEnd, state: state, detail: fmt.Sprintf(format, args...)}
}

// CRLReasons of RFC 5280, section 5.3.1, that say that somebody else may have
// the key, or may have been given the certificate.
const (
	keyCompromise = 1
	caCompromise  = 2
)

// revokes reports whether a reason is one that revokes for good: not
// certificateHold (6) and removeFromCRL (8), and 7 is none.
func revokes(reason int) bool { return reason >= 0 && reason <= 10 && (reason < 6 || reason > 8) }

// revokesFirst reports whether a revocation comes before the replacement is in
// service. While a key is in foreign hands, a service that is down for clients
// which check revocation is the lesser evil. In all other cases the service
// would suffer for nothing.
func revokesFirst(reason int) bool { return reason == keyCompromise || reason == caCompromise }

// decide is the one step that comes next for a command. rec is the record of its
// certificate, nil if this host manages none of that name. It has no effects.
func decide(c *store.Command, rec *store.Certificate, now time.Time) action {
	kind := c.Request.Kind
	switch {
	case c.State.Final():
		return action{step: stepWait}
	case (kind == wire.CommandRevoke || !c.Request.RevokedAt.IsZero()) && !revokes(c.Request.Reason):
		return ends(wire.CommandRefused, "%d is no reason to revoke for good; see RFC 5280, section 5.3.1", c.Request.Reason)
	case kind != wire.CommandRenew && kind != wire.CommandRevoke:
		return ends(wire.CommandRefused, "this version of the agent does not know commands of the kind %q; upgrade it", kind)
	case !c.Bound && now.Before(c.Request.NotBefore):
		return action{step: stepWait}
	case !c.Bound && rec == nil:
		return ends(wire.CommandRefused, "this host manages no certificate named %q; its list is in certctl-agent list", c.Request.Certificate)
	case !c.Bound:
		return action{step: stepBind}
	}
	open := kind == wire.CommandRevoke && c.Revoked.IsZero() && c.RevokeProblem == ""
	left := rec == nil || !holds(rec, c) // what it is about is not in service any more
	// What waits for its issuer must not hold up the replacement as well.
	if open && (left || revokesFirst(c.Request.Reason)) && !now.Before(c.RetryAt) {
		return action{step: stepRevoke}
	}
	switch {
	case !left && !c.Asked && (!open || !revokesFirst(c.Request.Reason) || c.RevokeAttempt > 0):
		return action{step: stepRenew}
	case !left && c.Asked && idle(rec):
		return action{step: stepRenew} // its record was made anew since
	case !left && kind == wire.CommandRenew && c.Request.RevokedAt.IsZero() && rec.NeedsAttention != "" && !rec.LastErrorAt.Before(c.AskedAt):
		// The engine goes on trying. Whoever asked has to know that a person is needed.
		return ends(wire.CommandFailed, "the renewal goes on trying, and needs a person: %s", rec.NeedsAttention)
	case !left || open:
		return action{step: stepWait}
	}
	return outcome(c, rec)
}

// idle reports whether nobody is replacing the certificate in service.
func idle(rec *store.Certificate) bool { return rec.Phase == store.PhaseIdle && !rec.Forced }

// holds reports whether the pair that the command is about is in service, or
// another certificate for the same key; if it is about none, whether none is.
func holds(rec *store.Certificate, c *store.Command) bool {
	cur := rec.Current
	if cur == nil || c.Serial == "" {
		return cur == nil && c.Serial == ""
	}
	return cur.Serial == c.Serial || c.KeyID != "" && cur.KeyID == c.KeyID
}

func serialOf(g *store.Generation) string {
	if g == nil {
		return ""
	}
	return g.Serial
}

// outcome is how a command ends of which nothing is open.
func outcome(c *store.Command, rec *store.Certificate) action {
	replaced := "this host does not manage it any more"
	if rec != nil {
		replaced = "replaced by " + orNone(serialOf(rec.Current))
	}
	switch {
	case c.RevokeProblem != "":
		return ends(wire.CommandFailed, "not revoked: %s; %s", c.RevokeProblem, replaced)
	case c.Request.Kind == wire.CommandRevoke:
		return ends(wire.CommandDone, "revoked; %s", replaced)
	case rec == nil:
		return ends(wire.CommandFailed, "%s", replaced)
	}
	return ends(wire.CommandDone, "%s", replaced)
}

func orNone(serial string) string {
	if serial == "" {
		return "none"
	}
	return serial
}

// bind decides which certificate a command is about, by what is in service now.
// It is called within the transaction that stores the answer.
func bind(c *store.Command, rec *store.Certificate) action {
	if rec == nil {
		return action{step: stepWait} // removed just now; decide says more
	}
	meant, current := c.Request.Serial, serialOf(rec.Current)
	if meant == "" {
		meant = current
	}
	switch {
	case c.Request.Kind == wire.CommandRenew && meant != current:
		return ends(wire.CommandDone, "%s is not in service any more, %s is", meant, orNone(current))
	case c.Request.Kind == wire.CommandRevoke && meant == "":
		return ends(wire.CommandFailed, "no certificate is in service, so that there is none to revoke")
	case c.Request.Kind == wire.CommandRevoke:
		g := generation(rec, meant)
		if g == nil {
			return ends(wire.CommandFailed, "this host has no certificate with the serial number %s any more (%s is in service), and so cannot have it revoked; ask its issuer", orNone(meant), orNone(current))
		}
		c.Issuer = g.Issuer
		if c.Issuer == "" {
			c.Issuer = rec.Issuer
		}
		leaf, err := leafOf(g)
		if err != nil {
			return ends(wire.CommandFailed, "the certificate with the serial number %s cannot be read: %v; ask its issuer to revoke it", meant, err)
		}
		c.Leaf, c.KeyID = leaf.Raw, g.KeyID
	case rec.Current != nil:
		c.KeyID = rec.Current.KeyID
	}
	c.Serial, c.Bound = meant, true
	return action{step: stepWait}
}

// generation finds a pair by the serial number of its certificate.
func generation(rec *store.Certificate, serial string) *store.Generation {
	for _, g := range []*store.Generation{rec.Current, rec.Next, rec.Previous} {
		if g != nil && g.Serial == serial && serial != "" {
			return g
		}
	}
	return nil
}
