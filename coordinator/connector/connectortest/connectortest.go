// Package connectortest puts a connector, with the fake of its vendor, through what
// the engine of orders relies on: what an order is after an answer that never came,
// what class a failure is of, that a lost order is found and no other one, and that
// no error shows a secret.
package connectortest

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/shared/pki"
)

// Options are how a case wants its fake and its connector.
type Options struct {
	Fake fakeca.Config
	// Format of certificates, one of Suite.Formats; "" is the connector's default.
	Format string
	// Timeout of one call; 0 is the connector's default.
	Timeout time.Duration
	// Dial is the connector's, nil for its default.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Fixture is a connector and the fake that it speaks with.
type Fixture struct {
	Connector connector.Connector
	Fake      fakeca.Server
	// Secrets are the credentials, which nothing may show.
	Secrets []string
	// Spoil makes the fake refuse the credentials that the connector has.
	Spoil func()
}

// Suite is what is tested of one connector.
type Suite struct {
	// New starts a fake and a connector that speaks with it; both end with the test.
	New func(t *testing.T, o Options) Fixture
	// Formats in which certificates come, if there is a choice.
	Formats []string
	// NoPerson is set where orders never wait for a person.
	NoPerson bool
	// AtOnce is set where the answer to an order is its certificate.
	AtOnce bool
	// NoWords is set where the authority has no words for states that could be
	// unknown ones.
	NoWords bool
	// OneQuestion is set where the state of an order and its certificate come in the
	// same answer, which the fake takes for a question about the state.
	OneQuestion bool
}

// Serve serves a fake on loopback until the test ends.
func Serve(t testing.TB, fake fakeca.Server) (url string) {
	t.Helper()
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	return server.URL
}

// Request is for a new key and the names.
func Request(t testing.TB, names ...string) (*connector.Request, crypto.Signer) {
	t.Helper()
	key, err := pki.GenerateKey("ecdsa-p256")
	require.NoError(t, err)
	der, err := pki.CreateCSR(key, pki.MustParseNames(names...))
	require.NoError(t, err)
	csr, err := pki.ParseCSR(der)
	require.NoError(t, err)
	reference := make([]byte, 16)
	_, err = rand.Read(reference)
	require.NoError(t, err)
	r := &connector.Request{Reference: hex.EncodeToString(reference), CSR: csr, CSRDER: der, Names: csr.Names, CommittedAt: time.Now()}
	if len(csr.Names.DNS) > 0 {
		r.CommonName = csr.Names.DNS[0]
	}
	return r, key
}

// Check is what the engine accepts: the certificate of r's key and names, with its
// chain, out of what was collected and the authority's issuers.
func Check(t testing.TB, c connector.Connector, r *connector.Request, bundle *connector.Bundle) ([]*x509.Certificate, error) {
	t.Helper()
	require.NotNil(t, bundle)
	certs := slices.Clone(bundle.Certificates)
	if completer, ok := c.(connector.Completer); ok {
		more, err := completer.Issuers(t.Context(), r)
		require.NoError(t, err)
		certs = append(certs, more...)
	}
	// Others that were sent along with it are none of its chain.
	certs = slices.DeleteFunc(certs, func(cert *x509.Certificate) bool {
		return !cert.IsCA && !pki.SamePublicKey(cert.PublicKey, r.CSR.PublicKey)
	})
	if len(certs) == 0 {
		return nil, pki.ErrKeyMismatch
	}
	return pki.CheckIssued(certs, r.CSR.PublicKey, r.Names, time.Now())
}

// Run runs every case.
func (s Suite) Run(t *testing.T) {
	t.Run("Issued", s.issued)
	t.Run("Person", s.person)
	t.Run("Refused", s.refused)
	t.Run("EarlyDownload", s.earlyDownload)
	t.Run("AnswerLost", s.answerLost)
	t.Run("NotPlaced", s.notPlaced)
	t.Run("Search", s.search)
	t.Run("Repeat", s.repeat)
	t.Run("Classes", s.classes)
	t.Run("OddCertificates", s.oddCertificates)
	t.Run("UnknownWord", s.unknownWord)
	t.Run("Cancel", s.cancel)
	t.Run("Revoke", s.revoke)
	t.Run("Reissue", s.reissue)
	t.Run("Account", s.account)
	t.Run("Storm", s.storm)
}

// failure is err as an Error, in which no secret is.
func (f Fixture) failure(t testing.TB, err error) *connector.Error {
	t.Helper()
	e, ok := errors.AsType[*connector.Error](err)
	require.True(t, ok, "an error of another kind: %v", err)
	for _, text := range []string{err.Error(), e.Error(), e.Detail, e.Code, e.Mend, fmt.Sprintf("%+v", e.Err)} {
		for _, secret := range f.Secrets {
			assert.NotContains(t, text, secret, "a secret is shown")
		}
	}
	return e
}

// placed is an order that was placed and answered.
func (f Fixture) placed(t testing.TB, r *connector.Request) *connector.Status {
	t.Helper()
	status, err := f.Connector.Place(t.Context(), r)
	require.NoError(t, err)
	require.False(t, status.Handle.IsZero(), "an order without a handle")
	return status
}

// entry is the only order in the ledger.
func (f Fixture) entry(t testing.TB) fakeca.Order {
	t.Helper()
	ledger := f.Fake.Core().Ledger(nil)
	require.Len(t, ledger, 1)
	return ledger[0]
}

// collected is the certificate of an order that is issued, from its status to its
// chain.
func (f Fixture) collected(t testing.TB, r *connector.Request, h connector.Handle) *connector.Bundle {
	t.Helper()
	status, err := f.Connector.Status(t.Context(), r, h)
	require.NoError(t, err)
	require.Equal(t, connector.Issued, status.State, "the authority says %q", status.Raw)
	bundle := status.Bundle
	if bundle == nil {
		bundle, err = f.Connector.Collect(t.Context(), r, h.With(status.Handle))
		require.NoError(t, err)
	}
	_, err = Check(t, f.Connector, r, bundle)
	require.NoError(t, err)
	return bundle
}

// SoundStatus reports an answer that is none of a connector's, or an error that is not.
func SoundStatus(t testing.TB, s *connector.Status, err error) {
	t.Helper()
	if err != nil {
		Sound(t, err)
		return
	}
	assert.NotEmpty(t, s.State)
	assert.False(t, s.Handle.IsZero())
	assert.LessOrEqual(t, len(s.Raw), 64)
	assert.LessOrEqual(t, len(s.Detail), 512)
}

// Sound reports an error that is none of a connector's. nil is sound.
func Sound(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	e, ok := errors.AsType[*connector.Error](err)
	if !ok {
		t.Errorf("an error of another kind: %v", err)
		return
	}
	assert.NotEmpty(t, e.Class)
	assert.LessOrEqual(t, len(e.Detail), 512)
	assert.LessOrEqual(t, len(e.Code), 64)
	assert.NotEmpty(t, e.Error())
}
