package api_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/backup"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/wire"
)

const snapshotPath = "/api/v1/cluster/snapshot"

func (w *world) saveSnapshot() []byte {
	w.t.Helper()
	a := w.ask(http.MethodGet, snapshotPath+"?stale=true", nil)
	require.Equal(w.t, http.StatusOK, a.StatusCode, a.body)
	assert.Equal(w.t, resource.SnapshotContentType, a.Header.Get("Content-Type"))
	return []byte(a.body)
}

func (w *world) putSnapshot(query string, file []byte) answer {
	w.t.Helper()
	request, err := http.NewRequest(http.MethodPut, w.URL+snapshotPath+query, bytes.NewReader(file))
	require.NoError(w.t, err)
	request.Header.Set("Content-Type", resource.SnapshotContentType)
	request.Header.Set("Authorization", "Bearer "+w.token)
	return w.send(request)
}

func TestASnapshotIsSavedAndRestored(t *testing.T) {
	w := start(t)
	w.Agent("kept", "kept.example.com", nil)
	file := w.saveSnapshot()
	summary, err := backup.Check(bytes.NewReader(file))
	require.NoError(t, err)
	assert.Equal(t, w.CA.ClusterID(), summary.ClusterID)
	assert.Equal(t, 1, summary.Rows["agents"])
	assert.Len(t, summary.SealKeys, 1)
	assert.NotZero(t, summary.Term)

	w.Agent("lost", "lost.example.com", nil)
	asking := w.Token(fleet.RoleAdmin, 0)
	as := w.as(asking.Reveal())
	dry := decode[resource.Restored](t, as.putSnapshot("?dry_run=true", file), http.StatusOK)
	assert.True(t, dry.DryRun)
	assert.Equal(t, summary.SHA256, dry.Snapshot.SHA256)
	assert.Equal(t, 2, dry.Rows["agents"])
	assert.Equal(t, 1, dry.Snapshot.Rows["agents"])
	assert.GreaterOrEqual(t, dry.LostChanges, uint64(2))
	_, ok := w.State().View().Agent("lost")
	require.True(t, ok, "nothing is changed")

	for _, query := range []string{"", "?confirm=", "?confirm=0123"} {
		p := as.putSnapshot(query, file).problem(t, http.StatusBadRequest, wire.CodeInvalid)
		assert.Equal(t, "confirm", p.Field)
		assert.Contains(t, p.Detail, w.CA.ClusterID())
	}
	before := w.State().Index()
	done := decode[resource.Restored](t, as.putSnapshot("?confirm="+w.CA.ClusterID(), file), http.StatusOK)
	assert.False(t, done.DryRun)
	assert.Greater(t, done.Index, before)
	view := w.State().View()
	_, ok = view.Agent("kept")
	assert.True(t, ok)
	_, ok = view.Agent("lost")
	assert.False(t, ok)
	_, ok = view.APIToken(asking.ID)
	assert.True(t, ok, "who has restored it is not locked out")
	// The audit trail tells of it, and of all that was before.
	require.Eventually(t, func() bool {
		facts, _, err := w.Journal.Read(history.Query{NewestFirst: true, AuditOnly: true, Limit: 5})
		require.NoError(t, err)
		return len(facts) > 0 && facts[0].Kind == fleet.KindStateRestored && facts[0].Actor == "api_token:"+asking.ID
	}, 60*time.Second, time.Millisecond)
}

