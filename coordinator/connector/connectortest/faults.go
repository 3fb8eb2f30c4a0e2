package connectortest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/shared/pki"
)

// classes meets every fault with the question how an order stands, and with the
// fetching of its certificate.
func (s Suite) classes(t *testing.T) {
	for name, c := range map[string]struct {
		fault   fakeca.Fault
		classes []connector.Class
		after   time.Duration
	}{
		"500":              {fakeca.Fault{Kind: fakeca.Refuse, Status: 500}, []connector.Class{connector.ClassRetry}, 0},
		"503 with date":    {fakeca.Fault{Kind: fakeca.Refuse, Status: 503, RetryAfter: 3 * time.Minute, AsDate: true}, []connector.Class{connector.ClassBusy}, 3 * time.Minute},
		"429 with seconds": {fakeca.Fault{Kind: fakeca.Refuse, Status: 429, RetryAfter: 90 * time.Second}, []connector.Class{connector.ClassBusy}, 90 * time.Second},
		"429 without":      {fakeca.Fault{Kind: fakeca.Refuse, Status: 429}, []connector.Class{connector.ClassBusy}, 0},
		"401":              {fakeca.Fault{Kind: fakeca.Refuse, Status: 401}, []connector.Class{connector.ClassCredentials}, 0},
		"403":              {fakeca.Fault{Kind: fakeca.Refuse, Status: 403}, []connector.Class{connector.ClassCredentials}, 0},
		"502 page":         {fakeca.Fault{Kind: fakeca.Page, Status: 502}, []connector.Class{connector.ClassRetry}, 0},
		"404 page":         {fakeca.Fault{Kind: fakeca.Page, Status: 404}, []connector.Class{connector.ClassAnswer}, 0},
		"200 page":         {fakeca.Fault{Kind: fakeca.Page, Status: 200}, []connector.Class{connector.ClassAnswer}, 0},
		"302":              {fakeca.Fault{Kind: fakeca.Page, Status: 302}, []connector.Class{connector.ClassAnswer}, 0},
		"half of it":       {fakeca.Fault{Kind: fakeca.Half}, []connector.Class{connector.ClassAnswer}, 0},
		"cut off":          {fakeca.Fault{Kind: fakeca.Cut}, []connector.Class{connector.ClassRetry}, 0},
		"huge":             {fakeca.Fault{Kind: fakeca.Huge}, []connector.Class{connector.ClassAnswer}, 0},
		"dropped":          {fakeca.Fault{Kind: fakeca.Dropped}, []connector.Class{connector.ClassRetry}, 0},
		"no answer":        {fakeca.Fault{Kind: fakeca.Hang}, []connector.Class{connector.ClassRetry}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := s.New(t, Options{})
			r, _ := Request(t, "www.example.com")
			h := f.placed(t, r).Handle
			for op, ask := range map[fakeca.Op]func(ctx context.Context) error{
				fakeca.Status:  func(ctx context.Context) error { _, err := f.Connector.Status(ctx, r, h); return err },
				fakeca.Collect: func(ctx context.Context) error { _, err := f.Connector.Collect(ctx, r, h); return err },
			} {
				if s.OneQuestion && op == fakeca.Collect {
					continue
				}
				before := f.Fake.Core().Count(op)
				// Twice: net/http asks once more on a connection that was idle when it
				// ended, and a connector may log in anew after status 401.
				f.Fake.Core().Script(op, fakeca.Repeat(2, c.fault)...)
				var err error
				if c.fault.Kind == fakeca.Hang {
					givingUp(t, func() bool { return f.Fake.Core().Count(op) > before }, func(ctx context.Context) { err = ask(ctx) })
				} else {
					err = ask(t.Context())
				}
				require.Greater(t, f.Fake.Core().Count(op), before, "the fault met another request")
				e := f.failure(t, err)
				assert.Contains(t, c.classes, e.Class, "%s: %v", op, e)
				assert.Equal(t, c.after, e.RetryAfter, op)
				f.Fake.Core().Forget()
				require.NoError(t, ask(t.Context()), "one failure is over with the next question")
			}
			f.collected(t, r, h)
		})
	}
}

// oddCertificates hands out chains that are turned round, mixed or incomplete, and
// certificates of other keys. No such certificate is ever taken for the right one.
func (s Suite) oddCertificates(t *testing.T) {
	for name, c := range map[string]struct {
		ways  fakeca.Behaviour
		whole bool
	}{
		"turned round":    {fakeca.Behaviour{Reversed: true}, true},
		"with a stranger": {fakeca.Behaviour{Stranger: true}, true},
		"both":            {fakeca.Behaviour{Stranger: true, Reversed: true}, true},
		"leaf alone":      {fakeca.Behaviour{LeafAlone: true}, false},
		"no intermediate": {fakeca.Behaviour{NoIntermediate: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := s.New(t, Options{})
			f.Fake.Core().Behave(c.ways)
			r, _ := Request(t, "www.example.com")
			status := f.placed(t, r)
			bundle, err := f.Connector.Collect(t.Context(), r, status.Handle)
			require.NoError(t, err)
			chain, err := Check(t, f.Connector, r, bundle)
			if c.whole {
				require.NoError(t, err)
				assert.Len(t, chain, 2)
				return
			}
			// What is missing is for the engine to complete; the leaf is there.
			assert.NotErrorIs(t, err, pki.ErrKeyMismatch)
		})
	}
	t.Run("another key", func(t *testing.T) {
		f := s.New(t, Options{})
		r, _ := Request(t, "www.example.com")
		f.Fake.Core().Behave(fakeca.Behaviour{WrongKey: -1})
		status := f.placed(t, r)
		if status.Bundle != nil {
			_, err := Check(t, f.Connector, r, status.Bundle)
			assert.ErrorIs(t, err, pki.ErrKeyMismatch)
		}
		bundle, err := f.Connector.Collect(t.Context(), r, status.Handle)
		require.NoError(t, err)
		_, err = Check(t, f.Connector, r, bundle)
		require.ErrorIs(t, err, pki.ErrKeyMismatch)
		f.Fake.Core().Behave(fakeca.Behaviour{})
		f.collected(t, r, status.Handle)
	})
}

