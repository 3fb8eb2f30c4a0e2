package connectortest

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/pki"
)

// givingUp makes a call that is never answered, and gives up when it has reached the
// authority.
func givingUp(t testing.TB, reached func() bool, call func(ctx context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		call(ctx)
	}()
	deadline, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	for !reached() && backoff.Wait(deadline, 5*time.Millisecond) == nil {
	}
	cancel()
	<-done
	assert.True(t, reached(), "the call never reached the authority")
}

// issued takes an order to its certificate, in every format.
func (s Suite) issued(t *testing.T) {
	formats := s.Formats
	if len(formats) == 0 {
		formats = []string{""}
	}
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			f := s.New(t, Options{Format: format})
			r, _ := Request(t, "www.example.com", "example.com")
			status := f.placed(t, r)
			if status.Bundle != nil {
				_, err := Check(t, f.Connector, r, status.Bundle)
				require.NoError(t, err)
			}
			assert.False(t, s.AtOnce && status.Bundle == nil, "no certificate in the answer")
			entry := f.entry(t)
			assert.ElementsMatch(t, r.Names.Strings(), entry.Names)
			key, err := pki.PublicKeyFingerprint(r.CSR.PublicKey)
			require.NoError(t, err)
			assert.Equal(t, key, entry.PublicKey)
			f.collected(t, r, status.Handle)
			assert.Len(t, f.Fake.Core().Ledger(nil), 1, "asking orders nothing")
		})
	}
}

// person has an order wait for one, who approves it, and another whom refuses.
func (s Suite) person(t *testing.T) {
	if s.NoPerson {
		t.Skip("no order waits for a person at this authority")
	}
	f := s.New(t, Options{Fake: fakeca.Config{Approval: true}})
	r, _ := Request(t, "www.example.com")
	h := f.placed(t, r).Handle
	status, err := f.Connector.Status(t.Context(), r, h)
	require.NoError(t, err)
	assert.Equal(t, connector.NeedsPerson, status.State)
	assert.NotEmpty(t, status.Mend, "nobody is told what to do")
	assert.NotEmpty(t, status.Raw)
	_, err = f.Connector.Collect(t.Context(), r, h)
	assert.Equal(t, connector.ClassNotReady, f.failure(t, err).Class)
	require.NoError(t, f.Fake.Core().Approve(f.entry(t).ID))
	f.collected(t, r, h)

	other, _ := Request(t, "mail.example.com")
	h = f.placed(t, other).Handle
	require.NoError(t, f.Fake.Core().Reject(f.Fake.Core().Ledger(nil)[1].ID, "not ours"))
	status, err = f.Connector.Status(t.Context(), other, h)
	require.NoError(t, err)
	assert.Equal(t, connector.Rejected, status.State)
}

// refused is an order that the authority does not take, in its own words.
func (s Suite) refused(t *testing.T) {
	f := s.New(t, Options{})
	f.Fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Refuse, Status: 400})
	r, _ := Request(t, "www.example.com")
	_, err := f.Connector.Place(t.Context(), r)
	e := f.failure(t, err)
	assert.True(t, e.NotPlaced)
	assert.NotContains(t, []connector.Class{connector.ClassRetry, connector.ClassNotReady, connector.ClassCredentials}, e.Class)
	assert.NotEmpty(t, e.Detail)
	assert.Empty(t, f.Fake.Core().Ledger(nil))
}

// earlyDownload is an order that is issued, and whose certificate is not there yet.
func (s Suite) earlyDownload(t *testing.T) {
	if s.AtOnce {
		t.Skip("the certificate is the answer to the order")
	}
	f := s.New(t, Options{Fake: fakeca.Config{Delay: time.Hour}})
	r, _ := Request(t, "www.example.com")
	h := f.placed(t, r).Handle
	status, err := f.Connector.Status(t.Context(), r, h)
	require.NoError(t, err)
	assert.Equal(t, connector.Pending, status.State)
	_, err = f.Connector.Collect(t.Context(), r, h.With(status.Handle))
	assert.Equal(t, connector.ClassNotReady, f.failure(t, err).Class, "before it is issued")

	// Twice: the answer to the order may have looked for it, too.
	f = s.New(t, Options{})
	f.Fake.Core().Behave(fakeca.Behaviour{NotReady: 2})
	h = f.placed(t, r).Handle
	early := 0
	for range 3 {
		_, err = f.Connector.Collect(t.Context(), r, h)
		if err == nil {
			break
		}
		assert.Equal(t, connector.ClassNotReady, f.failure(t, err).Class, "%v", err)
		early++
	}
	require.NoError(t, err)
	assert.Positive(t, early)
	f.collected(t, r, h)
}

// answerLost loses the answer to an order that was accepted, in every way. What is
// said of it must leave open that there is an order; and the search finds it.
func (s Suite) answerLost(t *testing.T) {
	for _, kind := range []fakeca.Kind{fakeca.Lost, fakeca.LostSlow, fakeca.Cut, fakeca.Half, fakeca.Huge, fakeca.PageAfter} {
		t.Run(string(kind), func(t *testing.T) {
			f := s.New(t, Options{})
			f.Fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: kind})
			r, _ := Request(t, "www.example.com")
			var status *connector.Status
			var err error
			place := func(ctx context.Context) { status, err = f.Connector.Place(ctx, r) }
			if kind == fakeca.LostSlow {
				givingUp(t, func() bool { return len(f.Fake.Core().Ledger(nil)) > 0 }, place)
			} else {
				place(t.Context())
			}
			if err == nil {
				// An authority whose answer is in its header tells enough with half a body.
				assert.Contains(t, []fakeca.Kind{fakeca.Half}, kind)
				f.collected(t, r, status.Handle)
				return
			}
			e := f.failure(t, err)
			assert.False(t, e.NotPlaced, "an order that was accepted would be placed again: %v", e)
			assert.Contains(t, []connector.Class{connector.ClassRetry, connector.ClassAnswer, connector.ClassBusy}, e.Class)
			entry := f.entry(t)
			searcher, ok := f.Connector.(connector.Searcher)
			if !ok {
				return
			}
			found, err := searcher.Search(t.Context(), r, 0)
			require.NoError(t, err)
			require.Len(t, found, 1)
			assert.Equal(t, entry.ID, found[0].Handle.Order)
			f.collected(t, r, found[0].Handle)
			assert.Len(t, f.Fake.Core().Ledger(nil), 1)
		})
	}
}

