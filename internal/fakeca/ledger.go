package fakeca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"time"
)

// firstNumber is the number of the first order, so that an identity is not taken
// for a count.
const firstNumber = 70_000_001

// State of an order.
type State string

// States of an order. Vendors have words of their own for them, and more.
const (
	Waiting   State = "waiting" // for a person
	Working   State = "working"
	Issued    State = "issued"
	Rejected  State = "rejected"
	Cancelled State = "cancelled"
	Revoked   State = "revoked"
)

// Order is an entry of the ledger: somebody pays for it.
type Order struct {
	ID        string
	Number    int64
	Reference string
	// PublicKey is the SHA-256 of the SubjectPublicKeyInfo, in hex.
	PublicKey  string
	CSR        []byte // DER, nil if the order had a key alone
	CommonName string
	Names      []string // DNS names and IP addresses
	PlacedAt   time.Time
	ApprovedAt time.Time // zero if nobody did
	State      State
	// Reissuing says that an issued order waits for another certificate.
	Reissuing    bool
	Note         string // why it was rejected or cancelled
	ChangedAt    time.Time
	Certificates []Certificate
	// Extra is what the dialect keeps.
	Extra map[string]string

	key      crypto.PublicKey
	serial   *big.Int // of the next certificate, nil to draw one
	validity time.Duration
	issueAt  time.Time
	collects int // that were ready, since the last certificate
	ownWays  *Behaviour
}

// Certificate is one that was issued for an order.
type Certificate struct {
	Number    int64
	Leaf      *x509.Certificate
	IssuedAt  time.Time
	RevokedAt time.Time // zero if it is not
	Reason    int       // of the revocation, RFC 5280 section 5.3.1
}

// NextNumber is the number that the next certificate of the order will have: some
// vendors tell it before there is a certificate.
func (o Order) NextNumber() int64 { return o.Number*10 + int64(len(o.Certificates)) + 1 }

// Newest is the certificate that was issued last, nil if there is none.
func (o Order) Newest() *Certificate {
	if len(o.Certificates) == 0 {
		return nil
	}
	return &o.Certificates[len(o.Certificates)-1]
}

// Placement is what an order is made of.
type Placement struct {
	// ID is how the dialect names the order; "" has it named by its number.
	ID        string
	Reference string
	// CSR or PublicKey is required.
	CSR        *x509.CertificateRequest
	PublicKey  crypto.PublicKey
	CommonName string
	Names      []string
	Validity   time.Duration
	// Serial is the serial number of the certificate, of a vendor that tells it before
	// there is one: see NewSerial. nil has one drawn.
	Serial *big.Int
	// Person has it wait for one, whatever the Config says.
	Person bool
	Extra  map[string]string
}

