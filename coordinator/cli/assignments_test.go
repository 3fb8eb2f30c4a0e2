package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/assignmentfile"
	"github.com/certctl/certctl/shared/wire"
)

const twoAssignments = `# the web
---
name: www
selector: role=web
certificate:
  names: ["${hostname}"]
  lifetime: 30d
  deployments:
    - files: {fullchain: /etc/tls/www.pem, key: /etc/tls/www.key, key_mode: 0640}
      reload: [sh, -c, "echo ---"]
---
name: db
selector: role in (db)
certificate: {names: ["${hostname}"]}
`

// feed makes a text the standard input of the next commands.
func feed(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stdin")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	in, err := os.Open(path)
	require.NoError(t, err)
	before := os.Stdin
	os.Stdin = in
	t.Cleanup(func() {
		os.Stdin = before
		in.Close()
	})
}

func TestAssignmentCommands(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	web := c.Agent("web1", "web1.example.com", map[string]string{"role": "web"})
	c.Agent("web2", "web2.example.org", map[string]string{"role": "web"})
	c.Agent("db1", "db1.example.com", map[string]string{"role": "db"})
	assert.Equal(t, "none\n", p.does("assignments", "list"))
	file := p.write("two.yaml", twoAssignments)

	// A dry run says which host gets what, and changes nothing.
	index := c.State().Index()
	said := lines(p.does("assignments", "apply", "-f", file, "--dry-run"))
	assert.Equal(t, []string{"ASSIGNMENT", "HOST", "AGENT", "CHANGE", "DETAIL"}, columns(said[0]))
	assert.Equal(t, []string{"www", "web1.example.com", "web1", "gets it", "web1.example.com"}, columns(said[1]))
	assert.Equal(t, []string{"www", "web2.example.org", "web2", "REFUSED"}, columns(said[2])[:4])
	assert.Contains(t, said[2], "the host's enrolment does not allow this")
	assert.Equal(t, []string{"db", "db1.example.com", "db1", "gets it", "db1.example.com"}, columns(said[3]))
	assert.Equal(t, []string{"", "www is new; hosts: 1 gets it, 1 is REFUSED it", "db is new; hosts: 1 gets it",
		`whether they take it, the hosts decide by their own rules, which are not known here; "certctl assignments hosts NAME" shows it afterwards`,
		"dry run: nothing was changed"}, said[4:])
	_, errs, status := p.run("assignments", "apply", "-f", file, "--fail-on-refused")
	assert.Equal(t, 3, status)
	assert.Contains(t, errs, "nothing was changed: 1 host is not allowed it, or refused it so far")
	dry := reads[applied](p, "assignments", "apply", "-f", file, "--dry-run")
	assert.True(t, dry.DryRun)
	require.Len(t, dry.Assignments, 2)
	assert.Equal(t, "created", dry.Assignments[0].Change)
	assert.Equal(t, index, c.State().Index())

	// Applied, it says in short what it does, and does it.
	said = lines(p.does("assignments", "apply", "-f", file))
	assert.Equal(t, "www is new; hosts: 1 gets it, 1 is REFUSED it", said[0])
	assert.Contains(t, said[1], "  REFUSED for web2.example.org (web2): the host's enrolment")
	assert.Equal(t, []string{"db is new; hosts: 1 gets it", "www: created, revision 1", "db: created, revision 1"}, said[2:])

	// Again, in other words: nothing changes.
	index = c.State().Index()
	feed(t, strings.ReplaceAll(twoAssignments, "30d", "720h"))
	said = lines(p.does("assignments", "apply", "-f", "-"))
	assert.Equal(t, []string{"www is unchanged; hosts: 1 is REFUSED it, 1 keeps it as it is"}, said[:1])
	assert.Equal(t, "db is unchanged; hosts: 1 keeps it as it is", said[2])
	assert.Len(t, said, 3)
	for _, result := range reads[applied](p, "assignments", "apply", "-f", file).Assignments {
		assert.Equal(t, "unchanged", result.Change)
	}
	assert.Equal(t, index, c.State().Index())

	table := lines(p.does("assignments", "list"))
	assert.Equal(t, []string{"ASSIGNMENT", "SELECTOR", "NAMES", "ISSUER", "REVISION", "HOSTS", "CHANGED", "BY"}, columns(table[0]))
	assert.Equal(t, []string{"db", "role=db", "${hostname}", "coordinator", "1", "1 match, 1 waiting"}, columns(table[1])[:6])
	shown := p.does("assignments", "show", "www")
	for _, text := range []string{"2 match, 1 waiting, 1 NOT ALLOWED", "by api_token:" + c.Admin.ID, "certificate:\n  names: [\"${hostname}\"]\n  lifetime: 30d\n", `key_mode: "0640"`} {
		assert.Contains(t, shown, text)
	}
	assert.Equal(t, "www", reads[resource.AssignmentDetail](p, "assignments", "show", "www").Name)

	web.Assignment(wire.AssignmentReport{Name: "www", Revision: 1, State: wire.AssignmentRefused, Detail: "no issuer named x\x1b[2J"})
	table = lines(p.does("assignments", "hosts", "www"))
	assert.Equal(t, []string{"HOST", "AGENT", "STATE", "SAID", "DETAIL"}, columns(table[0]))
	assert.Equal(t, []string{"web2.example.org", "web2", "NOT ALLOWED", "-"}, columns(table[1])[:4])
	assert.Equal(t, []string{"web1.example.com", "web1", "REFUSED"}, columns(table[2])[:3])
	assert.NotContains(t, table[2], "\x1b")
	refused := reads[resource.AssignmentStatus](p, "assignments", "hosts", "www", "--state", "refused")
	require.Len(t, refused.Items, 1)
	assert.Equal(t, "web1", refused.Items[0].AgentID)
	assert.Equal(t, 2, refused.Matched)

	// The list counts them, and a plan does not promise what is refused so far.
	table = lines(p.does("assignments", "list"))
	assert.Equal(t, "2 match, 1 REFUSED by the host, 1 NOT ALLOWED", columns(table[2])[5])
	listed := reads[listOf[resource.ListedAssignment]](p, "assignments", "list").Items
	assert.Equal(t, &resource.AssignmentCounts{Matched: 2, Refused: 1, NotAllowed: 1}, listed[1].Hosts)
	said = lines(p.does("assignments", "apply", "-f", file, "--dry-run"))
	assert.Equal(t, []string{"www", "web1.example.com", "web1", "keeps it"}, columns(said[1])[:4])
	assert.Contains(t, said[1], "(REFUSED so far by the host's own rules: no issuer named x")
	assert.Contains(t, said[4], "www is unchanged; hosts: 1 is REFUSED it, 1 keeps it as it is; 1 of them REFUSED it so far, by their own rules")
	_, _, status = p.run("assignments", "apply", "-f", file, "--dry-run", "--fail-on-refused")
	assert.Equal(t, 3, status)
	said = lines(p.does("assignments", "apply", "-f", p.write("longer.yaml", strings.ReplaceAll(twoAssignments, "30d", "31d")), "--dry-run"))
	assert.Equal(t, []string{"www", "web1.example.com", "web1", "changes it"}, columns(said[1])[:4])
	assert.Contains(t, said[1], "REFUSED so far by the host's own rules")
	changed := reads[applied](p, "assignments", "apply", "-f", p.home+"/longer.yaml", "--dry-run").Assignments[0].Hosts
	assert.Equal(t, 1, changed.Refused)
	assert.Equal(t, "unknown", changed.HostRules)
	assert.Equal(t, "no issuer named x\x1b[2J", changed.Items[0].Refused)
	p.does("assignments", "apply", "-f", p.write("db.yaml", twoAssignments[strings.Index(twoAssignments, "name: db"):]), "--fail-on-refused")

	// Deleted only after it was said what that does.
	said = lines(p.does("assignments", "delete", "www", "--dry-run"))
	assert.Equal(t, []string{"www", "web1.example.com", "web1", "loses it"}, columns(said[1])[:4])
	_, errs, status = p.run("assignments", "delete", "www")
	assert.Equal(t, 1, status)
	assert.Equal(t, "www is deleted; hosts: 1 loses it\ncertctl: this cannot be taken back; say --yes if you mean it\n", errs)
	assert.Equal(t, "www is deleted; hosts: 1 loses it\n", p.does("assignments", "delete", "www", "--yes"))
	p.does("assignments", "apply", "-f", p.write("nope.yaml", "name: nope\nselector: role=db\ncertificate: {names: [www.example.org]}\n"))
	assert.Equal(t, "nope is deleted; no host has it\n", p.does("assignments", "delete", "nope", "--yes"), "one matches, and never got it")
	assert.Contains(t, p.fails(1, "assignments", "show", "www"), "there is no assignment named www")
	assert.Contains(t, p.fails(1, "assignments", "hosts", "www"), "list the assignments")
	assert.Contains(t, p.fails(1, "assignments", "delete", "www", "--yes"), "not_found")
}

