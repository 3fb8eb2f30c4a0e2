package client_test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/client"
)

// Reads that are repeated are answered from what was answered before for as long as the
// coordinator says that it is the same.
func TestRepeatedReadsAreRevalidated(t *testing.T) {
	t.Parallel()
	var (
		name, tag string
		asked     []string // If-None-Match of each request
		unchanged int
	)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("If-None-Match"))
		if tag != "" {
			w.Header().Set("ETag", tag)
		}
		if tag != "" && r.Header.Get("If-None-Match") == tag {
			unchanged++
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write([]byte(`{"name": "` + name + `"}`))
	}))
	server.StartTLS()
	t.Cleanup(server.Close)
	root := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	read := func(c *client.Client, options ...client.Option) string {
		who, err := c.Whoami(t.Context(), options...)
		require.NoError(t, err)
		return who.Name
	}
	c := connect(t, client.Config{Servers: []string{server.URL}, Token: apitoken.New(), Roots: root})
	c.Revalidate()

	name, tag = "a", `"1"`
	for range 3 {
		assert.Equal(t, "a", read(c))
	}
	assert.Equal(t, 2, unchanged)
	assert.Equal(t, "a", read(c, client.AtLeast(7)), "another question has another answer")
	assert.Equal(t, []string{"", `"1"`, `"1"`, ""}, asked)
	name, tag = "b", `"2"`
	assert.Equal(t, "b", read(c))
	assert.Equal(t, "b", read(c))
	assert.Equal(t, []string{`"1"`, `"2"`}, asked[4:])
	require.NoError(t, c.Do(t.Context(), http.MethodPost, "/api/v1/whoami", nil, nil))
	_, err := c.Whoami(t.Context(), client.IfNoneMatch(`"2"`))
	require.ErrorIs(t, err, client.ErrNotModified, "who gives a tag is told")
	_, err = c.Whoami(t.Context(), client.IfNoneMatch(`"1"`))
	require.NoError(t, err)
	require.NoError(t, c.Do(t.Context(), http.MethodPost, "/api/v1/whoami", nil, nil))
	assert.Empty(t, asked[len(asked)-1], "a change is no read")

	// What is too large is not kept, and what has no tag neither.
	name, tag = strings.Repeat("x", 9<<20), `"3"`
	assert.Len(t, read(c), 9<<20)
	name, tag = "c", ""
	assert.Equal(t, "c", read(c))
	assert.Equal(t, `"2"`, asked[len(asked)-1], "the newest that is kept")

	plain := connect(t, client.Config{Servers: []string{server.URL}, Token: apitoken.New(), Roots: root})
	name, tag = "d", `"4"`
	for range 2 {
		assert.Equal(t, "d", read(plain))
		assert.Empty(t, asked[len(asked)-1], "who does not want it keeps nothing")
	}
}

// A coordinator has tags for its lists, so that it is not asked for nothing.
func TestListsAreRevalidated(t *testing.T) {
	t.Parallel()
	coordinator := apitest.Start(t)
	c := connect(t, client.Config{Servers: []string{coordinator.URL}, Token: coordinator.Admin, Roots: roots(t, coordinator)})
	c.Revalidate()
	for want := range 3 {
		if want > 0 {
			coordinator.Agent(strings.Repeat("a", want), "web", nil)
		}
		agents, more, err := client.Collect(t.Context(), c, client.ListAgentsParams{}, 0)
		require.NoError(t, err)
		assert.False(t, more)
		assert.Len(t, agents, want)
		again, _, err := client.Collect(t.Context(), c, client.ListAgentsParams{}, 0)
		require.NoError(t, err)
		assert.Equal(t, agents, again)
	}
}
