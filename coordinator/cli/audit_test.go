package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/history/postgres"
	"github.com/certctl/certctl/coordinator/trail"
)

// broken runs a verification that has to find something, and returns all that it says.
func (p *person) broken(args ...string) string {
	p.t.Helper()
	stdout, stderr, status := p.run(append([]string{"audit", "verify"}, args...)...)
	require.Equal(p.t, exitBroken, status, "%v: %s%s", args, stdout, stderr)
	assert.True(p.t, strings.HasPrefix(stderr, "certctl: the audit trail is BROKEN: "), stderr)
	return stdout + stderr
}

func TestTheTrailIsVerified(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	c.Agent("web1", "web1", nil)
	head := reads[resource.AuditHead](p, "audit", "head")
	anchor := fmt.Sprintf("%d:%s", head.Number, head.Hash)
	assert.Contains(t, p.does("audit", "head"), anchor)

	done := reads[verification](p, "audit", "verify", "--against", strings.ToUpper(anchor))
	require.Len(t, done.Items, 1)
	assert.True(t, done.Whole)
	one := done.Items[0]
	assert.Equal(t, []any{fromJournal, apitest.NodeID, head.Number, head.Number, uint64(1)}, []any{one.Source, one.Node, one.Report.Facts, one.Report.Last, one.Report.ChainedFrom})
	assert.Equal(t, []uint64{head.Number}, one.Report.Anchors)
	text := p.does("audit", "verify")
	assert.Contains(t, text, "whole")
	assert.Contains(t, text, anchor)
	assert.Equal(t, []uint64{head.Number}, reads[verification](p, "audit", "verify").Items[0].Report.Anchors, "the head of the state is compared")
	part := reads[verification](p, "audit", "verify", "--from", "3").Items[0].Report
	assert.Equal(t, []any{uint64(3), true, head.Number - 2}, []any{part.First, part.Open, part.Facts})
	assert.Contains(t, p.does("audit", "verify", "--from", "3"), "number 3 on; what was before is not in it")

	shown := p.does("audit", "show", "1")
	assert.Contains(t, shown, "audit.chain_begun")
	assert.Equal(t, head.Hash, reads[resource.Event](p, "audit", "show", fmt.Sprint(head.Number)).Hash)
	assert.Contains(t, p.fails(1, "audit", "show", "4711"), "there is no number 4711")
	assert.Contains(t, p.fails(1, "audit", "show", "first"), "expected a number")

	// What somebody knew of before.
	other := fmt.Sprintf("2:%064x", 7)
	assert.Contains(t, p.broken("--against", other), "number 2: NOT THE ONE THAT WAS KNOWN")
	assert.Contains(t, p.broken("--against", fmt.Sprintf("%d:%064x", head.Number+5, 7), "--file", p.export()), fmt.Sprintf("numbers %d to %d: MISSING", head.Number+1, head.Number+5))
	for _, bad := range []string{"1", "x:" + head.Hash, "1:abc", ":", "0:" + head.Hash, "1:" + strings.Repeat("0", 64)} {
		assert.Contains(t, p.fails(1, "audit", "verify", "--against", bad), "expected NUMBER:HASH", bad)
	}
	assert.Contains(t, p.fails(1, "audit", "verify", "--against", anchor, "--from", "1000"), "before --from")
	assert.Contains(t, p.fails(1, "audit", "verify", "--nodes", "nobody"), `"nobody"`)
	assert.Contains(t, p.fails(1, "audit", "verify", "--nodes", "all", "--source", "history"), "--nodes")

	// Somebody has written into the journal.
	require.NoError(t, c.Journal.Append(1<<40, []fleet.Fact{{Index: 1 << 40, Time: time.Now(), Kind: "x", Audit: head.Number + 3}}))
	said := p.broken()
	assert.Contains(t, said, fmt.Sprintf("numbers %d to %d: MISSING", head.Number+1, head.Number+2))
	assert.Contains(t, said, "ITS HASH IS GONE")
	stdout, _, status := p.run("audit", "verify", "--output", "json")
	require.Equal(t, exitBroken, status)
	var document verification
	require.NoError(t, json.Unmarshal([]byte(stdout), &document))
	assert.False(t, document.Whole)
	assert.Equal(t, trail.FaultMissing, document.Items[0].Report.Breaks[0].Fault)
}

