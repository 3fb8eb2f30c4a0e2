//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
)

// operator is a person with the command line, logged in to nothing at first.
type operator struct {
	t   *testing.T
	env []string
}

func newOperator(t *testing.T) *operator { return &operator{t: t, env: environment(t.TempDir())} }

func (o *operator) call(args ...string) result {
	o.t.Helper()
	return call(o.t, o.env, "certctl", args...)
}

// does runs a verb that has to succeed, and returns what it printed.
func (o *operator) does(args ...string) string {
	o.t.Helper()
	r := o.call(args...)
	require.Zero(o.t, r.status, "certctl %v: %s", args, r.stderr)
	assert.Empty(o.t, r.stderr)
	return r.stdout
}

// reads runs a verb that prints JSON.
func (o *operator) reads(into any, args ...string) {
	o.t.Helper()
	require.NoError(o.t, json.Unmarshal([]byte(o.does(append(args, "--output", "json")...)), into))
}

// An operator does everything with the command line: logs in, makes a token,
// sees the new host and its certificate, and retires the host.
func TestOperator(t *testing.T) {
	t.Parallel()
	c := startCoordinator(t)
	o := newOperator(t)
	oneComplaint(t, o.call("agents", "list"), "certctl login")
	o.does("login", "--server", c.url(), "--token-file", filepath.Join(c.data, "admin.token"), "--ca-file", filepath.Join(c.data, "root.pem"))

	var token resource.CreatedEnrollmentToken
	o.reads(&token, "token", "create", "--names", "*.example", "--ttl", "10m", "--label", "env=test")
	assert.Equal(t, []string{"*.example"}, token.NamePatterns)
	assert.Contains(t, token.Warning, "server.listen", "it listens on loopback alone")
	a := newAgent(t, "the agent", section{"certificates": []section{certificate("www", "coordinator", "www.example")}})
	a.enrolled(a.enrollWith(c.url(), token.Token))
	a.startAndAwait()
	serial := a.awaitSettled(2 * time.Minute).Certificates[0].Serial
	a.awaitReported(c, "www", serial, 2*time.Minute)

	var agents resource.Page[resource.Agent]
	o.reads(&agents, "agents", "list", "--label", "env=test")
	require.Len(t, agents.Items, 1)
	assert.Equal(t, a.id, agents.Items[0].ID)
	var shown resource.AgentDetail
	o.reads(&shown, "agents", "show", a.id)
	assert.Equal(t, 1, shown.CertificateHealth.OK)
	var certificates resource.Page[resource.Certificate]
	o.reads(&certificates, "certificates", "list", "--agent", a.id)
	require.Len(t, certificates.Items, 1)
	assert.Equal(t, serial, certificates.Items[0].Serial)
	assert.Contains(t, o.does("certificates", "list"), "www.example")
	var row resource.Certificate
	o.reads(&row, "certificates", "show", a.id, "www")
	assert.Equal(t, serial, row.Serial)

	// The host wants another name, which its token does not allow.
	a.configure(section{"certificates": []section{certificate("www", "coordinator", "www.example.net")}})
	reloaded := a.call("reload")
	require.Zero(t, reloaded.status, reloaded.stderr)
	await(t, 3*time.Minute, "the other name is refused and reported", func() error {
		rows, err := c.report(a.id)
		if err == nil && rows["www"].LastError == "" {
			err = fmt.Errorf("no error is reported: %+v", rows["www"])
		}
		return err
	})
	o.reads(&certificates, "certificates", "list", "--name", "www.example.net")
	assert.Empty(t, certificates.Items, "no certificate has that name")
	o.reads(&certificates, "certificates", "list", "--name", "www.example", "--health", "at_risk")
	require.Len(t, certificates.Items, 1)
	row = certificates.Items[0]
	assert.Equal(t, serial, row.Serial)
	assert.Equal(t, []string{"www.example"}, row.Names)
	assert.True(t, row.FormerConfiguration)
	assert.Contains(t, o.does("certificates", "list"), "AT RISK, as configured before")
	own := a.status()
	require.Len(t, own.Certificates, 1)
	assert.True(t, own.Certificates[0].Former)
	assert.Equal(t, []string{"www.example"}, own.Certificates[0].Names.Strings())

	o.does("agents", "retire", a.id, "--reason", "e2e", "--yes")
	o.reads(&shown, "agents", "show", a.id)
	assert.Equal(t, "retired", shown.State)

	unknown := o.call("agents", "show", "nosuchagent")
	oneComplaint(t, unknown, "agent")
	stranger := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(stranger, []byte(altered(c.token)), 0o600))
	oneComplaint(t, o.call("agents", "list", "--token-file", stranger), "token")

	c.stop()
	gone := o.call("status")
	assert.Equal(t, 2, gone.status, "the coordinator cannot be reached")
	_, port, err := net.SplitHostPort(c.address)
	require.NoError(t, err)
	assert.Contains(t, gone.stderr, port)
	assert.NotContains(t, gone.stderr, c.token)
}
