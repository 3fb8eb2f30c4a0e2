package api_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a coordinator and somebody who asks it.
type world struct {
	*apitest.Coordinator
	t     *testing.T
	token string // the text after "Bearer ", "" for no header
}

func start(t *testing.T) *world {
	t.Parallel()
	c := apitest.Start(t)
	return &world{Coordinator: c, t: t, token: c.Admin.Reveal()}
}

// as is the same coordinator, asked with another token.
func (w *world) as(token string) *world {
	other := *w
	other.token = token
	return &other
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	body string
}

// ask sends one request. body is a text, or a value that becomes JSON, or nil.
func (w *world) ask(method, path string, body any) answer {
	w.t.Helper()
	var content io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		content = strings.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		require.NoError(w.t, err)
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequest(method, w.URL+path, content)
	require.NoError(w.t, err)
	if content != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if w.token != "" {
		request.Header.Set("Authorization", "Bearer "+w.token)
	}
	return w.send(request)
}

func (w *world) send(request *http.Request) answer {
	w.t.Helper()
	response, err := w.HTTP().Do(request)
	require.NoError(w.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(w.t, err)
	return answer{response, string(text)}
}

// get reads a document; the request has to succeed.
func get[T any](w *world, path string) T {
	w.t.Helper()
	return decode[T](w.t, w.ask(http.MethodGet, path, nil), http.StatusOK)
}

func post[T any](w *world, path string, body any, status int) T {
	w.t.Helper()
	return decode[T](w.t, w.ask(http.MethodPost, path, body), status)
}

func decode[T any](t *testing.T, a answer, status int) T {
	t.Helper()
	require.Equal(t, status, a.StatusCode, a.body)
	require.Equal(t, "application/json", a.Header.Get("Content-Type"))
	return decodeText[T](t, a.body)
}

func decodeText[T any](t *testing.T, text string) T {
	t.Helper()
	var document T
	require.NoError(t, json.Unmarshal([]byte(text), &document), text)
	return document
}

// problem checks everything that problems have in common.
func (a answer) problem(t *testing.T, status int, code wire.Code) *wire.Problem {
	t.Helper()
	require.Equal(t, status, a.StatusCode, a.body)
	require.Equal(t, wire.ProblemContentType, a.Header.Get("Content-Type"), a.body)
	p := new(wire.Problem)
	require.NoError(t, json.Unmarshal([]byte(a.body), p), a.body)
	assert.Equal(t, "about:blank", p.Type)
	assert.Equal(t, http.StatusText(status), p.Title)
	assert.Equal(t, status, p.Status)
	assert.Equal(t, code, p.Code)
	assert.NotEmpty(t, p.Detail)
	assert.NotEmpty(t, p.Mend)
	assert.NotEmpty(t, p.RequestID)
	assert.Equal(t, a.Header.Get("X-Request-Id"), p.RequestID)
	assert.Equal(t, "no-store", a.Header.Get("Cache-Control"))
	return p
}

// all follows a list to its end, limit items at a time, and returns the items
// and how many pages they came on.
func all[T any](w *world, path string, limit string) (items []T, pages int) {
	w.t.Helper()
	joint := "?"
	if strings.Contains(path, "?") {
		joint = "&"
	}
	for cursor := ""; ; {
		page := get[resource.Page[T]](w, path+joint+"limit="+limit+"&cursor="+cursor)
		items = append(items, page.Items...)
		pages++
		require.Less(w.t, pages, 1000, "a list without an end")
		if cursor = page.NextCursor; cursor == "" {
			return items, pages
		}
	}
}

func idsOf[T any](items []T, id func(T) string) []string {
	ids := make([]string, 0, len(items))
	for _, item := range items {
		ids = append(ids, id(item))
	}
	return ids
}

func agentID(a resource.Agent) string             { return a.ID }
func certificateID(c resource.Certificate) string { return c.AgentID + "/" + c.Name }
