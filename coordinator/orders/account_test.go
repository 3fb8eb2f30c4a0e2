package orders

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
)

// A call that failed is held against an authority that answers nobody, and not against
// one that had answered the call's other requests.
func TestWhatACallSaysOfItsAccount(t *testing.T) {
	a := testAccount(Issuer{Connector: silent{}})
	broken := &connector.Error{Class: connector.ClassRetry, Err: errors.New("the connection broke off")}
	busy := &connector.Error{Class: connector.ClassBusy, Status: 503, RetryAfter: time.Minute}
	assert.Equal(t, asyncpoll.Failing, a.note(CallSearch, broken, false, noon).Health)
	assert.Equal(t, asyncpoll.Well, a.note(CallSearch, broken, true, noon).Health)
	assert.Equal(t, asyncpoll.Failing, a.note(CallSearch, busy, false, noon).Health)
	assert.Equal(t, asyncpoll.Well, a.note(CallSearch, busy, true, noon).Health)
	assert.Equal(t, time.Minute, a.note(CallSearch, busy, true, noon).Pause, "what it asks for is done")
	refused := &connector.Error{Class: connector.ClassCredentials, Status: 401}
	assert.Equal(t, asyncpoll.Failing, a.note(CallSearch, refused, true, noon).Health)
}

// A question that is put several times in one step has had an answer if one of the
// times had.
func TestWhatAStepSaysOfItsAccount(t *testing.T) {
	broken := &connector.Error{Class: connector.ClassRetry, Err: errors.New("the connection broke off")}
	refused := &connector.Error{Class: connector.ClassCredentials, Status: 401}
	begin := func() *step {
		return &step{
			term: &term{e: &Engine{config: Config{Now: func() time.Time { return noon }}}}, account: testAccount(Issuer{Connector: silent{}}),
			outcome: asyncpoll.Outcome{Health: asyncpoll.Unclear},
		}
	}
	s := begin()
	s.called(CallSearch, broken, false)
	assert.Equal(t, asyncpoll.Failing, s.outcome.Health)
	s.called(CallSearch, broken, true)
	assert.Equal(t, asyncpoll.Well, s.outcome.Health)
	s.called(CallSearch, broken, false)
	assert.Equal(t, asyncpoll.Well, s.outcome.Health)
	s = begin()
	s.called(CallStatus, refused, false)
	s.called(CallStatus, nil, true)
	assert.Equal(t, asyncpoll.Failing, s.outcome.Health)
}

// silent is an authority that is never asked.
type silent struct{ connector.Connector }

func (silent) Test(context.Context) (*connector.Account, error) {
	return nil, errors.New("nobody asks")
}