// Accept enters an order into the ledger. Nothing is looked for: whoever orders
// twice has ordered twice.
func (c *Core) Accept(p Placement) (Order, error) {
	key, der := p.PublicKey, []byte(nil)
	if p.CSR != nil {
		key, der = p.CSR.PublicKey, p.CSR.Raw
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return Order{}, fmt.Errorf("the key of the order: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := sha256.Sum256(spki)
	o := &Order{
		ID: p.ID, Number: firstNumber + int64(len(c.orders)), Reference: p.Reference, PublicKey: hex.EncodeToString(sum[:]), CSR: der,
		CommonName: p.CommonName, Names: slices.Clone(p.Names), PlacedAt: c.Now(), ChangedAt: c.Now(), State: Waiting, Extra: maps.Clone(p.Extra), key: key, serial: p.Serial, validity: p.Validity,
	}
	if o.Extra == nil {
		o.Extra = map[string]string{}
	}
	if o.ID == "" {
		o.ID = strconv.FormatInt(o.Number, 10)
	}
	if c.byID[o.ID] != nil {
		return Order{}, fmt.Errorf("there is an order %s already", o.ID)
	}
	c.orders, c.byID[o.ID] = append(c.orders, o), o
	if !c.config.Approval && !p.Person {
		c.start(o)
	}
	return c.copyOf(o)
}

// start has the authority work on o. The lock is held.
func (c *Core) start(o *Order) {
	delay := c.config.Delay
	if c.config.Spread > 0 {
		delay += time.Duration(c.random.Int64N(int64(c.config.Spread)))
	}
	o.State, o.ChangedAt, o.issueAt = Working, c.Now(), c.Now().Add(delay)
}

// settle issues what is due. The lock is held.
func (c *Core) settle(o *Order) error {
	now := c.Now()
	if o.State != Working && !o.Reissuing || now.Before(o.issueAt) {
		return nil
	}
	lasts := o.validity
	if lasts == 0 {
		lasts = c.config.Validity
	}
	serial := o.serial
	if serial == nil {
		serial = c.serial()
	}
	leaf, err := c.authority.issue(o.key, serial, o, now, lasts)
	if err != nil {
		return err
	}
	o.serial = nil
	o.State, o.Reissuing, o.collects, o.ChangedAt = Issued, false, 0, o.issueAt
	o.Certificates = append(o.Certificates, Certificate{Number: o.NextNumber(), Leaf: leaf, IssuedAt: o.issueAt})
	c.bySerial[normalSerial(leaf.SerialNumber.Text(16))] = o
	return nil
}

// copyOf is o as it stands now. The lock is held.
func (c *Core) copyOf(o *Order) (Order, error) {
	if err := c.settle(o); err != nil {
		return Order{}, err
	}
	out := *o
	out.Names, out.Certificates, out.Extra = slices.Clone(o.Names), slices.Clone(o.Certificates), maps.Clone(o.Extra)
	return out, nil
}

// Order is how an order stands.
func (c *Core) Order(id string) (Order, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.byID[id]
	if o == nil {
		return Order{}, ErrUnknown
	}
	return c.copyOf(o)
}

// Ledger is every order that keep is true for, in the order in which they were
// accepted; a nil keep is true for all. keep must not keep what it is shown.
func (c *Core) Ledger(keep func(*Order) bool) []Order {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Order
	for _, o := range c.orders {
		if keep != nil && !keep(o) {
			continue
		}
		// An order that cannot be issued stays as it is.
		if entry, err := c.copyOf(o); err == nil {
			list = append(list, entry)
		}
	}
	return list
}

// Listed is Ledger without the orders that are too new to be found.
func (c *Core) Listed(keep func(*Order) bool) []Order {
	since := c.Now().Add(-c.config.Hidden)
	return slices.DeleteFunc(c.Ledger(keep), func(o Order) bool { return c.config.Hidden > 0 && o.PlacedAt.After(since) })
}

// Duplicates are the orders for a key that an earlier order is for.
func (c *Core) Duplicates() []Order {
	seen := map[string]bool{}
	return slices.DeleteFunc(c.Ledger(nil), func(o Order) bool {
		again := seen[o.PublicKey]
		seen[o.PublicKey] = true
		return !again
	})
}

// change runs fn on an order, as it stands now.
func (c *Core) change(id string, fn func(o *Order) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.byID[id]
	if o == nil {
		return ErrUnknown
	}
	if err := c.settle(o); err != nil {
		return err
	}
	return fn(o)
}

// Set keeps a value of the dialect with an order.
func (c *Core) Set(id, key, value string) error {
	return c.change(id, func(o *Order) error { o.Extra[key] = value; return nil })
}

// Approve is a person's consent to an order that waits for it.
func (c *Core) Approve(id string) error {
	return c.change(id, func(o *Order) error {
		if o.State != Waiting {
			return fmt.Errorf("%w: it is %s", ErrState, o.State)
		}
		o.ApprovedAt = c.Now()
		c.start(o)
		return nil
	})
}

// ApproveAll consents to every order that waits, and tells how many there were.
func (c *Core) ApproveAll() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := 0
	for _, o := range c.orders {
		if o.State == Waiting {
			o.ApprovedAt = c.Now()
			c.start(o)
			count++
		}
	}
	return count
}

// Reject is a person's refusal of an order that is not issued.
func (c *Core) Reject(id, note string) error { return c.end(id, Rejected, note) }

// Cancel takes back an order that is not issued. An order that waits for another
// certificate goes back to the one that it has.
func (c *Core) Cancel(id, note string) error { return c.end(id, Cancelled, note) }

func (c *Core) end(id string, state State, note string) error {
	return c.change(id, func(o *Order) error {
		switch {
		case o.Reissuing:
			o.Reissuing = false
		case o.State == Waiting || o.State == Working:
			o.State = state
		default:
			return fmt.Errorf("%w: it is %s", ErrState, o.State)
		}
		o.Note, o.ChangedAt = note, c.Now()
		return nil
	})
}

// Reissue has another certificate issued under an order that has one. It takes as
// long as a new order.
func (c *Core) Reissue(id string, csr *x509.CertificateRequest, names []string) error {
	return c.change(id, func(o *Order) error {
		if o.State != Issued {
			return fmt.Errorf("%w: it is %s", ErrState, o.State)
		}
		c.start(o)
		o.State, o.Reissuing, o.key, o.CSR, o.Names = Issued, true, csr.PublicKey, csr.Raw, slices.Clone(names)
		return nil
	})
}

// Revoke revokes the certificate with that number. all says that the order has
// none left that is good.
func (c *Core) Revoke(id string, number int64, reason int) (all bool, err error) {
	err = c.change(id, func(o *Order) error {
		at := slices.IndexFunc(o.Certificates, func(cert Certificate) bool { return cert.Number == number })
		if at < 0 {
			return ErrUnknown
		}
		if o.Certificates[at].RevokedAt.IsZero() {
			o.Certificates[at].RevokedAt, o.Certificates[at].Reason, o.ChangedAt = c.Now(), reason, c.Now()
		}
		if all = !slices.ContainsFunc(o.Certificates, func(cert Certificate) bool { return cert.RevokedAt.IsZero() }); all {
			o.State = Revoked
		}
		return nil
	})
	return all, err
}

// ByCertificate finds the order of a certificate by its number or its serial number
// in hex, of either case and with or without leading zeros. If that number is one
// that its order will have, the order is returned with ErrUnknown.
func (c *Core) ByCertificate(name string) (Order, Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.bySerial[normalSerial(name)]
	number, err := strconv.ParseInt(name, 10, 64)
	if at := number/10 - firstNumber; o == nil && err == nil && at >= 0 && at < int64(len(c.orders)) {
		o = c.orders[at]
	}
	if o == nil {
		return Order{}, Certificate{}, ErrUnknown
	}
	entry, err := c.copyOf(o)
	if err != nil {
		return Order{}, Certificate{}, err
	}
	for _, cert := range entry.Certificates {
		if cert.Number == number || normalSerial(cert.Leaf.SerialNumber.Text(16)) == normalSerial(name) {
			return entry, cert, nil
		}
	}
	return entry, Certificate{}, ErrUnknown
}

// strangeKey is one that nobody has.
func strangeKey() (crypto.PublicKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return key.Public(), nil
}
