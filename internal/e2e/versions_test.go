//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const module = "github.com/certctl/certctl"

// previousEnv names another version than that of internal/upgrade/previous.txt, as
// anything that Git knows.
const previousEnv = "CERTCTL_PREVIOUS"

// git runs Git in the source tree.
func git(args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	out, err := cmd.Output()
	if exit, failed := errors.AsType[*exec.ExitError](err); failed {
		err = fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// previousCommit is the commit of the version before this one. The test is skipped
// where its source cannot be had: outside of a repository, and where the history does
// not reach back to it, as in a shallow clone.
func previousCommit(t testing.TB) string {
	t.Helper()
	commit := os.Getenv(previousEnv)
	given := commit != ""
	if !given {
		text, err := os.ReadFile("../upgrade/previous.txt")
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				require.Empty(t, commit, "internal/upgrade/previous.txt has more than one commit")
				commit = line
			}
		}
		require.Regexp(t, "^[0-9a-f]{40}$", commit, "internal/upgrade/previous.txt")
	}
	if _, err := os.Stat("../../.git"); errors.Is(err, fs.ErrNotExist) && !given {
		t.Skip("this source tree is no Git repository (there is no .git in it), and the version before this one is built from its history")
	}
	_, err := git("cat-file", "-e", commit+"^{commit}")
	if err != nil && !given {
		t.Skipf("the history of this clone does not reach back to the version before this one (git cat-file -e %s)", commit)
	}
	require.NoError(t, err, "the version that %s names is not in the history", previousEnv)
	return commit
}

// buildPrevious builds the agent and the coordinator of the version before this one
// into a new directory.
func buildPrevious(t testing.TB) (dir string) {
	t.Helper()
	commit := previousCommit(t)
	source, dir := t.TempDir(), t.TempDir()
	began := time.Now()
	archive := exec.Command("git", "archive", "--format=tar", commit, ":/")
	archive.Dir = "../.."
	unpack := exec.Command("tar", "-x", "-C", source)
	var err error
	unpack.Stdin, err = archive.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, unpack.Start())
	require.NoError(t, archive.Run())
	require.NoError(t, unpack.Wait())
	buildIn(t, source, dir, "previous", nil)
	t.Logf("built the agent and the coordinator of %s in %v", commit, time.Since(began).Round(time.Millisecond))
	return dir
}

// buildIn builds the agent and the coordinator of a source tree. Files that are
// replaced are replaced for the compiler alone.
func buildIn(t testing.TB, source, dir, version string, replaced map[string]string) {
	t.Helper()
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "overlay.json")
	require.NoError(t, os.WriteFile(file, overlay, 0o600))
	// As build does, so that what has not changed comes from its cache.
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-overlay", file,
		"-ldflags", "-s -w -X "+module+"/shared/buildinfo.version="+version, "-o", dir+string(filepath.Separator),
		module+"/agent/cmd/certctl-agent", module+"/coordinator/cmd/certctl-coordinator")
	cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// buildNext builds a coordinator of a version to come: this one, but that it makes
// API tokens with a command of a later version, which only nodes of the next level
// understand.
func buildNext(t testing.TB) (dir string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	scratch, dir := t.TempDir(), t.TempDir()
	replaced := map[string]string{}
	// replace changes a file of package fleet, which has to be as this test knows it.
	replace := func(file, pattern string, change func(match []string) string) {
		path := filepath.Join(root, "coordinator", "fleet", file)
		now := path
		if replaced[path] != "" {
			now = replaced[path]
		}
		text, err := os.ReadFile(now)
		require.NoError(t, err)
		match := regexp.MustCompile(pattern).FindStringSubmatch(string(text))
		require.NotNil(t, match, "%s has no %s", path, pattern)
		replaced[path] = filepath.Join(scratch, file)
		changed := strings.Replace(string(text), match[0], change(match), 1)
		require.NoError(t, os.WriteFile(replaced[path], []byte(changed), 0o600))
	}
	following := func(number string) string {
		n, err := strconv.Atoi(number)
		require.NoError(t, err)
		return strconv.Itoa(n + 1)
	}
	version := ""
	replace("state.go", `register\((\d+), createAPIToken\)`, func(match []string) string {
		version = following(match[1])
		return "register(" + version + ", createAPIToken)"
	})
	replace("level.go", `const Level uint32 = (\d+)`, func(match []string) string { return "const Level uint32 = " + following(match[1]) })
	replace("level.go", `TypeCreateAPIToken: +\{`, func(match []string) string { return match[0] + version + ": Level, " })
	replace("commands.go", `func \(p CreateAPIToken\) version\(\) uint8 \{\n`, func(match []string) string { return match[0] + "\treturn " + version + "\n" })
	buildIn(t, root, dir, "next", replaced)
	return dir
}