func TestExportComesBack(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	p.does("assignments", "apply", "-f", p.write("two.yaml", twoAssignments+`---
name: "no: 1 \u00e9"
selector: "*"
certificate:
  names: ["*.${label.site}.example.com", "10.0.0.1"]
  issuer: "007"
  fallback_issuers: ["true", "- x"]
  deployments:
    - {id: "#1", files: {combined: 'C:\tls\"x".pem'}, check: ["", "a\nb", "'"], verify: {address: "127.0.0.1:443"}}
`))
	text := p.does("assignments", "export")
	index := c.State().Index()
	again := reads[applied](p, "assignments", "apply", "-f", p.write("again.yaml", text))
	require.Len(t, again.Assignments, 3, text)
	for _, result := range again.Assignments {
		assert.Equal(t, "unchanged", result.Change, text)
	}
	assert.Equal(t, index, c.State().Index())
	assert.NotContains(t, text, "revision")
	assert.Len(t, reads[listOf[resource.Assignment]](p, "assignments", "export", "db").Items, 1)

	// With revisions, an edit of what somebody else has changed is refused.
	old := p.does("assignments", "export", "db", "--revisions")
	assert.Contains(t, old, "revision: 1\n")
	file := p.write("old.yaml", strings.Replace(old, "role=db", "role=store", 1))
	p.does("assignments", "apply", "-f", file)
	said := p.fails(1, "assignments", "apply", "-f", p.write("older.yaml", strings.Replace(old, "role=db", "role=other", 1)))
	assert.Contains(t, said, "older.yaml:4:")
	assert.Contains(t, said, "the assignment was changed in the meantime")

	// Into an empty coordinator.
	other := apitest.Start(t)
	q := logIn(t, other)
	q.does("assignments", "apply", "-f", q.write("all.yaml", text))
	assert.Equal(t, text, q.does("assignments", "export"))
}