// export writes the trail to a file.
func (p *person) export() string {
	p.t.Helper()
	return p.write("trail.json", p.does("audit", "list", "--all", "--oldest", "--output", "json"))
}

// A file is verified without any server, and every change of it is found.
func TestATrailInAFileIsVerified(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	c.Token(fleet.RoleViewer, 0)
	c.Agent("web1", "web1", nil)
	head := reads[resource.AuditHead](p, "audit", "head")
	anchor := fmt.Sprintf("%d:%s", head.Number, head.Hash)
	require.Eventually(t, func() bool {
		return len(reads[listOf[resource.Event]](p, "audit", "list", "--all").Items) == int(head.Number)
	}, time.Minute, 5*time.Millisecond)
	file := p.export()
	whole, err := os.ReadFile(file)
	require.NoError(t, err)
	p = newPerson(t) // who has no login
	assert.Contains(t, p.does("audit", "verify", "-f", file), "without an anchor")
	report := reads[verification](p, "audit", "verify", "-f", file, "--against", anchor).Items[0].Report
	assert.Equal(t, []any{head.Number, []uint64{head.Number}}, []any{report.Facts, report.Anchors})

	var list listOf[map[string]json.RawMessage]
	require.NoError(t, json.Unmarshal(whole, &list))
	verify := func(items []map[string]json.RawMessage, args ...string) (string, int) {
		text, err := json.Marshal(listOf[map[string]json.RawMessage]{Items: items})
		require.NoError(t, err)
		stdout, stderr, status := p.run(append([]string{"audit", "verify", "-f", p.write("changed.json", string(text))}, args...)...)
		return stdout + stderr, status
	}
	n := len(list.Items)
	newest := slices.Clone(list.Items)
	slices.Reverse(newest)
	said, status := verify(newest, "--against", anchor)
	require.Zero(t, status, "newest first is another order of the same: %s", said)
	said, status = verify(list.Items[2:], "--against", anchor)
	require.Zero(t, status, said)
	assert.Contains(t, said, "number 3 on; what was before is not in it")
	said, status = verify(list.Items[2:], "--against", anchor, "--from", "1")
	require.Equal(t, exitBroken, status)
	assert.Contains(t, said, "numbers 1 to 2: MISSING")
	_, status = verify(list.Items[:n-1])
	require.Zero(t, status, "which only an anchor finds")
	said, status = verify(list.Items[:n-1], "--against", anchor)
	require.Equal(t, exitBroken, status)
	assert.Contains(t, said, fmt.Sprintf("number %d: MISSING", n))

	rapid.Check(t, func(rt *rapid.T) {
		items := slices.Clone(list.Items)
		at := rapid.IntRange(0, n-1).Draw(rt, "at")
		switch rapid.SampledFrom([]string{"alter", "remove", "drop", "swap", "twice"}).Draw(rt, "change") {
		case "alter": // one octet of one value
			names := make([]string, 0, len(items[at]))
			for name := range items[at] {
				names = append(names, name)
			}
			slices.Sort(names)
			name := rapid.SampledFrom(names).Draw(rt, "field")
			value := slices.Clone(items[at][name])
			value[rapid.IntRange(0, len(value)-1).Draw(rt, "octet")] ^= 1 << rapid.IntRange(0, 6).Draw(rt, "bit")
			if !json.Valid(value) {
				quoted, err := json.Marshal(string(value))
				require.NoError(rt, err)
				value = quoted
			}
			changed := map[string]json.RawMessage{}
			for name, text := range items[at] {
				changed[name] = text
			}
			changed[name] = value
			if same, err := trail.Canonical(value); err == nil {
				if before, err := trail.Canonical(items[at][name]); err == nil && string(before) == string(same) {
					return // the same, written in another way
				}
			}
			items[at] = changed
		case "remove":
			changed := map[string]json.RawMessage{}
			for name, text := range items[at] {
				changed[name] = text
			}
			delete(changed, rapid.SampledFrom([]string{"audit", "index", "time", "kind", "actor", "object", "hash"}).Draw(rt, "field"))
			items[at] = changed
		case "drop":
			items = slices.Delete(items, at, at+1)
			if at == 0 {
				_, status := verify(items, "--against", anchor, "--from", "1")
				require.Equal(rt, exitBroken, status)
				return
			}
		case "swap":
			other := rapid.IntRange(0, n-2).Draw(rt, "other")
			if other >= at {
				other++
			}
			items[at], items[other] = items[other], items[at]
		case "twice":
			items = slices.Insert(items, at, items[at])
		}
		said, status := verify(items, "--against", anchor)
		require.Equal(rt, exitBroken, status, said)
	})

	verifyByTheDocument(t, file, anchor)

	for text, want := range map[string]string{"": "expected what", "[]": "expected what", `{"items":{}}`: "no list", `{"items":[`: "expected what", `{"items":[]}`: "no fact of the audit trail", `{"items":[]`: "in the middle", string(whole[:len(whole)-5]): "expected what"} {
		assert.Contains(t, p.fails(1, "audit", "verify", "-f", p.write("bad.json", text)), want)
	}
	assert.Contains(t, p.fails(1, "audit", "verify", "-f", "nowhere.json"), "nowhere.json")
}

