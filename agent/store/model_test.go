package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

const modelOutbox = 6

// model is what the store must hold, kept in plain maps, and a coordinator that
// is brought up to date from it.
type model struct {
	path  string
	store *Store
	drops uint64 // calls of OnDrop

	records  map[string]string // name -> JSON
	rows     map[string][]byte // name -> row data
	removed  map[string]string // name -> JSON of what was set aside
	emitted  uint64
	acked    uint64
	maxAcked uint64

	remote   map[string]wire.Row
	revision uint64

	desired  wire.Desired
	accepted []wire.Assignment
	refused  string             // digest
	commands map[string]Command // what Commands must return
	told     map[string]bool    // final commands that a request has told of
}

func (m *model) open(t *rapid.T) {
	s, err := Open(m.path, Options{
		Now: func() time.Time { return epoch }, OutboxLimit: modelOutbox,
		OnDrop: func(Dropped) { m.drops++ },
	})
	require.NoError(t, err)
	s.db.NoSync = true // this is about content; the crash test is about durability
	m.store = s
}

var modelName = rapid.SampledFrom([]string{"a", "b", "web", "web-2", "ü", "x y"})

var modelTime = rapid.Custom(func(t *rapid.T) time.Time {
	if rapid.IntRange(0, 5).Draw(t, "special") == 0 {
		return rapid.SampledFrom([]time.Time{{}, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), time.Unix(-5, 7).UTC()}).Draw(t, "time")
	}
	return epoch.Add(time.Duration(rapid.Int64Range(-1e6, 1e6).Draw(t, "ms")) * time.Millisecond)
})

var modelKind = rapid.SampledFrom([]wire.EventKind{wire.EventIssued, wire.EventFailed, wire.EventStarted})

func (m *model) events(t *rapid.T, certificate string) []wire.Event {
	var list []wire.Event
	for range rapid.IntRange(0, 3).Draw(t, "events") {
		list = append(list, wire.Event{Kind: modelKind.Draw(t, "kind"), Certificate: certificate})
	}
	return list
}

// update changes a record at random; some changes are none.
func (m *model) update(t *rapid.T) {
	name := modelName.Draw(t, "name")
	events := m.events(t, name)
	fail := rapid.IntRange(0, 6).Draw(t, "fail") == 0
	broken := fmt.Errorf("refused")
	commits := lastCommit(t, m.store)
	var after Certificate
	isNew := false
	err := m.store.Update(name, func(tx *CertificateTx) error {
		r := tx.Record
		isNew = tx.New
		if rapid.Bool().Draw(t, "schedule") {
			r.NextAction = modelTime.Draw(t, "next")
		}
		switch rapid.IntRange(0, 5).Draw(t, "what") {
		case 0:
			r.Current = &Generation{Number: 1, KeyID: "k", KeyAlgorithm: pki.ECDSAP256, NotAfter: modelTime.Draw(t, "not after")}
			r.Renewals++
		case 1:
			r.Current = nil
		case 2:
			r.Attempt = rapid.IntRange(0, 2).Draw(t, "attempt")
		case 3:
			r.Phase = rapid.SampledFrom([]Phase{PhaseIdle, PhaseKeyWritten, PhaseIssued}).Draw(t, "phase")
		case 4:
			r.Deployments = rapid.SampledFrom([]map[string]Deployment{nil, {"nginx": {}}}).Draw(t, "deployments")
		}
		for _, e := range events {
			tx.Emit(e)
		}
		after = *r
		if fail {
			return broken
		}
		return nil
	})
	if fail {
		require.Equal(t, broken, err)
		require.Equal(t, commits, lastCommit(t, m.store))
		return
	}
	require.NoError(t, err)
	text, err := json.Marshal(after)
	require.NoError(t, err)
	before, was := m.records[name]
	require.Equal(t, !was, isNew)
	blank, err := json.Marshal(Certificate{Name: name, Phase: PhaseIdle})
	require.NoError(t, err)
	changed := was && before != string(text) || !was && string(blank) != string(text)
	if changed {
		m.records[name] = string(text)
		m.rows[name], err = json.Marshal(after.Summary())
		require.NoError(t, err)
	}
	m.emitted += uint64(len(events))
	if !changed && len(events) == 0 {
		require.Equal(t, commits, lastCommit(t, m.store), "a change of nothing must write nothing")
	} else {
		require.Equal(t, commits+1, lastCommit(t, m.store))
	}
}

