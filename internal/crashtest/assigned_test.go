//go:build unix

package crashtest

import (
	"context"
	"encoding/json"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/assignment"
	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	agentsync "github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/wire"
)

// What the coordinator wants of a host, one after the other: a certificate, and
// another one that the host's names do not allow; a change of the first that they
// do not allow either, which leaves it as it is; and something that makes no
// sense, which is refused whole.
var (
	wished  = &wire.Desired{Digest: "d1", Assignments: []wire.Assignment{foreign, defined(name, 1, "web.example.com")}}
	changed = &wire.Desired{Digest: "d2", Assignments: []wire.Assignment{foreign, defined(name, 2, "web.example.org")}}
	absurd  = &wire.Desired{Digest: "d3", Assignments: []wire.Assignment{defined(name, 3, "web.example.com"), defined(name, 3, "web.example.com")}}

	foreign = defined("foreign", 1, "foreign.example.org")
)

func defined(name string, revision uint64, dns string) wire.Assignment {
	return wire.Assignment{Name: name, Revision: revision, Certificate: json.RawMessage(`{"names":["` + dns + `"]}`)}
}

// want has the coordinator want something else.
func (c *centre) want(d *wire.Desired) {
	c.Change(func() { c.AgentLocked(c.agent).Desired = d })
}

// adopt makes the list of what the coordinator wants and the host allows, as the
// agent's program does, and keeps what is in force. How a certificate is deployed
// is the world's, which has to look into it.
func (w *world) adopt() ([]renewal.Managed, agentsync.Made, error) {
	desired, err := w.store.Desired()
	if err != nil {
		return nil, agentsync.Made{}, err
	}
	identity, err := w.store.Identity()
	if err != nil {
		return nil, agentsync.Made{}, err
	}
	accepted, err := w.store.Accepted()
	if err != nil {
		return nil, agentsync.Made{}, err
	}
	host := assignment.Host{
		Settings: &config.Settings{Assignments: config.Assignments{Accept: true}}, Patterns: identity.NamePatterns, Accepted: accepted,
	}
	verdicts := host.Judge(desired.Assignments)
	if err := w.store.SaveAccepted(assignment.InForce(verdicts)); err != nil {
		return nil, agentsync.Made{}, err
	}
	var list []renewal.Managed
	for _, v := range verdicts {
		if v.Certificate == nil || v.Name != name {
			continue
		}
		w.dns = v.Certificate.Names[0]
		if list, err = w.managed(w.syncer); err != nil {
			return nil, agentsync.Made{}, err
		}
	}
	return list, agentsync.Made{Digest: desired.Digest, Reports: assignment.Reports(verdicts)}, nil
}

// follow adopts what the coordinator wants, whenever that changes.
func (w *world) follow(ctx context.Context) error {
	for {
		list, made, err := w.adopt()
		if err == nil {
			_, err = w.engine.Reconfigure(list)
		}
		if err != nil {
			return err
		}
		w.syncer.Report(made)
		select {
		case <-ctx.Done():
			return nil
		case <-w.desired:
		}
	}
}

// start tells that the agent starts, and remembers the time, as it does.
func (w *world) start() error {
	now := time.Now().Round(0).UTC()
	if err := w.store.SaveClockMark(store.ClockMark{Time: now, BootID: "boot"}); err != nil {
		return err
	}
	return w.store.Append(wire.Event{Kind: wire.EventStarted, At: now})
}

// dictate has the coordinator want d, and waits until the host has heard of it.
func (w *world) dictate(d *wire.Desired) {
	w.t.Helper()
	w.centre.want(d)
	w.syncer.Kick()
	for end := time.Now().Add(time.Hour); ; w.pass(time.Minute) {
		wanted, err := w.store.Wanted()
		require.NoError(w.t, err)
		if wanted.Digest == d.Digest || wanted.RefusedDigest == d.Digest {
			return
		}
		require.Truef(w.t, time.Now().Before(end), "%s: the host does not hear of %s: %+v", w.label, d.Digest, wanted)
	}
}

// obey is what is recorded of a host whose certificate the coordinator defines.
func obey(w *world) {
	w.open()
	w.rest(1, time.Hour)
	w.dictate(changed)
	w.dictate(absurd)
	w.rest(1, time.Hour)
}

// requireObeyed has the coordinator go on to its last wish, and checks what the
// host has made of all.
func requireObeyed(w *world) {
	w.t.Helper()
	w.rest(1, time.Hour)
	w.dictate(changed)
	w.dictate(absurd)
	w.pass(time.Minute)
	w.rest(1, time.Hour)
	w.requireServed(1)
	w.requireFacts(1)

	told := map[wire.EventKind]int{}
	for _, e := range w.centre.told() {
		told[e.Kind]++
	}
	w.bench.facts.Add(1)
	assert.Equal(w.t, 1, told[wire.EventDesiredRefused], "%s: the refusal is told once", w.label)
	assert.Positive(w.t, told[wire.EventStarted], w.label)

	desired, err := w.store.Desired()
	require.NoError(w.t, err)
	assert.Equal(w.t, *changed, desired, w.label)
	accepted, err := w.store.Accepted()
	require.NoError(w.t, err)
	assert.Equal(w.t, wished.Assignments[1:], accepted, "%s: what was in force stays so", w.label)
	mark, err := w.store.ClockMark()
	require.NoError(w.t, err)
	assert.Equal(w.t, "boot", mark.BootID, w.label)

	var reports []wire.AssignmentReport
	w.centre.Change(func() { reports = w.centre.AgentLocked(w.centre.agent).Assignments })
	if assert.Len(w.t, reports, 2, w.label) {
		for i, says := range []string{"foreign.example.org", "revision 1 stays in force"} {
			assert.Equal(w.t, wire.AssignmentRefused, reports[i].State, w.label)
			assert.Contains(w.t, reports[i].Detail, says, w.label)
		}
	}
}
