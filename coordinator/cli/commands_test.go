package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/printable"
	"github.com/certctl/certctl/shared/wire"
)

const day = 24 * time.Hour

// columns are the words of a table's line that stand two spaces apart.
func columns(line string) []string {
	var cells []string
	for _, cell := range strings.Split(line, "  ") {
		if cell = strings.TrimSpace(cell); cell != "" {
			cells = append(cells, cell)
		}
	}
	return cells
}

func lines(text string) []string { return strings.Split(strings.TrimSuffix(text, "\n"), "\n") }

// secretOf is the part of a token that nobody may see twice.
func secretOf(token string) string { return token[strings.LastIndexByte(token, '.')+1:] }

func TestFleetCommands(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	for _, list := range []string{"agents", "certificates"} {
		assert.Equal(t, "none\n", p.does(list, "list"))
		assert.Equal(t, "{\n  \"items\": [],\n  \"more\": false\n}\n", p.does(list, "list", "-o", "json"))
	}

	now := c.Now()
	web := c.Agent("web1", "web1.example.com", map[string]string{"env": "prod", "role": "web"})
	web.SafeUntil(now.Add(9*day + time.Hour))
	web.Report("www", apitest.Valid(now, 10*day+time.Hour, "www.example.com"))
	over := apitest.Valid(now, -3*time.Hour, "old.example.com")
	over.LastError, over.LastErrorAt, over.NeedsAttention = "no route", now, "give credentials"
	web.Report("a/b", over)
	web.Report("first", wire.Summary{State: wire.StatePending, Names: pki.MustParseNames("first.example.com"), Issuer: "builtin"})
	db := c.Agent("db1", "db1.example.com", nil)

	table := lines(p.does("agents", "list"))
	require.Len(t, table, 3)
	assert.Equal(t, []string{"ID", "HOST", "CONNECTION", "SAFE UNTIL", "ATTENTION", "CERTS", "VERSION", "LABELS"}, columns(table[0]))
	assert.Equal(t, []string{"db1", "db1.example.com", "connected", "-", "-", "0", "1.2.3", "-"}, columns(table[1]))
	assert.Equal(t, []string{"web1", "web1.example.com", "connected", "in 9 d", "1 cert", "3", "1.2.3", "env=prod,role=web"}, columns(table[2]))
	for _, args := range [][]string{
		{"--label", "env=prod"}, {"--query", "WEB"}, {"--safe-within", "10d"}, {"--label", "env=prod", "--label", "role=web", "--state", "active", "--connection", "connected"},
	} {
		found := reads[listOf[resource.Agent]](p, append([]string{"agents", "list"}, args...)...)
		require.Len(t, found.Items, 1, args)
		assert.Equal(t, "web1", found.Items[0].ID)
	}

	table = lines(p.does("certificates", "list"))
	require.Len(t, table, 4)
	assert.Equal(t, []string{"HOST", "CERTIFICATE", "HEALTH", "EXPIRES", "RENEWS", "ISSUER", "SERIAL", "NAMES"}, columns(table[0]))
	assert.Equal(t, []string{"web1.example.com", "a/b", "EXPIRED", "EXPIRED 3 h ago"}, columns(table[1])[:4])
	assert.Equal(t, []string{"web1.example.com", "first", "UNSERVED", "-", "-", "builtin", "-", "first.example.com"}, columns(table[2]))
	assert.Equal(t, []string{"web1.example.com", "www", "ok", "in 10 d", "in 5 d", "letsencrypt"}, columns(table[3])[:6])
	valid := apitest.Valid(now, 0, "www.example.com")
	for _, args := range [][]string{
		{"--health", "ok,renewing"}, {"--name", "www.example.com"}, {"--query", "ww"}, {"--serial", valid.Serial},
		{"--fingerprint", valid.Fingerprint}, {"--state", "valid", "--health", "ok"}, {"--agent", "web1", "--label", "env=prod", "--issuer", "letsencrypt", "--query", "www"},
	} {
		found := reads[listOf[resource.Certificate]](p, append([]string{"certificates", "list"}, args...)...)
		require.Len(t, found.Items, 1, args)
		assert.Equal(t, "www", found.Items[0].Name)
	}
	soon := reads[listOf[resource.Certificate]](p, "certificates", "list", "--expires-within", "14d")
	require.Len(t, soon.Items, 2)
	assert.Equal(t, "a/b", soon.Items[0].Name, "soonest first")

	shown := p.does("agents", "show", "web1")
	for _, text := range []string{"agent:", "web1.example.com", "connected", "(in 9 d)", "3: 1 EXPIRED, 1 UNSERVED, 1 ok; 1 NEEDS ATTENTION\n", "linux/amd64", "**.example.com", "env=prod,role=web", "serial 0a"} {
		assert.Contains(t, shown, text)
	}
	assert.Equal(t, 1, reads[resource.AgentDetail](p, "agents", "show", "web1").CertificateHealth.Expired)
	db1 := p.does("agents", "show", "db1")
	assert.Contains(t, db1, "it serves no certificate")
	assert.NotContains(t, db1, "clock")
	db.ClockSkew(-365 * day)
	assert.Contains(t, p.does("agents", "show", "db1"), "365 d behind; set it")
	assert.Contains(t, p.does("agents", "list"), "clock 365 d behind")
	assert.EqualValues(t, -365*86400, reads[resource.AgentDetail](p, "agents", "show", "db1").ClockSkewSeconds)
	assert.NotContains(t, db1, "WARNING")
	assert.NotContains(t, p.does("status"), "WARNINGS")
	db.Warn("assignment www: refused: no", "configuration on disk is not in effect: line 3")
	shown = p.does("agents", "show", "db1")
	assert.Contains(t, shown, "assignment www: refused: no\n")
	assert.Contains(t, shown, "not in effect: line 3\n")
	assert.Regexp(t, `db1\S* +connected +- +2 warnings, clock 365 d behind +0 +1\.2\.3`, p.does("agents", "list"))
	assert.Len(t, reads[resource.AgentDetail](p, "agents", "show", "db1").Warnings, 2)
	assert.Contains(t, p.does("status"), "0 retired; 1 WITH WARNINGS")
	shown = p.does("certificates", "show", "web1", "a/b")
	for _, text := range []string{"EXPIRED: expired at ", "give credentials", "ATTENTION", "no route", "deployment nginx:", "verified, ", "(3 h ago)"} {
		assert.Contains(t, shown, text)
	}
	assert.Equal(t, "a/b", reads[resource.Certificate](p, "certificates", "show", "web1", "a/b").Name)
	assert.Contains(t, p.fails(1, "agents", "show", "none"), "there is no agent with the id none [not_found]; list the agents")
	assert.Contains(t, p.fails(1, "certificates", "show", "web1", "none"), "no certificate named none")

	status := p.does("status")
	for _, text := range []string{"ready, leading", "2: 2 connected, 0 cut off; 0 retired", "3: 1 EXPIRED, 1 UNSERVED, 1 ok; 1 NEEDS ATTENTION\n", "(in 9 d)", "0 open", "of the audit trail"} {
		assert.Contains(t, status, text)
	}
	assert.Equal(t, 2, reads[resource.Status](p, "status").Agents.Active)

	require.True(t, c.Do(fleet.NoteSharedIdentity{AgentID: "db1", Remote: "192.0.2.7:4711"}).OK())
	assert.Contains(t, p.does("agents", "list"), "TWO HOSTS USE THIS IDENTITY")
	assert.Contains(t, p.does("agents", "show", "db1"), "enroll --replace")
	assert.True(t, reads[resource.AgentDetail](p, "agents", "show", "db1").IdentityShared)

	c.Sleep(time.Hour)
	assert.Regexp(t, `  cut off \d+ \w+ ago  `, p.does("agents", "list", "--connection", "cut_off"))
	assert.Contains(t, p.does("agents", "show", "web1"), "cut off, last seen ")
	inside := apitest.Valid(c.Now(), 10*day, "inside.example.com")
	inside.Serial = "0b0b"
	web.Issued("inside", inside)
	assert.Contains(t, p.fails(1, "agents", "retire", "web1"), "revoked with it: 1; this cannot be taken back; say --yes")
	assert.Contains(t, p.does("agents", "retire", "web1", "--dry-run"), "would be retired; certificates of the built-in CA that are revoked with it: 1\ndry run: nothing was changed")
	assert.Equal(t, "active", reads[resource.AgentDetail](p, "agents", "show", "web1").State)
	assert.Equal(t, "agent web1 on web1.example.com is retired; certificates of the built-in CA that are revoked with it: 1\n", p.does("agents", "retire", "web1", "--reason", "taken down", "--yes"))
	assert.Equal(t, "retired", reads[resource.AgentDetail](p, "agents", "retire", "web1", "--yes").State)
	assert.Contains(t, p.does("agents", "list", "--state", "retired"), "retired ")
}

