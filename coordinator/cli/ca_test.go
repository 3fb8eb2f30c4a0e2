package cli

import (
	"crypto/x509"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
)

// An administrator rotates the root through all its steps, is left behind as any
// client is, and follows.
func TestCACommands(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	old := p.write("old.pem", c.CA.RootsPEM())
	require.Eventually(t, func() bool {
		shown := p.does("ca", "show")
		assert.Contains(t, shown, "none is under way")
		assert.Contains(t, shown, apitest.RevocationURL+"/"+c.CA.ListSigners()[0]+".crl")
		return strings.Contains(shown, "number 1, 0 revoked, published ")
	}, 60*time.Second, 20*time.Millisecond)
	assert.Contains(t, p.fails(1, "ca", "rotate", "--root"), "say --yes")
	assert.Contains(t, p.fails(1, "ca", "rotate", "--yes"), "at least one of the flags")
	assert.Contains(t, p.fails(1, "ca", "rotate", "--root", "--issuing", "--yes"), "none of the others can be")
	assert.Contains(t, p.fails(1, "ca", "rotate", "--root", "--step", "retire", "--yes"), "activate a published one first")

	p.does("ca", "rotate", "--issuing", "--yes")
	p.does("ca", "rotate", "--identity", "--yes")
	c.Agent("web1", "web1.example.com", nil)
	shown := p.does("ca", "rotate", "--root", "--yes")
	assert.Contains(t, shown, "a new root is published")
	assert.Contains(t, shown, "web1.example.com")
	assert.Contains(t, p.fails(1, "ca", "rotate", "--root", "--step", "activate", "--yes"), "1 active agents have not reported generation 2")
	p.does("ca", "rotate", "--root", "--step", "activate", "--force", "--yes")
	rotated := reads[resource.CA](p, "ca", "rotate", "--root", "--step", "retire", "--force", "--yes")
	assert.Equal(t, 3, rotated.TrustGeneration)

	// The running server takes it over by itself.
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(c.RootFile())
		return err == nil && string(text) == rotated.RootsPEM
	}, 60*time.Second, 20*time.Millisecond)
	require.Eventually(t, func() bool {
		_, _, status := p.run("status")
		return status == exitUnreachable
	}, 60*time.Second, 20*time.Millisecond)
	assert.Contains(t, p.fails(2, "status"), `run "certctl ca trust"`)
	followed := reads[trusted](p, "ca", "trust")
	assert.Equal(t, trusted{Server: c.URL, Generation: 3, Changed: true, Kept: `the context "default"`}, followed)
	p.does("status")
	assert.False(t, reads[trusted](p, "ca", "trust").Changed)

	assert.Contains(t, p.does("ca", "trust", "--ca-file", old), "generation 3")
	text, err := os.ReadFile(old)
	require.NoError(t, err)
	assert.Equal(t, rotated.RootsPEM, string(text))
	t.Setenv("CERTCTL_CA_FILE", old)
	p.does("status")
	t.Setenv("CERTCTL_CA_FILE", "")

	other := apitest.Start(t)
	before, err := os.ReadFile(p.file())
	require.NoError(t, err)
	assert.Contains(t, p.fails(1, "ca", "trust", "--server", other.URL), "the context is of another coordinator")
	said := p.fails(1, "ca", "trust", "--server", other.URL, "--ca-file", old)
	assert.Contains(t, said, "is not the coordinator that is trusted here")
	assert.Contains(t, said, "log in again with --ca-file")
	after, err := os.ReadFile(p.file())
	require.NoError(t, err)
	assert.Equal(t, before, after)
	kept, err := os.ReadFile(old)
	require.NoError(t, err)
	assert.Equal(t, text, kept, "what is not believed is not kept")
	require.True(t, x509.NewCertPool().AppendCertsFromPEM(kept))
	assert.Contains(t, p.fails(2, "ca", "trust", "--server", "https://127.0.0.1:1", "--ca-file", old), "cannot be reached")
	assert.Contains(t, p.fails(1, "ca", "trust", "--ca-file", c.AdminTokenFile()), "the CA certificates that are trusted now")
}
