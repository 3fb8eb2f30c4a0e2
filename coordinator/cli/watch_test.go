package cli

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/shared/wire"
)

// scripted is a coordinator that answers as a test wants, and what one needs to ask it.
func scripted(t *testing.T, p *person, answer http.HandlerFunc) (flags []string) {
	t.Helper()
	server := httptest.NewUnstartedServer(answer)
	server.StartTLS()
	t.Cleanup(server.Close)
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return []string{"--server", server.URL, "--token-file", p.write("token", apitoken.New().Reveal()), "--ca-file", p.write("root.pem", string(root))}
}

// follow runs a watch against a scripted coordinator until answer interrupts it.
func follow(t *testing.T, p *person, args []string, answer func(look int, w http.ResponseWriter, r *http.Request, interrupt func())) (stdout, stderr string, err error) {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var mu sync.Mutex
	looks := 0
	flags := scripted(t, p, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		looks++
		answer(looks, w, r, interrupt)
	})
	var out, errs bytes.Buffer
	root := (&program{shortest: time.Millisecond}).root()
	root.SetArgs(append(append(args, "--watch", "--interval", "5ms"), flags...))
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.ExecuteContext(ctx)
	return out.String(), errs.String(), err
}

// scriptedAgents is a list that changes: b comes, a changes, a goes. Looks 3 and 4 find
// nothing new, the second of them nothing at all.
func scriptedAgents(t *testing.T) (answer func(look int, w http.ResponseWriter, r *http.Request, interrupt func()), tags *[]string) {
	t.Helper()
	tags = new([]string)
	return func(look int, w http.ResponseWriter, r *http.Request, interrupt func()) {
		*tags = append(*tags, r.Header.Get("If-None-Match"))
		list := map[int][]resource.Agent{
			1: {{ID: "a", Hostname: "=one"}}, 2: {{ID: "a", Hostname: "=one"}, {ID: "b"}}, 5: {{ID: "a", Hostname: "two"}, {ID: "b"}}, 6: {{ID: "b"}},
		}
		switch look {
		case 3:
			w.WriteHeader(http.StatusNotModified)
			return
		case 4:
			w.WriteHeader(http.StatusServiceUnavailable)
			assert.NoError(t, json.NewEncoder(w).Encode(wire.Problem{Status: 503, Code: wire.CodeUnavailable, Detail: "not yet"}))
			return
		}
		w.Header().Set("ETag", `"`+strconv.Itoa(look)+`"`)
		assert.NoError(t, json.NewEncoder(w).Encode(resource.Page[resource.Agent]{Items: list[min(look, 6)]}))
		if look == 7 {
			interrupt()
		}
	}, tags
}

// Many who watch with one token are told to come later, and do.
func TestAWatchWaitsWhereItsTokenIsUsedTooOften(t *testing.T) {
	assert.True(t, passes(&wire.Problem{Status: 429, Code: wire.CodeRateLimited}))
	assert.False(t, passes(&wire.Problem{Status: 401, Code: wire.CodeUnauthorized}))
}

// A watched list tells programs what changes, one document for each, waits for a
// coordinator that is away, and to be interrupted is how it ends.
func TestAWatchedListTellsChanges(t *testing.T) {
	p := newPerson(t)
	said := func(output string) string {
		answer, tags := scriptedAgents(t)
		out, errs, err := follow(t, p, []string{"agents", "list", "-o", output}, answer)
		require.NoError(t, err, "to be interrupted is no failure")
		assert.Equal(t, "certctl: not yet [unavailable]; waiting for it\ncertctl: the coordinator answers again\n", errs)
		assert.Equal(t, []string{"", `"1"`, `"2"`, `"2"`, `"2"`, `"5"`, `"6"`}, *tags, "it is asked whether something has changed")
		return out
	}
	type told struct {
		Time   time.Time
		Change string
		Item   resource.Agent
	}
	var changes []string
	for _, line := range lines(said("json")) {
		var one told
		require.NoError(t, json.Unmarshal([]byte(line), &one), "one document a line: %s", line)
		assert.WithinDuration(t, time.Now(), one.Time, time.Hour)
		changes = append(changes, one.Change+" "+one.Item.ID+" "+one.Item.Hostname)
	}
	assert.Equal(t, []string{"listed a =one", "added b ", "changed a two", "gone a two"}, changes)

	decoder := yaml.NewDecoder(strings.NewReader(said("yaml")))
	for _, want := range changes {
		var one told
		require.NoError(t, decoder.Decode(&one))
		assert.Equal(t, want, one.Change+" "+one.Item.ID+" "+one.Item.Hostname)
	}

	rows, err := csv.NewReader(strings.NewReader(said("csv"))).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 5, "one header")
	assert.Equal(t, []string{"time", "change", "item.id", "item.state", "item.hostname"}, rows[0][:5])
	assert.Equal(t, []string{"listed", "a", "", "'=one"}, rows[1][1:5])

	table := lines(said("table"))
	require.Len(t, table, 4)
	assert.Regexp(t, `^\d\d:\d\d:\d\d  a  =one  `, table[0])
	assert.True(t, strings.HasSuffix(table[3], "  not listed any more"), table[3])
}

