package pass

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// DefaultPatience bounds the time from when a request is here whole until it
	// is answered.
	DefaultPatience = 5 * time.Second
	// DefaultElection is how long requests wait for a leader since there is none.
	// Later ones are refused at once: this node may be cut off from the others.
	DefaultElection = 4 * time.Second
	// DefaultMaxInFlight is how many requests may be here at a time.
	DefaultMaxInFlight = 512

	// maxHeld bounds the octets of all bodies that are held at a time, and
	// maxAnswer those of one answer.
	maxHeld   = 64 << 20
	maxAnswer = 16 << 20

	// retryPause is what clients are told to wait for a leader, and retrySpan the
	// span after a second within which those for whom there is no room are told to
	// come back.
	retryPause = 2 * time.Second
	retrySpan  = 5 * time.Second
)

// Leader is the way to the node that leads: what carries a request there, and the
// URL that it is sent to, without a path. ok is false when no other node is known
// to lead.
type Leader func() (way http.RoundTripper, url string, ok bool)

// Config of a Passer. Leader, Leads and Log are required.
type Config struct {
	Leader Leader
	// Leads reports whether this node leads.
	Leads func() bool
	// MaxInFlight, Patience and Election are the defaults if 0.
	MaxInFlight int
	Patience    time.Duration
	Election    time.Duration
	Log         *slog.Logger
}

// Passer hands requests on to the leader. It is safe for concurrent use.
type Passer struct {
	config Config
	places chan struct{}
	held   atomic.Int64
	// leaderless is since when no leader is known, in Unix nanoseconds; 0 if one is.
	leaderless atomic.Int64

	answered, failed, refused, again atomic.Uint64
}

// New checks the configuration.
func New(c Config) (*Passer, error) {
	c.MaxInFlight = cmp.Or(c.MaxInFlight, DefaultMaxInFlight)
	c.Patience, c.Election = cmp.Or(c.Patience, DefaultPatience), cmp.Or(c.Election, DefaultElection)
	switch {
	case c.Leader == nil, c.Leads == nil, c.Log == nil:
		return nil, errors.New("pass: one of Leader, Leads and Log is missing")
	case c.MaxInFlight < 0, c.Patience < 0, c.Patience > maxPatience, c.Election < 0:
		return nil, fmt.Errorf("pass: MaxInFlight %d, Patience %v or Election %v is out of range", c.MaxInFlight, c.Patience, c.Election)
	}
	return &Passer{config: c, places: make(chan struct{}, c.MaxInFlight)}, nil
}

// Counts are the requests since the start, by what became of them.
type Counts struct {
	Answered uint64 // with what the leader said
	Failed   uint64 // no leader, or none that answered in time
	Refused  uint64 // for want of room
	Again    uint64 // sent once more, to another leader or a new connection
}

// Counts are the counts now.
func (p *Passer) Counts() Counts {
	return Counts{Answered: p.answered.Load(), Failed: p.failed.Load(), Refused: p.refused.Load(), Again: p.again.Load()}
}

// Pass answers r with what the leader answers, or with a problem that goes away
// by waiting. The request is one that does no harm when it is repeated: after a
// change of leader within its patience it is sent again. Of its body it takes
// maxBody octets.
//
// If this node has become the leader meanwhile, Pass answers nothing, and returns
// a request that is r with its body still to be read.
func (p *Passer) Pass(w http.ResponseWriter, r *http.Request, maxBody int64) (here *http.Request) {
	select {
	case p.places <- struct{}{}:
		defer func() { <-p.places }()
	default:
		p.crowded(w, r)
		return nil
	}
	room := maxBody
	if r.ContentLength >= 0 {
		room = min(room, r.ContentLength)
	}
	defer p.held.Add(-room)
	if p.held.Add(room) > maxHeld {
		p.crowded(w, r)
		return nil
	}
	beside, err := parcelOf(r)
	if err != nil {
		problem.Write(w, r, problem.New(wire.CodeIdentityUnknown, "", err.Error(), "use the identity that the coordinator gave"))
		return nil
	}
	body, refusal := wire.ReadBody(r.Body, maxBody)
	if refusal != nil {
		problem.Write(w, r, refusal)
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), p.config.Patience)
	defer cancel()
	answer, err := p.deliver(ctx, r, beside, body)
	switch {
	case errors.Is(err, errHere):
		here = r.Clone(r.Context())
		here.Body = io.NopCloser(bytes.NewReader(body))
		return here
	case errors.Is(err, errTooLarge):
		p.failed.Add(1)
		p.config.Log.Error("an answer of the leader was not passed on", "path", r.URL.Path, "request_id", r.Header.Get(problem.RequestIDHeader), "err", err)
		problem.Write(w, r, problem.New(wire.CodeInternal, "", "the answer is too large to be passed on", "look in the coordinator's log for the request_id"))
		return nil
	case err != nil:
		p.failed.Add(1)
		p.config.Log.Debug("a request was not passed on", "path", r.URL.Path, "request_id", r.Header.Get(problem.RequestIDHeader), "err", err)
		problem.Write(w, r, problem.Later(wire.CodeUnavailable, detail(err), retryPause))
		return nil
	}
	p.answered.Add(1)
	answer.write(w)
	return nil
}

// Handler is here for the node that leads, and passes requests with bodies of at
// most maxBody octets on from the others. One that was passed on already goes no
// further: here says what it is to a node that does not lead.
func (p *Passer) Handler(maxBody int64, here http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, passed := From(r.Context()); !passed && !p.config.Leads() {
			if r = p.Pass(w, r, maxBody); r == nil {
				return
			}
		}
		here.ServeHTTP(w, r)
	})
}

// crowded refuses a request for which there is no room. Those who are refused
// together do not come back together.
func (p *Passer) crowded(w http.ResponseWriter, r *http.Request) {
	p.refused.Add(1)
	pause := time.Second + rand.N(retrySpan) //nolint:gosec // spreads load, guards nothing
	problem.Write(w, r, problem.Later(wire.CodeOverloaded, "too many requests are on their way to the node that leads", pause))
}

// detail is what a client is told of a failure: nothing about nodes and
// addresses.
func detail(err error) string {
	if errors.Is(err, errNoLeader) {
		return "no node leads this cluster at the moment"
	}
	return "the node that leads this cluster did not answer; the same request is safe to repeat"
}

// An answer is the leader's, whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// unavailable reports whether the answer says to come back because the node is
// not able to answer, and not because it has too much to do.
func (a *answer) unavailable() bool {
	var p wire.Problem
	return a.status == http.StatusServiceUnavailable && json.Unmarshal(a.body, &p) == nil && p.Code == wire.CodeUnavailable
}

func (a *answer) write(w http.ResponseWriter) {
	header := w.Header()
	for name, values := range forwarded(a.header) {
		header[name] = values // instead of what this node would say
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the client may be gone
}
