// Package issuer is the contract between the renewal engine and the
// certificate authorities that it can use, and the vocabulary of how they
// fail. Each kind of authority is a package below this one.
package issuer

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"time"

	"github.com/certctl/certctl/shared/pki"
)

// Issuer obtains certificates from one authority.
//
// Issue begins an order, or continues the one that order.State describes, and
// returns its certificate. It is called again with the last saved state after a
// crash, a restart or an error, as often as it takes, and must then continue
// the same order with the same key: for one Order.ID the authority issues one
// certificate. Before each step that the authority remembers, Issue saves what
// is needed to continue through Order.Save; it goes on only when Save returned
// nil. (An authority's answer that is lost before it could be saved may leave an
// empty order behind there, never a second certificate.)
//
// Issue must be safe for concurrent use with different orders, must return soon
// after ctx is done, and reports failures as *Error where it knows their class;
// any other error counts as ClassRetry.
type Issuer interface {
	Issue(ctx context.Context, order *Order) (*Issued, error)
	// Kind is the constant name of this kind of issuer, such as "acme".
	Kind() string
}

// RenewalInformer is implemented by issuers whose authority can suggest when to
// renew (RFC 9773). A nil RenewalInfo means that it has no suggestion. Errors
// never stop a renewal; the engine then goes by lifetime.
type RenewalInformer interface {
	RenewalInfo(ctx context.Context, leaf *x509.Certificate) (*RenewalInfo, error)
}

// Abandoner is implemented by issuers that keep something of an order on this
// host beyond Order.State. After Forget returned nil, nothing more is sent for
// the orders of that certificate. The engine calls it before it asks another
// issuer.
type Abandoner interface {
	Forget(certificate string) error
}

// Revoker is implemented by issuers whose authority can be asked by this host to
// revoke a certificate. Revoke returns nil when the certificate is revoked, by
// this call or before it. key is the certificate's own, and may be nil where it
// is lost: an authority may take it in place of the account's (RFC 8555, section
// 7.6). reason is a CRLReason (RFC 5280, section 5.3.1). Failures are *Error like
// those of Issue; ClassRefused says that the authority will not do it.
type Revoker interface {
	Revoke(ctx context.Context, leaf *x509.Certificate, key crypto.Signer, reason int) error
}

// Timekeeper is implemented by issuers that cannot work without a server that
// tells the time. TimeSource is its name at the agent's clock.
type Timekeeper interface {
	TimeSource() string
}

// Order is one certificate to be obtained for one renewal.
type Order struct {
	// ID is made by the engine, unique, and the same for all calls of this
	// order: the client's reference at authorities that take one.
	ID          string
	Certificate string // name of the managed certificate, for logs and reports
	Names       pki.Names
	Key         crypto.Signer
	// Profile is the authority's certificate profile; "" is its default.
	Profile string
	// Lifetime asks for a lifetime where the authority lets the client choose;
	// 0 leaves it to the authority.
	Lifetime time.Duration
	// Replaces is the certificate in service; nil for a first one, and for one of
	// another issuer.
	Replaces *x509.Certificate
	// State is what Save was last given for this ID; nil when nothing was.
	State json.RawMessage
	// Save makes state durable. When it returns nil, every later call for this
	// ID gets this state, whatever crashes.
	Save func(state json.RawMessage) error
}

// Issued is a certificate.
type Issued struct {
	// Chain is the leaf first, then its issuers, without the root. The engine
	// checks it against the key, the names and the clock before it is used.
	Chain []*x509.Certificate
}

// RenewalInfo is an authority's suggestion (RFC 9773, section 4.2).
type RenewalInfo struct {
	WindowStart    time.Time
	WindowEnd      time.Time
	ExplanationURL string
	// RetryAfter is how long to wait before asking again (section 4.3.2).
	RetryAfter time.Duration
}