func TestASnapshotThatIsNotGoodIsRefused(t *testing.T) {
	w := start(t)
	w.Agent("kept", "kept.example.com", nil)
	file := w.saveSnapshot()
	damaged := bytes.Clone(file)
	damaged[len(damaged)/2] ^= 1
	confirm := "?confirm=" + w.CA.ClusterID()
	version := w.State().View().Version(fleet.TableAgents)
	for name, content := range map[string][]byte{
		"empty": {}, "cut short": file[:len(file)-1], "half": file[:len(file)/2], "damaged": damaged,
		"followed by something": append(bytes.Clone(file), 'x'), "another": []byte("certctl fleet\n"),
	} {
		for _, query := range []string{confirm, "?dry_run=true"} {
			p := w.putSnapshot(query, content).problem(t, http.StatusBadRequest, wire.CodeInvalid)
			assert.Contains(t, p.Mend, "snapshot inspect", name)
		}
	}
	p := w.putSnapshot("?dry_run=true", []byte("age-encryption.org/v1\n")).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	assert.Contains(t, p.Detail, "encrypted")
	assert.Equal(t, version, w.State().View().Version(fleet.TableAgents))

	// One that is broken off is not whole either, and others can go on.
	request, err := http.NewRequest(http.MethodPut, w.URL+snapshotPath+confirm, io.MultiReader(bytes.NewReader(file[:len(file)/2]), brokenReader{}))
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+w.token)
	_, err = w.HTTP().Do(request)
	require.Error(t, err)
	require.Eventually(t, func() bool {
		return w.putSnapshot("?dry_run=true", file).StatusCode == http.StatusOK
	}, 60*time.Second, 10*time.Millisecond)
	assert.Equal(t, version, w.State().View().Version(fleet.TableAgents))
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A snapshot of another cluster names the seal key that it needs.
func TestASnapshotOfAnotherSealKeyIsRefused(t *testing.T) {
	w := start(t)
	other := &world{Coordinator: apitest.Start(t), t: t}
	other.token = other.Admin.Reveal()
	file := other.saveSnapshot()
	summary, err := backup.Check(bytes.NewReader(file))
	require.NoError(t, err)
	p := w.putSnapshot("?confirm="+w.CA.ClusterID(), file).problem(t, http.StatusConflict, wire.CodeConflict)
	assert.Contains(t, p.Mend, summary.SealKeys[0])
	assert.Contains(t, p.Mend, "CERTCTL_CA_SEAL_KEY_FILE")
	assert.NotContains(t, w.Log.String(), "is being restored")
}

// One snapshot is sent at a time, and one that is not fetched to its end is in
// nobody's way for ever.
func TestOneSnapshotAtATime(t *testing.T) {
	w := start(t)
	w.saveSnapshot()
	var asked sync.WaitGroup
	statuses := make(chan int, 8)
	for range cap(statuses) {
		asked.Go(func() {
			a := w.ask(http.MethodGet, snapshotPath+"?stale=true", nil)
			statuses <- a.StatusCode
			if a.StatusCode == http.StatusOK {
				_, err := backup.Check(strings.NewReader(a.body))
				assert.NoError(t, err)
			}
		})
	}
	asked.Wait()
	close(statuses)
	good := 0
	for status := range statuses {
		assert.Contains(t, []int{http.StatusOK, http.StatusServiceUnavailable}, status)
		if status == http.StatusOK {
			good++
		}
	}
	assert.Positive(t, good)

	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+snapshotPath+"?stale=true", nil)
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+w.token)
	response, err := w.HTTP().Do(request)
	require.NoError(t, err)
	cancel()
	response.Body.Close()
	require.Eventually(t, func() bool {
		return w.ask(http.MethodGet, snapshotPath+"?stale=true", nil).StatusCode == http.StatusOK
	}, 60*time.Second, 10*time.Millisecond)
}

