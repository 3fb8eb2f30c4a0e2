package connector

import (
	"context"
	"net/http"
	"sync/atomic"
)

// Tally counts what an authority answered while one method of a Connector worked. Some
// need many requests for one answer: one that fails at the last of them has not met an
// authority that does not answer. Safe for concurrent use.
type Tally struct{ answers atomic.Int64 }

type tallyKey struct{}

// WithTally has the requests that are made with the context counted.
func WithTally(ctx context.Context) (context.Context, *Tally) {
	t := new(Tally)
	return context.WithValue(ctx, tallyKey{}, t), t
}

// Answered reports whether there was an answer to any request but those that log in:
// one that says that the authority works, whatever it thinks of the request.
func (t *Tally) Answered() bool { return t.answers.Load() > 0 }

// count takes note of a whole answer.
func count(ctx context.Context, call Call, status int) {
	if call.Anonymous || status == http.StatusTooManyRequests || status/100 == 5 {
		return
	}
	answered(ctx)
}

func answered(ctx context.Context) {
	if t, ok := ctx.Value(tallyKey{}).(*Tally); ok {
		t.answers.Add(1)
	}
}
