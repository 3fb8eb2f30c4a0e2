package fleet_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
)

// Whatever is asked of a watched view is noted with its table.
func TestWatchedViews(t *testing.T) {
	b := newBench(t)
	b.enroll("a")
	for table, ask := range map[fleet.Table]func(*fleet.View){
		fleet.TableAgents:           func(v *fleet.View) { v.Agent("a") },
		fleet.TableCertificates:     func(v *fleet.View) { _, _, _ = v.Certificates(fleet.CertificateFilter{}, fleet.Page{}) },
		fleet.TableOrders:           func(v *fleet.View) { v.Rows(fleet.TableOrders) },
		fleet.TableRevocations:      func(v *fleet.View) { v.Revocation("0a") },
		fleet.TablePresence:         func(v *fleet.View) { v.LastSeen("a") },
		fleet.TableEnrollmentTokens: func(v *fleet.View) { v.EnrollmentTokens() },
	} {
		view := b.view().Watched()
		_, ok := view.ReadOnly(nil)
		assert.True(t, ok)
		ask(view)
		other, ok := view.ReadOnly([]fleet.Table{fleet.TableCA})
		assert.False(t, ok)
		assert.Equal(t, table, other)
		_, ok = view.ReadOnly([]fleet.Table{fleet.TableCA, table})
		assert.True(t, ok)
	}
	view := b.view().Watched()
	view.Version(fleet.TableAgents)
	_, ok := view.ReadOnly(nil)
	assert.True(t, ok, "a version tells nothing of what is in the table")
}

func TestEachSeen(t *testing.T) {
	b := newBench(t)
	want := map[string]time.Time{}
	for _, id := range []string{"b", "a", "ab", "a\x00", "c", "d"} {
		b.now = b.now.Add(time.Second)
		b.enroll(id)
		want[id] = b.now
	}
	at := b.now.Add(time.Hour)
	b.ok(fleet.TouchAgents{Seen: []fleet.Seen{{Agent: "a", At: at}, {Agent: "d", At: at}, {Agent: "c", At: at}}})
	b.ok(fleet.RetireAgent{AgentID: "c"})
	delete(want, "c")
	want["a"], want["d"] = at, at
	got, last := map[string]time.Time{}, ""
	b.view().EachSeen(func(agent *fleet.Agent, seen time.Time) {
		assert.Less(t, last, agent.ID)
		got[agent.ID], last = seen, agent.ID
	})
	require.Len(t, got, len(want))
	for id, at := range want {
		assert.True(t, at.Equal(got[id]), "%q: %v", id, got[id])
	}
}

func TestNextExpiry(t *testing.T) {
	b := newBench(t)
	_, ok := b.view().NextExpiry(b.now)
	assert.False(t, ok)
	b.enroll("a")
	sync := fleet.SyncAgent{AgentID: "a", BootID: "b1", Sequence: 1, Revision: 2, HeadRevision: 2}
	for i, hours := range []int{2, 1} {
		sync.Rows = append(sync.Rows, row(t, wireRow(fmt.Sprint("x", i), uint64(i+1), "x.example.com", b.now.Add(time.Duration(hours)*time.Hour))))
	}
	b.ok(sync)
	for after, want := range map[time.Duration]time.Duration{0: 1, time.Hour - 1: 1, time.Hour: 2, 2*time.Hour - 1: 2} {
		next, ok := b.view().NextExpiry(b.now.Add(after))
		require.True(t, ok)
		assert.True(t, b.now.Add(want*time.Hour).Equal(next), "after %v: %v", after, next)
	}
	_, ok = b.view().NextExpiry(b.now.Add(2 * time.Hour))
	assert.False(t, ok)
}
