package cli

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
)

func TestRenewalCommands(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	web := c.Agent("web1", "web1.example.com", map[string]string{"env": "prod"})
	web.Report("www", apitest.Valid(c.Now(), 10*day, "www.example.com"))
	web.Report("api", apitest.Valid(c.Now(), 50*day, "api.example.com"))
	c.Agent("db1", "db1.example.com", nil).Report("db", apitest.Valid(c.Now(), 10*day, "db.example.com"))

	assert.Contains(t, p.does("renew", "web1", "www"), "agent web1 is asked to renew www (serial ")
	assert.Equal(t, "open", reads[resource.Command](p, "renew", "web1", "api").State)
	table := lines(p.does("agents", "commands", "web1"))
	require.Len(t, table, 3)
	assert.Equal(t, []string{"ID", "KIND", "CERTIFICATE", "STATE", "ASKED", "BY", "ENDED", "SERIAL", "DETAIL"}, columns(table[0]))
	assert.Contains(t, table[1], "renew")

	assert.Equal(t, "none\n", p.does("renewals", "list"))
	index := c.State().Index()
	said := p.does("renew", "--all", "--selector", "env=prod", "--over", "6h", "--dry-run")
	for _, text := range []string{"certificates:               2", "spread over:", "6 h", "dry run: nothing was begun"} {
		assert.Contains(t, said, text)
	}
	assert.Contains(t, said, "web1.example.com  web1   connected   2")
	planned := reads[resource.Renewals](p, "renew", "--all", "--selector", "*", "--over", "0s", "--issuer", "letsencrypt", "--expires-within", "20d", "--dry-run")
	assert.Equal(t, 2, planned.Targets)
	assert.Len(t, planned.Hosts, 2)
	planned = reads[resource.Renewals](p, "renew", "--all", "--selector", "*", "--over", "0s", "--name-pattern", "db.example.com", "--dry-run")
	assert.Equal(t, 1, planned.Targets)
	assert.Equal(t, "db1", planned.Hosts[0].AgentID)
	assert.Equal(t, index, c.State().Index())

	begun := reads[resource.Renewals](p, "renew", "--all", "--selector", "env=prod", "--over", "6h", "--reason", "weak keys")
	assert.Equal(t, "running", begun.State)
	shown := p.does("renewals", "show", begun.ID)
	for _, text := range []string{"0 of 2 replaced, 2 remaining", "weak keys", "web1.example.com", "--watch", "renewals cancel " + begun.ID} {
		assert.Contains(t, shown, text)
	}
	table = lines(p.does("renewals", "list"))
	assert.Equal(t, []string{begun.ID, "running", "0 of 2", "2", "0", "in 5 h", "env=prod", "-", "weak keys"}, columns(table[1]))

	// Watched until all is done.
	type outcome struct {
		out, errs string
		status    int
	}
	watched := make(chan outcome, 1)
	go func() {
		out, errs, status := p.run("renewals", "show", begun.ID, "--watch", "--interval", "1s")
		watched <- outcome{out, errs, status}
	}()
	renewed := apitest.Valid(c.Now(), 50*day, "api.example.com")
	for i, name := range []string{"www", "api"} {
		renewed.Serial = fmt.Sprintf("7%d", i)
		web.Report(name, renewed)
	}
	select {
	case end := <-watched:
		assert.Zero(t, end.status, end.errs)
		assert.Contains(t, end.out, "done: 2 of 2 replaced, 0 remaining")
	case <-time.After(time.Minute):
		t.Fatal("the watch does not end")
	}

	other := reads[resource.Renewals](p, "renew", "--all", "--selector", "*", "--over", "6h")
	assert.Contains(t, p.does("renewals", "cancel", other.ID), "cancelled")
	assert.Equal(t, "cancelled", reads[resource.Renewals](p, "renewals", "cancel", other.ID).State)
	_, errs, status := p.run("renewals", "show", other.ID, "--watch")
	assert.Equal(t, 1, status)
	assert.Contains(t, errs, "is cancelled, and 3 certificates were not replaced by it")

	for line, text := range map[string]string{
		"renew web1":                                                  "give AGENT and NAME for one certificate, or --all with --selector for many",
		"renew web1 www --all":                                        "not both",
		"renew web1 www --over 6h":                                    "flag --over is for many certificates",
		"renew --all --over 6h":                                       "flag --selector is missing",
		"renew --all --selector *":                                    "flag --over is missing",
		"renew --all --selector * --over soon":                        `flag --over "soon": not a duration`,
		"renew --all --selector * --over 1500ms":                      `flag --over "1500ms": expected whole seconds`,
		"renew --all --selector * --over 31d":                         `flag --over "31d": expected at most 30d`,
		"renew --all --selector a=b --over 30d":                       "no certificate in service matches",
		"renew --all --selector * --over 1h --expires-within 3651d":   `flag --expires-within "3651d": expected at most 3650d`,
		"renew --all --selector a=b --over 1h --expires-within 3650d": "no certificate in service matches",
		"renew --all --selector a=b --over 1h":                        "no certificate in service matches (field selector)",
		"renew --all --selector a=(b --over 1h":                       "(field selector)",
		"renew --all --selector * --over 1h --expires-within 1ms":     "expected one second or more",
		"renew web1 none":                                             "no certificate named none",
		"renew --all --selector * --over 1h --name-pattern *":         "(field name_pattern)",
		"renewals show none":                                          "there is no mass renewal with the id none",
		"renewals show none --watch":                                  "there is no mass renewal with the id none",
		"renewals show x --watch --every 1ms":                         "flag --interval 1ms: expected 1s or more",
		"renewals cancel none":                                        "list the renewals to see their ids",
		"agents commands none":                                        "there is no agent with the id none",
	} {
		assert.Contains(t, p.fails(1, strings.Fields(line)...), text, line)
	}
}

