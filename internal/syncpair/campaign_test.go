package syncpair

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
)

// All certificates are to be renewed over six hours: each host renews its own
// once, when its turn comes and no sooner, and the turns lie apart.
func TestAMassRenewalIsSpreadOverItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			hosts = 6
			over  = 6 * time.Hour
			// What an engine and its order take at most from the turn on.
			late = 5 * time.Minute
		)
		v, stop := newVirtual(t, 100, 500, 10*time.Minute)
		defer stop()
		var herd []*host
		for i := range hosts {
			h := v.host(fmt.Sprintf("web-server-%05d", i))
			h.tick = time.Minute
			h.work(24 * time.Hour)
			herd = append(herd, h)
		}
		pass(20 * time.Minute)
		for _, h := range herd {
			require.NotNil(t, h.inService(), "each has its first certificate")
		}
		issued := func() map[string][]time.Time {
			v.log.mu.Lock()
			defer v.log.mu.Unlock()
			at := map[string][]time.Time{}
			for _, fact := range v.log.facts {
				if fact.Kind == fleet.KindOrderIssued {
					at[fact.Agent] = append(at[fact.Agent], fact.Time)
				}
			}
			return at
		}
		for _, h := range herd {
			require.Len(t, issued()[h.id], 1)
		}

		v.do(fleet.BeginCampaign{Actor: "local", ID: "campaign00000001", Selector: "*", Over: over, Targets: hosts})
		campaign, ok := v.view().Campaign("campaign00000001")
		require.True(t, ok)
		pass(over + 2*late)
		var turns []time.Duration
		for id, times := range issued() {
			if !assert.Len(t, times, 2, "%s renews once", id) {
				continue
			}
			due := campaign.Due(id, "www")
			assert.False(t, times[1].Before(due), "%s renewed %v before its turn", id, due.Sub(times[1]))
			assert.Less(t, times[1].Sub(due), late, id)
			turns = append(turns, times[1].Sub(campaign.CreatedAt))
		}
		require.Len(t, turns, hosts)
		// The places are those of these ids, the same in each run.
		var thirds [3]int
		for _, turn := range turns {
			thirds[min(2, int(turn/(over/3)))]++
		}
		t.Log("renewed in each third of the window:", thirds)
		for third, n := range thirds {
			assert.Positive(t, n, "nobody renewed in third %d of the window", third+1)
			assert.LessOrEqual(t, n, 2*hosts/3)
		}
	})
}
