package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/shared/wire"
)

// scripted is a coordinator that answers as a test wants, and what one needs to ask it.
func scripted(t *testing.T, p *person, answer http.HandlerFunc) (flags []string) {
	t.Helper()
	server := httptest.NewUnstartedServer(answer)
	server.StartTLS()
	t.Cleanup(server.Close)
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return []string{"--server", server.URL, "--token-file", p.write("token", apitoken.New().Reveal()), "--ca-file", p.write("root.pem", string(root))}
}

// A watched list of members is written when something has changed, goes on while
// the coordinator can answer nothing, and ends well when it is interrupted.
func TestMembersAreWatched(t *testing.T) {
	p := newPerson(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var mu sync.Mutex
	looks := 0
	flags := scripted(t, p, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		looks++
		m := resource.Members{AnsweredBy: "c1", Items: []resource.Member{{ID: "c1", Health: resource.MemberHealthy, AppliedIndex: uint64(looks)}}} //nolint:gosec // small
		switch {
		case looks == 3:
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(wire.Problem{Status: 503, Code: wire.CodeUnavailable, Detail: "not yet"})
			return
		case looks > 3:
			m.Items[0].Leader = true
		}
		_ = json.NewEncoder(w).Encode(m)
		if looks == 5 {
			interrupt()
		}
	})
	var stdout, stderr bytes.Buffer
	root := (&program{}).root()
	root.SetArgs(append([]string{"cluster", "members", "--watch", "--every", "1s"}, flags...))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	require.NoError(t, root.ExecuteContext(ctx))
	assert.Equal(t, 2, strings.Count(stdout.String(), "as seen from c1"), "figures alone are no change: %s", &stdout)
	assert.Contains(t, stdout.String(), "leader")
	assert.Equal(t, 1, strings.Count(stderr.String(), "not yet"), &stderr)
	assert.Contains(t, stderr.String(), "waiting for it")
}