func TestRevokeCommand(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	web := c.Agent("web1", "web1.example.com", nil)
	public := apitest.Valid(c.Now(), 10*day, "www.example.com")
	web.Report("www", public)
	builtin := apitest.Valid(c.Now(), 10*day, "api.example.com")
	web.Issued("api", builtin)
	web.Report("api", builtin)
	gone := apitest.Valid(c.Now(), 10*day, "gone.example.com")
	web.Issued("gone", gone)

	index := c.State().Index()
	said := p.does("revoke", "web1", "www", "--dry-run")
	assert.Contains(t, said, "The certificate www of the host web1.example.com (web1), for www.example.com, serial number "+public.Serial+", will be revoked at its issuer letsencrypt by its host, at the host's next sync; until then it is good; reason: unspecified.")
	assert.Contains(t, said, "cannot be taken back")
	said = p.does("revoke", "web1", "api", "--reason", "keyCompromise", "--dry-run")
	assert.Contains(t, said, "will be revoked by the built-in CA at once; reason: keyCompromise.\nThe host replaces it with a new key.")
	said = p.does("revoke", "--serial", gone.Serial, "--dry-run")
	assert.Contains(t, said, "No host has it in service")
	_, errs, status := p.run("revoke", "web1", "api")
	assert.Equal(t, 1, status)
	assert.Contains(t, errs, "will be revoked by the built-in CA at once")
	assert.Contains(t, errs, "say --yes if you mean it")
	assert.Equal(t, index, c.State().Index())

	// One that another host reports too is revoked all the same.
	c.Agent("db1", "db1.example.com", nil).Report("theirs", public)
	assert.Contains(t, p.fails(1, "revoke", "--serial", public.Serial, "--yes"), "several certificates in service have this serial number")
	assert.Contains(t, p.does("revoke", "web1", "www", "--yes"), public.Serial+" is NOT REVOKED YET: the agent web1 is asked to revoke it at its issuer and to replace www")
	assert.Contains(t, p.does("agents", "commands", "web1"), "revoke")
	assert.Contains(t, p.does("revoke", "web1", "www", "--dry-run"), "which was asked for it before")
	assert.Contains(t, p.does("revoke", "--serial", strings.ToUpper(builtin.Serial), "--yes"), builtin.Serial+" is revoked by the built-in CA; the agent web1 is asked to replace api")
	assert.Contains(t, p.does("revoke", "web1", "api", "--yes"), "was revoked by the built-in CA before")
	told := reads[resource.RevokedCertificate](p, "revoke", "--serial", gone.Serial, "--reason", "superseded", "--yes")
	assert.Equal(t, resource.RevokedCertificate{Serial: gone.Serial, AgentID: "web1", Certificate: "gone", By: "builtin"}, told)

	for line, text := range map[string]string{
		"revoke":                                 "give AGENT and NAME of a certificate in service, or --serial, not both",
		"revoke web1":                            "give AGENT and NAME",
		"revoke web1 www --serial 0a":            "not both",
		"revoke web1 www --reason boredom --yes": `flag --reason "boredom": expected unspecified, keyCompromise, cACompromise,`,
		"revoke web1 none --yes":                 "no certificate in service named none",
		"revoke --serial 0fff --yes":             "check the number",
	} {
		assert.Contains(t, p.fails(1, strings.Fields(line)...), text, line)
	}
}

