//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/coordinator/api/resource"
)

// views are what the host and the coordinator say of one host, everywhere that a
// person or a program looks.
type views struct {
	host           *control.Status
	hostText       string
	hostFigures    string
	agent          resource.Agent
	fleet          resource.Status
	list, overview string
	figures        string
}

// look asks all, the cheap ones first: what is not right there yet is waited for
// before the command line is asked.
func look(a *agent, c *coordinator, o *operator, figures string, notSafe ...string) (v views, err error) {
	if v.host, err = a.tryStatus(); err != nil {
		return v, err
	}
	text, err := os.ReadFile(figures)
	if err != nil {
		return v, err
	}
	v.hostFigures = string(text)
	agents, err := all[resource.Agent](c, "/api/v1/agents", nil)
	if err != nil {
		return v, err
	}
	if len(agents) != 1 {
		return v, fmt.Errorf("%d agents", len(agents))
	}
	v.agent = agents[0]
	if count := len(notSafe); v.agent.NotSafe != count || len(v.host.NotSafe) != count || sample(v.hostFigures, hostNotSafe) != fmt.Sprint(count) {
		return v, fmt.Errorf("not safe: %q by its status, %s by its metrics, %d as it reported", v.host.NotSafe, sample(v.hostFigures, hostNotSafe), v.agent.NotSafe)
	}
	v.hostText = a.call("status").stdout
	o.reads(&v.fleet, "status")
	v.list, v.overview = o.does("agents", "list", "--sort", "safe-until"), o.does("status")
	if v.figures, err = c.metrics(c.token); err != nil {
		return v, err
	}
	return v, v.agree(notSafe...)
}

// sample is the value of a metric without labels; "" if there is none.
func sample(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

const (
	hostUntil, hostNotSafe   = "certctl_agent_safe_until_timestamp_seconds", "certctl_agent_certificates_not_safe"
	fleetUntil, fleetNotSafe = "certctl_fleet_safe_until_timestamp_seconds", "certctl_fleet_hosts_not_safe"
)

// agree says what of the views is not that of a host with so many certificates
// that are not safe now, which has a moment ahead only if these are none.
func (v views) agree(notSafe ...string) error {
	n := fmt.Sprint(len(notSafe))
	safe := len(notSafe) == 0
	said := fmt.Sprintf("NOT SAFE NOW (%s)", n)
	hosts := "1"
	if safe {
		hosts = "0"
	}
	for what, right := range map[string]bool{
		"status on the host":       slices.Equal(v.host.NotSafe, notSafe) && (v.host.SafeUntil != nil) == safe,
		"its text":                 strings.Contains(v.hostText, "NOT SAFE NOW") != safe,
		"metrics of the host":      sample(v.hostFigures, hostNotSafe) == n && (sample(v.hostFigures, hostUntil) != "") == safe,
		"API":                      v.agent.NotSafe == len(notSafe) && v.agent.SafeUntil.IsZero() != safe,
		"agents list":              strings.Contains(v.list, v.agent.ID) && strings.Contains(v.list, said) != safe,
		"status of the fleet":      v.fleet.NotSafe == len(notSafe) && v.fleet.SafeUntil.IsZero() != safe,
		"certctl status":           strings.Count(v.overview, said) == map[bool]int{true: 0, false: 2}[safe],
		"metrics of the fleet":     sample(v.figures, fleetNotSafe) == hosts && (sample(v.figures, fleetUntil) != "") == safe,
		"attention, as an example": v.agent.NeedingAttention == len(notSafe) && v.fleet.Agents.NeedingAttention == len(notSafe),
	} {
		if !right {
			return fmt.Errorf("%s: %+v", what, v)
		}
	}
	return nil
}

// A host with a good certificate and one that was never served is not safe now,
// whoever is asked; without the latter it is, until one and the same moment.
func TestHostThatIsNotSafeNow(t *testing.T) {
	t.Parallel()
	c := startCoordinator(t)
	o := newOperator(t)
	o.does("login", "--server", c.url(), "--token-file", filepath.Join(c.data, "admin.token"), "--ca-file", filepath.Join(c.data, "root.pem"))
	figures := filepath.Join(t.TempDir(), "certctl.prom")
	with := func(certificates ...section) section {
		return section{"metrics": section{"textfile": figures, "textfile_interval": "5s"}, "certificates": certificates}
	}
	good := certificate("good", "coordinator", "good.example")
	a := newAgent(t, "the agent", with(good))
	a.enroll(c, "good.example")
	a.configure(with(good, certificate("lost", "coordinator", "lost.example"))) // which its enrolment does not allow
	a.startAndAwait()
	var v views
	await(t, 3*time.Minute, "all say that one certificate is not safe now", func() (err error) {
		v, err = look(a, c, o, figures, "lost")
		return err
	})

	a.configure(with(good))
	r := a.call("reload")
	require.Zero(t, r.status, r.stderr)
	await(t, 3*time.Minute, "all say until when the host is safe", func() (err error) {
		v, err = look(a, c, o, figures)
		return err
	})
	until := *v.host.SafeUntil
	require.True(t, until.Equal(v.agent.SafeUntil), v.agent.SafeUntil)
	require.True(t, until.Equal(v.fleet.SafeUntil), v.fleet.SafeUntil)
}