func TestTokenSaysWhatItLeavesOpen(t *testing.T) {
	said := logIn(t, apitest.Start(t)).does("token", "create", "--uses", "0", "--ttl", "365d")
	assert.Contains(t, said, "any number of agents: whoever has it can enrol")
	assert.Contains(t, said, "none: these agents can only use issuers of their own; --names")
}

func TestHorizonThatHasPassed(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	c.Agent("web1", "web1", nil).SafeUntil(c.Now().Add(-3 * time.Hour))
	assert.Contains(t, p.does("agents", "list"), "EXPIRED 3 h ago")
	assert.Contains(t, p.does("agents", "show", "web1"), "PASSED at ")
	assert.Contains(t, p.does("status"), "PASSED at ")
}

// What is not safe now is said aloud wherever horizons are, in a table that a
// terminal of 120 columns shows.
func TestHostsThatAreNotSafe(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	c.Agent("u53n5nbgbmcuo7oa", "db1.example.com", map[string]string{"env": "prod"}).SafeUntil(c.Now().Add(29*day + time.Hour))
	c.Sleep(time.Hour)
	web := c.Agent("u53n5nbgbmcuo7ob", "web1.example.com", map[string]string{"env": "prod"})
	lost := wire.Summary{State: wire.StateFailed, Attempt: 3, NeedsAttention: "give credentials"}
	web.Report("a", lost)
	web.Report("b", lost)
	web.Report("www", apitest.Valid(c.Now(), 10*day, "www.example.com"))
	web.Warn("look")
	web.NotSafe(2)

	table := lines(p.does("agents", "list", "--sort", "safe-until"))
	require.Len(t, table, 3)
	assert.Equal(t, []string{"u53n5nbgbmcuo7ob", "web1.example.com", "connected", "NOT SAFE NOW (2)", "2 certs, 1 warning", "3", "1.2.3", "env=prod"}, columns(table[1]))
	assert.Regexp(t, `^u53n5nbgbmcuo7oa  db1.example.com +cut off \d+ \w+ ago +in 29 d +- +0 +1.2.3 +env=prod$`, table[2])
	for _, line := range table {
		assert.LessOrEqual(t, len(line), 120, line)
	}
	assert.Len(t, lines(p.does("agents", "list", "--safe-within", "1h")), 2, "it is safe for less than any time")
	for words, want := range map[string]string{
		"--sort hostname": "db1.example.com web1.example.com", "--sort hostname --reverse": "web1.example.com db1.example.com", "--sort safe-until --reverse": "db1.example.com web1.example.com",
	} {
		var hosts []string
		for _, one := range reads[listOf[resource.Agent]](p, append([]string{"agents", "list"}, strings.Fields(words)...)...).Items {
			hosts = append(hosts, one.Hostname)
		}
		assert.Equal(t, want, strings.Join(hosts, " "), words)
	}
	web.Report("soon", apitest.Valid(c.Now(), day, "soon.example.com"))
	for words, want := range map[string]string{"--sort not-after": "soon www", "--sort not-after --reverse": "www soon", "--sort id --reverse": "www soon b a"} {
		var names []string
		for _, one := range reads[listOf[resource.Certificate]](p, append([]string{"certificates", "list"}, strings.Fields(words)...)...).Items {
			names = append(names, one.Name)
		}
		assert.Equal(t, want, strings.Join(names, " "), words)
	}
	listed := reads[listOf[resource.Agent]](p, "agents", "list", "--query", "web").Items[0]
	assert.Equal(t, []int{2, 2}, []int{listed.NotSafe, listed.NeedingAttention})

	shown := p.does("agents", "show", "u53n5nbgbmcuo7ob")
	assert.Contains(t, shown, "safe until:    NOT SAFE NOW (2): expired, revoked or not in service everywhere, as last reported; \"certctl certificates list --agent u53n5nbgbmcuo7ob\" says which\n")
	assert.Contains(t, shown, "; 2 NEED ATTENTION\n")
	status := p.does("status")
	assert.Contains(t, status, "safe until:    NOT SAFE NOW (2): 2 certificates on 1 host, as last reported\n")
	assert.Contains(t, status, "first host:    web1.example.com (u53n5nbgbmcuo7ob): NOT SAFE NOW (2)\n")
	assert.Regexp(t, `then: +db1.example.com \(u53n5nbgbmcuo7oa\): \S+ \S+ \(in 29 d\)`, status)
	assert.Contains(t, status, "2 NEED ATTENTION\n")

	// A moment that has passed is said as well.
	assert.Contains(t, hostNotSafe(&resource.Agent{ID: "x", NotSafe: 1, SafeUntil: c.Now().Add(-3 * time.Hour)}, c.Now()), "; an expired or revoked one is served since ")
}

