//go:build unix

package crashtest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"sync"
	"time"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
)

// lifetime is that of the certificates that the authorities issue.
const lifetime = 90 * 24 * time.Hour

// ledger is what an authority remembers. It survives every crash of the agent.
type ledger struct {
	accounts map[string]bool   // by fingerprint of the account's key
	orders   map[string]placed // by the authority's own number
}

// placed is an order at the authority.
type placed struct {
	client string // the engine's id of it
	key    string // fingerprint; known once a certificate was asked for
	cert   []byte // DER; nil until then
}

// authority is a CA that works like ACME: an account, an order, a finalization
// that issues, and a certificate that can be fetched again.
type authority struct {
	name string

	mu sync.Mutex // guards what follows
	ledger
	refuses bool // every order
	// stalls until then: it takes the order, is asked to issue, and is at it.
	stalls time.Time
}

func newAuthority(name string) *authority {
	return &authority{name: name, ledger: ledger{accounts: map[string]bool{}, orders: map[string]placed{}}}
}

func (a *authority) clone() *authority {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &authority{
		name: a.name, refuses: a.refuses, stalls: a.stalls,
		ledger: ledger{accounts: maps.Clone(a.accounts), orders: maps.Clone(a.orders)},
	}
}

// issuedTo lists, for each order of the engine, how many certificates there are.
func (a *authority) issuedTo() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	count := map[string]int{}
	for _, o := range a.orders {
		if o.cert != nil {
			count[o.client]++
		}
	}
	return count
}

// fingerprints are those of all certificates that were issued.
func (a *authority) fingerprints() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := map[string]bool{}
	for _, o := range a.orders {
		if o.cert == nil {
			continue
		}
		cert, err := x509.ParseCertificate(o.cert)
		if err != nil {
			panic(err) // it made it
		}
		all[pki.Fingerprint(cert)] = true
	}
	return all
}

var testRoot = sync.OnceValue(func() (root struct {
	cert *x509.Certificate
	key  crypto.Signer
}) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: epoch.AddDate(-10, 0, 0), NotAfter: epoch.AddDate(40, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err == nil {
		root.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		panic(err)
	}
	root.key = key
	return root
})

func (a *authority) register(key crypto.PublicKey) error {
	fingerprint, err := pki.PublicKeyFingerprint(key)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.accounts[fingerprint] = true
	return nil
}

func (a *authority) newOrder(client string) (number string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	number = fmt.Sprint(len(a.orders) + 1)
	a.orders[number] = placed{client: client}
	return number
}

// finalize issues, or gives the certificate that it issued before.
func (a *authority) finalize(number string, order *issuer.Order) (*x509.Certificate, error) {
	fingerprint, err := pki.PublicKeyFingerprint(order.Key.Public())
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	entry, known := a.orders[number]
	if !known || entry.client != order.ID || entry.key != "" && entry.key != fingerprint {
		return nil, &issuer.Error{Class: issuer.ClassRefused, Err: fmt.Errorf("order %s continues order %s of %q with key %s", order.ID, number, entry.client, fingerprint)}
	}
	entry.key = fingerprint
	defer func() { a.orders[number] = entry }()
	if time.Now().Before(a.stalls) {
		return nil, &issuer.Error{Class: issuer.ClassPending, Committed: true, RetryAfter: 12 * time.Hour, Err: errors.New("still at it")}
	}
	if entry.cert != nil {
		return x509.ParseCertificate(entry.cert)
	}
	serial := make([]byte, 16)
	rand.Read(serial)
	serial[0] &= 0x7f
	root := testRoot()
	entry.cert, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), DNSNames: order.Names.DNS,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
	}, root.cert, order.Key.Public(), root.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(entry.cert)
}

// client is the agent's side of an authority: like the ACME issuer it keeps an
// account, whose key is in a directory of its own, in the store.
type client struct {
	ca       *authority
	store    *store.Store
	accounts *keys.Dir
}

func (c *client) Kind() string { return "test" }

type account struct {
	KeyID      string `json:"key_id"`
	Registered bool   `json:"registered"`
}

// Issue implements issuer.Issuer.
func (c *client) Issue(_ context.Context, order *issuer.Order) (*issuer.Issued, error) {
	if err := c.logIn(); err != nil {
		return nil, err
	}
	c.ca.mu.Lock()
	refuses := c.ca.refuses
	c.ca.mu.Unlock()
	if refuses {
		return nil, &issuer.Error{Class: issuer.ClassRefused, Err: errors.New("not for you")}
	}
	var state struct{ Number string }
	if order.State != nil {
		if err := json.Unmarshal(order.State, &state); err != nil {
			return nil, err
		}
	} else {
		state.Number = c.ca.newOrder(order.ID)
		text, err := json.Marshal(state)
		if err != nil {
			return nil, err
		}
		if err := order.Save(text); err != nil {
			return nil, fmt.Errorf("save: %w", err)
		}
	}
	leaf, err := c.ca.finalize(state.Number, order)
	if err != nil {
		return nil, err
	}
	return &issuer.Issued{Chain: []*x509.Certificate{leaf, testRoot().cert}}, nil
}

// logIn makes the account, its key first.
func (c *client) logIn() error {
	stored, err := c.store.IssuerState(c.ca.name)
	if err != nil {
		return err
	}
	var mine account
	if stored != nil {
		if err := json.Unmarshal(stored, &mine); err != nil {
			return err
		}
	}
	if mine.Registered {
		return nil
	}
	var key crypto.Signer
	if mine.KeyID == "" {
		if mine.KeyID, key, err = c.accounts.Create(pki.ECDSAP256); err != nil {
			return err
		}
		if err := c.save(mine); err != nil {
			return err
		}
	} else if key, err = c.accounts.Load(mine.KeyID); err != nil {
		return err
	}
	if err := c.ca.register(key.Public()); err != nil {
		return err
	}
	mine.Registered = true
	return c.save(mine)
}

func (c *client) save(a account) error {
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return c.store.SaveIssuerState(c.ca.name, text)
}

// heard is how many orders the authority has heard of, and how many certificates
// it has issued.
func (a *authority) heard() (orders, certificates int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := map[string]bool{}
	for _, o := range a.orders {
		seen[o.client] = true
		if o.cert != nil {
			certificates++
		}
	}
	return len(seen), certificates
}
