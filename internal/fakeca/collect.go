package fakeca

import (
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/smallstep/pkcs7"
)

// Behaviour is what an authority does beside the way it says. The zero one does
// nothing of it. Counts are of the collections of one certificate; a negative count
// is every one of them.
type Behaviour struct {
	// NotReady has an issued order's certificate not be there yet.
	NotReady int
	// WrongKey hands out a certificate with the right names for another key.
	WrongKey int
	// Reversed turns the order of the chain round.
	Reversed bool
	// LeafAlone leaves out every issuer.
	LeafAlone bool
	// NoIntermediate leaves out the intermediate, and keeps the root.
	NoIntermediate bool
	// Stranger puts another certificate for the same names before the right one.
	Stranger bool
	// Word is the state that the authority tells, whatever it is; "" is the true
	// one.
	Word string
}

// Behave has every order, but those that have ways of their own, be treated so.
func (c *Core) Behave(b Behaviour) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.behaviour = b
}

// BehaveFor has one order be treated so; nil, as all others.
func (c *Core) BehaveFor(id string, b *Behaviour) error {
	return c.change(id, func(o *Order) error { o.ownWays = b; return nil })
}

func (c *Core) behaviourOf(o *Order) Behaviour {
	if o.ownWays != nil {
		return *o.ownWays
	}
	return c.behaviour
}

// Word is what to tell of an order's state, "" for the truth.
func (c *Core) Word(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.byID[id]; o != nil {
		return c.behaviourOf(o).Word
	}
	return ""
}

// Collect is what the authority hands out for an order at this moment: the
// certificate with that number, 0 for the newest, its issuer and the root, unless
// the order's Behaviour says otherwise. ready is false if there is nothing yet.
func (c *Core) Collect(id string, number int64) (chain []*x509.Certificate, ready bool, err error) {
	err = c.change(id, func(o *Order) error {
		at := len(o.Certificates) - 1
		if number != 0 {
			at = slices.IndexFunc(o.Certificates, func(cert Certificate) bool { return cert.Number == number })
		}
		if at < 0 {
			return nil
		}
		ways := c.behaviourOf(o)
		o.collects++
		if ways.NotReady < 0 || o.collects <= ways.NotReady {
			return nil
		}
		ready = true
		wrong := ways.WrongKey < 0 || o.collects-max(ways.NotReady, 0) <= ways.WrongKey
		chain, err = c.chain(o, o.Certificates[at].Leaf, ways, wrong)
		return err
	})
	return chain, ready, err
}

// chain applies an order's behaviour. The lock is held.
func (c *Core) chain(o *Order, leaf *x509.Certificate, ways Behaviour, wrong bool) ([]*x509.Certificate, error) {
	stranger := func() (*x509.Certificate, error) {
		key, err := strangeKey()
		if err != nil {
			return nil, err
		}
		return c.authority.issue(key, c.serial(), o, c.Now(), c.config.Validity)
	}
	var err error
	if wrong {
		if leaf, err = stranger(); err != nil {
			return nil, err
		}
	}
	chain := c.authority.chain(leaf)
	switch {
	case ways.LeafAlone:
		chain = chain[:1]
	case ways.NoIntermediate && len(chain) > 2:
		chain = slices.Delete(chain, 1, 2)
	}
	if ways.Stranger {
		other, err := stranger()
		if err != nil {
			return nil, err
		}
		chain = slices.Insert(chain, 0, other)
	}
	if ways.Reversed {
		slices.Reverse(chain)
	}
	return chain, nil
}

// PEM is certificates as PEM, as they stand.
func PEM(certs []*x509.Certificate) []byte {
	var out []byte
	for _, cert := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out
}

// PKCS7 is certificates as a message of PKCS#7 that has nothing else.
func PKCS7(certs []*x509.Certificate) []byte {
	var ders []byte
	for _, cert := range certs {
		ders = append(ders, cert.Raw...)
	}
	message, err := pkcs7.DegenerateCertificate(ders)
	if err != nil {
		panic(err) // certificates always can be put together
	}
	return message
}

// ChainOf is a certificate of this authority, its issuer and the root.
func (c *Core) ChainOf(leaf *x509.Certificate) []*x509.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.authority.chain(leaf)
}

// WithoutRoot leaves out the root.
func (c *Core) WithoutRoot(certs []*x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(certs), func(cert *x509.Certificate) bool { return cert.Equal(c.authority.root) })
}

func normalSerial(text string) string {
	return strings.TrimLeft(strings.ToLower(strings.ReplaceAll(text, ":", "")), "0")
}
