package connector

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// listingGrain is what windows are cut to: those of orders of about the same time
	// are the same.
	listingGrain = 15 * time.Minute
	// passLife is how long a pass is gone on with, and maxWindows bounds the windows
	// that are remembered.
	passLife   = 15 * time.Minute
	maxWindows = 16
	// listingWait is how long one waits for what another one reads: it takes the place
	// of a question meanwhile.
	listingWait = 10 * time.Second
	// latestAge is how long what was read is the latest without being read again.
	latestAge = 10 * time.Second
)

// Listed is a certificate, as an authority's list names it.
type Listed struct {
	ID string
	// Keys are the fingerprints of its public keys, and Read says that they are known:
	// a list that shows the certificates themselves needs no further request.
	Keys []string
	Read bool
	// Passing says that the keys may be those of another certificate, which the
	// authority showed by mistake: they are asked for again the next time.
	Passing bool
}

// ListingConfig of a Listing.
type ListingConfig struct {
	// Page reads a part of the list of what the account got between two moments. place
	// is where it begins, "" for the beginning; next is where the next one does, "" at
	// the end of the list.
	Page func(ctx context.Context, from, to time.Time, place string) (list []Listed, next string, err error)
	// Read asks for a certificate that the list only names.
	Read func(ctx context.Context, id string) (Listed, error)
	// Most bounds the certificates of one window and Pages its pages, and TooMany is
	// what is said of one that has more.
	Most, Pages int
	TooMany     error
	// Skew is what the clocks may differ, and Now the clock.
	Skew time.Duration
	Now  func() time.Time
}

// Listing finds orders by their public keys, where the authority keeps no reference
// of ours: it looks through the list of what the account got of late, once for all
// orders that are looked for. One goroutine reads at a time, the others wait for what
// it finds. Each certificate is read once, as its key never changes; a pass that breaks
// off is gone on with by whoever asks next. Whatever is remembered outlives the terms of
// a leader, as its connector does. It is safe for concurrent use; NewListing makes one.
type Listing struct {
	config ListingConfig
	turn   chan struct{} // who has it reads

	keys Keys

	mu      sync.Mutex // of the fields below
	windows map[int64]*window
	ended   chan struct{} // is closed when a pass comes to its end
	// refusal answers all who wait when it comes: the account is not to be asked.
	refusal *Error
	refused uint64
	// answers counts the requests that had an answer.
	answers uint64
}

// window is what the account got since a moment.
type window struct {
	from time.Time
	used time.Time
	pass *pass // not at its end; nil if there is none. Who has the turn may change it
	done *pass // the last one that was
}

// pass is one reading of a window, from its beginning to its end.
type pass struct {
	began, ended time.Time
	// to is the end of the window, by the clock of the config.
	to time.Time
	// place is where the list goes on; listed says that it was read to its end.
	place  string
	pages  int
	listed bool
	seen   map[string]struct{}
	unread []string
	byKey  map[string][]string // certificates by fingerprints
	err    error               // of a window that has too much
}

// NewListing makes one that has read nothing.
func NewListing(c ListingConfig) *Listing {
	return &Listing{config: c, turn: make(chan struct{}, 1), windows: map[int64]*window{}, ended: make(chan struct{})}
}

// Find returns the certificates for a public key among what the account got since a
// moment (and a little before), as the authority showed it at a moment that is not
// longer past than old. That is measured by a clock that nobody sets.
func (l *Listing) Find(ctx context.Context, since time.Time, fingerprint string, old time.Duration) (ids []string, err error) {
	notBefore := time.Now().Add(-max(old, 0))
	return l.find(ctx, since, fingerprint, func(p *pass) bool { return !p.began.Before(notBefore) })
}

// Latest is Find for who learns nothing from there being none: what is being read is
// gone on with and is the answer, however long ago it was begun.
func (l *Listing) Latest(ctx context.Context, since time.Time, fingerprint string) (ids []string, err error) {
	asked := time.Now()
	return l.find(ctx, since, fingerprint, func(p *pass) bool { return !p.ended.Before(asked) || asked.Sub(p.began) < latestAge })
}

func (l *Listing) find(ctx context.Context, since time.Time, fingerprint string, good func(*pass) bool) (ids []string, err error) {
	w, refused, answers := l.window(since.Add(-l.config.Skew).Truncate(listingGrain))
	patience := time.NewTimer(listingWait)
	defer patience.Stop()
	for {
		p, ended := l.read(w, good)
		if p != nil {
			return slices.Clone(p.byKey[fingerprint]), p.err
		}
		select {
		case <-ended: // it may be the answer
			continue
		case l.turn <- struct{}{}:
		case <-patience.C:
			return nil, l.away(ctx, answers)
		case <-ctx.Done():
			return nil, l.away(ctx, answers)
		}
		err := l.refusedSince(refused)
		if p, _ := l.read(w, good); err == nil && p == nil {
			err = l.advance(ctx, w)
		}
		<-l.turn
		if err != nil {
			return nil, err
		}
	}
}