// verifyByTheDocument has the verifier that the reference shows say the same of a file.
func verifyByTheDocument(t *testing.T, file, anchor string) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Log("python3 is not installed here: the verifier of docs/reference/audit.md was not run")
		return
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "audit.md"))
	require.NoError(t, err)
	_, code, found := strings.Cut(strings.ReplaceAll(string(page), "\r\n", "\n"), "```python\n")
	require.True(t, found)
	code, _, _ = strings.Cut(code, "```")
	script := filepath.Join(t.TempDir(), "verify.py")
	require.NoError(t, os.WriteFile(script, []byte(code), 0o600))
	out, err := exec.Command(python, script, file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "are whole: "+anchor)
	whole, err := os.ReadFile(file)
	require.NoError(t, err)
	altered := filepath.Join(t.TempDir(), "altered.json")
	require.NoError(t, os.WriteFile(altered, bytes.Replace(whole, []byte(`"not_chained": 0`), []byte(`"not_chained": 1`), 1), 0o600))
	out, err = exec.Command(python, script, altered).CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "number 1 was altered")
}

// The history that is in a database is verified as far as it was exported.
func TestTheTrailInTheDatabaseIsVerified(t *testing.T) {
	database := &shelf{}
	c := apitest.StartWith(t, database)
	p := logIn(t, c)
	head := reads[resource.AuditHead](p, "audit", "head")
	require.Eventually(t, func() bool { return c.Journal.Through() >= head.Index }, time.Minute, time.Millisecond)
	facts, _, err := c.Journal.Read(history.Query{})
	require.NoError(t, err)
	database.facts = facts
	database.status = postgres.Status{Leads: true, Attached: true, Through: head.Index}
	one := reads[verification](p, "audit", "verify", "--source", "history").Items[0]
	assert.Equal(t, []any{fromHistory, head.Number, []uint64{head.Number}}, []any{one.Source, one.Report.Facts, one.Report.Anchors})

	database.facts = facts[2:] // somebody has cleared away the oldest
	one = reads[verification](p, "audit", "verify", "--source", "history").Items[0]
	assert.True(t, one.Report.Open)
	database.status.Through = head.Index - 1
	database.facts = facts[:len(facts)-1]
	one = reads[verification](p, "audit", "verify", "--source", "history").Items[0]
	assert.Contains(t, one.Note, "the export has come to log entry")

	database.facts = slices.Clone(facts)
	database.facts[1].Actor = "nobody"
	assert.Contains(t, p.broken("--source", "history"), "history of "+apitest.NodeID+", number 2: ALTERED")
}

// shelf is a database that has some facts.
type shelf struct {
	facts  []fleet.Fact
	status postgres.Status
}

func (s *shelf) Facts(_ context.Context, q history.Query) (page []fleet.Fact, next string, err error) {
	for _, f := range s.facts {
		if f.Audit > 0 && f.Audit >= q.From {
			page = append(page, f)
		}
	}
	return page, "", nil
}

func (s *shelf) Prune(context.Context, time.Time, bool) ([]postgres.PrunedMonth, error) {
	return nil, nil
}

func (s *shelf) Status() postgres.Status { return s.status }
