//go:build linux

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// photograph describes every file below dir: owner, mode and content. Of lock
// files, which hold the number of whoever had them last, the content does not
// count.
func photograph(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content := ""
		if info.Mode().IsRegular() && !strings.HasSuffix(path, ".lock") {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(data)
			content = hex.EncodeToString(sum[:])
		}
		uid := info.Sys().(*syscall.Stat_t).Uid
		files[path] = fmt.Sprintf("%v uid=%d %s", info.Mode(), uid, content)
		return nil
	}))
	return files
}

// settledPhotograph is a photograph of the data of a coordinator that runs, when it
// has nothing more to write: after it has begun to answer, it tells the cluster
// about itself and takes its first snapshot.
func settledPhotograph(t *testing.T, dir string) (files map[string]string) {
	t.Helper()
	await(t, time.Minute, "the coordinator writes nothing more", func() error {
		pause(t.Context(), 4*time.Second) // files that come and go while they are written are gone then
		files = photograph(t, dir)
		pause(t.Context(), 4*time.Second)
		if !maps.Equal(files, photograph(t, dir)) {
			return errors.New("it still does")
		}
		return nil
	})
	return files
}

// refusedStart checks that a daemon ended with status 1 and said why, once and
// in one line, and logged no other error.
func refusedStart(t *testing.T, r result, program string, words ...string) {
	t.Helper()
	assert.Equal(t, 1, r.status, "exit status")
	var complaints []string
	for line := range strings.Lines(r.stderr) {
		var entry struct {
			Level string `json:"level"`
		}
		if json.Unmarshal([]byte(line), &entry) != nil {
			complaints = append(complaints, strings.TrimSuffix(line, "\n"))
			continue
		}
		assert.NotEqual(t, "ERROR", entry.Level, "a second error: %s", line)
	}
	if !assert.Len(t, complaints, 1, "one error, in one line: %s", r.stderr) {
		return
	}
	assert.True(t, strings.HasPrefix(complaints[0], program+": "), complaints[0])
	for _, word := range words {
		assert.Contains(t, complaints[0], word)
	}
	t.Log(complaints[0])
}

// overwrite replaces n octets at the beginning of a file by nonsense.
func overwrite(t *testing.T, path string, n int) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteAt(bytes.Repeat([]byte{0xA5}, n), 0)
	require.NoError(t, err)
	require.NoError(t, file.Close())
}

// truncate leaves the first pages of a database.
func truncate(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.Truncate(path, 3*4096))
}

// nobody is the user id of somebody else.
const nobody = 65534

// giveAway makes dir, and what is in it, somebody else's.
func giveAway(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	}))
}