// A document is told again when it has changed, and not for its clocks.
func TestAWatchedDocumentTellsChanges(t *testing.T) {
	p := newPerson(t)
	for output, want := range map[string]int{"json": 2, "table": 2, "yaml": 2, "csv": 3} {
		out, _, err := follow(t, p, []string{"status", "-o", output}, func(look int, w http.ResponseWriter, _ *http.Request, interrupt func()) {
			s := resource.Status{Version: "1", Time: time.Unix(int64(look), 0), Journal: resource.JournalStatus{Bytes: int64(look)}}
			if look > 2 {
				s.Agents.Active = 7
			}
			assert.NoError(t, json.NewEncoder(w).Encode(s))
			if look == 4 {
				interrupt()
			}
		})
		require.NoError(t, err)
		counts := map[string]int{"json": len(lines(out)), "yaml": strings.Count(out, "---\n"), "csv": len(lines(out)), "table": strings.Count(out, "coordinator:")}
		assert.Equal(t, want, counts[output], "%s: %s", output, out)
	}
}

// Who waits for something has not got it when the watch is interrupted.
func TestAnInterruptedWaitFails(t *testing.T) {
	p := newPerson(t)
	for _, args := range [][]string{{"cluster", "health"}, {"renewals", "show", "x"}} {
		_, _, err := follow(t, p, args, func(_ int, w http.ResponseWriter, _ *http.Request, interrupt func()) {
			assert.NoError(t, json.NewEncoder(w).Encode(map[string]any{"state": "running", "remaining": 1}))
			interrupt()
		})
		assert.ErrorContains(t, err, "interrupted before ", args)
	}
}

// A watched list of members is written when something has changed, goes on while
// the coordinator can answer nothing, and ends well when it is interrupted.
func TestMembersAreWatched(t *testing.T) {
	p := newPerson(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var mu sync.Mutex
	looks := 0
	flags := scripted(t, p, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		looks++
		m := resource.Members{AnsweredBy: "c1", Items: []resource.Member{{ID: "c1", Health: resource.MemberHealthy, AppliedIndex: uint64(looks)}}} //nolint:gosec // small
		switch {
		case looks == 3:
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(wire.Problem{Status: 503, Code: wire.CodeUnavailable, Detail: "not yet"})
			return
		case looks > 3:
			m.Items[0].Leader = true
		}
		_ = json.NewEncoder(w).Encode(m)
		if looks == 5 {
			interrupt()
		}
	})
	var stdout, stderr bytes.Buffer
	root := (&program{shortest: time.Millisecond}).root()
	root.SetArgs(append([]string{"cluster", "members", "--watch", "--every", "5ms"}, flags...))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	require.NoError(t, root.ExecuteContext(ctx))
	assert.Equal(t, 2, strings.Count(stdout.String(), "as seen from c1"), "figures alone are no change: %s", &stdout)
	assert.Contains(t, stdout.String(), "leader")
	assert.Equal(t, 1, strings.Count(stderr.String(), "not yet"), &stderr)
	assert.Contains(t, stderr.String(), "waiting for it")
}
