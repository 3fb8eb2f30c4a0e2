package agentapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func summary(name string) wire.Summary {
	return wire.Summary{Names: pki.MustParseNames(name), State: wire.StateValid, Issuer: "acme", IssuerKind: "acme", NotAfter: time.Now().Add(time.Hour)}
}

func TestSync(t *testing.T) {
	w := stillWorld(t)
	a := w.enrolled()
	a.put("web", summary("www.example.com"))
	request := a.request()
	request.Events = []wire.Event{{Sequence: 1, At: time.Now(), Kind: wire.EventStarted}, {Sequence: 2, At: time.Now(), Kind: wire.EventIssued, Certificate: "web"}}
	answer := a.send(request)
	assert.EqualValues(t, 1, answer.Revision)
	assert.EqualValues(t, 2, answer.Event)
	assert.Empty(t, answer.ResyncID)
	assert.GreaterOrEqual(t, answer.PauseMillis, int64(30_000))
	assert.LessOrEqual(t, answer.PauseMillis, int64(90_000))
	row, ok := w.view().Certificate(a.id, "web")
	require.True(t, ok)
	assert.Equal(t, []string{"www.example.com"}, row.Columns.Names)

	// What was stored already is answered again without a change: the request
	// itself, and a sync with nothing new.
	index := w.node.AppliedIndex()
	assert.Equal(t, answer.Revision, a.send(request).Revision)
	for range 3 {
		a.sync()
	}
	assert.Equal(t, index, w.node.AppliedIndex(), "an agent with nothing new costs no log entry")
	seen, ok := w.service.LastSeen(a.id)
	require.True(t, ok)
	assert.WithinDuration(t, time.Now(), seen, time.Minute)

	// A change of the host is new.
	request = a.request()
	safe := time.Now().Add(time.Hour)
	request.Host.SafeUntil = &safe
	a.send(request)
	agent, ok := w.view().Agent(a.id)
	require.True(t, ok)
	assert.True(t, agent.Host.SafeUntil.Equal(safe))
	index = w.node.AppliedIndex()
	request = a.request()
	request.Host.SafeUntil = &safe
	a.send(request)
	assert.Equal(t, index, w.node.AppliedIndex())
}

// While a member of the cluster does not understand all that agents say of an event,
// their syncs are taken without it.
func TestEventsAreTakenWhileTheClusterIsUpgraded(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	send := func(sequence uint64) (told wire.Event) {
		t.Helper()
		request := a.request()
		request.Events = []wire.Event{{Sequence: sequence, At: time.Now(), Kind: wire.EventFailed, Certificate: "web", Detail: "no", Issuer: "corp", Reason: wire.ReasonRefused}}
		assert.Equal(t, sequence, a.send(request).Event)
		var facts []fleet.Fact
		require.Eventually(t, func() bool {
			var err error
			facts, _, err = w.real.Journal.Read(history.Query{Kinds: []fleet.Kind{fleet.Kind(wire.EventFailed)}})
			return assert.NoError(t, err) && len(facts) == int(sequence)
		}, time.Minute, time.Millisecond, "the journal is a moment behind")
		require.NoError(t, json.Unmarshal(facts[sequence-1].Detail, &told))
		assert.Equal(t, "no", told.Detail)
		return told
	}
	w.node.level.Store(3)
	told := send(1)
	assert.Empty(t, told.Issuer)
	assert.Empty(t, told.Reason)
	w.node.level.Store(0)
	told = send(2)
	assert.Equal(t, "corp", told.Issuer)
	assert.Equal(t, wire.ReasonRefused, told.Reason)
}

func TestSyncOutOfOrder(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	first, second, third := a.request(), a.request(), a.request()
	a.send(second)
	a.send(third) // stored nowhere but in this node's memory
	stale := func(r *wire.SyncRequest) {
		t.Helper()
		w.unchanged(func() {
			p := w.post(a, wire.SyncPath, r, nil)
			require.NotNil(t, p)
			assert.Equal(t, wire.CodeStale, p.Code)
			assert.Equal(t, http.StatusConflict, p.Status)
			assert.Equal(t, "sequence", p.Field)
		})
	}
	stale(first)
	stale(second)
	a.send(third)
	w.service.sessions.forget(a.id)
	stale(first) // another leader knows that much from the state

	a.restart()
	a.sync()
	stale(third) // of the run before
}