func TestTokenCommands(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	said := p.does("token", "create", "--names", "*.example.com,10.0.0.0/8", "--uses", "3", "--ttl", "2h", "--label", "env=prod", "--description", "rack 7")
	for _, text := range []string{"3 agents", "*.example.com, 10.0.0.0/8", "env=prod", " | sudo certctl-agent enroll --server " + apitest.EnrollmentURL + " --token-file -\n", "\n  echo cte1.", "The token is shown this once."} {
		assert.Contains(t, said, text)
	}
	made := reads[resource.CreatedEnrollmentToken](p, "token", "create", "--uses", "0")
	_, err := wire.ParseEnrollmentToken(made.Token)
	require.NoError(t, err)
	assert.WithinDuration(t, c.Now().Add(time.Hour), made.ExpiresAt, time.Minute)
	assert.NotContains(t, made.EnrollCommand, made.Token, "others on the host see a command's arguments")
	person := reads[resource.CreatedAPIToken](p, "api-token", "create", "--name", "anna", "--role", "operator", "--ttl", "90d")
	given, err := apitoken.Parse(person.Token)
	require.NoError(t, err)
	assert.WithinDuration(t, c.Now().Add(90*day), person.ExpiresAt, time.Minute)
	said = p.does("api-token", "create", "--name", "grafana", "--role", "viewer")
	assert.Contains(t, said, "it is revoked")
	assert.Contains(t, said, "\ncta1.")
	robot := reads[listOf[resource.APIToken]](p, "api-token", "list").Items[0]

	table := lines(p.does("token", "list"))
	require.Len(t, table, 3)
	assert.Equal(t, []string{"ID", "STATE", "USED", "EXPIRES", "NAMES", "LABELS", "DESCRIPTION"}, columns(table[0]))
	assert.Equal(t, []string{made.ID, "usable", "0", "in 59 min", "-", "-", "-"}, columns(table[1]))
	assert.Equal(t, []string{"usable", "0 of 3", "in 119 min", "*.example.com,10.0.0.0/8", "env=prod", "rack 7"}, columns(table[2])[1:])
	table = lines(p.does("api-token", "list"))
	require.Len(t, table, 4)
	assert.Equal(t, []string{"ID", "NAME", "ROLE", "STATE", "EXPIRES", "CREATED", "BY", "HOSTS", "ROTATED"}, columns(table[0]))
	assert.Equal(t, []string{robot.ID, "grafana", "viewer", "usable", "never"}, columns(table[1])[:5])
	assert.Equal(t, []string{given.ID, "anna", "operator", "usable", "in 89 d"}, columns(table[2])[:5])

	// What is shown once is shown nowhere else.
	assert.Equal(t, "enrolment token "+made.ID+" is revoked\n", p.does("token", "revoke", made.ID))
	assert.Equal(t, "API token "+given.ID+" (anna) is revoked\n", p.does("api-token", "revoke", given.ID))
	for _, args := range [][]string{
		{"token", "list"}, {"api-token", "list"}, {"token", "revoke", made.ID}, {"api-token", "revoke", given.ID}, {"audit", "list", "--scope", "all"},
		{"status"}, {"whoami"}, {"context", "list"}, {"context", "show"}, {"version"},
	} {
		for _, output := range []string{"table", "json", "yaml", "csv"} {
			text := strings.ReplaceAll(p.does(append(args, "--output", output)...), "\r\n", "\n")
			for _, token := range []string{made.Token, person.Token, c.Admin.Reveal()} {
				assert.NotContains(t, text, secretOf(token), args)
			}
		}
	}
	assert.Equal(t, resource.TokenRevoked, reads[listOf[resource.EnrollmentToken]](p, "token", "list", "--state", "revoked").Items[0].State)
	assert.Len(t, reads[listOf[resource.APIToken]](p, "api-token", "list", "--state", "usable").Items, 2)
	assert.Contains(t, p.fails(1, "token", "revoke", "none"), "not_found")
	assert.Contains(t, p.fails(1, "api-token", "revoke", c.Admin.ID), "last usable token with the role admin")
}

