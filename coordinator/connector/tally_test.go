package connector_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
)

// An answer counts if it says that the authority works.
func TestTally(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, err := strconv.Atoi(r.URL.Path[1:])
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(status)
	}))
	defer server.Close()
	base, err := url.Parse(server.URL)
	require.NoError(t, err)
	client, err := connector.NewClient(connector.ClientConfig{BaseURL: base})
	require.NoError(t, err)
	defer client.Close()
	for path, answered := range map[string]bool{"200": true, "404": true, "401": true, "500": false, "503": false, "429": false, "lost": false} {
		ctx, tally := connector.WithTally(t.Context())
		_, err := client.Do(ctx, connector.Call{Path: []string{path}})
		assert.Equal(t, path == "200", err == nil, path)
		assert.Equal(t, answered, tally.Answered(), path)
	}
	ctx, tally := connector.WithTally(t.Context())
	_, err = client.Do(ctx, connector.Call{Path: []string{"200"}, Anonymous: true})
	require.NoError(t, err)
	assert.False(t, tally.Answered(), "a login says nothing of the rest")
}
