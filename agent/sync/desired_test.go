package sync

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	gosync "sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync/coordinatortest"
	"github.com/certctl/certctl/shared/wire"
)

func wish(digest string, names ...string) *wire.Desired {
	d := &wire.Desired{Digest: digest}
	for _, name := range names {
		d.Assignments = append(d.Assignments, wire.Assignment{Name: name, Revision: 1, Certificate: json.RawMessage(`{"names":["a.example.com"]}`)})
	}
	return d
}

// want sets what the coordinator wants of the host.
func (h *host) want(d *wire.Desired, commands ...wire.Command) {
	h.coord.Change(func() {
		a := h.coord.AgentLocked(h.agentID)
		a.Desired, a.Commands = d, commands
	})
}

func (h *host) stored() wire.Desired {
	d, err := h.store.Desired()
	require.NoError(h.t, err)
	return d
}

func (h *host) commands() []store.Command {
	list, err := h.store.Commands()
	require.NoError(h.t, err)
	return list
}

// active is the report of a host that manages all of a state.
func active(d wire.Desired) Made {
	made := Made{Digest: d.Digest}
	for _, a := range d.Assignments {
		made.Reports = append(made.Reports, wire.AssignmentReport{Name: a.Name, Revision: a.Revision, State: wire.AssignmentActive})
	}
	return made
}

func TestTheDesiredStateIsStoredAndReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		h.want(wish("d1", "a", "b"))
		h.start()
		h.pass(time.Second)
		assert.Equal(t, *wish("d1", "a", "b"), h.stored())
		assert.Equal(t, 1, h.desired)
		h.client.Report(active(h.stored()))
		h.pass(2 * time.Second)
		assert.Equal(t, "d1", h.agent().DesiredDigest)
		assert.Len(t, h.agent().Assignments, 2)

		h.pass(time.Hour)
		assert.Equal(t, 1, h.agent().AssignmentReports, "what the coordinator knows is not told again")
		h.client.Report(active(h.stored()))
		h.pass(time.Minute)
		assert.Equal(t, 1, h.agent().AssignmentReports, "nor when it is said again here")

		refused := active(h.stored())
		refused.Reports[0].State, refused.Reports[0].Detail = wire.AssignmentRefused, "no"
		h.client.Report(refused)
		h.pass(2 * time.Second)
		assert.Equal(t, 2, h.agent().AssignmentReports)
		assert.Equal(t, refused.Reports, h.agent().Assignments)

		h.want(wish("d2", "c"))
		h.pass(2 * time.Minute)
		assert.Equal(t, *wish("d2", "c"), h.stored())
		assert.Equal(t, 2, h.desired)
		assert.Equal(t, 2, h.agent().AssignmentReports, "what was made of another state says nothing about this one")

		// What is stored is in force without the coordinator.
		h.network.Down = func() bool { return true }
		h.restart()
		h.pass(time.Hour)
		assert.Equal(t, *wish("d2", "c"), h.stored())
	})
}

func TestAStateThatMakesNoSenseIsRefusedWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		h.want(wish("d1", "a"))
		h.start()
		h.pass(time.Second)
		h.want(wish("d2", "b", "b"))
		h.pass(time.Hour)
		assert.Equal(t, *wish("d1", "a"), h.stored())
		assert.Equal(t, "d1", h.agent().DesiredDigest)
		assert.Equal(t, 1, h.desired)
		wanted, err := h.store.Wanted()
		require.NoError(t, err)
		assert.Equal(t, "d2", wanted.RefusedDigest)
		assert.Contains(t, wanted.Refusal, "growing names")
		told := 0
		for _, e := range h.agent().Events {
			if e.Kind == wire.EventDesiredRefused {
				told++
			}
		}
		assert.Equal(t, 1, told, "it is reported once, however often it is sent")
		assert.Equal(t, Connected, h.client.State().Standing, "and everything else goes on")

		h.want(wish("d3", "b"))
		h.pass(2 * time.Minute)
		assert.Equal(t, *wish("d3", "b"), h.stored())
	})
}

func TestTheLifeOfACommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		first := wire.Command{ID: "command-1", Kind: wire.CommandRenew, Certificate: "a", Serial: "aa"}
		second := wire.Command{ID: "command-2", Kind: wire.CommandRevoke, Certificate: "b"}
		senseless := wire.Command{ID: "command-3", Kind: wire.CommandRenew}
		h.want(nil, first, second, senseless, wire.Command{ID: "x"})
		h.start()
		h.pass(2 * time.Second)
		require.Len(t, h.commands(), 3)
		assert.Equal(t, 1, h.asked)
		assert.Equal(t, wire.CommandAccepted, h.agent().Results["command-1"].State)
		assert.Equal(t, store.Command{Request: wire.Command{ID: "command-3"}, State: wire.CommandAccepted, At: h.commands()[2].At}, h.commands()[2])
		h.pass(time.Hour)
		assert.Equal(t, 1, h.asked, "a repetition is none")

		// One is over, one is withdrawn.
		require.NoError(t, h.store.UpdateCommand("command-1", func(c *store.Command, _ *store.Certificate) error {
			c.State, c.Detail = wire.CommandDone, "replaced"
			return nil
		}))
		h.want(nil, first, senseless)
		h.restart()
		h.pass(2 * time.Minute)
		assert.Equal(t, "replaced", h.agent().Results["command-1"].Detail)
		require.Len(t, h.commands(), 1, "what the coordinator has heard of is forgotten")
		assert.Equal(t, "command-3", h.commands()[0].Request.ID)
	})
}

// Whatever goes wrong on the way, and whenever either side stops: each command
// becomes final once, nothing stays behind, and the host ends with what is
// wanted of it.
func TestWantedConverges(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { wantedConverges(t, seed) })
		})
	}
}

func wantedConverges(t *testing.T, seed uint64) {
	h := newHost(t)
	h.enrol()
	var mu gosync.Mutex
	faulty := true
	faults := rand.New(rand.NewPCG(seed, 1))
	h.coord.Fault = func(*http.Request) coordinatortest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if !faulty || faults.IntN(2) == 0 {
			return coordinatortest.None
		}
		return coordinatortest.Fault(faults.IntN(int(coordinatortest.Hang) + 1))
	}
	h.start()
	acts := rand.New(rand.NewPCG(seed, 2))
	var asked []wire.Command
	done := map[string]int{} // how often this host carried each out
	finish := func() {
		for _, c := range h.commands() {
			if c.State == wire.CommandAccepted {
				done[c.Request.ID]++
				require.NoError(t, h.store.UpdateCommand(c.Request.ID, func(c *store.Command, _ *store.Certificate) error {
					c.State = wire.CommandDone
					return nil
				}))
			}
		}
		h.client.Report(active(h.stored()))
	}
	state := wish("d0", "a")
	for step := range 30 {
		switch acts.IntN(4) {
		case 0:
			state = wish(fmt.Sprint("d", step), "a", fmt.Sprint("b", step))
		case 1:
			asked = append(asked, wire.Command{ID: fmt.Sprintf("command-%04d", step), Kind: wire.CommandRenew, Certificate: "a"})
		case 2:
			finish()
		case 3:
			h.restart()
		}
		h.want(state, asked...)
		h.pass(time.Duration(acts.Int64N(int64(2 * time.Minute))))
	}
	mu.Lock()
	faulty = false
	mu.Unlock()
	h.pass(20 * time.Minute)
	finish()
	h.pass(20 * time.Minute)
	assert.Equal(t, *state, h.stored())
	assert.Equal(t, active(*state).Reports, h.agent().Assignments)
	assert.Empty(t, h.commands())
	for _, command := range asked {
		assert.Equal(t, 1, done[command.ID], command.ID)
		assert.Equal(t, 1, h.agent().Final[command.ID], command.ID)
	}
}

// What a person on the host has to look at is told with each report, clipped to
// what one takes; and it is told no more when it is over.
func TestWarningsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		var found []string
		h.prepare = func(c *Client) { c.cfg.Warnings = func() ([]string, error) { return found, nil } }
		found = []string{"configuration on disk is not in effect: line 3"}
		h.start()
		h.pass(2 * time.Minute)
		assert.Equal(t, found, h.agent().Host.Warnings)
		h.stop()

		found = nil
		for i := range 20 {
			found = append(found, fmt.Sprintf("%02d %s\xff", i, strings.Repeat("é", wire.MaxHostWarningLen)))
		}
		h.start()
		h.pass(2 * time.Minute)
		told := h.agent().Host.Warnings
		require.Len(t, told, wire.MaxHostWarnings)
		for i, text := range told[:len(told)-1] {
			assert.True(t, strings.HasPrefix(text, fmt.Sprintf("%02d é", i)) && strings.HasSuffix(text, "é…"), text)
			assert.LessOrEqual(t, len(text), wire.MaxHostWarningLen)
		}
		assert.Equal(t, `13 more; "certctl-agent status" on the host shows all`, told[len(told)-1])
		h.stop()

		found = nil
		h.start()
		h.pass(2 * time.Minute)
		assert.Empty(t, h.agent().Host.Warnings)
		h.stop()
	})
}
