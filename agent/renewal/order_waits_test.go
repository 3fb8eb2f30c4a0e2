package renewal

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

// What an order waits for is said in the record and its row as long as it waits, asks for
// a person only if it is for one, and is no failure.
func TestWhatAnOrderWaitsFor(t *testing.T) {
	w := newWorld(t)
	var answer error
	w.ca.intf = func(context.Context, *issuer.Order) error { return answer }
	w.open()
	waits := func(text string, person bool) error {
		return &issuer.Error{Class: issuer.ClassPending, RetryAfter: time.Hour, Committed: true, Err: errors.New(text), Waiting: text, Person: person}
	}
	// look lets the pause pass.
	look := func(with error) *store.Certificate {
		answer = with
		w.clock.advance(2 * time.Hour)
		w.tick()
		return w.record()
	}
	rec := look(waits("the authority works on it", false))
	order := rec.OrderID
	require.NotEmpty(t, order)
	assert.Equal(t, "the authority works on it", rec.Waiting)
	assert.Equal(t, "the authority works on it", rec.Summary().Waiting)
	assert.Empty(t, rec.NeedsAttention)
	assert.Zero(t, rec.Attempt)
	assert.Equal(t, wire.StateRenewing, rec.Summary().State)
	head := func() uint64 {
		changes, err := w.file().Changes(0, 1)
		require.NoError(t, err)
		return changes.Head
	}
	before := head()
	look(answer)
	assert.Equal(t, before, head(), "another look is no news")

	rec = look(waits("somebody has to approve it", true))
	assert.Equal(t, "somebody has to approve it", rec.NeedsAttention)
	assert.Equal(t, "somebody has to approve it", rec.Waiting)
	w.reopen()
	rec = look(waits("the authority works on it again", false))
	assert.Empty(t, rec.NeedsAttention, "nobody has to any more")
	assert.Equal(t, order, rec.OrderID, "it is the same order")

	rec = look(errors.New("cannot be reached"))
	assert.Empty(t, rec.Waiting, "something else is the matter")
	assert.NotZero(t, rec.Attempt)
	rec = look(waits("somebody has to approve it", true))
	assert.Equal(t, "somebody has to approve it", rec.NeedsAttention)
	rec = look(waits("the authority works on it", false))
	assert.Empty(t, rec.NeedsAttention)
	rec = look(nil)
	require.NotNil(t, rec.Current)
	assert.Empty(t, rec.Waiting+rec.NeedsAttention)

	// What is given up waits for nothing.
	w.toRenewal()
	answer = waits("somebody has to approve it", true)
	w.tick()
	require.True(t, w.record().WaitsForPerson)
	rec = look(&issuer.Error{Class: issuer.ClassOrderGone, Err: errors.New("it is gone")})
	assert.Empty(t, rec.Waiting)
	assert.False(t, rec.WaitsForPerson)
}
