package acme

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/internal/testca/pebble"
)

// fault is what happens at the n-th request to the authority.
type fault string

const (
	// crashBefore: the process dies before the request is sent.
	crashBefore fault = "crash before"
	// crashAfter: the authority has handled the request and the process dies
	// before it sees the answer.
	crashAfter fault = "crash after"
	// lostAnswer: the authority has handled the request, the connection breaks,
	// and the process lives on.
	lostAnswer fault = "lost answer"
)

var errInjected = errors.New("injected")

// faulty injects one fault.
type faulty struct {
	next  http.RoundTripper
	kind  fault
	at    int64
	crash context.CancelFunc
	count atomic.Int64
}

func (f *faulty) RoundTrip(req *http.Request) (*http.Response, error) {
	n := f.count.Add(1)
	if n != f.at {
		return f.next.RoundTrip(req)
	}
	if f.kind == crashBefore {
		f.crash()
		return nil, errInjected
	}
	resp, err := f.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	if f.kind == crashAfter {
		f.crash()
	}
	return nil, errInjected
}

// TestACrashAtAnyRequestLeadsToOneCertificate enumerates: for every request of an
// issuance and every fault, the order is continued by a new process from what
// was saved, and the authority issues one certificate for it.
func TestACrashAtAnyRequestLeadsToOneCertificate(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	listeners := NewListeners(nil) // all runs answer on the one port that Pebble asks

	var group sync.WaitGroup
	slots := make(chan struct{}, 16)
	var runs, hits, gone atomic.Int64
	for _, kind := range []fault{crashBefore, crashAfter, lostAnswer} {
		// More than an issuance needs; the last ones are not hit.
		for at := range int64(14) {
			slots <- struct{}{}
			group.Go(func() {
				defer func() { <-slots }()
				runs.Add(1)
				hit, lost := surviveFault(t, ca, listeners, kind, at+1)
				if hit {
					hits.Add(1)
				}
				if lost {
					gone.Add(1)
				}
			})
		}
	}
	group.Wait()
	expectIssued(t, ca, int(runs.Load()))
	// directory, nonce, account, order, authorization, challenge, validation,
	// order, finalization, order, certificate: for each fault.
	assert.GreaterOrEqual(t, hits.Load(), int64(3*11), "the enumeration reaches every request")
	// Only a crash between the announcement of a response and its validation can
	// cost the order: the authority then finds nobody. That is two or three
	// requests of an issuance, for each of the two crashes.
	assert.LessOrEqual(t, gone.Load(), int64(6), "orders that could not be continued")
}

// surviveFault reports whether the fault was reached, and whether the order was
// lost by it and a new one had to be placed, as the engine does.
func surviveFault(t *testing.T, ca *pebble.Server, listeners *Listeners, kind fault, at int64) (hit, lost bool) {
	what := fmt.Sprintf("%s request %d", kind, at)
	d := newDisk()
	config := configFor(ca, d)
	config.Listeners = listeners
	order := newOrder(t, uniqueName())

	ctx, crash := context.WithTimeout(t.Context(), 60*time.Second)
	defer crash()
	first, err := New(config)
	if !assert.NoError(t, err) {
		return false, false
	}
	defer first.Close()
	f := &faulty{next: first.http, kind: kind, at: at, crash: crash}
	first.http = f
	issued, err := first.Issue(ctx, order)
	hit = f.count.Load() >= at
	if !hit || kind == lostAnswer {
		// One lost answer is made good without anybody's help, or costs a pause.
		if err != nil {
			assert.Equal(t, issuer.ClassRetry, issuer.Classify(err).Class, "%s: %v", what, err)
		}
	} else if !assert.Error(t, err, what) {
		return hit, false
	}
	if err != nil {
		second, newErr := New(config)
		if !assert.NoError(t, newErr) {
			return hit, false
		}
		defer second.Close()
		again, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		issued, err = second.Issue(again, order)
		if err != nil && issuer.Classify(err).Class == issuer.ClassOrderGone {
			lost = true
			assert.NotContains(t, string(order.State), "finalizing", "%s: %v", what, err)
			order.State = nil
			issued, err = second.Issue(again, order)
		}
		if !assert.NoError(t, err, what) {
			return hit, lost
		}
	}
	checkIssued(t, order, issued)
	return hit, lost
}

// TestACrashAtAnySaveLeadsToOneCertificate stops at each save, before it is
// durable and after.
func TestACrashAtAnySaveLeadsToOneCertificate(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	listeners := NewListeners(nil)
	const saves = 3 // placed, finalizing, issued
	runs, abandoned := 0, 0
	for at := 1; at <= saves; at++ {
		for _, durable := range []bool{false, true} {
			config := configFor(ca, newDisk())
			config.Listeners = listeners
			order := newOrder(t, uniqueName())
			count := 0
			keep := order.Save
			order.Save = func(state json.RawMessage) error {
				if count++; count != at {
					return keep(state)
				}
				if durable {
					require.NoError(t, keep(state))
				}
				return errInjected
			}
			_, err := open(t, config).Issue(deadline(t, 60*time.Second), order)
			require.ErrorIs(t, err, errInjected)

			order.Save = keep
			if order.State == nil {
				abandoned++ // the URL of the order is lost, and nothing but an empty order with it
			}
			issued, err := open(t, config).Issue(deadline(t, 60*time.Second), order)
			require.NoError(t, err, "save %d, durable %v", at, durable)
			checkIssued(t, order, issued)
			runs++
		}
	}
	expectIssued(t, ca, runs)
	assert.Equal(t, 1, abandoned)
	assert.Equal(t, runs+abandoned, ca.Ledger().Orders, "every other order is continued")
}
