package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	sharedcli "github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/printable"
	"github.com/certctl/certctl/shared/wire"
)

func TestTimesForPeople(t *testing.T) {
	now := time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		away             time.Duration
		distance, expiry string
	}{
		{0, "in 0 s", "EXPIRED 0 s ago"},
		{time.Nanosecond, "in 0 s", "in 0 s"},
		{119 * time.Second, "in 119 s", "in 119 s"},
		{2 * time.Minute, "in 2 min", "in 2 min"},
		{2 * time.Hour, "in 2 h", "in 2 h"},
		{47 * time.Hour, "in 47 h", "in 47 h"},
		{48 * time.Hour, "in 2 d", "in 2 d"},
		{41*day + 23*time.Hour, "in 41 d", "in 41 d"},
		{-3 * time.Hour, "3 h ago", "EXPIRED 3 h ago"},
		{-400 * day, "400 d ago", "EXPIRED 400 d ago"},
	} {
		assert.Equal(t, c.distance, distance(now.Add(c.away), now))
		assert.Equal(t, c.expiry, expiry(now.Add(c.away), now))
	}
	assert.Empty(t, distance(time.Time{}, now))
	assert.Empty(t, expiry(time.Time{}, now))
	assert.Empty(t, moment(time.Time{}, now))
	assert.Empty(t, horizon(time.Time{}, now))
	assert.NotContains(t, horizon(now.Add(1), now), "PASSED")
	assert.Contains(t, horizon(now, now), "PASSED")
	assert.Contains(t, horizon(now, now), "expired or revoked")
}

func TestTableIsAligned(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, table(&out, []string{"A", "B"}, [][]string{{"long text", ""}, {"", "x"}}))
	assert.Equal(t, "A          B\nlong text  -\n-          x\n", out.String())
}

func TestExplain(t *testing.T) {
	assert.Equal(t, "x [unauthorized]; y", explain(&wire.Problem{Detail: "x", Code: wire.CodeUnauthorized, Mend: "y"}))
	assert.Contains(t, explain(fmt.Errorf("z: %w", &wire.Problem{Detail: "x", Code: wire.CodeUnauthorized})), "certctl login")
	assert.Contains(t, explain(&wire.Problem{Detail: "x", Code: wire.CodeForbidden}), "certctl whoami")
	assert.Equal(t, "x", explain(errors.New("x")))
}

func FuzzPlain(f *testing.F) {
	f.Add("\x1b[31m", "\u009b")
	f.Add("\x9b2J", "a\nb")
	f.Fuzz(func(t *testing.T, text, other string) {
		for _, r := range plain(text) {
			assert.False(t, printable.Paints(r))
		}
		assert.Equal(t, strings.Count(text, "\n"), strings.Count(plainLines(text), "\n"))
		var out bytes.Buffer
		value := map[string]string{"a": strings.ToValidUTF8(text, ""), "b": strings.ToValidUTF8(other, "")}
		require.NoError(t, sharedcli.WriteJSON(&out, value))
		for _, r := range strings.ReplaceAll(out.String(), "\n", "") {
			assert.False(t, printable.Paints(r))
		}
		var back map[string]string
		require.NoError(t, json.Unmarshal(out.Bytes(), &back))
		assert.Equal(t, value, back)
	})
}
