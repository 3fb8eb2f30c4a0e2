package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/jointoken"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/pki"
)

// On a directory that was set up before, join does nothing, and says that all is
// well only if the directory can be of the token's cluster.
func TestJoinLooksAtWhoseDirectoryItIs(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	verb := func(args ...string) (out setUp, errs string, status int) {
		var stdout, stderr bytes.Buffer
		status = execute(append(args, "--output", "json", "--set", "data_dir="+data,
			"--set", "server.listen=127.0.0.1:0", "--set", "cluster.listen=127.0.0.1:0"), &stdout, &stderr)
		if status == 0 {
			require.NoError(t, json.Unmarshal(stdout.Bytes(), &out))
		}
		return out, stderr.String(), status
	}
	founded, errs, status := verb("init")
	require.Zero(t, status, errs)
	require.True(t, founded.Done)
	text, err := os.ReadFile(filepath.Join(data, server.RootFile))
	require.NoError(t, err)
	roots, err := pki.ParseChainPEM(text)
	require.NoError(t, err)
	root := roots[0]
	require.NotEmpty(t, founded.ClusterID)
	assert.Contains(t, root.Subject.CommonName, founded.ClusterID[:8], "the id is that of the built-in CA")

	token := func(root *x509.Certificate) string {
		made, err := jointoken.New(root, "https://127.0.0.1:1")
		require.NoError(t, err)
		return made.Reveal()
	}
	again, errs, status := verb("join", token(root))
	require.Zero(t, status, errs)
	assert.False(t, again.Done)
	assert.Equal(t, founded.NodeID, again.NodeID)
	other := token(&x509.Certificate{Raw: []byte("another")})
	_, errs, status = verb("join", other)
	assert.Equal(t, 1, status)
	assert.Contains(t, errs, "data directory "+data+" belongs to another cluster than the join token: its root is "+pki.Fingerprint(root))
	assert.Contains(t, errs, "use an empty directory")
	_, errs, status = verb("join", "nonsense")
	assert.Equal(t, 1, status)
	assert.Contains(t, errs, "not a join token")

	require.NoError(t, os.Remove(filepath.Join(data, server.RootFile)))
	unknown, errs, status := verb("join", other)
	require.Zero(t, status, errs)
	assert.Contains(t, unknown.NextAction, "cannot be told before its node has run once")
}
