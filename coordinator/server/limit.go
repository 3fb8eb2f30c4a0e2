package server

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/wire"
)

// A limit bounds how many requests of one kind are worked on at a time. Those
// beyond it are refused at once, and told to come back at a random moment
// within a span, so that a crowd does not come back as one.
type limit struct {
	slots chan struct{}
	span  func() time.Duration
}

func newLimit(inFlight int, span func() time.Duration) *limit {
	return &limit{slots: make(chan struct{}, inFlight), span: span}
}

func (l *limit) serve(handler http.Handler, w http.ResponseWriter, r *http.Request) {
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
		handler.ServeHTTP(w, r)
	default:
		pause := time.Second + rand.N(max(l.span(), time.Second)) //nolint:gosec // spreads load, guards nothing
		problem.Write(w, r, problem.Later(wire.CodeOverloaded, "too many requests of this kind are being answered", pause))
	}
}
