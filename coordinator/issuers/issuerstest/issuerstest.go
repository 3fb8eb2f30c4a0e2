// Package issuerstest gives tests issuers as settings have them, whose accounts are
// at fakes.
package issuerstest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/served"
	"github.com/certctl/certctl/shared/settings"
)

// Serve serves a fake of a kind until the test ends.
func Serve(t testing.TB, kind string, c fakeca.Config) *served.Server {
	t.Helper()
	s, err := served.Listen(t.Context(), kind, t.TempDir(), "127.0.0.1:0", c)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	return s
}

// Load reads a text as the coordinator reads its file, with an environment.
func Load(t testing.TB, text string, env ...string) (*config.Settings, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "coordinator.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	var s config.Settings
	_, err := settings.Load(&s, settings.Options{File: file, FileRequired: true, Env: env})
	return &s, err
}
