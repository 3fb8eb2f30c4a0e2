package agentapi

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/wire"
)

// trySync sends a sync as a real agent does: a stale sequence begins a new boot.
func (a *agent) trySync() {
	a.w.t.Helper()
	p := a.w.post(a, wire.SyncPath, a.request(), new(wire.SyncResponse))
	if p == nil {
		return
	}
	require.Equal(a.w.t, wire.CodeStale, p.Code)
	a.restart()
	require.Nil(a.w.t, a.w.post(a, wire.SyncPath, a.request(), new(wire.SyncResponse)))
}

// auditFacts waits until the journal, which is written behind the answers, has
// n facts of a kind, and checks that there are no more. What comes after them is
// a token, which tells how far the journal is.
func (w *world) auditFacts(kind fleet.Kind, n int) []fleet.Fact {
	w.t.Helper()
	last := w.token(nil).ID
	read := func(kind fleet.Kind) []fleet.Fact {
		page, _, err := w.real.Journal.Read(history.Query{Kinds: []fleet.Kind{kind}, Limit: history.MaxLimit})
		require.NoError(w.t, err)
		return page
	}
	require.Eventually(w.t, func() bool {
		return slices.ContainsFunc(read(fleet.KindEnrollmentTokenCreated), func(f fleet.Fact) bool { return f.Object == last })
	}, time.Minute, time.Millisecond)
	facts := read(kind)
	require.Len(w.t, facts, n)
	for _, fact := range facts {
		assert.NotZero(w.t, fact.Audit)
	}
	return facts
}

func (w *world) shared(id string) bool {
	w.t.Helper()
	stored, ok := w.view().Agent(id)
	require.True(w.t, ok)
	return stored.Shared(w.now())
}

// Two hosts with one identity: the agent is marked, once a day, for as long as
// they go on.
func TestTwoHostsWithOneIdentity(t *testing.T) {
	w := newWorld(t)
	one := w.enrolled()
	one.sync()
	copied := *one
	copied.restart()
	for range 4 {
		copied.trySync()
		w.sleep(time.Minute)
		one.trySync()
		w.sleep(time.Minute)
	}
	assert.True(t, w.shared(one.id))
	w.auditFacts(fleet.KindIdentityShared, 1)

	sleep := func(d time.Duration) {
		w.sleep(d)
		chain, p := one.renew(one.key)
		require.Nil(t, p)
		one.use(one.key, chain)
		copied.use(one.key, chain)
	}
	sleep(25 * time.Hour)
	for range 4 {
		copied.trySync()
		one.trySync()
	}
	w.auditFacts(fleet.KindIdentityShared, 2)
	sleep(47 * time.Hour)
	assert.True(t, w.shared(one.id))
	sleep(2 * time.Hour)
	for range 3 {
		one.trySync()
	}
	assert.False(t, w.shared(one.id), "the copy is gone")
	w.auditFacts(fleet.KindIdentityShared, 2)
}

// What one host does is no sign of two: restarts, a late duplicate of a request,
// a virtual machine that was set back now and then.
func TestOneHostIsNotTwo(t *testing.T) {
	w := newWorld(t)
	one := w.enrolled()
	for range 5 {
		one.sync()
		old := one.boot
		one.restart()
		one.sync()
		one.boot = old // set back, with its memory
		one.trySync()
		w.sleep(2 * time.Hour)
	}
	assert.False(t, w.shared(one.id))
	w.auditFacts(fleet.KindIdentityShared, 0)
}
