package renewal

import (
	"errors"
	"time"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

// failure is a failed step on the way to a certificate.
type failure struct {
	class      issuer.Class
	err        error
	retryAfter time.Duration
	attention  bool   // beyond what the class says
	mayIssue   bool   // a certificate may exist for the order, or come yet
	unclear    bool   // the issuer did not say what it means: it may mean mayIssue too
	limited    bool   // the issuer takes nothing new from this account for a while
	local      bool   // of this host; no issuer had a part in it
	keyRefused bool   // the issuer wants no certificate of this key
	waiting    string // what the order waits for
	person     bool   // somebody has to act for it
}

// mayYetIssue reports whether a certificate may come of the order under way.
func (f failure) mayYetIssue(rec *store.Certificate) bool {
	return f.mayIssue || f.unclear && rec.OrderState != nil
}

func issuerFailure(err error) failure {
	e := issuer.Classify(err)
	_, classified := errors.AsType[*issuer.Error](err)
	var full *notStoredError // what the issuer tried to save
	return failure{
		class: e.Class, err: err, retryAfter: e.RetryAfter, attention: errors.As(err, &full),
		mayIssue: e.MayIssue(), unclear: !classified, limited: e.Limited, keyRefused: e.KeyRefused,
		waiting: e.Waiting, person: e.Person && e.Waiting != "",
	}
}

// reason is what kind of failure it is, in the words of reports.
func (f failure) reason() wire.Reason {
	switch {
	case f.local:
		return wire.ReasonHost
	case f.limited:
		return wire.ReasonLimited
	}
	switch f.class {
	case issuer.ClassPending:
		return wire.ReasonPending
	case issuer.ClassOrderGone:
		return wire.ReasonOrderGone
	case issuer.ClassRefused:
		return wire.ReasonRefused
	case issuer.ClassConfig:
		return wire.ReasonHost
	case issuer.ClassReenrol:
		return wire.ReasonReenrol
	case issuer.ClassUnknown:
		return wire.ReasonUnknownOutcome
	default:
		return wire.ReasonUnavailable
	}
}
