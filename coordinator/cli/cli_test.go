package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/fleet"
)

// asCertctl makes the test's program certctl itself.
const asCertctl = "TEST_RUNS_CERTCTL"

func TestMain(m *testing.M) {
	if os.Getenv(asCertctl) != "" {
		os.Exit(Execute(os.Args[1:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

// A person has a home of their own, and nothing in the environment.
type person struct {
	t    *testing.T
	home string
}

func newPerson(t *testing.T) *person {
	t.Helper()
	p := &person{t: t, home: t.TempDir()}
	for _, name := range []string{"XDG_CONFIG_HOME", "HOME", "AppData"} { // of one system or another
		t.Setenv(name, p.home)
	}
	for _, name := range []string{"CERTCTL_SERVER_URL", "CERTCTL_TOKEN", "CERTCTL_TOKEN_FILE", "CERTCTL_CA_FILE", "CERTCTL_CONTEXT"} {
		t.Setenv(name, "")
	}
	return p
}

func (p *person) file() string {
	p.t.Helper()
	path, err := contextPath()
	require.NoError(p.t, err)
	return path
}

// run is one command.
func (p *person) run(args ...string) (stdout, stderr string, status int) {
	var out, errs bytes.Buffer
	status = Execute(args, &out, &errs)
	return out.String(), errs.String(), status
}

// does runs a command that has to succeed in silence, and returns what it prints.
func (p *person) does(args ...string) string {
	p.t.Helper()
	stdout, stderr, status := p.run(args...)
	require.Zero(p.t, status, "certctl %v: %s", args, stderr)
	require.Empty(p.t, stderr)
	return stdout
}

// fails runs a command that has to fail with a status, and returns its one
// complaint.
func (p *person) fails(status int, args ...string) string {
	p.t.Helper()
	stdout, stderr, got := p.run(args...)
	require.Equal(p.t, status, got, "certctl %v: %s%s", args, stdout, stderr)
	assert.Empty(p.t, stdout)
	assert.True(p.t, strings.HasPrefix(stderr, "certctl: "), stderr)
	return strings.TrimSpace(stderr)
}

// reads runs a command with --output json.
func reads[T any](p *person, args ...string) T {
	p.t.Helper()
	var document T
	text := p.does(append(args, "--output", "json")...)
	require.NoError(p.t, json.Unmarshal([]byte(text), &document), text)
	return document
}

// logIn makes a person who is logged in as the first administrator.
func logIn(t *testing.T, c *apitest.Coordinator) *person {
	t.Helper()
	p := newPerson(t)
	p.does("login", "--server", c.URL, "--token-file", c.AdminTokenFile(), "--ca-file", c.RootFile())
	return p
}

func (p *person) write(name, text string) string {
	p.t.Helper()
	path := filepath.Join(p.home, name)
	require.NoError(p.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestLogin(t *testing.T) {
	c := apitest.Start(t)
	p := newPerson(t)
	assert.Contains(t, p.fails(1, "status"), `log in with "certctl login"`)

	said := p.does("login", "--server", c.URL+"/", "--token-file", c.AdminTokenFile(), "--ca-file", c.RootFile())
	assert.Equal(t, "logged in to "+c.URL+` as "first administrator" with the role admin; this is the context "default"`+"\n", said)
	assert.Contains(t, p.does("whoami"), c.Admin.ID)

	viewer := c.Token(fleet.RoleViewer, time.Hour)
	said = p.does("login", "--context", "second", "--server", c.URL, "--token-file", p.write("viewer", viewer.Reveal()+"\n"), "--ca-file", c.RootFile())
	assert.Contains(t, said, `"certctl context use default" goes back to the one of before`)
	assert.Contains(t, p.does("whoami"), viewer.ID, "the newest login is the current one")
	assert.Contains(t, p.does("whoami", "--context", "default"), c.Admin.ID)
	t.Setenv("CERTCTL_CONTEXT", "default")
	assert.Contains(t, p.does("whoami"), c.Admin.ID)
	t.Setenv("CERTCTL_CONTEXT", "")

	before, err := os.ReadFile(p.file())
	require.NoError(t, err)
	for name, fault := range map[string]struct {
		status int
		text   string
		args   []string
	}{
		"no server":        {1, "flag --server is missing", []string{"--token-file", c.AdminTokenFile()}},
		"not a URL":        {1, "expected such as https://", []string{"--server", "localhost:8443", "--token-file", c.AdminTokenFile()}},
		"no token":         {1, "flag --token-file is missing", []string{"--server", c.URL}},
		"no such file":     {1, "token file: open", []string{"--server", c.URL, "--token-file", filepath.Join(p.home, "none")}},
		"not a token":      {1, "not an API token", []string{"--server", c.URL, "--token-file", c.RootFile()}},
		"a huge file":      {1, "is larger than", []string{"--server", c.URL, "--token-file", p.write("huge", strings.Repeat("x", 2<<20))}},
		"not a CA":         {1, "no certificate in PEM", []string{"--server", c.URL, "--token-file", c.AdminTokenFile(), "--ca-file", c.AdminTokenFile()}},
		"no CA":            {2, "--ca-file", []string{"--server", c.URL, "--token-file", c.AdminTokenFile()}},
		"a bad context":    {1, `flag --context "a b"`, []string{"--server", c.URL, "--token-file", c.AdminTokenFile(), "--context", "a b"}},
		"an unknown token": {1, "the API token is not known here", []string{"--server", c.URL, "--ca-file", c.RootFile(), "--token-file", p.write("odd", strings.Replace(viewer.Reveal(), viewer.ID, "aaaaaaaaaaaaaaaa", 1))}},
	} {
		t.Run(name, func(t *testing.T) {
			said := p.fails(fault.status, append([]string{"login"}, fault.args...)...)
			assert.Contains(t, said, fault.text)
			assert.NotContains(t, said, "\n", "one complaint is one line")
			after, err := os.ReadFile(p.file())
			require.NoError(t, err)
			assert.Equal(t, before, after, "a login that fails changes nothing")
		})
	}
}

func TestContexts(t *testing.T) {
	c := apitest.Start(t)
	p := newPerson(t)
	assert.Equal(t, "none\n", p.does("context", "list"))
	assert.Contains(t, p.fails(1, "context", "show"), `"certctl login" makes one`)
	// Names that YAML would take for something else.
	names := []string{"1", "1e3", "null", "true", "yes", "a.b", "default"}
	for _, name := range names {
		p.does("login", "--context", name, "--server", c.URL, "--token-file", c.AdminTokenFile(), "--ca-file", c.RootFile())
	}
	var listed []string
	for _, context := range reads[[]shownContext](p, "context", "list") {
		listed = append(listed, context.Name)
		assert.Equal(t, context.Name == "default", context.Current)
		assert.Equal(t, shownContext{Name: context.Name, Server: c.URL, Servers: []string{c.URL}, Learned: []string{}, Current: context.Current, OwnCA: true}, context)
	}
	assert.ElementsMatch(t, names, listed)
	for _, name := range names {
		assert.Equal(t, shownContext{Name: name, Server: c.URL, Servers: []string{c.URL}, Learned: []string{}, Current: true, OwnCA: true}, reads[shownContext](p, "context", "use", name))
		assert.Contains(t, p.does("whoami"), c.Admin.ID, name)
	}
	table := p.does("context", "list")
	assert.Contains(t, table, "*        default")
	assert.Contains(t, p.does("context", "show", "1e3"), c.URL)
	assert.Contains(t, p.does("context", "show", "--context", "null"), "null")

	for _, args := range [][]string{{"context", "use", "none"}, {"context", "show", "none"}, {"context", "remove", "none"}, {"status", "--context", "none"}} {
		assert.Contains(t, p.fails(1, args...), `there is no context "none"; "certctl context list"`)
	}
	p.does("context", "remove", "default")
	assert.Contains(t, p.fails(1, "status"), "certctl login", "the current context is gone")
	p.does("status", "--context", "true")
	stdout, _, _ := p.run("__complete", "context", "use", "")
	assert.Equal(t, []string{"1", "1e3", "a.b", "null", "true", "yes"}, strings.Fields(stdout)[:6])
}

func TestEnvironment(t *testing.T) {
	c := apitest.Start(t)
	p := newPerson(t)
	t.Setenv("CERTCTL_SERVER_URL", c.URL+"/")
	t.Setenv("CERTCTL_CA_FILE", c.RootFile())
	assert.Contains(t, p.fails(1, "whoami"), "there is no API token for "+c.URL)
	t.Setenv("CERTCTL_TOKEN_FILE", c.AdminTokenFile())
	assert.Contains(t, p.does("whoami"), c.Admin.ID)
	viewer := c.Token(fleet.RoleViewer, 0)
	t.Setenv("CERTCTL_TOKEN", viewer.Reveal())
	assert.Contains(t, p.does("whoami"), viewer.ID)
	assert.Contains(t, p.does("whoami", "--token-file", c.AdminTokenFile()), c.Admin.ID, "flags come first")
	t.Setenv("CERTCTL_TOKEN", "hunter2")
	assert.NotContains(t, p.fails(1, "whoami"), "hunter2")
	t.Setenv("CERTCTL_TOKEN", "")

	// A script may have no home.
	for _, name := range []string{"XDG_CONFIG_HOME", "HOME", "AppData"} {
		t.Setenv(name, "")
	}
	assert.Contains(t, p.does("whoami"), c.Admin.ID)
	assert.Contains(t, p.fails(1, "whoami", "--context", "x"), "set HOME")
	for _, name := range []string{"XDG_CONFIG_HOME", "HOME", "AppData"} {
		t.Setenv(name, p.home)
	}

	p.does("login")
	for _, name := range []string{"CERTCTL_SERVER_URL", "CERTCTL_TOKEN_FILE", "CERTCTL_CA_FILE"} {
		t.Setenv(name, "")
	}
	assert.Contains(t, p.does("whoami", "--server", c.URL+"/"), c.Admin.ID, "that is the context's own")
	other := apitest.Start(t)
	assert.Contains(t, p.fails(1, "whoami", "--server", other.URL), "there is no API token for "+other.URL, "a token does not go to another coordinator")
	assert.Contains(t, p.fails(2, "whoami", "--server", other.URL, "--token-file", other.AdminTokenFile()), "--ca-file", "nor does the trust in its CA")
	assert.Contains(t, p.does("whoami", "--server", other.URL, "--token-file", other.AdminTokenFile(), "--ca-file", other.RootFile()), other.Admin.ID)
	assert.Contains(t, p.fails(2, "whoami", "--ca-file", other.RootFile()), "root.pem")
	assert.Contains(t, p.fails(1, "whoami", "--token-file", other.AdminTokenFile()), "is not known here")
}

func TestUnreachable(t *testing.T) {
	p := newPerson(t)
	token := p.write("token", "cta1.abcdefgh."+strings.Repeat("A", 43))
	said := p.fails(2, "status", "--server", "https://127.0.0.1:1", "--token-file", token)
	assert.Contains(t, said, "the coordinator cannot be reached at https://127.0.0.1:1")
	assert.Contains(t, said, "see whether it runs")
	assert.NotContains(t, said, strings.Repeat("A", 43))
}

func TestTokenFromStandardInput(t *testing.T) {
	c := apitest.Start(t)
	p := newPerson(t)
	in, err := os.Open(c.AdminTokenFile())
	require.NoError(t, err)
	defer in.Close()
	stdin := os.Stdin
	os.Stdin = in
	defer func() { os.Stdin = stdin }()
	p.does("login", "--server", c.URL, "--token-file", "-", "--ca-file", c.RootFile())
	assert.Contains(t, p.does("whoami"), c.Admin.ID)
}
