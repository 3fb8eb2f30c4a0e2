package daemon_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/issuers/issuerstest"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/served"
)

// administrator is a client of a node with the first API token.
func administrator(t *testing.T, founder, n *daemontest.Node) *client.Client {
	t.Helper()
	root, err := os.ReadFile(filepath.Join(founder.Settings.DataDir, server.RootFile))
	require.NoError(t, err)
	token, err := os.ReadFile(filepath.Join(founder.Settings.DataDir, server.AdminTokenFile))
	require.NoError(t, err)
	parsed, err := apitoken.Parse(string(token))
	require.NoError(t, err)
	c, err := client.New(client.Config{Servers: []string{n.URL()}, Token: parsed, Roots: string(root)})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// Issuers are listed and tested by way of any node, at the one that leads; and no
// secret of theirs is in what an operator gets to see of a node, nor in its log.
func TestIssuersByWayOfAnyNode(t *testing.T) {
	t.Parallel()
	const canary = "CANARY-9c41-NEVER-SHOWN"
	text := "issuers:\n"
	wrong := map[string]*served.Server{}
	for _, kind := range served.Kinds() {
		text += "  " + kind + ":\n" + issuerstest.Serve(t, kind, fakeca.Config{}).Settings("    ")
		wrong[kind] = issuerstest.Serve(t, kind, fakeca.Config{})
		for name, file := range wrong[kind].Secrets() {
			if name != "client_key" { // which is checked at the start
				require.NoError(t, os.WriteFile(file, []byte(canary), 0o600))
			}
		}
		text += "  wrong-" + kind + ":\n" + wrong[kind].Settings("    ")
	}
	loaded, err := issuerstest.Load(t, text)
	require.NoError(t, err)
	var log lines
	cluster := daemontest.Start(t, 3, func(int) daemontest.Options {
		return daemontest.Options{
			Change: func(s *config.Settings) { s.Issuers, s.Orders = loaded.Issuers, loaded.Orders },
			Log:    slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		}
	})
	follower := cluster.Follower()
	c := administrator(t, cluster.Nodes[0], follower)
	page, err := c.ListIssuers(t.Context())
	require.NoError(t, err)
	require.Len(t, page.Items, 2*len(served.Kinds()))
	for _, one := range page.Items {
		assert.Equal(t, resource.IssuerReady, one.State, one.Name)
		assert.EqualValues(t, 600, one.PollMaxWaitSeconds, one.Name)
		done, err := c.TestIssuer(t.Context(), client.TestIssuerParams{Name: one.Name})
		require.NoError(t, err)
		_, accepted := wrong[strings.TrimPrefix(one.Name, "wrong-")]
		accepted = accepted && !strings.HasPrefix(one.Name, "wrong-") || one.Kind == "entrust" // which has no secret but its key
		assert.Equal(t, accepted, done.OK, "%+v", done)
		if !accepted {
			assert.Equal(t, "credentials", done.Class, "%+v", done)
		}
	}
	assert.True(t, log.has("issuer=wrong-digicert"))
	assert.False(t, log.has(canary))
	for name, body := range bundle(t, c) {
		assert.NotContains(t, body, canary, name)
		if strings.HasSuffix(name, "settings.yaml") {
			assert.Contains(t, body, "wrong-digicert")
		}
	}
}

// bundle is what a support case gets to see, by file.
func bundle(t *testing.T, c *client.Client) map[string]string {
	t.Helper()
	var packed bytes.Buffer
	require.NoError(t, c.DiagnoseCluster(t.Context(), &packed, 64<<20))
	zipped, err := gzip.NewReader(&packed)
	require.NoError(t, err)
	files := map[string]string{}
	for archive := tar.NewReader(zipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		body, err := io.ReadAll(archive)
		require.NoError(t, err)
		files[header.Name] = string(body)
	}
	require.NotEmpty(t, files)
	return files
}
