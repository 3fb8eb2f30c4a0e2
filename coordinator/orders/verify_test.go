package orders

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/pki"
)

// chainOf is a root, an intermediate and what they sign.
type chainOf struct {
	t                  *testing.T
	root, intermediate *x509.Certificate
	by                 crypto.Signer
	serial             int64
}

func (c *chainOf) make(template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	c.t.Helper()
	c.serial++
	template.SerialNumber, template.BasicConstraintsValid = big.NewInt(c.serial), true
	if template.NotBefore.IsZero() {
		template.NotBefore = noon.Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = noon.AddDate(1, 0, 0)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	require.NoError(c.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(c.t, err)
	return cert
}

func newChain(t *testing.T) *chainOf {
	t.Helper()
	c := &chainOf{t: t}
	ca := func(name string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}
	}
	rootKey, err := pki.GenerateKey("ecdsa-p256")
	require.NoError(t, err)
	c.root = c.make(ca("Root"), ca("Root"), rootKey.Public(), rootKey)
	c.by, err = pki.GenerateKey("ecdsa-p256")
	require.NoError(t, err)
	c.intermediate = c.make(ca("Issuing"), c.root, c.by.Public(), rootKey)
	return c
}

func (c *chainOf) leaf(public crypto.PublicKey, change func(*x509.Certificate), names ...string) *x509.Certificate {
	template := &x509.Certificate{DNSNames: names}
	if change != nil {
		change(template)
	}
	return c.make(template, c.intermediate, public, c.by)
}

func testRequest(t *testing.T) (*connector.Request, crypto.PublicKey) {
	t.Helper()
	key, err := pki.GenerateKey("ecdsa-p256")
	require.NoError(t, err)
	names := pki.MustParseNames("www.example.com", "api.example.com")
	der, err := pki.CreateCSR(key, names)
	require.NoError(t, err)
	csr, err := pki.ParseCSR(der)
	require.NoError(t, err)
	return &connector.Request{CSR: csr, CSRDER: der, Names: names}, key.Public()
}

// mute is a connector that is asked for nothing, or for its issuers.
type mute struct{ connector.Connector }

type completer struct {
	mute
	issuers []*x509.Certificate
	err     error
}

func (c completer) Issuers(context.Context, *connector.Request) ([]*x509.Certificate, error) {
	return c.issuers, c.err
}

func testAccount(issuer Issuer) *account {
	if issuer.Connector == nil {
		issuer.Connector = mute{}
	}
	return newAccount("slow", issuer, &Config{NodeID: "n1", CallTimeout: time.Minute, Random: middle})
}

// What is handed out is the order's certificate, in whatever order and company, or it
// is not stored.
func TestOnlyTheRightCertificateIsTaken(t *testing.T) {
	c, r := newChain(t), (*connector.Request)(nil)
	r, key := testRequest(t)
	_, other := testRequest(t)
	names := r.Names.DNS
	right := c.leaf(key, nil, names...)
	stranger := newChain(t)
	for name, row := range map[string]struct {
		bundle []*x509.Certificate
		err    error
	}{
		"whole":                       {[]*x509.Certificate{right, c.intermediate, c.root}, nil},
		"without the root":            {[]*x509.Certificate{right, c.intermediate}, nil},
		"turned round":                {[]*x509.Certificate{c.root, c.intermediate, right}, nil},
		"with certificates of others": {[]*x509.Certificate{c.leaf(other, nil, names...), stranger.root, c.root, stranger.intermediate, right, c.intermediate}, nil},
		"with more names":             {[]*x509.Certificate{c.leaf(key, nil, append([]string{"more.example.com"}, names...)...), c.intermediate}, nil},
		"an earlier one beside it":    {[]*x509.Certificate{c.leaf(key, func(t *x509.Certificate) { t.NotBefore = noon.AddDate(0, -1, 0) }, "www.example.com"), right, c.intermediate}, nil},
		"another key":                 {[]*x509.Certificate{c.leaf(other, nil, names...), c.intermediate}, pki.ErrKeyMismatch},
		"a name is missing":           {[]*x509.Certificate{c.leaf(key, nil, "www.example.com"), c.intermediate}, &pki.MissingNamesError{}},
		"expired":                     {[]*x509.Certificate{c.leaf(key, func(t *x509.Certificate) { t.NotAfter = noon.Add(-time.Minute) }, names...), c.intermediate}, pki.ErrExpired},
		"of a CA":                     {[]*x509.Certificate{c.leaf(key, func(t *x509.Certificate) { t.IsCA = true }, names...), c.intermediate}, pki.ErrNotLeaf},
		"no certificate":              {nil, pki.ErrKeyMismatch},
		"another's issuer":            {[]*x509.Certificate{right, stranger.intermediate, stranger.root}, &incompleteError{}},
	} {
		t.Run(name, func(t *testing.T) {
			cert, err := testAccount(Issuer{}).check(t.Context(), r, &connector.Bundle{Certificates: row.bundle}, noon, true)
			switch wanted := row.err.(type) { //nolint:errorlint // what is wanted is of the table
			case nil:
				require.NoError(t, err)
				chain, err := pki.ParseChainPEM([]byte(cert.chainPEM))
				require.NoError(t, err)
				require.Len(t, chain, 2)
				assert.True(t, chain[1].Equal(c.intermediate))
				assert.Equal(t, pki.SerialHex(chain[0]), cert.serial)
				assert.Equal(t, pki.Fingerprint(chain[0]), cert.fingerprint)
				assert.Equal(t, chain[0].NotAfter, cert.notAfter)
			case *pki.MissingNamesError:
				_, ok := errors.AsType[*pki.MissingNamesError](err)
				assert.True(t, ok, "%v", err)
			case *incompleteError:
				_, ok := errors.AsType[*incompleteError](err)
				assert.True(t, ok, "%v", err)
			default:
				assert.ErrorIs(t, err, wanted)
			}
		})
	}
}

// The issuers of a leaf that comes alone are looked for where they may be, in turn.
func TestMissingIssuersAreLookedFor(t *testing.T) {
	c := newChain(t)
	r, key := testRequest(t)
	var answer []byte
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write(answer)
	}))
	defer server.Close()
	at := func(place string) *connector.Bundle {
		return &connector.Bundle{Certificates: []*x509.Certificate{c.leaf(key, func(t *x509.Certificate) { t.IssuingCertificateURL = []string{place} }, r.Names.DNS...)}}
	}
	alone := at(server.URL)
	check := func(issuer Issuer, bundle *connector.Bundle) error {
		_, err := testAccount(issuer).check(t.Context(), r, bundle, noon, true)
		return err
	}
	answer = c.intermediate.Raw
	require.NoError(t, check(Issuer{Chain: []*x509.Certificate{c.intermediate}}, alone))
	require.NoError(t, check(Issuer{Connector: completer{issuers: []*x509.Certificate{c.root, c.intermediate}}}, alone))
	require.NoError(t, check(Issuer{FetchIssuers: true}, alone))
	var incomplete *incompleteError
	require.ErrorAs(t, check(Issuer{}, alone), &incomplete)

	// An authority that cannot be asked at this moment is asked again.
	busy := completer{err: &connector.Error{Class: connector.ClassBusy}}
	failure, ok := errors.AsType[*connector.Error](check(Issuer{Connector: busy}, alone))
	require.True(t, ok)
	assert.Equal(t, connector.ClassBusy, failure.Class)
	// What is there already needs none of it.
	require.NoError(t, check(Issuer{Connector: busy}, &connector.Bundle{Certificates: append([]*x509.Certificate{c.intermediate}, alone.Certificates...)}))

	for name, spoil := range map[string]func(){
		"another certificate": func() { answer = newChain(t).intermediate.Raw },
		"nothing":             func() { answer = nil },
		"no certificate":      func() { answer = []byte("<html>") },
		"too much":            func() { answer = []byte(strings.Repeat(" ", maxIssuer+1)) },
		"not there":           func() { answer, status = c.intermediate.Raw, http.StatusNotFound },
		"elsewhere":           func() { answer, status = c.intermediate.Raw, http.StatusFound },
	} {
		status = http.StatusOK
		spoil()
		assert.Error(t, check(Issuer{FetchIssuers: true}, alone), name)
	}
	answer, status = c.intermediate.Raw, http.StatusOK
	for _, place := range []string{"https://" + server.Listener.Addr().String(), "ldap:///x", "http://user@" + server.Listener.Addr().String(), "file:///etc/passwd", "http://"} {
		assert.Error(t, check(Issuer{FetchIssuers: true}, at(place)), place)
	}
}
