package pass

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/certctl/certctl/shared/backoff"
)

var (
	errHere     = errors.New("this node leads")
	errNoLeader = errors.New("no leader is known")
	errMoved    = errors.New("another node leads by now")
	errRefused  = errors.New("the node does not lead")
	errLater    = errors.New("the node cannot store changes at the moment")
	errTooLarge = fmt.Errorf("the answer is larger than %d octets", maxAnswer)
)

// maxLater is how often a request is repeated whose answer is that it cannot be
// answered at the moment, as when the leadership is being handed over.
const maxLater = 5

// again is how a request whose way has failed looks for another one, and while it
// is under way looks whether its leader still leads.
var again = backoff.Policy{Initial: 25 * time.Millisecond, Max: 200 * time.Millisecond, Multiplier: 2, Jitter: 0.5}

// deliver sends a request to the leader, and to the next one if that fails, until
// somebody answers or ctx is done. errHere says that this node leads.
func (p *Passer) deliver(ctx context.Context, r *http.Request, beside parcel, body []byte) (*answer, error) {
	cause := errNoLeader
	var last *answer // that only said to come back
	for attempt, later := 1, 0; ; attempt++ {
		if p.config.Leads() {
			p.leaderless.Store(0)
			return nil, errHere
		}
		if way, url, ok := p.config.Leader(); ok {
			p.leaderless.Store(0)
			if attempt > 1 {
				p.again.Add(1)
			}
			answer, err := p.send(ctx, way, url, r, beside, body)
			if err == nil && answer.unavailable() && later < maxLater {
				last, later, err = answer, later+1, errLater
			}
			if err == nil || errors.Is(err, errTooLarge) {
				return answer, err
			}
			cause = fmt.Errorf("%s: %w", url, err)
		} else if cause == errNoLeader && p.leaderlessFor() > p.config.Election { //nolint:errorlint // not wrapped until it is another
			return nil, cause
		}
		if err := backoff.Wait(ctx, again.Delay(attempt, nil)); err != nil {
			if last != nil {
				return last, nil
			}
			return nil, fmt.Errorf("%w: %w", err, cause)
		}
	}
}

// leaderlessFor is how long no leader is known, as far as requests have looked.
func (p *Passer) leaderlessFor() time.Duration {
	now := time.Now().UnixNano()
	if p.leaderless.CompareAndSwap(0, now) {
		return 0
	}
	return time.Duration(now - p.leaderless.Load())
}

// send is one attempt. It ends when another node leads: a leader that stands
// still, or is cut off, does not say so.
func (p *Passer) send(ctx context.Context, way http.RoundTripper, url string, r *http.Request, beside parcel, body []byte) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go p.watch(ctx, url, cancel)

	out, err := http.NewRequestWithContext(ctx, r.Method, url+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	out.Header = forwarded(r.Header)
	if deadline, ok := ctx.Deadline(); ok {
		beside.patience = max(time.Until(deadline), time.Millisecond)
	}
	beside.write(out.Header)
	response, err := way.RoundTrip(out)
	if err != nil {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	defer response.Body.Close()
	switch response.Header.Get(answerField) {
	case answered:
	case notLeading:
		return nil, errRefused
	default:
		return nil, fmt.Errorf("%s without a word of who answered", response.Status)
	}
	whole, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, errors.Join(context.Cause(ctx), fmt.Errorf("the answer broke off: %w", err))
	case len(whole) > maxAnswer:
		return nil, errTooLarge
	}
	return &answer{status: response.StatusCode, header: response.Header, body: whole}, nil
}

// watch ends an attempt whose leader leads no more. While no other is known the
// attempt goes on: it may still be answered.
func (p *Passer) watch(ctx context.Context, url string, end context.CancelCauseFunc) {
	for attempt := 4; backoff.Wait(ctx, again.Delay(attempt, nil)) == nil; attempt++ {
		if _, now, ok := p.config.Leader(); ok && now != url || p.config.Leads() {
			end(errMoved)
			return
		}
	}
}