func TestSyncRefuses(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	a.put("web", summary("www.example.com"))
	a.sync()
	body := func(change func(*wire.SyncRequest)) []byte {
		r := a.request()
		if change != nil {
			change(r)
		}
		encoded, err := json.Marshal(r)
		require.NoError(t, err)
		return encoded
	}
	whole := body(nil)
	row := wire.Row{Name: "x", Revision: 2, Data: json.RawMessage(`{"names":["a.example.com"]}`)}
	for name, c := range map[string]struct {
		body   []byte
		length int64 // 0 is that of the body
		code   wire.Code
		field  string
	}{
		"truncated JSON":  {body: whole[:len(whole)/2], code: wire.CodeInvalid},
		"too large":       {body: append([]byte(strings.Repeat(" ", wire.MaxSyncBody)), whole...), code: wire.CodeBodyTooLarge},
		"two documents":   {body: append(append([]byte{}, whole...), whole...), code: wire.CodeInvalid},
		"no boot id":      {body: body(func(r *wire.SyncRequest) { r.BootID = "" }), code: wire.CodeInvalid, field: "boot_id"},
		"no sequence":     {body: body(func(r *wire.SyncRequest) { r.Sequence = 0 }), code: wire.CodeInvalid, field: "sequence"},
		"protocol":        {body: body(func(r *wire.SyncRequest) { r.Protocol = 7 }), code: wire.CodeProtocol, field: "protocol"},
		"revisions":       {body: body(func(r *wire.SyncRequest) { r.BaseRevision = 9 }), code: wire.CodeInvalid, field: "revision"},
		"row's revision":  {body: body(func(r *wire.SyncRequest) { r.Rows = []wire.Row{row} }), code: wire.CodeInvalid, field: "rows[0].revision"},
		"events disorder": {body: body(func(r *wire.SyncRequest) { r.Events = []wire.Event{{Sequence: 2, Kind: "a"}, {Sequence: 1, Kind: "a"}} }), code: wire.CodeInvalid, field: "events[1].sequence"},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.unchanged(func() {
				p := w.postRaw(a, wire.SyncPath, bytes.NewReader(c.body), int64(len(c.body)), nil)
				require.NotNil(t, p)
				assert.Equal(t, c.code, p.Code)
				assert.Equal(t, c.field, p.Field)
			})
		})
	}
	w.t = t
	assert.Empty(t, a.sync().ResyncID, "all of that has done no harm")
}

// A body that ends before its announced length is no request at all.
func TestSyncTruncatedOnTheWire(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	a.put("web", summary("www.example.com"))
	encoded, err := json.Marshal(a.request())
	require.NoError(t, err)
	w.unchanged(func() {
		ctx, cancel := context.WithCancel(t.Context())
		body := &breakingBody{Reader: bytes.NewReader(encoded[:len(encoded)/2]), broken: cancel}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.server.URL+wire.SyncPath, body)
		require.NoError(t, err)
		request.ContentLength = int64(len(encoded))
		response, err := w.client(a).Do(request)
		if err == nil {
			response.Body.Close()
		}
		require.Error(t, err)
		w.server.CloseClientConnections()
	})
	a.sequence = 0
	a.sync()
	_, ok := w.view().Certificate(a.id, "web")
	assert.True(t, ok)
}

type breakingBody struct {
	*bytes.Reader
	broken context.CancelFunc
}

func (b *breakingBody) Read(p []byte) (int, error) {
	if b.Len() == 0 {
		b.broken()
		return 0, errors.New("the line was cut")
	}
	return b.Reader.Read(p)
}

// Every divergence heals itself in one round trip.
func TestSyncResync(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	a.put("web", summary("www.example.com"))
	a.put("mail", summary("mail.example.com"))
	a.sync()
	gone := a.rows["mail"]
	a.digest.Toggle(gone.Hash())
	delete(a.rows, "mail") // and the coordinator is not told

	answer := a.sync()
	require.NotEmpty(t, answer.ResyncID)
	assert.Equal(t, answer.ResyncID, a.sync().ResyncID, "asked for until it comes")
	full := a.request()
	full.BaseRevision, full.ResyncID, full.Rows = 0, answer.ResyncID, nil
	for _, row := range a.rows {
		full.Rows = append(full.Rows, row)
	}
	assert.Empty(t, a.send(full).ResyncID)
	_, ok := w.view().Certificate(a.id, "mail")
	assert.False(t, ok)
	assert.Empty(t, a.sync().ResyncID)
}

