package connector

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/certctl/certctl/shared/pki"
)

// Connector speaks with one account at one authority. Its methods may be called
// from any goroutine. Each of them makes the few requests that answer one question,
// ends when ctx does, and returns an *[Error] when the answer is no answer.
type Connector interface {
	// Place asks for a certificate. This is the call that costs money: it is made
	// once for an order, after the order was committed, and never by anything but
	// the engine. An error that is not NotPlaced leaves open whether there is an
	// order now.
	Place(ctx context.Context, r *Request) (*Status, error)
	// Status asks how an order stands.
	Status(ctx context.Context, r *Request, h Handle) (*Status, error)
	// Collect fetches the certificate of an order that is issued. An authority may
	// say that it is issued before it can be fetched: ClassNotReady.
	Collect(ctx context.Context, r *Request, h Handle) (*Bundle, error)
	// Test finds out whether the account can be used, and what an operator should
	// know of it. It changes nothing at the authority.
	Test(ctx context.Context) (*Account, error)
}

// A Searcher finds the orders that may have come of a request whose answer was
// lost. A connector that is none leaves such an order to the operator.
type Searcher interface {
	// Search returns every order at the authority that may be the one of r: by its
	// reference where the authority keeps one, else by the public key. It returns
	// none if there is none that the authority shows. Where it takes many requests to
	// find that out, they may have been made for another order: a list that was begun
	// to be read not longer ago than old is good enough, by a clock that nobody sets.
	// See [Listing].
	Search(ctx context.Context, r *Request, old time.Duration) ([]Status, error)
	// Visible is how long a new order may take to be found. Not to be found in two
	// searches, the second of them later than that, means that it was not placed.
	// A negative Visible says that a search which finds nothing proves nothing.
	Visible() time.Duration
}

// A Repeater says whether an order may be placed again although the first one may have
// been taken. It may at an authority that is one's own and signs whatever it is asked
// to: nothing is billed or used up, nobody is bothered, and what was signed for a lost
// answer is for the same key and names, and in nobody's hands. Such an order is neither
// searched for nor left to the operator: another attempt is made, at the pace at which
// others are asked about. It is no licence to hurry.
type Repeater interface {
	// Repeatable may be false for what the settings say; then it is as if there were
	// no such method.
	Repeatable() bool
}

// A Canceller takes back orders that are not issued yet.
type Canceller interface {
	Cancel(ctx context.Context, r *Request, h Handle, note string) error
}

// A Revoker revokes certificates that the authority has issued.
type Revoker interface {
	// Revoke revokes one certificate. done is false if the authority has taken the
	// request and decides later. One that is revoked already is a success.
	Revoke(ctx context.Context, c *Revocation) (done bool, err error)
}

// A Validator knows how far the proof of control of an order's names is.
type Validator interface {
	Validations(ctx context.Context, r *Request, h Handle) ([]Validation, error)
}

// A Reissuer has the authority issue another certificate, with another key or other
// names, under an order that exists and is paid for.
type Reissuer interface {
	// Reissue is Place in every other respect. of is the order that is replaced.
	Reissue(ctx context.Context, r *Request, of Handle) (*Status, error)
}

// A Completer knows the issuing certificates of the authority, for the many that
// hand out a leaf alone.
type Completer interface {
	Issuers(ctx context.Context, r *Request) ([]*x509.Certificate, error)
}

// A Changer tells of the orders that have changed lately, in one request for all.
type Changer interface {
	// Changes are the orders of the account that have changed since a moment. The
	// Handle of each has Order; other fields may be missing.
	Changes(ctx context.Context, since time.Time) ([]Status, error)
}

// Request is what is asked of an authority. It is the same at every call for an
// order, from before it is placed until it is delivered.
type Request struct {
	// Reference is our own name of the order: 32 lower-case hex digits, unlike any
	// other one. It goes into whatever field the authority keeps for it.
	Reference string
	CSR       *pki.CSR
	// CSRDER is the DER encoding of CSR.
	CSRDER []byte
	Names  pki.Names
	// CommonName is the name for the subject of the certificate: the first DNS name
	// that fits (64 octets, RFC 5280 appendix A.1), "" if there is none.
	CommonName string
	// Validity is how long the certificate shall be valid; 0 leaves it to the
	// issuer's settings.
	Validity time.Duration
	// CommittedAt is when the order was committed, before it was placed; searches
	// begin at it, less what clocks may differ.
	CommittedAt time.Time
	// Renews is the order that this one renews, if the same authority issued it.
	Renews *Handle
}