// Every file is checked before anything is asked, and every change is tried
// before the first one is made.
func TestApplyIsStrict(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	index := c.State().Index()
	dir := filepath.Join(p.home, "dir")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("not: mine"), 0o600))
	assert.Contains(t, p.fails(1, "assignments", "apply", "-f", dir), "holds no .yaml, .yml or .json file")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.yml"), []byte("name: a\nselector: '*'\ncertificate: {names: [a.example.com]}\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b.json"), []byte(`{"name":"b","selector":"*","certificate":{"names":["b.example.com"]}}`), 0o600))

	const good = "name: good\nselector: '*'\ncertificate: {names: [a.example.com]}\n"
	for text, wants := range map[string][]string{
		good + "---\nname: x\nselector: '*'\ncertificate:\n  names: [a.example.com]\n  isuer: y\n": {"x.yaml:9:3: certificate.isuer: ", `did you mean "issuer"?`},
		good + "---\n# nothing\n---\nselector: '*'\ncertificate: {names: [a.example.com]}\n":       {"x.yaml:6:1: name: "},
		"name: x\nselector: env prod\ncertificate: {names: [a.example.com]}\n":                     {"x.yaml:2:11: selector: ", "a comma should be"},
		"name: x\nselector: '*'\n":                                                                   {"x.yaml:1:1: certificate", "names"},
		"name: x\nselector: '*'\ncertificate: {names: ['${host}']}\n":                                {"x.yaml:3:", "certificate.names[0]: ", "${hostname}"},
		"name: x\nselector: '*'\ncertificate: {names: [a.example.com], lifetime: soon}\ncolour: 1\n": {"certificate.lifetime: ", "x.yaml:4:1: colour: "},
		good + "---\n" + good: {`x.yaml:5:7: name: the assignment "good" stands here and in `, "x.yaml:1:7"},
		good + "--- \nname: \"a\\nb\"\nselector: x\ncertificate: {names: [a.example.com]}\n": {"x.yaml:5:7: name: ", "without control characters"},
		"# nothing\n---\n...\n":        {"there is no assignment in "},
		strings.Repeat("x", 5<<20):     {"larger than 4096 KiB"},
		good + "---\nname: [\n":        {"x.yaml:5:", "not valid YAML"},
		good + "---\n- name: listed\n": {"x.yaml:5:", "expected keys with values"},
	} {
		said := p.fails(1, "assignments", "apply", "-f", p.write("x.yaml", text))
		for _, want := range wants {
			assert.Contains(t, said, want, text)
		}
	}
	assert.Contains(t, p.fails(1, "assignments", "apply", "-f", filepath.Join(p.home, "none")), "flag --file: ")
	assert.Contains(t, p.fails(1, "assignments", "apply"), `required flag(s) "file" not set`)
	// Tried at the coordinator, and refused: the other one is not made either.
	said := p.fails(1, "assignments", "apply", "-f", p.write("x.yaml", good+"---\nname: x\nselector: '*'\nrevision: 7\ncertificate: {names: [a.example.com]}\n"))
	assert.Contains(t, said, "x.yaml:7:11: the assignment was changed in the meantime (field revision)")
	assert.Equal(t, index, c.State().Index())

	p.does("assignments", "apply", "-f", dir, "-f", p.write("good.yaml", good))
	assert.Len(t, reads[listOf[resource.Assignment]](p, "assignments", "list").Items, 3)
}

