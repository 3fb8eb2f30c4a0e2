package report_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/coordinator/report"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

const (
	day   = 24 * time.Hour
	pause = time.Minute
)

// A world is a fleet, and its clock.
type world struct {
	t         require.TestingT
	state     *fleet.State
	index     uint64
	now       time.Time
	sequences map[string]uint64
	revisions map[string]uint64
}

func newWorld(t require.TestingT) *world {
	state, err := fleet.New()
	require.NoError(t, err)
	// A Wednesday.
	w := &world{t: t, state: state, now: time.Date(2031, 5, 7, 8, 9, 10, 0, time.UTC), sequences: map[string]uint64{}, revisions: map[string]uint64{}}
	w.do(fleet.CreateEnrollmentToken{ID: "token", NamePatterns: []string{"**.example.com"}, ExpiresAt: w.now.Add(1000 * day)})
	return w
}

func (w *world) do(payloads ...fleet.Payload) {
	commands := make([]fleet.Command, 0, len(payloads))
	for _, payload := range payloads {
		command, err := fleet.NewCommand(w.now, payload)
		require.NoError(w.t, err)
		commands = append(commands, command)
	}
	w.store(commands)
}

func (w *world) store(commands []fleet.Command) {
	entry, err := fleet.EncodeEntry(commands)
	require.NoError(w.t, err)
	w.index++
	results, _, err := w.state.Apply(w.index, entry)
	require.NoError(w.t, err)
	for _, result := range results {
		require.True(w.t, result.OK(), "%+v", result)
	}
}

func (w *world) enrol(id string) {
	w.do(fleet.EnrollAgent{
		TokenID: "token", AgentID: id, Host: wire.HostReport{Hostname: id + ".example.com", Version: "1.0"},
		Identity: fleet.Identity{Fingerprint: "f" + id, PublicKeyFingerprint: "k" + id, Serial: "0a", NotAfter: w.now.Add(day)},
	})
}

// tell is a sync that says how the host stands, and how one of its certificates does.
func (w *world) tell(id, name string, summary *wire.Summary, change func(*wire.HostReport)) {
	w.sequences[id]++
	host := wire.HostReport{Hostname: id + ".example.com", Version: "1.0"}
	if change != nil {
		change(&host)
	}
	sync := fleet.SyncAgent{AgentID: id, BootID: "boot", Sequence: w.sequences[id], Host: &host, BaseRevision: w.revisions[id]}
	if name != "" {
		w.revisions[id]++
		if summary == nil {
			sync.Removed = []fleet.Removal{{Name: name, Revision: w.revisions[id]}}
		} else {
			data, err := json.Marshal(summary)
			require.NoError(w.t, err)
			row, err := fleet.NewRow(wire.Row{Name: name, Revision: w.revisions[id], Data: data})
			require.NoError(w.t, err)
			sync.Rows = []fleet.Row{row}
		}
	}
	sync.Revision, sync.HeadRevision = w.revisions[id], w.revisions[id]
	w.do(sync)
}

func (w *world) touch(id string) {
	w.do(fleet.TouchAgents{Seen: []fleet.Seen{{Agent: id, At: w.now}}})
}

// well is a certificate that nothing is wrong with.
func (w *world) well(left time.Duration) *wire.Summary {
	return &wire.Summary{
		Names: pki.MustParseNames("www.example.com"), State: wire.StateValid, Issuer: "acme", Serial: "5e", Fingerprint: "aa",
		NotBefore: w.now.Add(-left), NotAfter: w.now.Add(left), RenewAt: w.now.Add(left / 2), SafeUntil: w.now.Add(left),
		Deployments: []wire.DeploymentSummary{{ID: "nginx", State: wire.DeploymentVerified, Fingerprint: "aa", At: w.now}},
	}
}

// safe lets a host be safe for so long.
func (w *world) safe(left time.Duration) func(*wire.HostReport) {
	until := w.now.Add(left)
	return func(h *wire.HostReport) { h.SafeUntil = &until }
}

func (w *world) question() *report.Question {
	return &report.Question{View: w.state.View(), Clock: health.At(w.now), Pause: pause}
}

func (w *world) ask(q *report.Question) *report.Answer {
	answer, err := new(report.Counter).Report(q)
	require.NoError(w.t, err)
	return answer
}

// large is a fleet as agents report it, of which every host has been heard of.
func large(t testing.TB, agents, each int) *world {
	w := newWorld(t)
	fill(w, agents, each)
	return w
}

// try is do for what may be refused.
func (w *world) try(payload fleet.Payload) {
	command, err := fleet.NewCommand(w.now, payload)
	require.NoError(w.t, err)
	entry, err := fleet.EncodeEntry([]fleet.Command{command})
	require.NoError(w.t, err)
	w.index++
	_, _, err = w.state.Apply(w.index, entry)
	require.NoError(w.t, err)
}
