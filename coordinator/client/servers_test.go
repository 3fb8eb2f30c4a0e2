package client_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/shared/wire"
)

// dead is the URL of a server that nobody listens at.
func dead(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	server.Close()
	return server.URL
}

// a node counts what reaches it, and answers as it likes.
type node struct {
	*httptest.Server
	asked atomic.Int32
}

func startNode(t *testing.T, answer http.HandlerFunc) *node {
	t.Helper()
	n := new(node)
	n.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.asked.Add(1)
		answer(w, r)
	}))
	t.Cleanup(n.Close)
	return n
}

func answers(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"name":"good"}`)) }

func refuses(code wire.Code) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(wire.Problem{Status: http.StatusServiceUnavailable, Code: code, Detail: "not now"})
	}
}

func breaks(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte(`{"name":`))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// vanishes ends the connection when it has read the request.
func vanishes(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	panic(http.ErrAbortHandler)
}

// several is a client of some nodes, and what it says of going on to the next one.
func several(t *testing.T, urls ...string) (*client.Client, *[]string) {
	t.Helper()
	trusted := httptest.NewTLSServer(http.NotFoundHandler())
	trusted.Close() // all of this kind show one certificate
	moves := new([]string)
	return connect(t, client.Config{
		Servers: urls, Token: apitoken.New(), Roots: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: trusted.Certificate().Raw})),
		Moved: func(from, to string, why error) { *moves = append(*moves, from+" -> "+to+": "+why.Error()) },
	}), moves
}

// A read goes on as long as a node is left; a change only while nothing was sent of
// it, or the node says that it did nothing.
func TestTheNextNodeIsAsked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		first         http.HandlerFunc // nil: nobody listens
		reads, writes bool             // are answered by the second one
		refusal       string           // of the write
	}{
		"nobody listens":   {nil, true, true, ""},
		"no leader":        {refuses(wire.CodeNoLeader), true, true, ""},
		"not a member":     {refuses(wire.CodeNotMember), true, true, ""},
		"unavailable":      {refuses(wire.CodeUnavailable), true, false, "not now"},
		"overloaded":       {refuses(wire.CodeOverloaded), true, false, "not now"},
		"refused":          {refuses(wire.CodeForbidden), false, false, "not now"},
		"half an answer":   {breaks, true, false, "look before you ask for it again"},
		"it vanishes":      {vanishes, true, false, "look before you ask for it again"},
		"no certctl there": {http.NotFound, false, false, "not an answer of a coordinator"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				first := dead(t)
				if c.first != nil {
					first = startNode(t, c.first).URL
				}
				second := startNode(t, answers)
				asking, moves := several(t, first, second.URL)
				assert.Equal(t, first, asking.Answered())
				goesOn := method == http.MethodGet && c.reads || method == http.MethodPost && c.writes
				var who resource.Identified
				err := asking.Do(t.Context(), method, "/api/v1/x", map[string]string{}, &who)
				if !goesOn {
					require.Error(t, err, method)
					assert.Zero(t, second.asked.Load(), method)
					assert.Empty(t, *moves)
					if method == http.MethodPost {
						assert.ErrorContains(t, err, c.refusal)
					}
					continue
				}
				require.NoError(t, err, method)
				assert.Equal(t, "good", who.Name)
				require.Len(t, *moves, 1)
				assert.True(t, strings.HasPrefix((*moves)[0], first+" -> "+second.URL+": "), *moves)
				assert.NotContains(t, (*moves)[0], ";", "what to do about it is not said yet")

				// It stays with who has answered.
				require.NoError(t, asking.Do(t.Context(), method, "/api/v1/x", nil, nil))
				assert.EqualValues(t, 2, second.asked.Load())
				assert.Len(t, *moves, 1)
				assert.Equal(t, second.URL, asking.Answered())
			}
		})
	}
}

// A file that is sent or fetched goes to one node: nothing of it may be lost or come
// twice.
func TestTransfersGoOn(t *testing.T) {
	t.Parallel()
	var sent bytes.Buffer
	second := startNode(t, func(w http.ResponseWriter, r *http.Request) {
		sent.Reset()
		_, _ = io.Copy(&sent, r.Body)
		answers(w, r)
	})
	asking, _ := several(t, dead(t), second.URL)
	require.NoError(t, asking.Send(t.Context(), "/x", strings.NewReader("all of it")))
	assert.Equal(t, "all of it", sent.String())
	var got bytes.Buffer
	asking, _ = several(t, dead(t), second.URL)
	require.NoError(t, asking.Fetch(t.Context(), "/x", &got, 100))
	assert.JSONEq(t, `{"name":"good"}`, got.String())

	got.Reset()
	asking, moves := several(t, startNode(t, breaks).URL, second.URL)
	require.ErrorIs(t, asking.Fetch(t.Context(), "/x", &got, 100), client.ErrUnreachable)
	assert.Equal(t, `{"name":`, got.String())
	assert.Empty(t, *moves)
	asking, moves = several(t, startNode(t, vanishes).URL, second.URL)
	require.ErrorIs(t, asking.Send(t.Context(), "/x", strings.NewReader("all")), client.ErrUnreachable)
	assert.Empty(t, *moves)
}

// A host that accepts connections and says nothing, such as one whose program is
// stopped, does not hold up even a change.
func TestSilentNode(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	second := startNode(t, answers)
	asking, moves := several(t, "https://"+silent.Addr().String(), second.URL)
	require.NoError(t, asking.Do(t.Context(), http.MethodPost, "/x", nil, nil))
	require.Len(t, *moves, 1)
	assert.Contains(t, (*moves)[0], "TLS handshake timeout")
}

func TestNoNodeAnswers(t *testing.T) {
	t.Parallel()
	one, two, three := dead(t), dead(t), dead(t)
	asking, moves := several(t, one, two, three, one)
	err := asking.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.ErrorIs(t, err, client.ErrUnreachable)
	assert.Len(t, *moves, 2)
	assert.ErrorContains(t, err, "cannot be reached at "+three)
	assert.ErrorContains(t, err, "nor at "+one+", "+two)

	// What a node says is worth more than the silence of the others.
	asking, _ = several(t, startNode(t, refuses(wire.CodeNoLeader)).URL, two)
	err = asking.Do(t.Context(), http.MethodPost, "/x", nil, nil)
	assert.ErrorContains(t, err, "not now")
	assert.NotErrorIs(t, err, client.ErrUnreachable)
}

// What the nodes tell of each other is kept clean.
func TestNodesAreTold(t *testing.T) {
	t.Parallel()
	header := ""
	asking, _ := several(t, startNode(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(resource.Servers, header)
		answers(w, r)
	}).URL)
	for _, told := range []struct {
		header string
		nodes  []string
	}{
		{"", nil},
		{"https://c2:8443 https://C1:8443 http://evil https://x/y \t https://c2:8443", []string{"https://c1:8443", "https://c2:8443"}},
		{"nonsense", []string{"https://c1:8443", "https://c2:8443"}},
	} {
		header = told.header
		require.NoError(t, asking.Do(t.Context(), http.MethodGet, "/x", nil, nil))
		assert.Equal(t, told.nodes, asking.Nodes())
	}
}

// What was read of a stream cannot be sent to another node.
func TestAStreamIsSentOnce(t *testing.T) {
	t.Parallel()
	first := startNode(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 1000))
		refuses(wire.CodeNoLeader)(w, r)
	})
	second := startNode(t, answers)
	asking, moves := several(t, first.URL, second.URL)
	body := struct{ io.Reader }{strings.NewReader(strings.Repeat("x", 1<<20))}
	err := asking.Send(t.Context(), "/x", body)
	require.ErrorContains(t, err, "not now")
	assert.Zero(t, second.asked.Load())
	assert.Empty(t, *moves)
}