// A change that comes in between is not overwritten, and what was done before is
// said.
func TestApplyKeepsWhatOthersDo(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	given, err := assignmentfile.Parse("x.yaml", "name: x\nselector: '*'\ncertificate: {names: [a.example.com]}\n")
	require.NoError(t, err)
	root := newProgram().root()
	root.SetOut(new(strings.Builder))
	program := newProgram()
	client, err := program.target.connect()
	require.NoError(t, err)
	defer client.Close()
	plan, err := planAssignments(t.Context(), client, given)
	require.NoError(t, err)
	p.does("assignments", "apply", "-f", p.write("x.yaml", "name: x\nselector: env=prod\ncertificate: {names: [b.example.com]}\n"))
	root.SetContext(t.Context())
	err = program.apply(root, client, given, plan)
	assert.ErrorContains(t, err, "was changed in the meantime")
	assert.ErrorContains(t, err, "0 of 1 are as wanted: apply again to go on")
	assert.Equal(t, "env=prod", reads[resource.AssignmentDetail](p, "assignments", "show", "x").Selector)
}

func TestOneAndSeveral(t *testing.T) {
	plan := func(hosts resource.AssignmentChanges) string {
		return planText(&resource.AssignmentResult{Assignment: resource.Assignment{Name: "x"}, Change: "changed", Hosts: hosts})
	}
	assert.Equal(t, "x changes; hosts: 1 gets it, 2 change it, 1 loses it, 2 are REFUSED it, 1 keeps it as it is",
		plan(resource.AssignmentChanges{Added: 1, Changed: 2, Removed: 1, NotAllowed: 2, Unchanged: 1}))
	assert.Equal(t, "x changes; no host matches", plan(resource.AssignmentChanges{}))
	assert.Equal(t, "1 certificate was", counted(1, "certificate was", "certificates were"))
	assert.Equal(t, "0 certificates were", counted(0, "certificate was", "certificates were"))
}

func TestManyHosts(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	for i := range 5 {
		c.Agent(fmt.Sprintf("h%d", i), fmt.Sprintf("h%d.example.org", i), nil)
	}
	said := p.does("assignments", "apply", "-f", p.write("x.yaml", "name: x\nselector: '*'\ncertificate: {names: ['${hostname}']}\n"))
	assert.Equal(t, 3, strings.Count(said, "REFUSED for"))
	assert.Contains(t, said, "  and 2 more; --dry-run names them\n")
	assert.Contains(t, p.does("assignments", "show", "x"), "5 match, 5 NOT ALLOWED")
}