// window is that from a moment on, and how much was refused and answered by now.
func (l *Listing) window(from time.Time) (w *window, refused, answers uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w = l.windows[from.Unix()]
	if w == nil {
		if len(l.windows) >= maxWindows {
			var idle *window
			for _, other := range l.windows {
				if idle == nil || other.used.Before(idle.used) {
					idle = other
				}
			}
			delete(l.windows, idle.from.Unix())
		}
		w = &window{from: from}
		l.windows[from.Unix()] = w
	}
	w.used = time.Now()
	return w, l.refused, l.answers
}

// read is the last pass of a window that came to its end, if it is good enough; it is
// not changed any more. Else, ended tells when the next one comes to its end.
func (l *Listing) read(w *window, good func(*pass) bool) (p *pass, ended <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.done == nil || !good(w.done) {
		return nil, l.ended
	}
	return w.done, nil
}

// away is the answer for who waits no longer: the authority works, if others had answers
// meanwhile.
func (l *Listing) away(ctx context.Context, answers uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	const detail = "the list of certificates is being looked through, for this order and others"
	if l.answers == answers {
		return &Error{Class: ClassRetry, Detail: detail, Err: ctx.Err()}
	}
	answered(ctx)
	return &Error{Class: ClassNotReady, Detail: detail, Err: ctx.Err()}
}

// refusedSince is the last refusal of the account, if there was one since.
func (l *Listing) refusedSince(refused uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refused == refused {
		return nil
	}
	again := *l.refusal
	return &again
}

// note counts a request, and keeps a refusal for those who wait.
func (l *Listing) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.answers++
		return
	}
	if e := Classify(err); e.Class == ClassBusy || e.Class == ClassCredentials {
		l.refusal, l.refused = e, l.refused+1
	}
}

// advance goes on with the pass of a window, or begins one, up to its end. The turn is
// the caller's.
func (l *Listing) advance(ctx context.Context, w *window) error {
	p := w.pass
	if p == nil || time.Since(p.began) > passLife {
		p = &pass{began: time.Now(), to: l.config.Now().Add(l.config.Skew), seen: map[string]struct{}{}, byKey: map[string][]string{}}
		w.pass = p
	}
	for !p.listed && p.err == nil {
		list, next, err := l.config.Page(ctx, w.from, p.to, p.place)
		l.note(err)
		if err != nil {
			return err
		}
		p.take(list, &l.keys)
		p.pages++
		p.place, p.listed = next, next == ""
		if len(p.seen) > l.config.Most || p.pages >= l.config.Pages && !p.listed {
			p.err = l.config.TooMany
		}
	}
	for len(p.unread) > 0 && p.err == nil {
		id := p.unread[0]
		c, err := l.config.Read(ctx, id)
		l.note(err)
		if err != nil {
			// Others first the next time, as it may be the one's own fault.
			p.unread = append(p.unread[1:], id)
			return err
		}
		c.ID, c.Read = id, true
		p.note(c, &l.keys)
		p.unread = p.unread[1:]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p.ended = time.Now()
	w.pass, w.done = nil, p
	close(l.ended)
	l.ended = make(chan struct{})
	return nil
}

// take notes a page.
func (p *pass) take(list []Listed, keys *Keys) {
	for _, c := range list {
		if _, seen := p.seen[c.ID]; seen {
			continue
		}
		p.seen[c.ID] = struct{}{}
		key, known := keys.Of(c.ID)
		switch {
		case known:
			p.byKey[key] = append(p.byKey[key], c.ID)
		case c.Read:
			p.note(c, keys)
		default:
			p.unread = append(p.unread, c.ID)
		}
	}
}

// note takes the keys of a certificate that was read.
func (p *pass) note(c Listed, keys *Keys) {
	for _, key := range c.Keys {
		if !slices.Contains(p.byKey[key], c.ID) {
			p.byKey[key] = append(p.byKey[key], c.ID)
		}
	}
	switch {
	case c.Passing:
	case len(c.Keys) == 1:
		keys.Set(c.ID, c.Keys[0])
	case len(c.Keys) == 0: // of a kind that we have none of
		keys.Set(c.ID, "")
	}
}