// Handle is how an authority names an order. It is stored as it is. Fields that it
// does not use are "".
type Handle struct {
	Order       string `cbor:"1,keyasint,omitempty" json:"order,omitempty"`
	Certificate string `cbor:"2,keyasint,omitempty" json:"certificate,omitempty"`
	// Request is a request for approval within the order.
	Request string `cbor:"3,keyasint,omitempty" json:"request,omitempty"`
}

// IsZero reports whether nothing is known.
func (h Handle) IsZero() bool { return h == Handle{} }

// With is h, with what other knows beyond it or instead of it.
func (h Handle) With(other Handle) Handle {
	if other.Order != "" {
		h.Order = other.Order
	}
	if other.Certificate != "" {
		h.Certificate = other.Certificate
	}
	if other.Request != "" {
		h.Request = other.Request
	}
	return h
}

// State is where an order stands at its authority.
type State string

// States of an order. Whatever an authority says that no connector knows is
// Unrecognised: the order is asked about again, slowly, and a person is told. It is
// never taken for a failure, which would lose it, and never ordered again.
const (
	Pending      State = "pending"      // the authority works on it
	NeedsPerson  State = "needs_person" // somebody has to approve, prove, pay or pick up
	Issued       State = "issued"       // the certificate can be fetched
	Ended        State = "ended"        // it was issued, and has expired or was replaced since
	Rejected     State = "rejected"
	Cancelled    State = "cancelled"
	Revoked      State = "revoked"
	Unrecognised State = "unrecognised"
)

// Final reports whether an authority does no more about such an order.
func (s State) Final() bool {
	switch s {
	case Ended, Rejected, Cancelled, Revoked:
		return true
	}
	return false
}

// Status is how an order stands.
type Status struct {
	State State
	// Raw is the state in the authority's own word, at most 64 bytes.
	Raw    string
	Handle Handle
	// Reference is the reference that the authority keeps with the order, "" if it
	// keeps none.
	Reference string
	// Detail is for operators: what the authority says, at most 512 bytes.
	Detail string
	// Mend is what a person has to do. It is there for NeedsPerson.
	Mend string
	// Bundle is the certificate, where the answer has it already.
	Bundle *Bundle
	// PlacedAt is when the authority took the order; zero if it does not say.
	PlacedAt time.Time
}

// Bundle is what an authority hands out: certificates in any order, with or without
// its root, its intermediates, or others.
type Bundle struct {
	Certificates []*x509.Certificate
}

// Validation is how far the proof of control of one name is.
type Validation struct {
	Name    string    `json:"name"`
	Method  string    `json:"method,omitempty"`  // in the authority's word
	State   string    `json:"state"`             // in the authority's word
	Done    bool      `json:"done"`              // nothing is left to prove
	Todo    string    `json:"todo,omitempty"`    // what to publish or to do, and where
	Checked time.Time `json:"checked,omitzero"`  // when the authority looked last
	Next    time.Time `json:"next,omitzero"`     // when it will look again
	Expires time.Time `json:"expires,omitzero"`  // until when the proof holds
	Problem string    `json:"problem,omitempty"` // why it is not done
}

// Revocation is one certificate to revoke.
type Revocation struct {
	Request *Request
	Handle  Handle
	// Serial is the serial number of the certificate, lower-case hex without
	// leading zeros.
	Serial string
	// Reason is a CRLReason (RFC 5280 section 5.3.1).
	Reason  int
	Comment string
}

// Account is what Test found.
type Account struct {
	// Name is how the authority calls the account or its user.
	Name string `json:"name,omitempty"`
	// Facts are lines for the operator, such as the product and what is left of a
	// quota, in the order in which they are shown.
	Facts []Fact `json:"facts,omitempty"`
	// Warnings are what will keep orders from being issued quickly, or at all.
	Warnings []string `json:"warnings,omitempty"`
}

// Fact is one line about an account.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}