// A dry run says by name what a restore would do, and what it would not.
func TestARestoreIsPreviewed(t *testing.T) {
	w := start(t)
	kept := w.Agent("kept", "kept.example.com", nil)
	w.Agent("gone", "gone.example.com", nil)
	early := w.Token(fleet.RoleViewer, 0)
	file := w.saveSnapshot()

	lost := w.Agent("lost", "lost.example.com", nil)
	lost.Report("www", apitest.Valid(w.Now(), time.Hour, "lost.example.com"))
	kept.Report("www", apitest.Valid(w.Now(), time.Hour, "kept.example.com"))
	renewed := apitest.Valid(w.Now(), 2*time.Hour, "kept.example.com")
	renewed.Serial = "77"
	kept.Report("www", renewed)
	require.True(t, w.Do(fleet.RevokeAPIToken{Actor: "local", ID: early.ID}).OK())
	asking, other := w.Token(fleet.RoleAdmin, 0), w.Token(fleet.RoleViewer, 0)

	as := w.as(asking.Reveal())
	before := w.State().Index()
	dry := decode[resource.Restored](t, as.putSnapshot("?dry_run=true", file), http.StatusOK)
	require.NotNil(t, dry.Preview)
	assert.True(t, dry.Preview.SealKeyOpens)
	assert.Empty(t, dry.Preview.Refusal)
	require.Eventually(t, func() bool { // the journal is written a moment after the state
		facts, _, err := w.Journal.Read(history.Query{NewestFirst: true, Limit: 1})
		return err == nil && len(facts) == 1 && facts[0].Index == before
	}, 60*time.Second, time.Millisecond)
	dry = decode[resource.Restored](t, as.putSnapshot("?dry_run=true", file), http.StatusOK)
	facts, _, err := w.Journal.Read(history.Query{NewestFirst: true, Limit: history.MaxLimit})
	require.NoError(t, err)
	var since, audit uint64
	for _, fact := range facts {
		if fact.Index > dry.Snapshot.Index {
			since++
			if fact.Audit > 0 {
				audit++
			}
		}
	}
	require.Positive(t, audit)
	assert.Equal(t, []uint64{since, audit}, []uint64{dry.Preview.LostFacts, dry.Preview.LostAudit})

	changes := map[string]resource.RestoreChange{}
	for _, c := range dry.Preview.Changes {
		changes[c.Kind] = c
	}
	ids := func(list resource.RestoredRecords) []string {
		ids := []string{}
		for _, record := range list.Items {
			ids = append(ids, record.ID)
		}
		assert.Len(t, ids, list.Count)
		return ids
	}
	agents := changes["agents"]
	assert.Equal(t, []resource.RestoredRecord{{ID: "lost", Name: "lost.example.com"}}, agents.Vanish.Items)
	assert.Equal(t, []string{"kept"}, ids(agents.Change), "it has reported since")
	assert.Equal(t, 1, agents.Same)
	assert.ElementsMatch(t, []string{"kept/www", "lost/www"}, ids(changes["certificates"].Vanish))
	assert.True(t, changes["certificates"].Reported)
	assert.Equal(t, []string{other.ID}, ids(changes["api_tokens"].Vanish), "the token that asks is kept")
	assert.Equal(t, []string{early.ID}, ids(changes["api_tokens"].Change), "it would be good again")
	assert.Zero(t, changes["ca"].Vanish.Count+changes["ca"].Appear.Count+changes["ca"].Change.Count)
	assert.Positive(t, changes["ca"].Same)

	// What a restore then does is what was said.
	decode[resource.Restored](t, as.putSnapshot("?confirm="+w.CA.ClusterID(), file), http.StatusOK)
	view := w.State().View()
	for _, c := range dry.Preview.Changes {
		if c.Kind != "ca" {
			assert.Equal(t, c.Same+c.Change.Count+c.Appear.Count, view.Rows(fleet.Table(c.Kind)), c.Kind)
		}
	}
	_, usable := view.APIToken(early.ID)
	assert.True(t, usable)
}

// What would be refused is compared all the same.
func TestAPreviewOfAnotherCluster(t *testing.T) {
	w := start(t)
	w.Agent("ours", "ours.example.com", nil)
	other := &world{Coordinator: apitest.Start(t), t: t}
	other.token = other.Admin.Reveal()
	other.Agent("theirs", "theirs.example.com", nil)
	file := other.saveSnapshot()
	dry := decode[resource.Restored](t, w.putSnapshot("?dry_run=true", file), http.StatusOK)
	require.NotNil(t, dry.Preview)
	assert.False(t, dry.Preview.SealKeyOpens)
	assert.Contains(t, dry.Preview.Refusal, "CERTCTL_CA_SEAL_KEY_FILE")
	assert.Zero(t, dry.Preview.LostFacts)
	for _, c := range dry.Preview.Changes {
		switch c.Kind {
		case "agents":
			assert.Equal(t, "ours", c.Vanish.Items[0].ID)
			assert.Equal(t, "theirs", c.Appear.Items[0].ID)
		case "ca":
			assert.Equal(t, c.Vanish.Count, c.Appear.Count)
			assert.Positive(t, c.Appear.Count)
			assert.Zero(t, c.Same)
		}
	}
}