func TestAuditCommand(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	c.Agent("web1", "web1", nil).Event(wire.EventRenewed, "www", "serial 0a")
	require.Eventually(t, func() bool {
		return len(reads[listOf[resource.Event]](p, "audit", "list", "--scope", "all", "--kind", "certificate.renewed").Items) == 1
	}, 60*time.Second, 5*time.Millisecond, "the journal is written a moment later")
	table := lines(p.does("audit", "list"))
	assert.Equal(t, []string{"NUMBER", "TIME", "KIND", "ACTOR", "OBJECT", "AGENT", "DETAIL"}, columns(table[0]))
	assert.Equal(t, []string{"agent.enrolled", "enrollment_token:tweb1", "web1", "web1"}, columns(table[1])[2:6], "newest first")
	assert.Contains(t, lines(p.does("audit", "list", "--oldest"))[1], "audit.chain_begun")
	assert.Len(t, lines(p.does("audit", "list", "--kind", "agent.enrolled,ca.created")), 3)
	assert.Len(t, lines(p.does("audit", "list", "--agent", "web1", "--object", "www", "--scope", "all")), 2)
}

// What is served as it was configured before is called neither well nor new.
func TestACertificateOfAnEarlierConfiguration(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	row := apitest.Valid(c.Now(), 10*day+time.Hour, "www.example.com")
	row.Former = true
	c.Agent("web1", "web1.example.com", nil).Report("www", row)
	assert.Equal(t, []string{"web1.example.com", "www", "AT RISK, as configured before", "in 10 d"}, columns(lines(p.does("certificates", "list"))[1])[:4])
	shown := p.does("certificates", "show", "web1", "www")
	for _, text := range []string{"AT RISK: in service as it was configured before; to be replaced", "FORMER: ", "www.example.com"} {
		assert.Contains(t, shown, text)
	}
	assert.Equal(t, "none\n", p.does("certificates", "list", "--health", "ok,renewing"))
	assert.Len(t, lines(p.does("certificates", "list", "--health", "at_risk")), 2)
}

