//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
)

// The day of an incident, at the command line: certificates are defined for the
// fleet, all of them are renewed, one is revoked, and Prometheus sees what
// becomes of it on both sides.
func TestIncident(t *testing.T) {
	t.Parallel()
	c := startCoordinator(t, "CERTCTL_SYNC_INTERVAL=1s")
	o := newOperator(t)
	o.does("login", "--server", c.url(), "--token-file", filepath.Join(c.data, "admin.token"), "--ca-file", filepath.Join(c.data, "root.pem"))
	var token resource.CreatedEnrollmentToken
	o.reads(&token, "token", "create", "--names", "*.example", "--label", "env=test")
	figures := filepath.Join(t.TempDir(), "certctl.prom")
	a := newAgent(t, "the agent", section{
		"certificates": []section{certificate("www", "coordinator", "www.example")},
		"metrics":      section{"textfile": figures, "textfile_interval": "5s"},
	})
	a.enrolled(a.enrollWith(c.url(), token.Token))
	a.startAndAwait()

	file := filepath.Join(t.TempDir(), "api.yaml")
	require.NoError(t, os.WriteFile(file, []byte("name: api\nselector: env=test\ncertificate: {names: [api.example]}\n"), 0o600))
	assert.Contains(t, o.does("assignments", "apply", "-f", file, "--dry-run"), "gets it")
	assert.Contains(t, o.does("assignments", "apply", "-f", file), "api: created, revision 1")
	c.awaitAssignment("api", "active")
	serials := map[string]string{}
	for _, name := range []string{"www", "api"} {
		serials[name] = a.awaitOther(name, "").Serial
		a.awaitReported(c, name, serials[name], time.Minute)
	}
	assert.Contains(t, o.does("assignments", "apply", "-f", file), "api is unchanged; hosts: 1 keeps it as it is")

	var begun resource.Renewals
	o.reads(&begun, "renew", "--all", "--selector", "env=test", "--over", "0s", "--reason", "incident")
	assert.Equal(t, 2, begun.Targets)
	assert.Contains(t, o.does("renewals", "show", begun.ID, "--watch", "--interval", "1s"), "done: 2 of 2 replaced")
	for name, before := range serials {
		serials[name] = a.awaitOther(name, before).Serial
		a.awaitReported(c, name, serials[name], time.Minute)
	}

	said := o.does("revoke", a.id, "www", "--reason", "keyCompromise", "--yes")
	assert.Contains(t, said, serials["www"]+" is revoked by the built-in CA")
	a.awaitReported(c, "www", a.awaitOther("www", serials["www"]).Serial, time.Minute)
	assert.Contains(t, o.does("agents", "commands", a.id), "www")

	await(t, time.Minute, "the host's figures", func() error {
		text, err := os.ReadFile(figures)
		if err != nil {
			return err
		}
		return told(string(text), map[string]int{
			`certctl_agent_renewals_total{issuer="coordinator",outcome="renewed"}`: 5,
			`certctl_agent_coordinator_connected`:                                  1,
			`certctl_certificate_served{certificate="api"}`:                        1,
			`certctl_certificate_state{certificate="www",state="valid"}`:           1,
		})
	})
	var viewer resource.CreatedAPIToken
	o.reads(&viewer, "api-token", "create", "--name", "prometheus", "--role", "viewer")
	await(t, time.Minute, "the fleet's figures", func() error {
		text, err := c.metrics(viewer.Token)
		if err != nil {
			return err
		}
		return told(text, map[string]int{
			`certctl_fleet_agents{state="connected"}`:                      1,
			`certctl_fleet_certificates{state="valid"}`:                    2,
			`certctl_raft_leader`:                                          1,
			`certctl_table_rows{table="revocations"}`:                      1,
			`certctl_coordinator_requests_total{code="200",kind="enroll"}`: 1,
		})
	})
}

// told looks for samples with these values.
func told(text string, want map[string]int) error {
	for name, value := range want {
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` ` + strconv.Itoa(value) + `$`).MatchString(text) {
			var near []string
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, strings.SplitN(name, "{", 2)[0]) {
					near = append(near, strings.TrimSpace(line))
				}
			}
			return fmt.Errorf("%s is not %d: %s", name, value, strings.Join(near, "; "))
		}
	}
	return nil
}
