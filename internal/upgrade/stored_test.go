package upgrade

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
)

var quiet = slog.New(slog.DiscardHandler)

// patience bounds each wait for a node or a server.
const patience = 60 * time.Second

// A stored directory is an unpacked archive: what an earlier coordinator left,
// and what it said before its end.
type stored struct {
	t        *testing.T
	data     string // the data directory
	expected string
}

// eachStored runs a test for each archive, on a copy of its own.
func eachStored(t *testing.T, test func(s *stored)) {
	archives, err := filepath.Glob(filepath.Join("testdata", "*-*.tar.gz"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(archives), 2, "one that was stopped in order, and one that was killed")
	for _, archive := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(archive), ".tar.gz"), func(t *testing.T) {
			dir := t.TempDir()
			unpack(t, archive, dir)
			test(&stored{t: t, data: filepath.Join(dir, "data"), expected: filepath.Join(dir, "expected")})
		})
	}
}

func unpack(t *testing.T, archive, dir string) {
	file, err := os.Open(archive)
	require.NoError(t, err)
	defer file.Close()
	packed, err := gzip.NewReader(file)
	require.NoError(t, err)
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	for in := tar.NewReader(packed); ; {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		if header.Typeflag == tar.TypeDir {
			require.NoError(t, root.MkdirAll(header.Name, 0o700))
			continue
		}
		content, err := io.ReadAll(in)
		require.NoError(t, err)
		require.NoError(t, root.WriteFile(header.Name, content, header.FileInfo().Mode().Perm()))
	}
}

func (s *stored) text(path ...string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	require.NoError(s.t, err)
	return strings.TrimSpace(string(text))
}

// said is a list that the earlier coordinator printed. What is not needed of it is
// not read: its form is that of its version.
func said[T any](s *stored, name string) []T {
	s.t.Helper()
	var list struct {
		Items []T `json:"items"`
	}
	require.NoError(s.t, json.Unmarshal([]byte(s.text(s.expected, name)), &list))
	require.NotEmpty(s.t, list.Items, name)
	return list.Items
}

func (s *stored) authority() (ca resource.CA) {
	s.t.Helper()
	require.NoError(s.t, json.Unmarshal([]byte(s.text(s.expected, "ca.json")), &ca))
	return ca
}

// acknowledged lists the tokens that were made in the moment before a kill.
func (s *stored) acknowledged() []string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.expected, "acknowledged.txt"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	require.NoError(s.t, err)
	return strings.Fields(string(text))
}