func TestPagesAreFollowed(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	agent := c.Agent("web1", "web1", nil)
	const total = 203
	for i := range total {
		agent.Report(fmt.Sprintf("c%03d", i), wire.Summary{State: wire.StatePending})
	}
	stdout, stderr, status := p.run("certificates", "list")
	assert.Zero(t, status)
	assert.Len(t, lines(stdout), 1+200)
	assert.Equal(t, "certctl: these are the first 200; --all shows the rest\n", stderr)
	assert.Len(t, lines(p.does("certificates", "list", "--all")), 1+total)
	assert.Len(t, lines(p.does("certificates", "list", "--limit", "203")), 1+total, "there are no others")

	stdout, _, _ = p.run("certificates", "list", "--limit", "3", "--output", "json")
	var some listOf[resource.Certificate]
	require.NoError(t, json.Unmarshal([]byte(stdout), &some))
	assert.Len(t, some.Items, 3)
	assert.True(t, some.More)
	every := reads[listOf[resource.Certificate]](p, "certificates", "list", "--all")
	assert.Len(t, every.Items, total)
	assert.False(t, every.More)
}

func TestBadWords(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	for _, bad := range []struct{ line, text string }{
		{"status --output xml", `flag --output "xml": expected table, json, yaml or csv`},
		{"agents list --limit 0", "flag --limit 0: expected 1 or more, or --all"},
		{"agents list --limit 5 --all", "[all limit]"},
		{"agents list extra", `"certctl agents list" takes no arguments, such as "extra"`},
		{"agents show", `"certctl agents show" takes AGENT; --help shows examples`},
		{"agents show web1 web2", `"certctl agents show" takes AGENT, and "web2" is too much`},
		{"certificates show www", `"certctl certificates show" takes AGENT NAME; --help`},
		{"agents list --state dead", `flag --state "dead": expected active or retired`},
		{"agents list --label prod", `"prod" is not label=value (field label)`},
		{"agents list --sort last-seen", `flag --sort "last-seen": expected id, hostname or safe-until`},
		{"certificates list --reverse", "flag --reverse goes with --sort"},
		{"orders list --sort age", `flag --sort "age": expected requested-at`},
		{"agents list --safe-within soon", `flag --safe-within "soon": not a duration`},
		{"certificates list --expires-within 5", `flag --expires-within "5": not a duration`},
		{"certificates list --health fine", `flag --health "fine": expected ok, renewing, unknown, at_risk, unserved, revoked or expired`},
		{"token create --ttl soon", `flag --ttl "soon": not a duration`},
		{"token create --ttl 500ms", `flag --ttl "500ms": expected one minute or more`},
		{"token create --ttl 0s", "expected one minute or more"},
		{"token create --ttl 5000d", `flag --ttl "5000d": expected at most 365 days`},
		{"token create --uses 1000001", "flag --uses 1000001: expected at most 1000000, or 0"},
		{"token create web1.example.com", "takes no arguments, such as \"web1.example.com\"; --help shows its flags; names are given with --names"},
		{"token create --names 10.0.0.0/8,0.0.0.0/0", "would allow every address"},
		{"token create --names ::/0", "would allow every address"},
		{"certificates list --agent nosuch", "there is no agent with the id nosuch"},
		{"api-token create --name x --role viewer --ttl 5000d", `flag --ttl "5000d": expected at most 3650 days`},
		{"token create --names *x.example.com", "(field name_patterns)"},
		{"token create --uses -1", `flag --uses "-1": expected a whole number, 0 or more`},
		{"api-token create --name x", `required flag(s) "role" not set`},
		{"api-token create --name x --role root", `flag --role "root": expected viewer, operator or admin`},
		{"api-token create --name x --role viewer --ttl 0s", "expected one minute or more"},
		{"agents lits", `unknown command "lits" for "certctl agents"; did you mean list?`},
		{"context switch x", `unknown command "switch" for "certctl context"`},
		{"audit --nope", "unknown flag: --nope"},
		{"agent-list", `unknown command "agent-list"`},
		{"status --frobnicate", "unknown flag: --frobnicate"},
	} {
		index := c.State().Index()
		assert.Contains(t, p.fails(1, strings.Fields(bad.line)...), bad.text, bad.line)
		assert.Equal(t, index, c.State().Index(), bad.line)
	}
	viewer := c.Token(fleet.RoleViewer, 0)
	t.Setenv("CERTCTL_TOKEN", viewer.Reveal())
	assert.Contains(t, p.fails(1, "token", "create"), "has the role viewer; this needs operator [forbidden]; use a token with that role")
}

