package fleet_test

import (
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