// retire sets aside one of two names at a time.
func (m *model) retire(t *rapid.T) {
	names := []string{modelName.Draw(t, "name"), modelName.Draw(t, "other")}
	at := modelTime.Draw(t, "at")
	require.NoError(t, m.store.Retire(names, at, func(r *Certificate) wire.Event {
		return wire.Event{Kind: wire.EventRemoved, Certificate: r.Name}
	}))
	for _, name := range names {
		if text, was := m.records[name]; was {
			m.emitted++
			m.removed[name] = text
		}
		delete(m.records, name)
		delete(m.rows, name)
	}
}

func (m *model) restore(t *rapid.T) {
	name := modelName.Draw(t, "name")
	require.NoError(t, m.store.Restore([]string{name}))
	text, kept := m.removed[name]
	if _, taken := m.records[name]; taken || !kept {
		return
	}
	delete(m.removed, name)
	m.records[name] = text
	var record Certificate
	require.NoError(t, json.Unmarshal([]byte(text), &record))
	row, err := json.Marshal(record.Summary())
	require.NoError(t, err)
	m.rows[name] = row
}

func (m *model) forget(t *rapid.T) {
	name := modelName.Draw(t, "name")
	events := m.events(t, name)
	forgotten, err := m.store.Forget(name, events...)
	require.NoError(t, err)
	_, kept := m.removed[name]
	require.Equal(t, kept, forgotten != nil)
	if kept {
		m.emitted += uint64(len(events))
	}
	delete(m.removed, name)
}

func (m *model) ackEvents(t *rapid.T) {
	events, err := m.store.Events(rapid.IntRange(0, modelOutbox).Draw(t, "limit"))
	require.NoError(t, err)
	if len(events) == 0 {
		return
	}
	n := rapid.IntRange(1, len(events)).Draw(t, "acked")
	require.NoError(t, m.store.AckEvents(events[n-1].Sequence))
	m.acked += uint64(n)
	m.maxAcked = events[n-1].Sequence
}

// sync hands one page to the coordinator, whose acknowledgement may get lost.
func (m *model) sync(t *rapid.T) {
	page, err := m.store.Changes(m.revision, rapid.IntRange(1, 4).Draw(t, "page"))
	require.NoError(t, err)
	last := m.revision
	for _, row := range page.Rows {
		require.Greater(t, row.Revision, m.revision)
		m.remote[row.Name] = row
		last = max(last, row.Revision)
	}
	for _, removal := range page.Removed {
		require.Greater(t, removal.Revision, m.revision)
		delete(m.remote, removal.Name)
		last = max(last, removal.Revision)
	}
	require.LessOrEqual(t, last, page.Upto)
	require.LessOrEqual(t, page.Upto, page.Head)
	m.revision = page.Upto
	if page.Upto == page.Head {
		var digest wire.Digest
		for _, row := range m.remote {
			digest.Toggle(row.Hash())
		}
		require.Equal(t, page.Digest, digest, "the coordinator has what the agent has")
	}
	if rapid.Bool().Draw(t, "acknowledged") {
		require.NoError(t, m.store.SaveSyncState(SyncState{AckedRevision: m.revision}))
	}
}

// resync is what happens when the coordinator lost everything.
func (m *model) resync(*rapid.T) { m.remote, m.revision = map[string]wire.Row{}, 0 }

func (m *model) reopen(t *rapid.T) {
	boot, instance := m.store.BootID(), m.store.InstanceID()
	require.NoError(t, m.store.Close())
	m.open(t)
	require.NotEqual(t, boot, m.store.BootID())
	require.Equal(t, instance, m.store.InstanceID())
}