// What a host calls itself cannot paint on the terminal of who looks.
func TestTerminalEscapesAreNeutralised(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	const evil = "web\x1b[2J\x1b]0;owned\a\u009b31m\u202egpj\r\n\ttab"
	agent := c.Agent("evil", evil, nil)
	bad := apitest.Valid(c.Now(), time.Hour, "www.example.com")
	bad.LastError, bad.LastErrorAt, bad.NeedsAttention, bad.IssuerDN = evil, c.Now(), evil, evil
	bad.Deployments[0].ID, bad.Deployments[0].Detail = evil, evil
	agent.Report("www", bad)
	for _, args := range [][]string{
		{"agents", "list"}, {"agents", "show", "evil"}, {"certificates", "list"}, {"certificates", "show", "evil", "www"}, {"audit", "list", "--scope", "all"},
		{"agents", "retire", "evil", "--yes"},
	} {
		for _, output := range []string{"table", "json", "yaml", "csv"} {
			text := strings.ReplaceAll(p.does(append(args, "--output", output)...), "\r\n", "\n")
			assert.NotContains(t, strings.ReplaceAll(text, "\n", ""), "\t")
			for _, r := range strings.ReplaceAll(text, "\n", "") {
				require.False(t, printable.Paints(r), "%v has %q", args, r)
			}
		}
	}
	assert.Equal(t, evil, reads[resource.AgentDetail](p, "agents", "show", "evil").Hostname, "JSON says it all, in a harmless form")
	said := p.fails(1, "agents", "show", "\x1b[2J")
	assert.NotContains(t, said, "\x1b")
	stdout, _, _ := p.run("__complete", "agents", "show", "")
	assert.NotContains(t, stdout, "\x1b")
	assert.Contains(t, stdout, "evil\t")
}