func TestCompletionOfCertificates(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	c.Agent("web1", "web1.example.com", nil).Report("www", apitest.Valid(c.Now(), day, "www.example.com"))
	c.Agent("web2", "web2.example.com", nil).Report("other", apitest.Valid(c.Now(), day, "other.example.com"))
	p.does("assignments", "apply", "-f", p.write("x.yaml", "name: x\nselector: '*'\ncertificate: {names: [a.example.com]}\n"))
	begun := reads[resource.Renewals](p, "renew", "--all", "--selector", "*", "--over", "1h", "--reason", "test")
	for line, want := range map[string]string{
		"assignments show ":          "x\t*",
		"assignments delete ":        "x\t*",
		"assignments hosts ":         "x\t*",
		"renew ":                     "web1\tweb1.example.com\nweb2\tweb2.example.com",
		"renew web1 ":                "www\twww.example.com",
		"revoke web2 ":               "other\tother.example.com",
		"certificates show web1 ":    "www\twww.example.com",
		"agents commands ":           "web1\tweb1.example.com\nweb2\tweb2.example.com",
		"renewals show ":             begun.ID + "\trunning * test",
		"renewals cancel ":           begun.ID + "\trunning * test",
		"assignments hosts --state ": "active\nwaiting\nshadowed\nrefused\nnot_allowed",
	} {
		stdout, _, status := p.run(append([]string{"__complete"}, strings.Split(line, " ")...)...)
		assert.Zero(t, status)
		assert.Equal(t, want, strings.TrimSpace(stdout[:strings.LastIndexByte(stdout, ':')]), line)
	}
}

// relay passes connections on to an address, while it is not cut.
type relay struct {
	to       string
	listener net.Listener
	open     sync.WaitGroup
	mu       sync.Mutex
	cut      bool
	conns    []net.Conn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{to: to, listener: listener}
	r.open.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			r.pass(from)
		}
	})
	t.Cleanup(func() {
		listener.Close()
		r.set(true)
		r.open.Wait()
	})
	return r
}

func (r *relay) pass(from net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	to, err := net.Dial("tcp", r.to)
	if r.cut || err != nil {
		from.Close()
		if err == nil {
			to.Close()
		}
		return
	}
	r.conns = append(r.conns, from, to)
	r.open.Go(func() { io.Copy(to, from); to.Close() })
	r.open.Go(func() { io.Copy(from, to); from.Close() })
}

// set cuts the connections, and those to come, or lets them through again.
func (r *relay) set(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut = cut; !cut {
		return
	}
	for _, conn := range r.conns {
		conn.Close()
	}
	r.conns = nil
}

// stream is what somebody writes and somebody else waits for.
type stream struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *stream) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// A coordinator that is away for a while is waited for, and that is said once.
func TestWatchGoesOnWithoutACoordinator(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	web := c.Agent("web1", "web1.example.com", nil)
	web.Report("www", apitest.Valid(c.Now(), 10*day, "www.example.com"))
	begun := reads[resource.Renewals](p, "renew", "--all", "--selector", "*", "--over", "0s")

	r := newRelay(t, strings.TrimPrefix(c.URL, "https://"))
	var out, errs stream
	status := make(chan int, 1)
	go func() {
		status <- Execute([]string{"renewals", "show", begun.ID, "--watch", "--interval", "1s", "--server", "https://" + r.listener.Addr().String(),
			"--token-file", c.AdminTokenFile(), "--ca-file", c.RootFile()}, &out, &errs)
	}()
	says := func(s *stream, text string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Contains(s.String(), text) }, time.Minute, 5*time.Millisecond, s)
	}
	says(&out, "running: 0 of 1 replaced")
	r.set(true)
	says(&errs, "cannot be reached")
	renewed := apitest.Valid(c.Now(), 50*day, "www.example.com")
	renewed.Serial = "77"
	web.Report("www", renewed)
	r.set(false)
	says(&out, "done: 1 of 1 replaced")
	assert.Zero(t, <-status)
	assert.Equal(t, 1, strings.Count(errs.String(), "waiting for it"))
}
