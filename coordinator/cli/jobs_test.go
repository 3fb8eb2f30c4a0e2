package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/wire"
)

func TestJobsCommand(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	assert.Equal(t, "none\n", p.does("jobs", "list"))
	web := c.Agent("web1", "web1.example.com", nil)
	c.Agent("db1", "db1.example.com", nil)
	failed := apitest.Valid(c.Now(), 5*day, "www.example.com")
	failed.State, failed.Attempt, failed.LastError, failed.NextAttempt = wire.StateFailed, 1, "no route\x1b[31m", c.Now().Add(3*time.Hour+time.Minute)
	web.Report("www", failed)
	stuck := failed
	stuck.NeedsAttention = "give credentials"
	web.Report("stuck", stuck)
	command := reads[resource.Command](p, "renew", "web1", "www")

	table := lines(p.does("jobs", "list"))
	require.Len(t, table, 4)
	assert.Equal(t, []string{"KIND", "HOST", "OBJECT", "STATE", "SINCE", "NEXT", "ID", "DETAIL"}, columns(table[0]))
	assert.Equal(t, []string{"renewal", "web1.example.com", "stuck", "NEEDS A PERSON", "-"}, columns(table[1])[:5])
	assert.Contains(t, table[1], "one attempt has failed; no route [31m; to do: give credentials")
	assert.Equal(t, []string{"renewal", "web1.example.com", "www", "retrying", "-", "in 3 h", "www"}, columns(table[2])[:7])
	assert.Equal(t, []string{"command", "web1.example.com", "www", "waiting", "0 s ago", "-", command.ID, "its host has not taken it yet"}, columns(table[3]))
	for line, want := range map[string]int{
		"--kind renewal": 2, "--kind renewal,command": 3, "--state needs_person": 1, "--agent db1": 0, "--agent web1 --ended": 3, "--limit 3": 3,
	} {
		assert.Len(t, reads[listOf[resource.Job]](p, append([]string{"jobs", "list"}, strings.Fields(line)...)...).Items, want, line)
	}
	assert.Contains(t, p.fails(1, "jobs", "list", "--kind", "none"), `flag --kind "none": expected order, renewal, revocation, command or mass_renewal`)
	assert.Contains(t, p.fails(1, "jobs", "list", "--agent", "none"), "there is no agent with the id none")
	assert.Contains(t, p.fails(1, "jobs", "list", "--watch", "--limit", "0"), "flag --limit 0: expected 1 or more")
	assert.Contains(t, p.fails(1, "jobs", "list", "--watch", "--every", "1ms"), "flag --interval 1ms: expected 1s or more")
	for line, want := range map[string]string{
		"jobs list --kind ":  "order\nrenewal\nrevocation\ncommand\nmass_renewal",
		"jobs list --agent ": "db1\tdb1.example.com\nweb1\tweb1.example.com",
	} {
		stdout, _, status := p.run(append([]string{"__complete"}, strings.Split(line, " ")...)...)
		assert.Zero(t, status)
		assert.Equal(t, want, strings.TrimSpace(stdout[:strings.LastIndexByte(stdout, ':')]), line)
	}
}

// A watch tells what comes, what changes and what goes, and ends when nothing is left.
func TestJobsAreWatched(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	web := c.Agent("web1", "web1.example.com", nil)
	web.Report("www", apitest.Valid(c.Now(), 5*day, "www.example.com"))
	command := reads[resource.Command](p, "renew", "web1", "www")
	seen := make(chan struct{})
	text := new(apitest.Text)
	go func() {
		defer close(seen)
		var errs apitest.Text
		assert.Zero(t, Execute([]string{"jobs", "list", "--kind", "command", "--watch", "--interval", "1s"}, text, &errs), errs.String())
	}()
	has := func(part string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Contains(text.String(), part) }, time.Minute, 10*time.Millisecond, "%s\n%s", part, text.String())
	}
	has("  command  web1.example.com  www  waiting  ")
	web.Command(command.ID, wire.CommandAccepted, "")
	has("  command  web1.example.com  www  running  ")
	web.Command(command.ID, wire.CommandDone, "")
	has("  ended\n")
	select {
	case <-seen:
	case <-time.After(time.Minute):
		t.Fatal("the watch does not end")
	}
	assert.True(t, strings.HasSuffix(text.String(), "  none\n"), text.String())
	assert.Len(t, lines(text.String()), 4, "a line for each change, and none beside: %s", text.String())
}
