package renewal

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
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/shared/pki"
)

// ledger is what the authority remembers: it survives every crash of the agent.
type ledger struct {
	Orders map[string]ledgerOrder // by the authority's own order number
	Serial int64
}

type ledgerOrder struct {
	ClientID string
	Key      string // fingerprint of the public key; known once finalized
	Cert     []byte // DER; nil before it is finalized
}

// authority is a CA that works like ACME: an order, a finalize that issues, a
// download. It fails the test when one client order gets two certificates or
// changes its key.
type authority struct {
	t       *testing.T
	name    string
	root    *x509.Certificate
	rootKey crypto.Signer
	now     func() time.Time
	point   func(string)

	life     time.Duration
	backdate time.Duration
	reuse    bool // whether two orders may have the same key

	mu     sync.Mutex // guards what follows
	ledger ledger
	calls  int
	intf   func(ctx context.Context, order *issuer.Order) error // called first
	spoil  func(template *x509.Certificate, key *crypto.PublicKey)
}

func newAuthority(t *testing.T, now func() time.Time) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Root"},
		NotBefore: now().Add(-10 * 365 * 24 * time.Hour), NotAfter: now().Add(30 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	root, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{
		t: t, name: "ca", root: root, rootKey: key, now: now, point: func(string) {},
		life: 90 * 24 * time.Hour, backdate: time.Hour,
		ledger: ledger{Orders: map[string]ledgerOrder{}, Serial: 1},
	}
}

func (a *authority) clone(now func() time.Time) *authority {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &authority{
		t: a.t, name: a.name, root: a.root, rootKey: a.rootKey, now: now, point: func(string) {},
		life: a.life, backdate: a.backdate, reuse: a.reuse,
		ledger: ledger{Orders: maps.Clone(a.ledger.Orders), Serial: a.ledger.Serial},
	}
}

func (a *authority) Kind() string { return "test" }

func (a *authority) Issue(ctx context.Context, order *issuer.Order) (*issuer.Issued, error) {
	a.mu.Lock()
	a.calls++
	interfere := a.intf
	a.mu.Unlock()
	if interfere != nil {
		if err := interfere(ctx, order); err != nil {
			return nil, err
		}
	}
	var state struct{ Number string }
	if order.State != nil {
		if err := json.Unmarshal(order.State, &state); err != nil {
			return nil, err
		}
	} else {
		a.point("authority: before new order")
		state.Number = a.newOrder(order.ID)
		a.point("authority: new order's answer lost")
		text, err := json.Marshal(state)
		if err != nil {
			return nil, err
		}
		if err := order.Save(text); err != nil {
			return nil, fmt.Errorf("save: %w", err)
		}
	}
	a.point("authority: before finalize")
	leaf, err := a.finalize(state.Number, order)
	if err != nil {
		return nil, err
	}
	a.point("authority: finalize's answer lost")
	return &issuer.Issued{Chain: []*x509.Certificate{leaf, a.root}}, nil
}

func (a *authority) newOrder(clientID string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	number := fmt.Sprint(len(a.ledger.Orders) + 1)
	a.ledger.Orders[number] = ledgerOrder{ClientID: clientID}
	return number
}

func (a *authority) finalize(number string, order *issuer.Order) (*x509.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	entry, ok := a.ledger.Orders[number]
	if !ok || entry.ClientID != order.ID {
		a.t.Errorf("order %s continues the order %s of client %q", order.ID, number, entry.ClientID)
		return nil, errors.New("no such order")
	}
	fingerprint, err := pki.PublicKeyFingerprint(order.Key.Public())
	if err != nil {
		return nil, err
	}
	if entry.Cert != nil {
		if entry.Key != fingerprint {
			a.t.Errorf("order %s was continued with another key", order.ID)
		}
		return x509.ParseCertificate(entry.Cert)
	}
	for _, other := range a.ledger.Orders {
		if other.ClientID == order.ID && other.Cert != nil {
			a.t.Errorf("order %s got a second certificate", order.ID)
		}
		if other.Key == fingerprint && !a.reuse {
			a.t.Errorf("order %s reuses a key", order.ID)
		}
	}
	a.ledger.Serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.ledger.Serial), DNSNames: order.Names.DNS,
		NotBefore: a.now().Add(-a.backdate), NotAfter: a.now().Add(a.life),
	}
	public := order.Key.Public()
	if a.spoil != nil {
		a.spoil(template, &public)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, public, a.rootKey)
	if err != nil {
		return nil, err
	}
	entry.Cert, entry.Key = der, fingerprint
	a.ledger.Orders[number] = entry
	return x509.ParseCertificate(der)
}

// issuedCount is the number of certificates that were issued, orders the number
// of client orders that the authority has heard of.
func (a *authority) issuedCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, o := range a.ledger.Orders {
		if o.Cert != nil {
			n++
		}
	}
	return n
}

// heard is how often it was asked for anything.
func (a *authority) heard() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls
}

func (a *authority) orders() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	ids := map[string]bool{}
	for _, o := range a.ledger.Orders {
		ids[o.ClientID] = true
	}
	return len(slices.Collect(maps.Keys(ids)))
}

func (a *authority) interfere(fn func(ctx context.Context, order *issuer.Order) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.intf = fn
}

// informed is an authority with renewal information.
type informed struct {
	*authority
	info func(leaf *x509.Certificate) (*issuer.RenewalInfo, error)
}

func (i informed) RenewalInfo(_ context.Context, leaf *x509.Certificate) (*issuer.RenewalInfo, error) {
	return i.info(leaf)
}