// check compares everything that can be read with what the model says.
func (m *model) check(t *rapid.T) {
	requireWhole(t, m.store)
	records, err := m.store.Certificates()
	require.NoError(t, err)
	require.Len(t, records, len(m.records))
	removed, err := m.store.Removed()
	require.NoError(t, err)
	require.Len(t, removed, len(m.removed))
	for _, r := range removed {
		text, err := json.Marshal(r.Certificate)
		require.NoError(t, err)
		require.Equal(t, m.removed[r.Certificate.Name], string(text))
	}
	var digest wire.Digest
	type entry struct {
		at   time.Time
		name string
	}
	var schedule []entry
	var safe *time.Time
	var notSafe []string
	now := modelTime.Draw(t, "now")
	for _, r := range records {
		text, err := json.Marshal(r)
		require.NoError(t, err)
		require.Equal(t, m.records[r.Name], string(text))
		if !r.NextAction.IsZero() {
			schedule = append(schedule, entry{r.NextAction, r.Name})
		}
		if r.Current != nil && !r.Current.NotAfter.IsZero() && (safe == nil || r.Current.NotAfter.Before(*safe)) {
			safe = &r.Current.NotAfter
		}
		if len(r.Deployments) > 0 || r.Current == nil || r.Current.NotAfter.IsZero() || !now.Before(r.Current.NotAfter) {
			notSafe = append(notSafe, r.Name)
		}
	}
	slices.SortFunc(schedule, func(a, b entry) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	var due []string
	for _, e := range schedule {
		if !e.at.After(now) {
			due = append(due, e.name)
		}
	}
	got, err := m.store.Due(now, 0)
	require.NoError(t, err)
	require.Equal(t, due, got)
	next, ok, err := m.store.NextDue()
	require.NoError(t, err)
	require.Equal(t, len(schedule) > 0, ok)
	if ok {
		require.True(t, schedule[0].at.Equal(next))
	}
	horizon, err := m.store.Horizon(now)
	require.NoError(t, err)
	slices.Sort(notSafe)
	require.Equal(t, notSafe, horizon.NotSafe)
	if len(notSafe) > 0 && safe != nil && now.Before(*safe) {
		safe = nil
	}
	require.Equal(t, safe == nil, horizon.SafeUntil == nil)
	if safe != nil {
		require.True(t, safe.Equal(*horizon.SafeUntil))
	}

	full, err := m.store.Changes(0, 0)
	require.NoError(t, err)
	require.Len(t, full.Rows, len(m.rows))
	previous := uint64(0)
	for _, row := range full.Rows {
		require.Greater(t, row.Revision, previous)
		previous = row.Revision
		require.True(t, bytes.Equal(m.rows[row.Name], row.Data), "%s", row.Data)
		digest.Toggle(row.Hash())
	}
	require.Equal(t, digest, full.Digest)
	m.checkOutbox(t)
	m.checkDesired(t)
}

func (m *model) checkOutbox(t *rapid.T) {
	var waiting []wire.Event
	// Not Events, which would make them count as handed out.
	require.NoError(t, m.store.view(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucketEvents)).ForEach(func(key, value []byte) error {
			var e wire.Event
			if err := decode(bucketEvents, key, value, &e); err != nil {
				return err
			}
			waiting = append(waiting, e)
			return nil
		})
	}))
	require.LessOrEqual(t, len(waiting), modelOutbox)
	previous, facts := m.maxAcked, uint64(0)
	for _, e := range waiting {
		require.Greater(t, e.Sequence, previous)
		previous = e.Sequence
		facts += max(1, e.Count)
		require.Equal(t, epoch, e.At)
	}
	dropped, err := m.store.EventsDropped()
	require.NoError(t, err)
	require.Equal(t, m.drops, dropped, "never silently")
	require.Equal(t, m.emitted, m.acked+uint64(len(waiting))+dropped, "each fact is somewhere")
	require.LessOrEqual(t, facts, m.emitted)
}

func TestStoreFollowsModel(t *testing.T) {
	dir, run := t.TempDir(), 0
	template := testPath(t)
	require.NoError(t, openAt(t, template, Options{}).Close())
	empty, err := os.ReadFile(template)
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		run++
		state := filepath.Join(dir, fmt.Sprint(run))
		m := &model{path: filepath.Join(state, "state.db"), records: map[string]string{}, rows: map[string][]byte{}, removed: map[string]string{}, remote: map[string]wire.Row{},
			commands: map[string]Command{}, told: map[string]bool{}}
		require.NoError(t, os.Mkdir(state, 0o700))
		require.NoError(t, os.WriteFile(m.path, empty, 0o600)) // quicker than making one
		m.open(t)
		defer func() {
			require.NoError(t, m.store.Close())
			require.NoError(t, os.RemoveAll(state))
		}()
		t.Repeat(map[string]func(*rapid.T){
			"update":  m.update,
			"update2": m.update,
			"retire":  m.retire,
			"restore": m.restore,
			"forget":  m.forget,
			"ack":     m.ackEvents,
			"sync":    m.sync,
			"resync":  m.resync,
			"reopen":  m.reopen,
			"desired": m.saveDesired,
			"accept":  m.saveAccepted,
			"refuse":  m.refuseDesired,
			"follow":  m.followCommands,
			"command": m.updateCommand,
			"":        m.check,
		})
	})
}
