// Package manpagetest holds a program to what its manual needs, and writes the manual
// where it is asked to.
package manpagetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/manpage"
)

// Directory names the variable of the environment that says where the manual and the
// scripts for the shells are written to; see "make man".
const Directory = "MANUAL_DIRECTORY"

// Check makes a manual. make is called twice: the pages must not depend on the process.
func Check(t *testing.T, manual func() manpage.Manual) {
	t.Helper()
	m := manual()
	for _, offence := range manpage.Offences(m.Root) {
		t.Error(offence)
	}
	pages := m.Pages()
	again := manual().Pages()
	require.Len(t, again, len(pages))
	for name, page := range pages {
		require.Equal(t, page, again[name], "the same page each time")
		for _, part := range []string{".TH ", ".SH \"NAME\"\n", ".SH \"SYNOPSIS\"\n", ".SH \"DESCRIPTION\"\n", ".SH \"EXAMPLES\"\n", ".SH \"SEE ALSO\"\n"} {
			assert.Contains(t, page, part, name)
		}
	}
	directory := t.TempDir()
	require.NoError(t, manpage.Write(directory, pages))
	require.NoError(t, manpage.WriteCompletions(directory, m.Root))
	lint(t, directory)
	if into := os.Getenv(Directory); into != "" {
		require.NoError(t, manpage.Write(filepath.Join(into, "man"), pages))
		require.NoError(t, manpage.WriteCompletions(into, m.Root))
	}
}

// lint has the program that shows manual pages read them all, where there is one.
func lint(t *testing.T, directory string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(directory, "man?", "*"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	reader, args := "mandoc", []string{"-T", "lint", "-W", "warning"}
	if _, err := exec.LookPath(reader); err != nil {
		reader, args = "groff", []string{"-man", "-ww", "-z", "-K", "utf8", "-T", "utf8"}
	}
	if _, err := exec.LookPath(reader); err != nil {
		t.Log("neither mandoc nor groff is installed: what they would say of the pages is not known")
		return
	}
	said, err := exec.CommandContext(t.Context(), reader, append(args, files...)...).CombinedOutput()
	require.NoError(t, err, string(said))
	assert.Empty(t, strings.TrimSpace(string(said)))
}