// notPlaced is an order that never came to be. Only where that is certain may it be
// said.
func (s Suite) notPlaced(t *testing.T) {
	for name, c := range map[string]struct {
		fault   fakeca.Fault
		certain bool
	}{
		"401":       {fakeca.Fault{Kind: fakeca.Refuse, Status: 401}, true},
		"403":       {fakeca.Fault{Kind: fakeca.Refuse, Status: 403}, true},
		"429":       {fakeca.Fault{Kind: fakeca.Refuse, Status: 429}, true},
		"500":       {fakeca.Fault{Kind: fakeca.Refuse, Status: 500}, false},
		"503":       {fakeca.Fault{Kind: fakeca.Refuse, Status: 503}, false},
		"502 page":  {fakeca.Fault{Kind: fakeca.Page, Status: 502}, false},
		"404 page":  {fakeca.Fault{Kind: fakeca.Page, Status: 404}, false},
		"200 page":  {fakeca.Fault{Kind: fakeca.Page, Status: 200}, false},
		"dropped":   {fakeca.Fault{Kind: fakeca.Dropped}, false},
		"no answer": {fakeca.Fault{Kind: fakeca.Hang}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := s.New(t, Options{})
			// A connector may log in anew once, after status 401.
			f.Fake.Core().Script(fakeca.Place, fakeca.Repeat(2, c.fault)...)
			r, _ := Request(t, "www.example.com")
			var err error
			place := func(ctx context.Context) { _, err = f.Connector.Place(ctx, r) }
			if c.fault.Kind == fakeca.Hang {
				givingUp(t, func() bool { return f.Fake.Core().Count(fakeca.Place) > 0 }, place)
			} else {
				place(t.Context())
			}
			e := f.failure(t, err)
			assert.Equal(t, c.certain, e.NotPlaced, "%v", e)
			assert.Empty(t, f.Fake.Core().Ledger(nil))
			if searcher, ok := f.Connector.(connector.Searcher); ok && !c.certain {
				f.Fake.Core().Forget()
				found, err := searcher.Search(t.Context(), r, 0)
				require.NoError(t, err)
				assert.Empty(t, found)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		f := s.New(t, Options{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") }})
		r, _ := Request(t, "www.example.com")
		_, err := f.Connector.Place(t.Context(), r)
		e := f.failure(t, err)
		assert.True(t, e.NotPlaced)
		assert.Equal(t, connector.ClassRetry, e.Class)
	})
}

// search finds one order among others for the same names, and none of theirs.
func (s Suite) search(t *testing.T) {
	f := s.New(t, Options{})
	searcher, ok := f.Connector.(connector.Searcher)
	if !ok {
		t.Skip("this authority cannot be searched")
	}
	var requests []*connector.Request
	for range 5 {
		r, _ := Request(t, "www.example.com")
		f.placed(t, r)
		requests = append(requests, r)
	}
	for i, r := range requests {
		found, err := searcher.Search(t.Context(), r, 0)
		require.NoError(t, err)
		require.Len(t, found, 1)
		assert.Equal(t, f.Fake.Core().Ledger(nil)[i].ID, found[0].Handle.Order)
		assert.Equal(t, connector.Issued, found[0].State)
	}
	never, _ := Request(t, "www.example.com")
	found, err := searcher.Search(t.Context(), never, 0)
	require.NoError(t, err)
	assert.Empty(t, found, "an order of somebody else's")
	// What failed was no search.
	f.Fake.Core().Script(fakeca.Any, fakeca.Repeat(20, fakeca.Fault{Kind: fakeca.Refuse, Status: 500})...)
	_, err = searcher.Search(t.Context(), requests[0], 0)
	assert.Equal(t, connector.ClassRetry, f.failure(t, err).Class)
}

// repeat places an order again whose answer was lost, where the connector says that
// this harms nobody: another certificate comes of it, which is as good.
func (s Suite) repeat(t *testing.T) {
	f := s.New(t, Options{})
	repeater, ok := f.Connector.(connector.Repeater)
	if !ok || !repeater.Repeatable() {
		t.Skip("at this authority every order counts")
	}
	r, _ := Request(t, "www.example.com")
	f.Fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Lost})
	_, err := f.Connector.Place(t.Context(), r)
	assert.False(t, f.failure(t, err).NotPlaced)
	again := *r
	again.Reference = "0123456789abcdef0123456789abcdef"
	status := f.placed(t, &again)
	bundle := status.Bundle
	if bundle == nil {
		bundle = f.collected(t, &again, status.Handle)
	}
	_, err = Check(t, f.Connector, &again, bundle)
	require.NoError(t, err)
	ledger := f.Fake.Core().Ledger(nil)
	require.Len(t, ledger, 2)
	assert.Equal(t, ledger[0].PublicKey, ledger[1].PublicKey)
	assert.Equal(t, ledger[1].ID, status.Handle.Order)
}