// Bodies that an agent sends slowly take few places, and none of other agents'.
func TestSlowBodies(t *testing.T) {
	w := newWorld(t)
	slow, quick := w.enrolled(), w.enrolled()
	var ends []*io.PipeWriter
	answers := make(chan *wire.Problem, maxPresent)
	for range maxPresent {
		body, end := io.Pipe()
		ends = append(ends, end)
		go func() { answers <- w.postRaw(slow, wire.SyncPath, body, -1, nil) }()
	}
	visitor := func() int {
		w.service.sessions.mu.Lock()
		defer w.service.sessions.mu.Unlock()
		if one := w.service.sessions.byAgent[slow.id]; one != nil {
			return one.present
		}
		return 0
	}
	require.Eventually(t, func() bool { return visitor() == maxPresent }, 60*time.Second, time.Millisecond)
	p := w.post(slow, wire.SyncPath, slow.request(), nil)
	require.NotNil(t, p)
	assert.Equal(t, wire.CodeOverloaded, p.Code)
	quick.sync()
	for _, end := range ends {
		require.NoError(t, end.Close())
	}
	for range ends {
		p := <-answers
		require.NotNil(t, p)
		assert.Equal(t, wire.CodeInvalid, p.Code, "an empty body")
	}
	slow.sync()
}

// A sync larger than a log entry is stored in pieces and acknowledged as a whole.
func TestALargeSync(t *testing.T) {
	w := stillWorld(t)
	a := w.enrolled()
	for i := range wire.MaxRows {
		s := summary(fmt.Sprintf("www%d.example.com", i))
		s.LastError = strings.Repeat("x", 1000)
		a.put(fmt.Sprintf("certificate-%d", i), s)
	}
	request := a.request()
	encoded, err := json.Marshal(request)
	require.NoError(t, err)
	require.Greater(t, len(encoded), fleet.MaxCommand)
	answer := a.send(request)
	assert.EqualValues(t, wire.MaxRows, answer.Revision)
	assert.Empty(t, answer.ResyncID)
	assert.Equal(t, wire.MaxRows, w.view().Rows(fleet.TableCertificates))
	index := w.node.AppliedIndex()
	assert.Empty(t, a.sync().ResyncID)
	assert.Equal(t, index, w.node.AppliedIndex())
}

// Whatever fails around the change, the repeated request brings both sides
// together, and every event is kept once.
func TestSyncFaults(t *testing.T) {
	cut := error(&cluster.UnknownOutcomeError{Err: errors.New("leadership lost")})
	for name, arm := range map[string]func(*faultyNode){
		"not stored": func(n *faultyNode) { n.before.Store(&cut) },
		"stored":     func(n *faultyNode) { n.after.Store(&cut) },
	} {
		t.Run(name, func(t *testing.T) {
			w := stillWorld(t)
			a := w.enrolled()
			a.put("web", summary("www.example.com"))
			request := a.request()
			request.Events = []wire.Event{{Sequence: 1, At: time.Now(), Kind: wire.EventIssued, Certificate: "web"}}
			arm(w.node)
			p := w.post(a, wire.SyncPath, request, nil)
			require.NotNil(t, p)
			assert.Equal(t, wire.CodeUnavailable, p.Code)
			assert.Positive(t, p.RetryAfterSeconds)
			answer := a.send(request)
			assert.EqualValues(t, 1, answer.Event)
			assert.Empty(t, answer.ResyncID)
			assert.Equal(t, 1, w.view().Rows(fleet.TableCertificates))
			row, ok := w.view().Certificate(a.id, "web")
			require.True(t, ok)
			agent, ok := w.view().Agent(a.id)
			require.True(t, ok)
			assert.EqualValues(t, 1, agent.Sync.Event)
			assert.EqualValues(t, 1, row.Revision)
		})
	}
}

func TestSameHost(t *testing.T) {
	at, later := time.Now(), time.Now().Add(time.Second)
	elsewhere := at.In(time.FixedZone("", 3600))
	a := wire.HostReport{Hostname: "web1", StartedAt: at, SafeUntil: &at}
	for name, c := range map[string]struct {
		b    wire.HostReport
		same bool
	}{
		"itself":             {a, true},
		"another zone":       {wire.HostReport{Hostname: "web1", StartedAt: elsewhere, SafeUntil: &elsewhere}, true},
		"another name":       {wire.HostReport{Hostname: "web2", StartedAt: at, SafeUntil: &at}, false},
		"another start":      {wire.HostReport{Hostname: "web1", StartedAt: later, SafeUntil: &at}, false},
		"another safe until": {wire.HostReport{Hostname: "web1", StartedAt: at, SafeUntil: &later}, false},
		"no safe until":      {wire.HostReport{Hostname: "web1", StartedAt: at}, false},
		"dropped events":     {wire.HostReport{Hostname: "web1", StartedAt: at, SafeUntil: &at, EventsDropped: 1}, false},
		"a warning":          {wire.HostReport{Hostname: "web1", StartedAt: at, SafeUntil: &at, Warnings: []string{"look"}}, false},
		"no warnings":        {wire.HostReport{Hostname: "web1", StartedAt: at, SafeUntil: &at, Warnings: []string{}}, true},
	} {
		assert.Equal(t, c.same, sameHost(a, c.b), name)
		assert.Equal(t, c.same, sameHost(c.b, a), name)
	}
}
