package logring_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/logring"
)

func kept(t *testing.T, r *logring.Ring) (lines []string, dropped uint64) {
	t.Helper()
	text, dropped := r.Text()
	if len(text) == 0 {
		return nil, dropped
	}
	require.True(t, bytes.HasSuffix(text, []byte("\n")))
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), dropped
}

func TestNewestLinesAreKept(t *testing.T) {
	var r logring.Ring
	lines, dropped := kept(t, &r)
	assert.Empty(t, lines)
	assert.Zero(t, dropped)
	for i := range logring.Lines + 7 {
		n, err := fmt.Fprintf(&r, "line %d\n", i)
		require.NoError(t, err)
		require.Positive(t, n)
	}
	lines, dropped = kept(t, &r)
	require.Len(t, lines, logring.Lines)
	assert.Equal(t, "line 7", lines[0])
	assert.Equal(t, fmt.Sprintf("line %d", logring.Lines+6), lines[len(lines)-1])
	assert.EqualValues(t, 7, dropped)
}

func TestSizeIsBounded(t *testing.T) {
	var r logring.Ring
	long := bytes.Repeat([]byte("x"), 100<<10)
	for range 500 {
		n, err := r.Write(append(long, '\n'))
		require.NoError(t, err)
		require.Equal(t, len(long)+1, n, "a writer that takes less would be an error")
		text, _ := r.Text()
		require.LessOrEqual(t, len(text), logring.Bytes)
	}
	lines, _ := kept(t, &r)
	assert.Greater(t, len(lines), 100)
	for _, line := range lines {
		assert.True(t, strings.HasSuffix(line, "[cut]"))
		assert.Less(t, len(line), 10<<10)
	}
	_, _ = r.Write([]byte("short\n"))
	lines, _ = kept(t, &r)
	assert.Equal(t, "short", lines[len(lines)-1], "the buffer of a long line is not reused")
}

// The ring has what the log has: same level, groups and attributes.
func TestTee(t *testing.T) {
	var r logring.Ring
	var out bytes.Buffer
	var level slog.LevelVar
	log := slog.New(r.Tee(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: &level}))).With("part", "cluster")
	log.Debug("not written")
	log.Info("first", "n", 1)
	level.Set(slog.LevelDebug)
	log.WithGroup("peer").Debug("second", "id", "b")
	lines, _ := kept(t, &r)
	require.Len(t, lines, 2)
	assert.Contains(t, lines[0], `"msg":"first","part":"cluster","n":1`)
	assert.Contains(t, lines[1], `"level":"DEBUG","msg":"second","part":"cluster","peer":{"id":"b"}`)
	assert.Equal(t, 2, strings.Count(out.String(), "\n"))
	assert.Contains(t, out.String(), "peer.id=b")
}

func TestTeeIsAHandler(t *testing.T) {
	var r logring.Ring
	handler := r.Tee(slog.NewTextHandler(&bytes.Buffer{}, nil))
	require.NoError(t, slogtest.TestHandler(handler, func() []map[string]any {
		var records []map[string]any
		lines, _ := kept(t, &r)
		for _, line := range lines {
			var record map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &record))
			records = append(records, record)
		}
		return records
	}))
}

func TestConcurrentUse(t *testing.T) {
	var r logring.Ring
	var writing sync.WaitGroup
	for range 4 {
		writing.Go(func() {
			log := slog.New(r.Tee(slog.DiscardHandler))
			for i := range 500 {
				log.Info("line", "i", i)
				_, _ = fmt.Fprintln(&r, "line")
				r.Text()
			}
		})
	}
	writing.Wait()
	lines, dropped := kept(t, &r)
	assert.Len(t, lines, logring.Lines)
	assert.EqualValues(t, 4*500-logring.Lines, dropped, "a handler that discards has nothing kept")
}