func TestCompletion(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	c.Agent("web1", "web1.example.com", nil)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		assert.Contains(t, p.does("completion", shell), "certctl")
	}
	for line, want := range map[string]string{
		"agents show ":                "web1\tweb1.example.com",
		"agents retire ":              "web1\tweb1.example.com",
		"certificates show ":          "web1\tweb1.example.com",
		"api-token revoke ":           c.Admin.ID + "\tfirst administrator, admin, usable",
		"token revoke ":               "tweb1\tused",
		"context use ":                "default",
		"status --output ":            "table\tfor people\njson\tfor programs; the names of its fields stay\nyaml\tthe JSON document as YAML\ncsv\tfor spreadsheets: a line for each item",
		"certificates list --health ": "ok\nrenewing\nunknown\nat_risk\nunserved\nrevoked\nexpired",
		"agents list --state ":        "active\nretired",
	} {
		stdout, _, status := p.run(append([]string{"__complete"}, strings.Split(line, " ")...)...)
		assert.Zero(t, status)
		assert.Equal(t, want, strings.TrimSpace(stdout[:strings.LastIndexByte(stdout, ':')]), line)
	}
	// Without a login there is nothing to offer, and nothing to complain of.
	require.NoError(t, os.Remove(p.file()))
	stdout, _, status := p.run("__complete", "agents", "show", "")
	assert.Zero(t, status)
	assert.Equal(t, ":4\n", stdout)
}

// Every command says what it does, and those that take words show how.
func TestHelp(t *testing.T) {
	p := newPerson(t)
	assert.Contains(t, p.does("--help"), "Exit status: 0 done, 1 refused or wrong, 2 the coordinator cannot be reached,\n3 hosts refuse")
	root := newProgram().root()
	seen := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		assert.NotEmpty(t, cmd.Short, cmd.CommandPath())
		if cmd.HasSubCommands() {
			return
		}
		seen++
		wordless := !strings.Contains(cmd.Use, " ") && !cmd.HasAvailableLocalFlags()
		assert.True(t, wordless || strings.Contains(cmd.Example, cmd.CommandPath()), "%s has no example", cmd.CommandPath())
	}
	walk(root)
	assert.Greater(t, seen, 15)
	assert.Contains(t, p.does("agents"), "certctl agents [command]")
	assert.Equal(t, buildinfo.Get().String()+"\n", p.does("version"))
	assert.Equal(t, "certctl version "+buildinfo.Get().String()+"\n", p.does("--version"))
	assert.Equal(t, buildinfo.Get(), reads[buildinfo.Info](p, "version"))
}
