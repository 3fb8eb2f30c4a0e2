package orders

import (
	"context"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/backoff"
)

const (
	// busyPause is for an authority that limits us and does not say for how long.
	busyPause = 20 * time.Second
	// refusedTogether is how close to each other refusals of the credentials count
	// as one: several questions were open.
	refusedTogether = time.Minute
)

// locked is how long an account rests whose credentials were refused: many an
// authority locks one out for good that knocks too often. New credentials need not
// wait for it, see [Engine.Resume].
var locked = backoff.Policy{Initial: 5 * time.Minute, Max: time.Hour, Multiplier: 2, Jitter: 0.2}

// account is one issuer of the settings. What it has beside them is of this process,
// and for people.
type account struct {
	name        string
	issuer      Issuer
	rules       rules
	callTimeout time.Duration
	random      func() float64
	get         func(ctx context.Context, place string) ([]byte, error) // for fetchIssuers

	mu         sync.Mutex
	counts     map[outcomeOf]uint64
	answeredAt time.Time
	failure    string
	failedAt   time.Time
	refusals   int // of the credentials, in a row
	refusedAt  time.Time
	changesAt  time.Time // of the last answer to what has changed
}

func newAccount(name string, issuer Issuer, c *Config) *account {
	a := &account{name: name, issuer: issuer, callTimeout: c.CallTimeout, random: c.Random, get: httpGet, counts: map[outcomeOf]uint64{}}
	a.rules = rules{
		issuer: name, node: c.NodeID, pace: asyncpoll.Pace{MaxWait: issuer.MaxWait, Random: c.Random}, random: c.Random, placeLimit: c.PlaceTimeout,
	}
	if s, ok := issuer.Connector.(connector.Searcher); ok {
		a.rules.searches, a.rules.visible = true, s.Visible()
	}
	if r, ok := issuer.Connector.(connector.Repeater); ok {
		a.rules.repeatable = r.Repeatable()
	}
	return a
}

// note keeps what a call came to, and says what it means for the account. answered says
// that the authority has answered some of the call's requests: it is not one that
// answers nobody, though the call failed.
func (a *account) note(call Call, err error, answered bool, now time.Time) asyncpoll.Outcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.counts[outcomeOf{call, OutcomeOK}]++
		a.answeredAt, a.refusals = now, 0
		return asyncpoll.Outcome{}
	}
	e := connector.Classify(err)
	a.counts[outcomeOf{call, string(e.Class)}]++
	if e.Class == connector.ClassNotReady {
		a.answeredAt, a.refusals = now, 0
		return asyncpoll.Outcome{}
	}
	a.failure, a.failedAt = connector.Detail(e.Error()), now
	outcome := asyncpoll.Outcome{Reason: connector.Detail(text(e))}
	switch e.Class {
	case connector.ClassCredentials:
		if a.refusals == 0 || now.Sub(a.refusedAt) > refusedTogether {
			a.refusals, a.refusedAt = a.refusals+1, now
		}
		outcome.Pause = locked.DelayAfter(a.refusals, e.RetryAfter, a.random)
		// By the circuit, one question at a time tries it then.
		outcome.Health, outcome.Reason = asyncpoll.Failing, connector.Detail(e.Error())
		return outcome
	case connector.ClassBusy:
		outcome.Pause = e.RetryAfter
		if outcome.Pause <= 0 {
			outcome.Pause = busyPause
		}
		outcome.Pause = min(outcome.Pause, asyncpoll.MaxPause)
		if e.Status/100 == 5 && !answered {
			outcome.Health = asyncpoll.Failing
		}
	case connector.ClassRetry, connector.ClassAnswer:
		if !answered {
			outcome.Health = asyncpoll.Failing
		}
	default:
		a.answeredAt = now // it has, whatever it said
	}
	a.refusals = 0
	return outcome
}

// worse is what two answers of one step say together.
func worse(a, b asyncpoll.Outcome) asyncpoll.Outcome {
	if a.Reason == "" || b.Pause > a.Pause {
		a.Reason = b.Reason
	}
	if b.Health == asyncpoll.Failing {
		a.Health = asyncpoll.Failing
	}
	a.Pause = max(a.Pause, b.Pause)
	return a
}
