package revocation

import (
	"bytes"
	"context"
	"crypto/x509"
	"sync"
	"time"
)

const (
	// listFreshness is how long a list is used at most before its place is asked
	// whether there is a newer one, even if it says that it is good for longer: a
	// revocation comes in between.
	listFreshness = time.Hour
	// maxLists bounds the lists that are kept. Beyond it the one that was used
	// longest ago goes.
	maxLists = 64
)

// lists are those that were fetched, one for each place and issuer. One that is
// being fetched is waited for by all who want it.
type lists struct {
	fetch *fetcher
	now   func() time.Time
	fresh time.Duration // listFreshness, or less where checks are more frequent

	mu    sync.Mutex // guards known
	known map[string]*kept
}

type kept struct {
	turn   chan struct{} // capacity 1: one fetches at a time; guards what follows but used
	list   *list
	tag    string
	at     time.Time // fetched or found to be unchanged
	failed error     // at
	used   time.Time // guarded by lists.mu
}

func newLists(fetch *fetcher, now func() time.Time, interval time.Duration) *lists {
	return &lists{fetch: fetch, now: now, fresh: min(listFreshness, interval/2), known: make(map[string]*kept)}
}

// failureLife is how long a failure is taken for the answer: ten thousand
// certificates of one list do not ask for it one after the other.
const failureLife = time.Minute

// get returns the list at a place, signed by issuer.
func (l *lists) get(ctx context.Context, own bool, at string, issuer *x509.Certificate) (*list, error) {
	k := l.place(at)
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	now := l.now()
	age := now.Sub(k.at)
	mine := k.list != nil && bytes.Equal(k.list.issuer, issuerID(issuer))
	switch {
	case k.failed != nil && age >= 0 && age < failureLife:
		return nil, k.failed
	case k.failed == nil && mine && age >= 0 && age < l.fresh && now.Before(k.list.nextUpdate):
		return k.list, nil
	}
	tag := k.tag
	if !mine || !now.Before(k.list.nextUpdate) {
		tag = ""
	}
	body, newTag, unchanged, err := l.fetch.download(ctx, own, at, tag)
	if ctx.Err() != nil {
		return nil, ctx.Err() // a stop says nothing about the place
	}
	k.at, k.failed = now, err
	if err != nil || unchanged {
		return k.list, err
	}
	if k.list, k.failed = readCRL(body, issuer, now); k.failed != nil {
		k.list, k.tag = nil, ""
		return nil, k.failed
	}
	k.tag = newTag
	return k.list, nil
}

// place is the entry of a place, a new one if need be.
func (l *lists) place(at string) *kept {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.known[at]
	if k == nil {
		if len(l.known) >= maxLists {
			l.forgetOldest()
		}
		k = &kept{turn: make(chan struct{}, 1)}
		l.known[at] = k
	}
	k.used = l.now()
	return k
}

func (l *lists) forgetOldest() {
	var oldest string
	for at, k := range l.known {
		if oldest == "" || k.used.Before(l.known[oldest].used) {
			oldest = at
		}
	}
	delete(l.known, oldest) // who holds it goes on with it
}