func (s Suite) unknownWord(t *testing.T) {
	if s.NoWords {
		t.Skip("this authority has no word for a state")
	}
	f := s.New(t, Options{Fake: fakeca.Config{Delay: time.Hour}})
	r, _ := Request(t, "www.example.com")
	h := f.placed(t, r).Handle
	f.Fake.Core().Behave(fakeca.Behaviour{Word: "quite_unheard_of"})
	status, err := f.Connector.Status(t.Context(), r, h)
	require.NoError(t, err)
	assert.Equal(t, connector.Unrecognised, status.State)
	assert.Equal(t, "quite_unheard_of", status.Raw)
	assert.NotEmpty(t, status.Mend)
}

func (s Suite) cancel(t *testing.T) {
	f := s.New(t, Options{Fake: fakeca.Config{Approval: !s.NoPerson, Delay: time.Hour}})
	canceller, ok := f.Connector.(connector.Canceller)
	if !ok {
		t.Skip("this authority takes no order back")
	}
	r, _ := Request(t, "www.example.com")
	h := f.placed(t, r).Handle
	require.NoError(t, canceller.Cancel(t.Context(), r, h, "not needed"))
	assert.Contains(t, []fakeca.State{fakeca.Cancelled, fakeca.Rejected}, f.entry(t).State)
	status, err := f.Connector.Status(t.Context(), r, h)
	require.NoError(t, err)
	assert.Contains(t, []connector.State{connector.Cancelled, connector.Rejected}, status.State)

	// What is issued cannot be taken back, and stays.
	f = s.New(t, Options{})
	h = f.placed(t, r).Handle
	err = f.Connector.(connector.Canceller).Cancel(t.Context(), r, h, "not needed")
	assert.Contains(t, []connector.Class{connector.ClassRefused, connector.ClassNotFound}, f.failure(t, err).Class)
	f.collected(t, r, h)
}

func (s Suite) revoke(t *testing.T) {
	f := s.New(t, Options{})
	revoker, ok := f.Connector.(connector.Revoker)
	if !ok {
		t.Skip("this authority revokes nothing")
	}
	r, _ := Request(t, "www.example.com")
	h := f.placed(t, r).Handle
	f.collected(t, r, h)
	leaf := f.entry(t).Newest().Leaf
	revocation := &connector.Revocation{Request: r, Handle: h, Serial: pki.SerialHex(leaf), Reason: 4}
	done, err := revoker.Revoke(t.Context(), revocation)
	require.NoError(t, err)
	assert.True(t, done)
	assert.False(t, f.entry(t).Newest().RevokedAt.IsZero())
	done, err = revoker.Revoke(t.Context(), revocation)
	require.NoError(t, err, "one that is revoked already is a success")
	assert.True(t, done)
	f.Fake.Core().Script(fakeca.Revoke, fakeca.Repeat(2, fakeca.Fault{Kind: fakeca.Refuse, Status: 503})...)
	done, err = revoker.Revoke(t.Context(), revocation)
	assert.Equal(t, connector.ClassBusy, f.failure(t, err).Class)
	assert.False(t, done)
}

// reissue gets a certificate with another key under the same order.
func (s Suite) reissue(t *testing.T) {
	f := s.New(t, Options{Fake: fakeca.Config{}})
	reissuer, ok := f.Connector.(connector.Reissuer)
	if !ok {
		t.Skip("this authority has no order issue again")
	}
	r, _ := Request(t, "www.example.com")
	h := f.placed(t, r).Handle
	f.collected(t, r, h)
	again, _ := Request(t, "www.example.com", "other.example.com")
	status, err := reissuer.Reissue(t.Context(), again, h)
	require.NoError(t, err)
	assert.Equal(t, h.Order, status.Handle.Order)
	f.collected(t, again, status.Handle)
	assert.Len(t, f.Fake.Core().Ledger(nil), 1, "a reissue is no order")

	f.Fake.Core().Script(fakeca.Reissue, fakeca.Fault{Kind: fakeca.Lost})
	third, _ := Request(t, "www.example.com")
	_, err = reissuer.Reissue(t.Context(), third, h)
	assert.False(t, f.failure(t, err).NotPlaced)
}

func (s Suite) account(t *testing.T) {
	f := s.New(t, Options{})
	account, err := f.Connector.Test(t.Context())
	require.NoError(t, err)
	assert.NotEmpty(t, account.Name)
	assert.NotEmpty(t, account.Facts)
	assert.Empty(t, account.Warnings)
	assert.Empty(t, f.Fake.Core().Ledger(nil), "a test orders nothing")
	for _, fact := range account.Facts {
		for _, secret := range f.Secrets {
			assert.NotContains(t, fact.Value, secret)
		}
	}
	f.Spoil()
	_, err = f.Connector.Test(t.Context())
	e := f.failure(t, err)
	assert.Equal(t, connector.ClassCredentials, e.Class)
	assert.NotEmpty(t, e.Mend)
	r, _ := Request(t, "www.example.com")
	_, err = f.Connector.Place(t.Context(), r)
	e = f.failure(t, err)
	assert.Equal(t, connector.ClassCredentials, e.Class)
	assert.True(t, e.NotPlaced)
}
