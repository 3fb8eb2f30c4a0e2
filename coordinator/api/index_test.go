package api_test

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func (a answer) index(t *testing.T) uint64 {
	t.Helper()
	index, err := strconv.ParseUint(a.Header.Get(resource.Index), 10, 64)
	require.NoError(t, err, a.body)
	return index
}

func TestAnswersTellTheirIndex(t *testing.T) {
	w := start(t)
	read := w.ask(http.MethodGet, "/api/v1/whoami", nil)
	require.Equal(t, http.StatusOK, read.StatusCode)
	assert.Equal(t, w.State().Index(), read.index(t))

	made := w.ask(http.MethodPost, "/api/v1/tokens", map[string]any{"name": "x", "role": "viewer"})
	require.Equal(t, http.StatusCreated, made.StatusCode, made.body)
	assert.Greater(t, made.index(t), read.index(t), "a change is in the state that its answer names")
	token := decodeText[resource.CreatedAPIToken](t, made.body)
	stored, ok := w.State().View().APIToken(token.ID)
	require.True(t, ok)
	assert.LessOrEqual(t, stored.ModifyIndex, made.index(t))

	for _, refused := range []answer{
		w.ask(http.MethodGet, "/api/v1/agents/none", nil), w.ask(http.MethodPost, "/api/v1/tokens/none/revoke", nil),
		w.as("").ask(http.MethodGet, "/api/v1/whoami", nil), w.ask(http.MethodGet, "/api/v1/none", nil),
	} {
		assert.Empty(t, refused.Header.Values(resource.Index), "a problem is made from no index")
	}
	assert.Empty(t, w.ask(http.MethodGet, "/openapi.json", nil).Header.Values(resource.Index))
}

func TestReadsWaitForWhatTheyAskFor(t *testing.T) {
	w := start(t)
	now := w.State().Index()
	answer := w.ask(http.MethodGet, "/api/v1/tokens?limit=1&min_index="+strconv.FormatUint(now, 10), nil)
	require.Equal(t, http.StatusOK, answer.StatusCode, answer.body)
	assert.Equal(t, apitest.EnrollmentURL, answer.Header.Get(resource.Servers))
	anonymous := w.as("").ask(http.MethodGet, "/api/v1/tokens", nil)
	assert.Empty(t, anonymous.Header.Get(resource.Servers), "nobody else is told")

	// Each change but the first one is made while a read waits for it.
	for range 3 {
		next := w.State().Index() + 1
		done := make(chan answerOf, 1)
		go func() { done <- w.quietly("/api/v1/whoami?min_index=" + strconv.FormatUint(next, 10)) }()
		w.Token(fleet.RoleViewer, 0)
		got := <-done
		require.NoError(t, got.err)
		require.Equal(t, http.StatusOK, got.status)
		assert.GreaterOrEqual(t, got.index, next)
	}

	w.Hurry()
	far := w.State().Index() + 1000
	p := w.ask(http.MethodGet, "/api/v1/agents?min_index="+strconv.FormatUint(far, 10), nil).problem(t, http.StatusServiceUnavailable, wire.CodeUnavailable)
	assert.Contains(t, p.Detail, "it is 1000 behind")
	assert.EqualValues(t, 2, p.RetryAfterSeconds)

	for query, field := range map[string]string{
		"min_index=-1": "min_index", "min_index=": "min_index", "min_index=18446744073709551616": "min_index", "min_index=1&min_index=2": "min_index",
		"consistent=perhaps": "consistent", "consistent&consistent": "consistent", "min_indx=1": "min_indx", "min_index=1&more=1": "more",
	} {
		p := w.ask(http.MethodGet, "/api/v1/whoami?"+query, nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
		assert.Equal(t, field, p.Field, query)
	}
	p = w.ask(http.MethodPost, "/api/v1/tokens?min_index=1", map[string]any{"name": "x", "role": "viewer"}).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	assert.Equal(t, "min_index", p.Field, "only reads wait")
}

// answerOf is what a request in another goroutine came to.
type answerOf struct {
	status int
	index  uint64
	err    error
}

func (w *world) quietly(path string) answerOf {
	request, err := http.NewRequest(http.MethodGet, w.URL+path, nil)
	if err != nil {
		return answerOf{err: err}
	}
	request.Header.Set("Authorization", "Bearer "+w.token)
	response, err := w.HTTP().Do(request)
	if err != nil {
		return answerOf{err: err}
	}
	index, _ := strconv.ParseUint(response.Header.Get(resource.Index), 10, 64)
	return answerOf{status: response.StatusCode, index: index, err: response.Body.Close()}
}

// A token that ended in the state that a request waited for is no good for it.
func TestTokensAreJudgedByTheStateThatAnswers(t *testing.T) {
	w := start(t)
	viewer := w.Token(fleet.RoleViewer, 0)
	next := w.State().Index() + 1
	done := make(chan answerOf, 1)
	arrived := make(chan struct{})
	w.OnWait(func() { close(arrived) })
	go func() {
		done <- w.as(viewer.Reveal()).quietly("/api/v1/whoami?min_index=" + strconv.FormatUint(next, 10))
	}()
	<-arrived
	require.True(t, w.Do(fleet.RevokeAPIToken{Actor: "local", ID: viewer.ID}).OK())
	got := <-done
	require.NoError(t, got.err)
	assert.Equal(t, http.StatusUnauthorized, got.status)
}

func TestConsistentReads(t *testing.T) {
	w := start(t)
	var asked int
	leader := func(context.Context) (uint64, error) {
		asked++
		return w.State().Index(), nil
	}
	w.Confirm(leader)
	get[resource.Identified](w, "/api/v1/whoami?consistent=false")
	require.Zero(t, asked)
	get[resource.Identified](w, "/api/v1/whoami?consistent=true")
	get[resource.Identified](w, "/api/v1/whoami?consistent=1&min_index=1")
	get[resource.Identified](w, "/api/v1/whoami?consistent")
	get[resource.Identified](w, "/api/v1/whoami?consistent=&min_index=1")
	require.Equal(t, 4, asked)
	w.ask(http.MethodGet, "/api/v1/whoami?min_index", nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)

	w.Confirm(func(context.Context) (uint64, error) { return 0, cluster.ErrNotLeader })
	get[resource.Identified](w, "/api/v1/whoami")
	p := w.ask(http.MethodGet, "/api/v1/whoami?consistent=true", nil).problem(t, http.StatusServiceUnavailable, wire.CodeUnavailable)
	assert.Contains(t, p.Detail, "no leader has confirmed it")
	assert.Contains(t, p.Mend, "leave consistent out")
	assert.Positive(t, p.RetryAfterSeconds)

	// The leader knows more than this node, for a while and then for too long.
	ahead := w.State().Index() + 1
	var changing sync.WaitGroup
	w.Confirm(func(context.Context) (uint64, error) {
		changing.Go(func() { w.Token(fleet.RoleViewer, 0) })
		return ahead, nil
	})
	answer := w.ask(http.MethodGet, "/api/v1/whoami?consistent=true", nil)
	require.Equal(t, http.StatusOK, answer.StatusCode, answer.body)
	assert.GreaterOrEqual(t, answer.index(t), ahead)
	changing.Wait()
	w.Hurry()
	w.Confirm(func(context.Context) (uint64, error) { return ahead + 1000, nil })
	w.ask(http.MethodGet, "/api/v1/whoami?consistent=true", nil).problem(t, http.StatusServiceUnavailable, wire.CodeUnavailable)
}
